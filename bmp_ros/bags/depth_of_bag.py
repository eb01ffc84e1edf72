# SPDX-License-Identifier: Apache-2.0
"""``DepthOfBag``: the depth image and the calibrations of each image of a bag, as in the node.

The node takes the depth image whose stamp is nearest among those that have come. In a bag those
that come a little later are there as well: they are read ahead (`Lookahead`), so that an image
never goes without the depth image of its own moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from bmp_ros.bags.messages import (
    CAMERA_INFO,
    COMPRESSED,
    IMAGE,
    BagError,
    read_message,
    stamp_ns,
    stamp_ns_of,
)
from bmp_ros.depth.calibration import (
    Calibration,
    CalibrationError,
    depth_camera,
    info_beside,
    is_rectified,
)
from bmp_ros.depth.depth_grid import says_nothing
from bmp_ros.depth.depth_messages import depth_image, why_unregistered
from bmp_ros.depth.people_3d import People3D, lift_people
from bmp_ros.loop.people import People
from bmp_ros.pixels import ImageError
from bmp_ros.stamp_buffer import StampBuffer

MAX_AGE_S = 0.05
"""Seconds that an image and its depth image may be apart: default of the node's depth_max_age."""
AHEAD_NS = 10**9
"""Log time up to which a depth image may come after its image: drivers take some 100 ms."""
CACHED = 40
"""Depth images that are kept, as in the node: more than a second at 30 Hz."""
FROZEN = 3
"""Depth images in a row with one stamp, from which on none can be assigned to an image."""

Message = tuple[Any, int, bytes]


class NoDepthError(Exception):
    """Why an image has no depth."""


class Lookahead:
    """Messages (connection, log time, data) in their order, of which some are read before.

    notice: is told each message when it is read.
    """

    def __init__(self, messages: Iterable[Message], notice: Callable[[Any, bytes], None]) -> None:
        self._messages = iter(messages)
        self._notice = notice
        self._ahead: deque[Message] = deque()

    def __iter__(self) -> Iterator[Message]:
        while self._ahead or self._read():
            yield self._ahead.popleft()

    def read_until(self, is_enough: Callable[[], bool], log_ns: int) -> None:
        """Read ahead while it is not enough, up to the first message later than ``log_ns``."""
        newest = self._ahead[-1][1] if self._ahead else log_ns
        while not is_enough() and newest <= log_ns and self._read():
            newest = self._ahead[-1][1]

    def _read(self) -> bool:
        message = next(self._messages, None)
        if message is None:
            return False
        self._ahead.append(message)
        self._notice(message[0], message[2])
        return True


@dataclass(frozen=True)
class DepthSelection:
    """Where depth is, as the node's parameters say it: depth_topic, camera_info_topic,
    depth_camera_info_topic (None: beside the images), rectified and depth_rectified."""

    topic: str
    camera_info: str | None = None
    depth_camera_info: str | None = None
    rectified: str = "auto"
    depth_rectified: str = "auto"


