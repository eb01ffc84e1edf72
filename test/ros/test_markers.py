# SPDX-License-Identifier: Apache-2.0
"""Skeletons for rviz: on the rays of the one camera model, in the colours of the debug image."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from std_msgs.msg import Header

from bmp_ros.depth.camera_model import CameraModel
from bmp_ros.drawing import person_color
from bmp_ros.loop.people import People
from bmp_ros.ros.markers import keypoints_in_plane, skeleton_markers

K = np.array([[400.0, 0, 320], [0, 410, 240], [0, 0, 1]])


@pytest.mark.parametrize(
    ("model", "distortion"),
    [
        ("", []),
        ("plumb_bob", [-0.2, 0.05, 1e-3, -1e-3, 0.0]),
        ("rational_polynomial", [0.1, 0.02, 1e-3, -1e-3, 0.01, 0.15, 0.01, 0.0]),
        ("equidistant", [0.1, 0.02, 0.0, 0.0]),
    ],
)
def test_points_project_back_to_where_they_were_seen(model: str, distortion: list[float]) -> None:
    camera = CameraModel(K, 640, 480, np.array(distortion), model)
    pixels = np.random.default_rng(0).uniform(100, 380, (4, 17, 2)).astype(np.float32)
    points = keypoints_in_plane(pixels, camera, 3.0)
    assert points.shape == (4, 17, 3)
    np.testing.assert_allclose(points[..., 2], 3.0)
    zero, flat = np.zeros(3), points.reshape(-1, 1, 3)
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    seen, _ = project(flat, zero, zero, K, np.array(distortion))
    np.testing.assert_allclose(seen.reshape(pixels.shape), pixels, atol=0.05)


def test_nobody() -> None:
    camera = CameraModel(K, 640, 480)
    assert keypoints_in_plane(np.zeros((0, 17, 2), np.float32), camera, 2.0).shape == (0, 17, 3)


def people_of(count: int) -> People:
    boxes = np.tile(np.array([[100, 100, 200, 300]], np.float32), (count, 1))
    people = People.from_boxes(boxes, np.ones(count, np.float32), 480, 640)
    people.keypoints[:] = np.linspace([110, 110], [190, 290], 17)
    people.keypoint_scores[:] = 0.9
    return people


def test_a_person_has_the_colour_of_the_debug_image() -> None:
    markers = skeleton_markers(Header(), people_of(4), CameraModel(K, 640, 480), 2.0, 0.3).markers
    assert len(markers) == 5  # the first deletes those before
    for number, marker in enumerate(markers[1:]):
        blue, green, red = person_color(number)
        color = marker.color
        assert [round(255 * c) for c in (color.r, color.g, color.b)] == [red, green, blue]


def test_tracks_have_markers_of_their_own() -> None:
    people = replace(people_of(3), track_ids=np.array([9, -1, 4], np.int32))
    drawn = skeleton_markers(Header(), people, CameraModel(K, 640, 480), 2.0, 0.3).markers[1:]
    assert [(m.ns, m.id) for m in drawn] == [
        ("tracks", 9), ("ids", 9), ("people", 1), ("tracks", 4), ("ids", 4),
    ]  # fmt: skip
    lines, text = drawn[:2]
    assert text.text == "9" and text.color == lines.color != drawn[3].color
    highest = min(point.y for point in lines.points)
    assert text.pose.position.y < highest and text.pose.position.z == 2.0


def test_keypoints_without_a_ray_are_left_out() -> None:
    # All that lies beyond r = 0.98 of this lens is shown by nothing.
    camera = CameraModel(K, 640, 480, np.array([-0.35, 0, 0, 0]), "plumb_bob")
    people = people_of(1)
    people.keypoints[0, ::2] = [639, 479]
    edges = sum(len(m.points) for m in skeleton_markers(Header(), people, camera, 2, 0.3).markers)
    whole = skeleton_markers(Header(), people_of(1), camera, 2, 0.3).markers
    assert edges < sum(len(m.points) for m in whole)
    for marker in skeleton_markers(Header(), people, camera, 2.0, 0.3).markers:
        assert all(np.isfinite([p.x, p.y, p.z]).all() for p in marker.points)
