# SPDX-License-Identifier: Apache-2.0
"""Skeletons for rviz: on the rays of the camera, since one image does not tell how far."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from bmp_ros.depth.camera_model import CameraModel
from bmp_ros.depth.people_3d import People3D
from bmp_ros.drawing import person_color
from bmp_ros.loop.people import People

_LIFETIME = Duration(sec=1)  # so that a node that ends leaves no ghosts
_LINE_WIDTH = 0.012  # of the distance


def skeleton_markers(
    header: Header,
    people: People,
    camera: CameraModel,
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
    points = keypoints_in_plane(people.keypoints, camera, distance)
    found = people.keypoint_scores > score_threshold
    found = found & np.isfinite(points).all(axis=2)
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


def keypoints_in_plane(keypoints: np.ndarray, camera: CameraModel, distance: float) -> np.ndarray:
    """Where the rays of keypoints (N, K, 2) pixels meet the plane z = ``distance``: (N, K, 3).

    In metres, in the camera's optical frame (x right, y down, z forward); NaN without a ray.
    """
    rays = camera.rays(keypoints)
    return np.concatenate([rays, np.ones((*rays.shape[:-1], 1))], axis=-1) * distance


def _color(number: int) -> ColorRGBA:
    """The colour of a person in rviz, the same as in the debug image."""
    blue, green, red = person_color(number)
    return ColorRGBA(r=red / 255, g=green / 255, b=blue / 255, a=1.0)
