# SPDX-License-Identifier: Apache-2.0
"""What is written for each image: its people, in the image and in space, and the image itself
with them covered. People are tracked, smoothed and placed by the same code as in the node."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from bmp_ros.bags.anonymise import WaitingFrames
from bmp_ros.bags.depth_of_bag import DepthOfBag, Lookahead, NoDepthError
from bmp_ros.bags.files import copied_connection
from bmp_ros.bags.messages import (
    PERSON_ARRAY,
    PERSON_ARRAY_3D,
    BagImage,
    import_rosbags,
    read_image,
    write_image,
    write_people,
    write_people_3d,
)
from bmp_ros.camera_tracking import CameraTracking, Tracked
from bmp_ros.covering import Patch, hidden, person_patches
from bmp_ros.loop import BMPLoop
from bmp_ros.pixels import ImageError
from bmp_ros.tracking import IdCounter, KeyframeSettings, SmoothingSettings, TrackerSettings

_JUMP_NS = 10**9
"""Stamps that go back by more begin anew, as in the node."""


class Results:
    """The topics of results in a bag, below ``prefix``; one image after the other.

    written: messages by topic and type so far. times_ms: of the last image, by stage.
    """

    def __init__(
        self, writer: Any, store: Any, prefix: str, *, in_space: bool, smooth: bool
    ) -> None:
        kinds = {"poses": PERSON_ARRAY}
        kinds |= {"poses_smooth": PERSON_ARRAY} if smooth else {}
        kinds |= {"poses_3d": PERSON_ARRAY_3D} if in_space else {}
        kinds |= {"poses_3d_smooth": PERSON_ARRAY_3D} if in_space and smooth else {}
        self.topics = {f"{prefix}/{name}": kind for name, kind in kinds.items()}
        self.written: Counter[tuple[str, str]] = Counter(
            {(topic, kind): 0 for topic, kind in self.topics.items()}
        )
        self._writer, self._store, self._prefix, self._smooth = writer, store, prefix, smooth
        self._connections: dict[str, Any] = {}
        self._tracking = CameraTracking(IdCounter())
        self._bits = 8
        self._last_log_ns = -(2**63)
        self._last_stamp = 0

    def begin(self, loop: BMPLoop, *, track: bool) -> None:
        """Say which loop finds people, and whether they get ids; open the topics."""
        self._loop, self._track = loop, track
        for topic, kind in self.topics.items():
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=self._store, offered_qos_profiles=[_quality_of_service()]
            )

    def read(self, data: bytes, kind: str, log_ns: int, depth: DepthOfBag | None) -> BagImage:
        """Decode an image. Raises ImageError for what is none, and for one that comes too late."""
        if log_ns < self._last_log_ns:  # those around it, which people are tracked by, have gone
            raise ImageError("images come more than 2 s late in a file without an index")
        self._last_log_ns = log_ns
        image = read_image(data, kind, self._store, self._bits)
        if image.stamp_ns != 0:
            if self._last_stamp - image.stamp_ns >= _JUMP_NS:
                image = read_image(data, kind, self._store)
                if depth is not None:
                    depth.go_back(image.stamp_ns)
            self._last_stamp = image.stamp_ns
        self._bits = image.bits  # the camera's, as in the node: its dark images stay dark
        return image

    def find(self, image: BagImage, log_ns: int) -> Tracked:
        """The people of an image, with ids, whatever is written of them."""
        arrival_s = log_ns / 1e9
        people, report = self._tracking.find(
            self._loop, image.image, image.stamp_ns, arrival_s=arrival_s,
            settings=KeyframeSettings(),
        )  # fmt: skip
        self.times_ms = report.stage_ms
        return self._tracking.track(
            people,
            image.stamp_ns,
            image.image,
            arrival_s=arrival_s,
            settings=TrackerSettings(),
            ego_motion=None,
        )

    def write(
        self,
        header: Any,
        log_ns: int,
        found: Tracked,
        depth: DepthOfBag | None,
        messages: Lookahead,
    ) -> str:
        """Write the results of one image; returns why there are none in space, if so."""
        if not self._track:
            nobody = np.full(len(found.people), -1, np.int32)
            found = replace(
                found,
                people=replace(found.people, track_ids=nobody),
                ages=np.full(len(nobody), np.nan),
            )
        self._put("poses", log_ns, write_people(header, found.people, found.ages, self._store))
        settings = SmoothingSettings()
        if self._smooth:
            smooth = self._tracking.smooth(found, settings)
            self._put(
                "poses_smooth", log_ns, write_people(header, smooth, found.ages, self._store)
            )
        if depth is None:
            return ""
        try:
            lifted = depth.people_in_space(header, log_ns, found.people, messages)
        except NoDepthError as error:
            return str(error)
        placed, velocities = self._tracking.locate(found, lifted, settings)
        in_space = {"poses_3d": lifted}
        if self._smooth:
            in_space["poses_3d_smooth"] = self._tracking.smooth_in_space(found, placed, settings)
        for name, people in in_space.items():
            data = write_people_3d(
                header, found.people, people, found.ages, velocities, self._store
            )
            self._put(name, log_ns, data)
        return ""

    def _put(self, name: str, log_ns: int, data: bytes) -> None:
        topic = f"{self._prefix}/{name}"
        self._writer.write(self._connections[topic], log_ns, data)
        self.written[topic, self.topics[topic]] += 1


class Covering:
    """Writes the images with people covered, under their own topic and at their own times.

    count: images written so far.
    """

    def __init__(
        self, writer: Any, store: Any, images: list[Any], kind: str, *, blur: bool
    ) -> None:
        self._writer, self._store, self._kind, self._blur = writer, store, kind, blur
        self._connections = {each.id: copied_connection(writer, each, store) for each in images}
        self._frames: WaitingFrames[tuple[Any, int, BagImage]] = WaitingFrames()
        self.count = 0

    def patches(self, found: Tracked) -> list[Patch]:
        return person_patches(found.people, self._kind)

    def add(
        self, connection: Any, log_ns: int, image: BagImage, found: Tracked, patches: list[Patch]
    ) -> None:
        people = found.people
        for item, covered in self._frames.add(
            log_ns,
            (connection, log_ns, image),
            people.image_size,
            patches,
            people.track_ids.tolist(),
        ):
            self._write(item, covered)

    def finish(self) -> None:
        for item, covered in self._frames.rest():
            self._write(item, covered)

    def _write(self, item: tuple[Any, int, BagImage], covered: np.ndarray) -> None:
        connection, log_ns, image = item
        shown = hidden(image.image, covered, blur=self._blur)
        data = write_image(image.header, shown, connection.msgtype, self._store)
        self._writer.write(self._connections[connection.id], log_ns, data)
        self.count += 1


def _quality_of_service() -> Any:
    """Reliable, volatile, the last five: what the node offers."""
    interfaces = import_rosbags("interfaces")
    lasting = interfaces.QosTime(0x7FFFFFFF, 0xFFFFFFFF)
    return interfaces.Qos(
        history=interfaces.QosHistory.KEEP_LAST,
        depth=5,
        reliability=interfaces.QosReliability.RELIABLE,
        durability=interfaces.QosDurability.VOLATILE,
        deadline=lasting,
        lifespan=lasting,
        liveliness=interfaces.QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=lasting,
        avoid_ros_namespace_conventions=False,
    )
