# SPDX-License-Identifier: Apache-2.0
"""Rays of a calibrated camera, and calibrations that cannot be used."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo

from bmp_ros.ros.markers import keypoints_in_plane, usable

K = [400.0, 0, 320, 0, 410, 240, 0, 0, 1]


def test_points_project_back_to_where_they_were_seen() -> None:
    info = CameraInfo(
        height=480, width=640, k=K, distortion_model="plumb_bob", d=[-0.2, 0.05, 1e-3, -1e-3, 0.0]
    )
    pixels = np.random.default_rng(0).uniform(100, 380, (4, 17, 2)).astype(np.float32)
    points = keypoints_in_plane(pixels, info, 3.0)
    assert points.shape == (4, 17, 3)
    np.testing.assert_allclose(points[..., 2], 3.0)
    zero = np.zeros(3)
    seen, _ = cv2.projectPoints(
        points.reshape(-1, 3), zero, zero, np.array(K).reshape(3, 3), np.array(info.d)
    )
    np.testing.assert_allclose(seen.reshape(pixels.shape), pixels, atol=0.05)


def test_nobody() -> None:
    info = CameraInfo(height=480, width=640, k=K)
    assert keypoints_in_plane(np.zeros((0, 17, 2), np.float32), info, 2.0).shape == (0, 17, 3)


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (None, "no camera_info"),
        (CameraInfo(height=480, width=640), "not calibrated"),
        (CameraInfo(height=240, width=320, k=K), "320x240"),
        (CameraInfo(height=480, width=640, k=K), ""),
    ],
)
def test_usable(info: CameraInfo | None, words: str) -> None:
    reason = usable(info, 480, 640)
    assert words in reason
    assert bool(reason) == bool(words)
