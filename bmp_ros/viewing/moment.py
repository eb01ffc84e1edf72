# SPDX-License-Identifier: Apache-2.0
"""``Moment``: one image and what was found in it, from wherever it comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from bmp_ros.depth.camera_model import CameraModel
from bmp_ros.loop.people import People

_JPEG_QUALITY = 85


@dataclass(frozen=True)
class EncodedImage:
    """An image as a file's bytes, and their media type (``image/jpeg``, ``image/png``)."""

    contents: bytes
    media_type: str

    @classmethod
    def of(cls, image: np.ndarray) -> EncodedImage:
        """A BGR uint8 image (H, W, 3) as a JPEG."""
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        return cls(data.tobytes(), "image/jpeg")


@dataclass(frozen=True)
class PeopleInSpace:
    """N people in metres, row by row those of the image.

    keypoints: (N, K, 3) float32, NaN where unknown. centroids: (N, 3), likewise. frame: their
    frame of reference. camera_pose: rotation (3, 3) and translation (3,) that take points of the
    camera's optical frame into ``frame``; None: it is the camera's optical frame.
    """

    keypoints: np.ndarray
    centroids: np.ndarray
    frame: str = ""
    camera_pose: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class Moment:
    """One image and its people.

    number: of the image, from 0. stamp_ns: of the image since 1970, None for images without a
    time. seconds: since the start, of videos, else None. image: None where it is not at hand.
    camera: its lens, None where unknown. in_space: None without depth. times_ms:
    milliseconds by what took them. name: of the file, where there is one.
    """

    number: int
    people: People
    stamp_ns: int | None = None
    seconds: float | None = None
    image: EncodedImage | None = None
    camera: CameraModel | None = None
    in_space: PeopleInSpace | None = None
    times_ms: Mapping[str, float] = field(default_factory=dict)
    name: str = ""
