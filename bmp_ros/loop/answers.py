# SPDX-License-Identifier: Apache-2.0
"""What the networks return, made into the arrays that `bmp_ros.loop.protocols` promises.

Any number type is converted, so that a network may compute in float64 or float16; a shape that
does not fit is refused by the name of the class that returned it. NaN and infinity pass: the loop
drops the people whom they belong to.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bmp_ros.loop.frame import Frame
from bmp_ros.loop.protocols import Detections, Poses, Segments
from bmp_ros.loop.skeletons import Skeleton


def boxes_and_scores(found: Detections, network: object) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) and scores (N,) of a detector, both float32.

    Raises ValueError naming the class of ``network`` and the shape found.
    """
    where = f"{type(network).__name__}.detect"
    boxes = _numbers(found.boxes, (None, 4), f"{where} returned boxes")
    return boxes, _numbers(found.scores, (len(boxes),), f"{where} returned scores")


def detected_masks(
    found: Detections, rows: np.ndarray, network: object, frame: Frame
) -> np.ndarray | None:
    """Masks (n, H, W) bool of the detections ``rows`` (n,); None where the detector has none.

    Raises ValueError as `boxes_and_scores` does.
    """
    if found.masks is None or not len(rows):
        return None
    where = f"{type(network).__name__}.detect"
    return _masks(found.masks(rows), len(rows), frame, f"{where} returned masks")


def checked_poses(poses: Poses, people: int, skeleton: Skeleton, network: object) -> Poses:
    """Poses of ``people`` people, all arrays float32.

    Raises ValueError as `boxes_and_scores` does.
    """
    where = f"{type(network).__name__}.estimate returned"
    shape = (people, len(skeleton))
    known = {
        name: None if values is None else _numbers(values, shape, f"{where} {name}")
        for name, values in (("visibility", poses.visibility), ("presence", poses.presence))
    }
    return Poses(
        _numbers(poses.keypoints, (*shape, 2), f"{where} keypoints"),
        _numbers(poses.scores, shape, f"{where} scores"),
        **known,
    )


def checked_segments(segments: Segments, people: int, frame: Frame, network: object) -> Segments:
    """Masks of ``people`` people as bool, scores as float32.

    Raises ValueError as `boxes_and_scores` does.
    """
    where = f"{type(network).__name__}.segment returned"
    return Segments(
        _masks(segments.masks, people, frame, f"{where} masks"),
        _numbers(segments.scores, (people,), f"{where} scores"),
    )


def _numbers(values: Any, shape: tuple[int | None, ...], what: str) -> np.ndarray:
    """``values`` as float32 of ``shape``, where None is any length."""
    found = np.asarray(values)
    if found.dtype.kind not in "fiub":
        raise ValueError(f"{what} of dtype {found.dtype}, expected float32")
    if found.size == 0 and shape[0] in (None, 0):
        found = found.reshape(0, *shape[1:])  # an empty list says nothing about its columns
    if found.ndim != len(shape) or any(
        wanted not in (None, size) for wanted, size in zip(shape, found.shape, strict=True)
    ):
        raise ValueError(f"{what} of shape {found.shape}, expected {_in_words(shape)}")
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite: that person goes
        return found.astype(np.float32, copy=False)


def _masks(values: Any, people: int, frame: Frame, what: str) -> np.ndarray:
    found = np.asarray(values)
    shape = (people, frame.height, frame.width)
    if found.shape != shape:
        raise ValueError(
            f"{what} of shape {found.shape}, expected {shape}: one per person in the size of the "
            "frame"
        )
    if found.dtype.kind not in "biu":
        raise ValueError(f"{what} of dtype {found.dtype}, expected bool; threshold them first")
    return found.astype(np.bool_, copy=False)


def _in_words(shape: tuple[int | None, ...]) -> str:
    sizes = ["N" if size is None else str(size) for size in shape]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