class DepthOfBag:
    """Depth images and calibrations of one bag. connections: to be read for it.

    image_topic: of the images that depth belongs to. Raises BagError for topics that are not
    there, or are of another type.
    """

    def __init__(
        self, reader: Any, store: Any, image_topic: str, selection: DepthSelection, source: str
    ) -> None:
        self._store = store
        self.topic = selection.topic
        self._depth = _connections(reader, selection.topic, (IMAGE, COMPRESSED), "depth", source)
        read = partial(read_message, kind=CAMERA_INFO, store=store)
        info = selection.camera_info or info_beside(image_topic)
        depth_info = selection.depth_camera_info or info_beside(selection.topic)
        self._image_camera = Calibration(
            info,
            rectified=is_rectified(selection.rectified, image_topic),
            parameter="--camera-info",
            deserialise=read,
        )
        self._depth_camera = Calibration(
            depth_info,
            rectified=is_rectified(selection.depth_rectified, selection.topic),
            parameter="--depth-camera-info",
            deserialise=read,
        )
        infos = _connections(reader, info, (CAMERA_INFO,), "camera-info", source)
        if selection.depth_camera_info:
            infos += _connections(reader, depth_info, (CAMERA_INFO,), "depth-camera-info", source)
        else:  # without one, depth shows what the images show
            infos += [
                each
                for each in reader.connections
                if (each.topic, each.msgtype) == (depth_info, CAMERA_INFO)
            ]
        self._infos = {each.id: each for each in infos}
        self.connections = [*self._depth, *self._infos.values()]
        self._kinds = {each.id: each.msgtype for each in self._depth}
        self._images: StampBuffer[tuple[str, bytes]] = StampBuffer(CACHED)
        self._last_stamp: int | None = None
        self._in_a_row = 0
        self._reached = -(2**63)

    def begin(self, reader: Any, start_ns: int | None) -> None:
        """Take the calibrations that hold at the beginning: drivers may send them just after the
        first image, or once, before the part that is processed."""
        for each in self._infos.values():
            with suppress(Exception):  # of a damaged bag, which is noticed when it is processed
                for _, log_ns, data in reader.messages([each]):
                    if start_ns is not None and log_ns > start_ns and self._has_come(each):
                        break
                    self.notice(each, data)
                    if start_ns is None:
                        break

    def notice(self, connection: Any, data: bytes) -> None:
        """A message of the bag has been read."""
        if connection.id in self._infos:
            for camera in (self._image_camera, self._depth_camera):
                if camera.topic == connection.topic:
                    camera.keep(bytes(data))
        elif connection.id in self._kinds:
            self._keep(self._kinds[connection.id], bytes(data))

    def people_in_space(
        self, header: Any, log_ns: int, people: People, messages: Lookahead
    ) -> People3D:
        """Lift the people of an image. Raises NoDepthError saying why it cannot be done."""
        self.silence = self.doubt = ""
        wanted = stamp_ns(header)
        messages.read_until(lambda: self._reached >= wanted, log_ns + AHEAD_NS)
        try:
            kind, data = self._nearest(wanted)
            message = read_message(data, kind, self._store)
            depth = depth_image(message)
            camera = self._image_camera.fitting(people.image_size, "the image")
            found = lift_people(
                people,
                depth,
                camera,
                depth_camera=depth_camera(
                    self._depth_camera, self._image_camera, depth.shape, people.image_size
                ),
            )
        except CalibrationError as error:
            raise NoDepthError(str(error)) from error
        except NoDepthError:
            raise
        except Exception as error:  # whatever a damaged depth image leads to costs this one only
            raise NoDepthError(f"{self.topic}: {error}") from error
        if silence := says_nothing(depth):
            self.silence = f"{self.topic}: {silence}"
        doubt = why_unregistered(header.frame_id, message.header.frame_id)
        doubts = [f"{self.topic}: {doubt}"] if doubt else []
        doubts.append(self._image_camera.why_foreign(header.frame_id))
        self.doubt = "; ".join(filter(None, doubts))
        return found

    silence = ""
    """Why the depth image of the last image said nothing about its people, who all are NaN; empty
    where it did."""
    doubt = ""
    """Why it may not be registered to the image, or the calibration be another camera's; empty
    where nothing speaks against it."""

    def go_back(self, to_ns: int) -> None:
        """Stamps have jumped back to this one: forget depth images of the time after it."""
        self._images.drop_newer(to_ns + int(MAX_AGE_S * 1e9))
        self._reached = -(2**63)

    def _has_come(self, connection: Any) -> bool:
        cameras = (self._image_camera, self._depth_camera)
        return all(each.has_come for each in cameras if each.topic == connection.topic)

    def _keep(self, kind: str, data: bytes) -> None:
        try:
            stamp = stamp_ns_of(data)
        except ImageError:
            return  # damaged: as if it had not come
        if stamp == self._last_stamp:
            self._in_a_row += 1
        else:
            if self._last_stamp is not None and self._in_a_row >= FROZEN:
                self._images.drop_stamp(self._last_stamp)  # none of these has a time of its own
            self._in_a_row = 1
        self._last_stamp = stamp
        self._reached = max(self._reached, stamp)
        if stamp != 0:
            self._images.put(stamp, (kind, data))

    def _nearest(self, wanted_ns: int) -> tuple[str, bytes]:
        """As `DepthInput.nearest` of the node."""
        if self._last_stamp is None:
            raise NoDepthError(f"no depth image on {self.topic} up to then")
        if self._in_a_row >= FROZEN and self._last_stamp != 0:
            raise NoDepthError(
                f"{self.topic}: {FROZEN} depth images or more have one stamp and cannot be "
                "assigned to images"
            )
        found = self._images.nearest(wanted_ns, int(MAX_AGE_S * 1e9))
        if found is None:
            raise NoDepthError(
                f"no depth image on {self.topic} within {MAX_AGE_S * 1e3:.0f} ms of the stamp"
            )
        return found[1]


def _connections(
    reader: Any, topic: str, kinds: tuple[str, ...], option: str, source: str
) -> list[Any]:
    """The connections of a topic of one of the types. Raises BagError naming what there is."""
    found = [each for each in reader.connections if each.topic == topic]
    if found and all(each.msgtype in kinds for each in found):
        return found
    there = sorted({each.topic for each in reader.connections if each.msgtype in kinds})
    what = (
        f"is of type {', '.join(sorted({each.msgtype for each in found}))}"
        if found
        else "is not there"
    )
    raise BagError(
        f"--{option}: {topic} {what} in {source}; topics of {' or '.join(kinds)}: "
        f"{', '.join(there) or 'none'}"
    )
