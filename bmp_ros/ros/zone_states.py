# SPDX-License-Identifier: Apache-2.0
"""``ZoneStates`` and the markers of zones; who is in which, in the image and on the ground."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from geometry_msgs.msg import Point
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from bmp_ros.depth.calibration import Calibration, CalibrationError
from bmp_ros.depth.camera_model import CameraModel
from bmp_ros.interaction.zones import (
    Occupancy,
    Zone,
    foot_points,
    in_image_zones,
    inside,
    on_the_ground,
)
from bmp_ros.loop.people import People
from bmp_ros.ros.compatibility import how_to_install
from bmp_ros.ros.following import Space
from bmp_ros.ros.interfaces import ZoneState, ZoneStates
from bmp_ros.ros.markers import bare_marker, keypoints_in_plane
from bmp_ros.ros.transforms import NoTransformError, Transforms

_FREE, _OCCUPIED = (220, 170, 60), (40, 90, 240)  # BGR
_LINE_WIDTH, _LETTERS = 0.03, 0.15  # metres, on the ground


class OccupiedZones(NamedTuple):
    """Zones of one camera, and the people in each at the time of one image."""

    zones: tuple[Zone, ...]
    found: list[Occupancy]


class NoZonesError(ValueError):
    """It cannot be told who is in a zone; the message says why. kind: see `NoTransformError`."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


def who_is_inside(
    zones: Sequence[Zone],
    header: Header,
    people: People,
    anchor: str,
    space: Space | None,
    calibration: Calibration,
    transforms: Transforms | None,
) -> np.ndarray:
    """(Z, N) bool, see `ZoneWatch.update`.

    On the ground people stand below their centroid where depth tells it, else where the ray
    through their feet meets the ground. Raises NoZonesError where tf or, without depth, the
    calibration is missing: nobody is said to be outside of a zone because nothing is known.
    """
    contained = np.zeros((len(zones), len(people)), np.bool_)
    in_image = [row for row, zone in enumerate(zones) if not zone.on_ground]
    if in_image:
        feet = foot_points(people)
        boxes = people.boxes.astype(np.float64)
        pixels = feet if anchor == "feet" else (boxes[:, :2] + boxes[:, 2:]) / 2
        chosen = [zones[row] for row in in_image]
        contained[in_image] = in_image_zones(chosen, pixels, people.image_size)
    for frame in {zone.frame for zone in zones if zone.on_ground}:
        standing = _on_ground(frame, header, people, space, calibration, transforms)
        for row, zone in enumerate(zones):
            if zone.frame == frame:
                contained[row] = inside(zone.points, standing)
    return contained


def _on_ground(
    frame: str,
    header: Header,
    people: People,
    space: Space | None,
    calibration: Calibration,
    transforms: Transforms | None,
) -> np.ndarray:
    """(N, 2) metres in ``frame``, NaN where unknown."""
    if transforms is None:
        raise NoZonesError(
            f"zones in the frame {frame!r} need tf: install tf2_ros "
            f"({how_to_install('tf2_ros_py')}), then deactivate and activate the node",
            "no tf",
        )
    try:
        rotation, shift = transforms.rigid_motion(frame, header.frame_id, header.stamp)
    except NoTransformError as error:
        raise NoZonesError(f"zones in the frame {frame!r}: {error}", error.kind) from error
    standing = np.full((len(people), 2), np.nan)
    if space is not None:
        standing = (space.optical.centroids @ rotation.T + shift)[:, :2]
    unknown = ~np.isfinite(standing).all(axis=1)
    if unknown.any():
        try:
            camera = calibration.fitting(people.image_size, "the image")
        except CalibrationError as error:
            raise NoZonesError(f"zones in the frame {frame!r}: {error}", error.kind) from error
        rays = camera.rays(foot_points(people)[unknown])
        standing[unknown] = on_the_ground(rays, rotation, shift)
    return standing


def zone_states(header: Header, zones: Sequence[Zone], found: Sequence[Occupancy]) -> ZoneStates:
    """The message of all zones. header: of the image; each state has the frame of its zone, the
    whole has it where all zones share one."""
    headers = [_header_of(header, zone) for zone in zones]
    frames = {each.frame_id for each in headers}
    frame = frames.pop() if len(frames) == 1 else header.frame_id
    return ZoneStates(
        header=Header(stamp=header.stamp, frame_id=frame),
        zones=[
            ZoneState(
                header=own,
                name=zone.name,
                count=each.count,
                track_ids=array("i", each.ids),
                seconds_inside=array("f", each.seconds),
                entered=array("i", each.entered),
                left=array("i", each.left),
            )
            for own, zone, each in zip(headers, zones, found, strict=True)
        ],
    )


def zone_markers(
    header: Header,
    zones: Sequence[Zone],
    found: Sequence[Occupancy],
    camera: CameraModel,
    distance: float,
) -> list[Marker]:
    """Borders (namespace ``zones``) and names with numbers of people (``zone_names``).

    Zones of the image lie in the plane ``distance`` metres in front of the camera, as skeletons
    without depth do; zones on the ground in their own frame.
    """
    markers = []
    for number, (zone, each) in enumerate(zip(zones, found, strict=True)):
        if zone.on_ground:
            corners = np.concatenate([zone.points, np.zeros((len(zone.points), 1))], axis=1)
            scale = 1.0
        else:
            pixels = zone.points * [camera.width, camera.height] - 0.5
            corners = keypoints_in_plane(pixels, camera, distance)
            scale = 0.3 * distance
        corners = corners[np.isfinite(corners).all(axis=1)]
        if len(corners) < 3:
            continue
        own, color = _header_of(header, zone), _OCCUPIED if each.count else _FREE
        border = bare_marker(own, "zones", number, Marker.LINE_STRIP, color)
        border.scale.x = _LINE_WIDTH * scale
        border.points = [
            Point(x=x, y=y, z=z) for x, y, z in [*corners.tolist(), corners[0].tolist()]
        ]
        text = bare_marker(own, "zone_names", number, Marker.TEXT_VIEW_FACING, color)
        text.text = f"{zone.name}: {each.count}"
        text.scale.z = _LETTERS * scale
        x, y, z = corners.mean(axis=0).tolist()
        text.pose.position = Point(x=x, y=y, z=z)
        markers += [border, text]
    return markers


def _header_of(header: Header, zone: Zone) -> Header:
    return Header(stamp=header.stamp, frame_id=zone.frame) if zone.on_ground else header
