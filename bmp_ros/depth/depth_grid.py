# SPDX-License-Identifier: Apache-2.0
"""Where the pixels of an image lie in the depth image registered to it, and what is read there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bmp_ros.depth.camera_model import CameraModel

NEAREST, FARTHEST = 0.1, 50.0
"""Metres between which depth is believed."""
SAMPLES = 1000
"""Pixels per person, at most about, from which bulk, centroid and distance are computed."""

LEAST_SIZE = 64
"""Pixels that a depth image needs to show people: 8x8, as the smallest sensors have."""


@dataclass(frozen=True)
class Alignment:
    """Where pixels of the image lie in the depth image: ``depth = image * scale + shift``.

    scale, shift: (2,) x and y; pixel centres at integers.
    """

    scale: np.ndarray
    shift: np.ndarray

    @classmethod
    def of(
        cls,
        image_size: tuple[int, ...],
        depth_size: tuple[int, ...],
        camera: CameraModel | None = None,
        depth_camera: CameraModel | None = None,
    ) -> Alignment:
        """Align a registered depth image with its image; sizes are (height, width).

        camera, depth_camera: calibrations of both, with the same lens; without either, the depth
        image shows what the image shows, edge onto edge.
        """
        if camera is not None and depth_camera is not None:
            focal, centre = _focal_and_centre(camera)
            depth_focal, depth_centre = _focal_and_centre(depth_camera)
            scale = depth_focal / focal
            return cls(scale, depth_centre - centre * scale)
        scale = np.array(depth_size[::-1], float) / np.array(image_size[::-1], float)
        return cls(scale, (scale - 1) / 2)

    @property
    def is_identity(self) -> bool:
        return bool(np.allclose(self.scale, 1) and np.allclose(self.shift, 0, atol=1e-3))


@dataclass(frozen=True)
class DepthGrid:
    """The depth image, and for its rows and columns those of the masks.

    is_shown: all of it lies in the image.
    Only what is looked at is converted to metres: a few thousand pixels per person.
    """

    depth: np.ndarray
    mask_rows: np.ndarray
    mask_columns: np.ndarray
    alignment: Alignment
    is_shown: bool

    @classmethod
    def of(cls, depth: np.ndarray, alignment: Alignment, image_size: tuple[int, int]) -> DepthGrid:
        rows, columns = (
            np.rint((np.arange(depth.shape[1 - axis]) - alignment.shift[axis])
                    / alignment.scale[axis]).astype(np.intp)
            for axis in (1, 0)
        )  # fmt: skip
        # What the image does not show belongs to no person: -1.
        rows[(rows < 0) | (rows >= image_size[0])] = -1
        columns[(columns < 0) | (columns >= image_size[1])] = -1
        is_shown = bool(rows.min() >= 0 and columns.min() >= 0)
        return cls(depth, rows, columns, alignment, is_shown)

    def sample_places(self, rectangle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the depth image that thin out a rectangle of the image."""
        low, size = rectangle[:2].astype(float), rectangle[2:].astype(float)
        first = (low - 0.5) * self.alignment.scale + self.alignment.shift
        last = (low + size - 0.5) * self.alignment.scale + self.alignment.shift
        limit = np.array(self.depth.shape[::-1])
        start = np.clip(np.ceil(first), 0, limit).astype(int)
        stop = np.clip(np.ceil(last), 0, limit).astype(int)
        step = max(1, int(np.sqrt(np.prod(stop - start) / SAMPLES)))
        return np.arange(start[1], stop[1], step), np.arange(start[0], stop[0], step)

    def metres(self, mask: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Depth in metres, float32, at places inside the depth image; NaN off the mask.

        rows, columns: indices that broadcast. Also NaN where the depth is out of its limits.
        """
        metres = self.depth[rows, columns].astype(np.float32)
        if self.depth.dtype.kind == "u":
            metres *= np.float32(0.001)
        mask_rows, mask_columns = self.mask_rows[rows], self.mask_columns[columns]
        own = mask[mask_rows, mask_columns]
        if not self.is_shown:
            own = own & (mask_rows >= 0) & (mask_columns >= 0)
        # Comparisons with NaN are false, so NaN goes the way of what is out of range.
        metres[~(own & (metres >= NEAREST) & (metres <= FARTHEST))] = np.nan
        return metres


def says_nothing(depth: np.ndarray) -> str:
    """Say why a depth image, (h, w) millimetres or metres, measures nothing; empty when it does.

    Looks at some thousand pixels, and at all of them only where these tell nothing.
    """
    if depth.size < LEAST_SIZE:
        height, width = depth.shape
        return f"{width}x{height} pixels are too few to see people in (at least {LEAST_SIZE})"
    step = max(1, int(np.sqrt(depth.size / 4000)))
    if step > 1 and not _reason(depth[::step, ::step]):
        return ""
    return _reason(depth)


def _reason(depth: np.ndarray) -> str:
    is_float = depth.dtype.kind == "f"
    known = depth[np.isfinite(depth) & (depth > 0)] if is_float else depth[depth > 0]
    if not known.size:
        if np.isnan(depth).any():
            what = "NaN" if np.isnan(depth).all() else "NaN or 0"
        else:
            what = "0" if not depth.any() else "infinite or below 0"
        return f"not one of {depth.size} pixels has a measurement: all are {what}"
    unit = 1.0 if is_float else 0.001
    near, far = known < NEAREST / unit, known > FARTHEST / unit
    if (~near & ~far).sum() >= 0.01 * known.size:
        return ""
    middle = float(np.median(known))
    if far.sum() >= near.sum():
        hint = " (16UC1 would be millimetres)" if is_float else ""
        return (
            f"depths beyond {FARTHEST:g} m are not believed, and nearly all are: their median is "
            f"{middle * unit:g} m; 32FC1 has to be metres{hint}"
        )
    return (
        f"depths below {NEAREST:g} m are not believed, and nearly all are: their median is "
        f"{middle * unit:g} m; 16UC1 has to be whole millimetres, 32FC1 metres"
    )


def _focal_and_centre(camera: CameraModel) -> tuple[np.ndarray, np.ndarray]:
    return np.diag(camera.matrix)[:2].copy(), camera.matrix[:2, 2].copy()
