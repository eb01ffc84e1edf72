# SPDX-License-Identifier: Apache-2.0
"""``CameraPublishers``: everything the node says about one camera's images."""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64, Header
from visualization_msgs.msg import Marker, MarkerArray

from bmp_ros.camera_tracking import Tracked
from bmp_ros.covering import RecentCovers, cover, hidden
from bmp_ros.depth.calibration import Calibration, CalibrationError
from bmp_ros.depth.people_3d import People3D
from bmp_ros.drawing import draw_people
from bmp_ros.loop.people import People
from bmp_ros.ros import markers
from bmp_ros.ros.depth_messages import depth_message, person_array_3d
from bmp_ros.ros.depth_work import Lifted, people_free_depth
from bmp_ros.ros.foxglove import annotations_available, image_annotations
from bmp_ros.ros.image_messages import image_message, jpeg_message, stamp_ns
from bmp_ros.ros.interfaces import PersonArray, PersonArray3D, ZoneStates
from bmp_ros.ros.person_messages import (
    detection_array,
    detections_available,
    empty_detection_array,
    person_array,
    skeleton_message,
)
from bmp_ros.ros.settings import RunSettings
from bmp_ros.ros.zone_states import OccupiedZones, zone_markers

_QOS = QoSProfile(depth=5)  # reliable, volatile: every subscriber fits


