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
from bmp_ros.drawing import Color, person_colors
from bmp_ros.loop.people import People

_LIFETIME = Duration(sec=1)  # so that a node that ends leaves no ghosts
_LINE_WIDTH = 0.012  # of the distance
_TEXT_SIZE = 0.07
"""Height of the letters of an id and of the gap below them, of the distance."""


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

    Tracked people are in the namespace ``tracks``, with the track's id as the marker's and one
    colour per id, and in ``ids`` with the number above the highest joint; people without a track
    in the namespace ``people``, by row.

    in_space: the same people in the camera's optical frame, who are drawn where they are then;
    a person without any known depth is drawn in the plane. Edges with a keypoint of a score up to
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
    colors = person_colors(people.track_ids)
    for index, track in enumerate(people.track_ids.tolist()):
        drawn = edges[found[index][edges].all(axis=1)]
        ends = points[index][drawn].reshape(-1, 3).tolist()
        if not ends:
            continue
        name, number = ("people", index) if track < 0 else ("tracks", track)
        marker = bare_marker(header, name, number, Marker.LINE_LIST, colors[index])
        marker.scale.x = _LINE_WIDTH * distance
        marker.points = [Point(x=x, y=y, z=z) for x, y, z in ends]
        markers.append(marker)
        if track >= 0:
            x, y, z = min(ends, key=lambda end: end[1])  # y points down
            text = bare_marker(header, "ids", track, Marker.TEXT_VIEW_FACING, colors[index])
            text.text = str(track)
            text.scale.z = _TEXT_SIZE * z
            text.pose.position = Point(x=x, y=y - 1.5 * text.scale.z, z=z)
            markers.append(text)
    return MarkerArray(markers=markers)


def keypoints_in_plane(keypoints: np.ndarray, camera: CameraModel, distance: float) -> np.ndarray:
    """Where the rays of keypoints (N, K, 2) pixels meet the plane z = ``distance``: (N, K, 3).

    In metres, in the camera's optical frame (x right, y down, z forward); NaN without a ray.
    """
    rays = camera.rays(keypoints)
    return np.concatenate([rays, np.ones((*rays.shape[:-1], 1))], axis=-1) * distance


def bare_marker(header: Header, name: str, number: int, kind: int, color: Color) -> Marker:
    """A marker in the colour that the person has in the debug image, without a place yet."""
    marker = Marker(header=header, ns=name, id=number, type=kind, action=Marker.ADD)
    marker.pose.orientation.w = 1.0
    blue, green, red = color
    marker.color = ColorRGBA(r=red / 255, g=green / 255, b=blue / 255, a=1.0)
    marker.lifetime = _LIFETIME
    return marker
