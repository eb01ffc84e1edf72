# SPDX-License-Identifier: Apache-2.0
"""Skeletons for rviz: on the rays of the camera, since one image does not tell how far."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from bmp_ros.depth.people_3d import People3D
from bmp_ros.loop.people import People

_LIFETIME = Duration(sec=1)  # so that a node that ends leaves no ghosts
_LINE_WIDTH = 0.012  # of the distance
_GOLDEN_RATIO = 0.618034


def skeleton_markers(
    header: Header,
    people: People,
    camera_info: CameraInfo,
    distance: float,
    score_threshold: float,
    *,
    in_space: People3D | None = None,
) -> MarkerArray:
    """Draw every person as lines, in the plane ``distance`` metres in front of the camera.

    in_space: the same people in the camera's optical frame, who are drawn where they are then;
    somebody without any known depth is drawn in the plane. Edges with a keypoint of a score up to
    ``score_threshold``, or of unknown place, are left out. The first marker deletes those of the
    image before.
    """
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    points = keypoints_in_plane(people.keypoints, camera_info, distance)
    found = people.keypoint_scores > score_threshold
    if in_space is not None:
        known = np.isfinite(in_space.keypoints).all(axis=2)
        placed = known.any(axis=1)
        points[placed] = in_space.keypoints[placed]
        found = found & (known | ~placed[:, None])
    edges = np.array(people.skeleton.edges, np.int64).reshape(-1, 2)
    for index in range(len(people)):
        drawn = edges[found[index][edges].all(axis=1)]
        ends = points[index][drawn].reshape(-1, 3).tolist()
        if not ends:
            continue
        track = int(people.track_ids[index])
        marker = Marker(
            header=header, ns="people", id=index, type=Marker.LINE_LIST, action=Marker.ADD
        )
        marker.pose.orientation.w = 1.0
        marker.scale.x = _LINE_WIDTH * distance
        marker.color = _color(index if track < 0 else track)
        marker.lifetime = _LIFETIME
        marker.points = [Point(x=x, y=y, z=z) for x, y, z in ends]
        markers.append(marker)
    return MarkerArray(markers=markers)


def keypoints_in_plane(
    keypoints: np.ndarray, camera_info: CameraInfo, distance: float
) -> np.ndarray:
    """Where the rays of keypoints (N, K, 2) pixels meet the plane z = ``distance``: (N, K, 3).

    In metres, in the camera's optical frame (x right, y down, z forward). Lens distortion of the
    models plumb_bob and rational_polynomial is taken out; the formula is OpenCV's.
    """
    matrix = np.array(camera_info.k, np.float64).reshape(3, 3)
    known = camera_info.distortion_model in ("plumb_bob", "rational_polynomial")
    coefficients = np.array(camera_info.d if known else [], np.float64)
    flat = keypoints.reshape(-1, 1, 2).astype(np.float64)
    if not len(flat):
        return np.zeros((*keypoints.shape[:2], 3))
    rays = cv2.undistortPoints(flat, matrix, coefficients if coefficients.any() else None)
    points = np.concatenate([rays[:, 0], np.ones((len(rays), 1))], axis=1) * distance
    return points.reshape(*keypoints.shape[:2], 3)


def usable(camera_info: CameraInfo | None, height: int, width: int) -> str:
    """Say why a calibration cannot be used for images of this size; empty when it can."""
    if camera_info is None:
        return "no camera_info has come"
    if not camera_info.k[0] > 0 or not camera_info.k[4] > 0:
        return "camera_info is of a camera that is not calibrated (K is 0)"
    if (camera_info.height, camera_info.width) != (height, width):
        return (
            f"camera_info is of images of {camera_info.width}x{camera_info.height} pixels, these "
            f"have {width}x{height}"
        )
    return ""


def _color(number: int) -> ColorRGBA:
    """Strong colours, neighbours in number far from each other."""
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN_RATIO % 1.0, 0.8, 1.0)
    return ColorRGBA(r=red, g=green, b=blue, a=1.0)