class CameraPublishers:
    """Lifecycle publishers below ``prefix`` (empty, or a camera's name and a slash).

    Outputs without subscribers are not computed.
    """

    def __init__(self, node: LifecycleNode, prefix: str) -> None:
        self._node = node
        self._nobody: PersonArray | None = None
        self._nobody_in_space: PersonArray3D | None = None
        self._nobody_followed: PersonArray3D | None = None

        def publisher(kind: type, topic: str) -> Any:
            return node.create_lifecycle_publisher(kind, prefix + topic, _QOS)

        self._poses = publisher(PersonArray, "poses")
        self._smooth = publisher(PersonArray, "poses_smooth")
        self._processing_time = publisher(Float64, "debug/processing_time_ms")
        self._latency = publisher(Float64, "debug/pipeline_latency_ms")
        self._debug_image = publisher(Image, "debug_image")
        self._debug_jpeg = publisher(CompressedImage, "debug_image/compressed")
        self._anonymised = publisher(Image, "anonymised_image")
        self._anonymised_jpeg = publisher(CompressedImage, "anonymised_image/compressed")
        self._covers = RecentCovers()
        self._label_image = publisher(Image, "label_image")
        self._markers = publisher(MarkerArray, "markers")
        self._poses_3d = publisher(PersonArray3D, "poses_3d")
        self._smooth_3d = publisher(PersonArray3D, "poses_3d_smooth")
        self._empty_depth = publisher(Image, "depth_without_people")
        self._followed = publisher(PersonArray3D, "followed_person")
        self._zones = publisher(ZoneStates, "zones")
        self._all = [
            self._poses, self._processing_time, self._latency, self._debug_image,
            self._debug_jpeg, self._label_image, self._markers, self._poses_3d,
            self._empty_depth, self._smooth, self._smooth_3d, self._followed, self._zones,
            self._anonymised, self._anonymised_jpeg,
        ]  # fmt: skip
        self._detections = None
        if detections_available():
            from vision_msgs.msg import Detection2DArray

            self._detections = publisher(Detection2DArray, "detections")
            self._all.append(self._detections)

        self._annotations = None
        if annotations_available():
            from foxglove_msgs.msg import ImageAnnotations

            self._annotations = publisher(ImageAnnotations, "annotations")
            self._all.append(self._annotations)

    @property
    def poses_topic(self) -> str:
        """Resolved."""
        return str(self._poses.topic_name)

    def destroy(self) -> None:
        for publisher in self._all:
            self._node.destroy_lifecycle_publisher(publisher)
        self._all.clear()

    def publish_poses(self, header: Header, people: People, ages: np.ndarray) -> None:
        """ages: (N,) of the tracks, see `person_array`."""
        message = person_array(header, people, ages)
        self._poses.publish(message)
        # Without its people, this is what `publish_empty` says about the same image.
        self._nobody = PersonArray(
            header=header, height=message.height, width=message.width, skeleton=message.skeleton
        )

    def publish_empty(self) -> None:
        """Say on every topic of people that nobody is seen any more, with the last header of each;
        nothing where nothing was said before."""
        if self._nobody is None:
            return
        header = self._nobody.header
        delete = Marker(header=header, action=Marker.DELETEALL)
        self._poses.publish(self._nobody)
        for publisher, message in (
            (self._smooth, self._nobody),
            (self._poses_3d, self._nobody_in_space),
            (self._smooth_3d, self._nobody_in_space),
            (self._followed, self._nobody_followed),
            (self._markers, MarkerArray(markers=[delete])),
        ):
            if message is not None and _is_wanted(publisher):
                publisher.publish(message)
        if self._detections is not None and _is_wanted(self._detections):
            self._detections.publish(empty_detection_array(header))
        if self._annotations is not None and _is_wanted(self._annotations):
            empty = People.empty(self._nobody.height, self._nobody.width)
            self._annotations.publish(image_annotations(header.stamp, empty, 0.0))
        self._nobody = self._nobody_in_space = self._nobody_followed = None

    @property
    def wants_followed(self) -> bool:
        return _is_wanted(self._followed)

    def publish_followed(self, message: PersonArray3D) -> None:
        self._followed.publish(message)
        self._nobody_followed = PersonArray3D(header=message.header, skeleton=message.skeleton)

    def publish_nobody_followed(self) -> None:
        """Say so with the header of the last image, if anything was said before."""
        if self._nobody_followed is not None:
            self._followed.publish(self._nobody_followed)

    @property
    def wants_zones(self) -> bool:
        """Whether zones have subscribers; markers show them, too."""
        return _is_wanted(self._zones) or _is_wanted(self._markers)

    def publish_zones(self, message: ZoneStates) -> None:
        self._zones.publish(message)

    def publish_times(self, processing_ms: float, latency_ms: float) -> None:
        self._processing_time.publish(Float64(data=processing_ms))
        self._latency.publish(Float64(data=latency_ms))

    @property
    def wants_smooth(self) -> bool:
        """Whether smoothed joints have subscribers; markers show them, too."""
        return _is_wanted(self._smooth) or _is_wanted(self._markers)

    def publish_smooth(self, header: Header, people: People, ages: np.ndarray) -> None:
        """people: with smoothed joints."""
        if _is_wanted(self._smooth):
            self._smooth.publish(person_array(header, people, ages))

    @property
    def wants_depth(self) -> bool:
        """Whether anything that needs depth has subscribers."""
        in_space = (self._poses_3d, self._smooth_3d, self._empty_depth, self._markers)
        return any(map(_is_wanted, in_space))

    @property
    def wants_smooth_in_space(self) -> bool:
        """Whether smoothed joints in space have subscribers; markers show them, too."""
        return _is_wanted(self._smooth_3d) or _is_wanted(self._markers)

    def publish_lifted(
        self,
        tracked: Tracked,
        lifted: Lifted,
        velocities: np.ndarray,
        smooth: People3D | None,
        run: RunSettings,
    ) -> None:
        """Publish people in space and the depth without them, as far as there are subscribers.

        velocities: (N, 3) metres per second. smooth: the same people smoothed, None if unwanted.
        """
        header, people, ages = lifted.header, tracked.people, tracked.ages
        if _is_wanted(self._poses_3d):
            self._poses_3d.publish(
                person_array_3d(header, people, lifted.people, ages, velocities)
            )
        self._nobody_in_space = PersonArray3D(
            header=header, skeleton=skeleton_message(people.skeleton)
        )
        if smooth is not None and _is_wanted(self._smooth_3d):
            self._smooth_3d.publish(person_array_3d(header, people, smooth, ages, velocities))
        if _is_wanted(self._empty_depth):
            depth = people_free_depth(lifted, people, run.people_margin)
            self._empty_depth.publish(depth_message(lifted.message, depth))

    def publish_wanted(
        self,
        header: Header,
        image: np.ndarray,
        people: People,
        *,
        smooth: People | None,
        in_space: People3D | None,
        run: RunSettings,
        arrival_s: float,
        score_threshold: float,
        calibration: Calibration,
        occupied: OccupiedZones | None = None,
    ) -> CalibrationError | None:
        """Publish what has subscribers; return why markers that are wanted cannot be drawn.

        smooth: the people with smoothed joints, for the markers; None if unwanted. in_space: they
        in the camera's optical frame, None without depth. arrival_s: of the image, on a steady
        clock. calibration: of the image. occupied: zones to draw, None without.
        """
        self._publish_debug_image(header, image, people, run.jpeg_quality)
        self._publish_anonymised(header, image, people, run, arrival_s)
        if _is_wanted(self._label_image):
            self._label_image.publish(label_image(header, people))
        if self._detections is not None and _is_wanted(self._detections):
            self._detections.publish(detection_array(header, people))
        if self._annotations is not None and _is_wanted(self._annotations):
            self._annotations.publish(image_annotations(header.stamp, people, score_threshold))
        if smooth is None or not _is_wanted(self._markers):
            return None
        try:
            camera = calibration.fitting(people.image_size, "the image")
        except CalibrationError as error:
            return error
        drawn = markers.skeleton_markers(
            header, smooth, camera, run.marker_distance, score_threshold, in_space=in_space
        )
        if occupied is not None:
            drawn.markers += zone_markers(header, *occupied, camera, run.marker_distance)
        self._markers.publish(drawn)
        return None

    def _publish_debug_image(
        self, header: Header, image: np.ndarray, people: People, quality: int
    ) -> None:
        raw, jpeg = _is_wanted(self._debug_image), _is_wanted(self._debug_jpeg)
        if not raw and not jpeg:
            return
        drawn = draw_people(image, people)
        if raw:
            self._debug_image.publish(image_message(header, drawn, "bgr8"))
        if jpeg:
            self._debug_jpeg.publish(jpeg_message(header, drawn, quality))

    def _publish_anonymised(
        self,
        header: Header,
        image: np.ndarray,
        people: People,
        run: RunSettings,
        arrival_s: float,
    ) -> None:
        """The image with people covered, also those of the images shortly before."""
        raw, jpeg = _is_wanted(self._anonymised), _is_wanted(self._anonymised_jpeg)
        if not raw and not jpeg:
            self._covers.clear()
            return
        covered = self._covers.add(
            stamp_ns(header.stamp) / 1e9, arrival_s, cover(people, run.anonymise)
        )
        shown = hidden(image, covered, blur=run.anonymise_with == "blur")
        if raw:
            self._anonymised.publish(image_message(header, shown, "bgr8"))
        if jpeg:
            self._anonymised_jpeg.publish(jpeg_message(header, shown, run.jpeg_quality))


def label_image(header: Header, people: People) -> Image:
    """Image of numbers: 0 = background, i = people[i-1], whatever the track id; mono16 from the
    256th person on."""
    deep = len(people) > 255
    labels = np.zeros(people.image_size, np.uint16 if deep else np.uint8)
    for number, mask in enumerate(people.masks, start=1):
        labels[mask] = number  # exclusive: no pixel is written twice
    return image_message(header, labels, "mono16" if deep else "mono8")


def _is_wanted(publisher: Any) -> bool:
    return bool(publisher.get_subscription_count() > 0)
