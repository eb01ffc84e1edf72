# SPDX-License-Identifier: Apache-2.0
"""Moments out of files: results of `bmp infer --json`, and bags with people in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bmp_ros.bags.files import BagError, opened
from bmp_ros.bags.messages import COMPRESSED, IMAGE, PERSON_ARRAY, read_image, type_store
from bmp_ros.bags.process import POSES
from bmp_ros.depth.calibration import camera_model, info_beside, is_rectified
from bmp_ros.depth.camera_model import CameraModel
from bmp_ros.image_files import UnreadableImageError, shown_name
from bmp_ros.image_files import read_image as read_image_file
from bmp_ros.offline.results_reading import Results, open_results
from bmp_ros.offline.sources import open_source
from bmp_ros.offline.video import UnreadableVideoError, VideoFrames
from bmp_ros.pixels import ImageError
from bmp_ros.received_people import people_from_message, people_in_space
from bmp_ros.viewing.gathering import Gathered, Gathering
from bmp_ros.viewing.moment import EncodedImage, Moment, PeopleInSpace

Say = Callable[[str], object]
_PERSON_ARRAY_3D = "bmp_msgs/msg/PersonArray3D"
_CAMERA_INFO = "sensor_msgs/msg/CameraInfo"


def moments_of_results(path: Path, images: str | None, say: Say) -> Iterator[Moment]:
    """Moments of a folder (or file) of results, in the order in which they were found.

    images: where the images and videos are, as ``--source`` of `bmp infer` takes it; None: where
    the results say they were. say: is told of images that are not there any more.
    Raises ResultsError.
    """
    results = open_results(path)
    files = _Images(_sources(results, images, say), say)
    for number, (entry, people) in enumerate(results):
        name = entry["file_name"]
        yield Moment(
            number, people, seconds=entry.get("seconds"), name=name,
            image=files.of(name, entry.get("frame"), people.image_size),
        )  # fmt: skip


def _sources(results: Results, images: str | None, say: Say) -> dict[str, Path]:
    """Files by the names that the results have for them."""
    where = images or str(results.info.get("source", ""))
    try:
        sources = open_source(where, lambda text: None)
    except (OSError, ValueError) as error:
        if images is not None:
            raise
        say(f"the images of {shown_name(results.path)} are not at hand ({error}); give --images")
        return {}
    return {source.name: source.path for source in sources if isinstance(source.path, Path)}


class _Images:
    """Images of files, and of videos frame after frame; one video is open at a time."""

    def __init__(self, files: dict[str, Path], say: Say) -> None:
        self._files, self._say = files, say
        self._missing: set[str] = set()
        self._video: tuple[str, VideoFrames, Iterator[np.ndarray]] | None = None

    def of(self, name: str, frame: int | None, size: tuple[int, int]) -> EncodedImage | None:
        path = self._files.get(name)
        if path is None or name in self._missing:
            if self._files and name not in self._missing:
                self._lose(name, f"{name} is not among the images")
            return None
        try:
            image = read_image_file(path) if frame is None else self._frame(name, path, frame)
        except (UnreadableImageError, UnreadableVideoError, OSError) as error:
            return self._lose(name, str(error))
        if image is None or image.shape[:2] != size:
            return self._lose(name, f"{name} is not the file that the results are of any more")
        return EncodedImage.of(image)

    def _lose(self, name: str, why: str) -> EncodedImage | None:
        self._missing.add(name)
        self._say(why)
        return None

    def _frame(self, name: str, path: Path, frame: int) -> np.ndarray | None:
        if self._video is None or self._video[0] != name:
            if self._video is not None:
                self._video[1].__exit__()
            video = VideoFrames(path)
            self._video = name, video, iter(video)
        _, video, frames = self._video
        while video.read <= frame:
            image = next(frames, None)
            if image is None or video.read == frame + 1:
                return image
        return None


def moments_of_bag(path: Path, image: str | None, say: Say) -> Iterator[Moment]:
    """Moments of a bag with `POSES` in it, such as `bmp bag` writes, or a recording of the node.

    image: topic of the images; None: the only one that has some. Images that have no people
    message are left out. Raises BagError.
    """
    notes: list[str] = []
    with opened(path, notes) as reader:
        for note in notes:
            say(note)
        poses = [
            each
            for each in reader.connections
            if each.msgtype == PERSON_ARRAY and each.topic.rpartition("/")[2] == "poses"
        ]
        if not poses:
            raise BagError(f"{path} has no people in it ({POSES}); `bmp bag IN OUT` finds them")
        if len({each.topic for each in poses}) > 1:
            topics = ", ".join(sorted({each.topic for each in poses}))
            raise BagError(f"{path} has people of several cameras: {topics}; one can be shown")
        images = _image_connections(reader, path, image, poses[0].topic)
        topic = images[0].topic if images else None
        spaces = [each for each in reader.connections if each.topic == f"{poses[0].topic}_3d"]
        infos = []
        if topic is not None:
            infos = [each for each in reader.connections if each.topic == info_beside(topic)]
        yield from _BagMoments(topic, say).run(reader, [*images, *poses, *spaces, *infos])


def _image_connections(reader: Any, path: Path, wanted: str | None, poses: str) -> list[Any]:
    """Of the images that the people were found in; none where the bag has no images.

    Images that the node itself publishes, below the topic of the poses, do not count.
    """
    shown = [each for each in reader.connections if each.msgtype in (IMAGE, COMPRESSED)]
    own = poses.removesuffix("poses")
    topics = {each.topic for each in shown if not each.topic.startswith(own)}
    topics = {topic for topic in topics if "depth" not in topic.lower()}
    if wanted is not None:
        if wanted not in {each.topic for each in shown}:
            raise BagError(
                f"{path} has no images on {wanted!r}; topics of images: "
                f"{', '.join(sorted(topics)) or 'none'}"
            )
        topics = {wanted}
    if len(topics) > 1:
        raise BagError(
            f"{path} has several topics of images; choose one with --images: "
            f"{', '.join(sorted(topics))}"
        )
    return [each for each in shown if each.topic in topics]


class _BagMoments:
    def __init__(self, image_topic: str | None, say: Say) -> None:
        self._topic, self._say = image_topic, say
        self._store = type_store()
        self._gathering: Gathering[tuple[bytes, str]] = Gathering()
        self._camera: CameraModel | None = None
        self._info: bytes | None = None
        self._number = 0
        self._said: set[str] = set()

    def run(self, reader: Any, connections: list[Any]) -> Iterator[Moment]:
        for connection, _, data in reader.messages(connections):
            try:
                self._add(connection, bytes(data))
            except (ImageError, ValueError, KeyError) as error:
                self._remark(f"{connection.topic}: {error}")
            for gathered in self._gathering.take():
                yield self._moment(gathered)
        for gathered in self._gathering.take(all_of_it=True):
            yield self._moment(gathered)

    def _add(self, connection: Any, data: bytes) -> None:
        kind = connection.msgtype
        if connection.topic == self._topic:
            # Two numbers at the start of every message with a header; pixels stay undecoded.
            self._gathering.add_image(_stamp_ns(data), (data, kind))
            return
        if kind == _CAMERA_INFO:
            if data != self._info and self._topic is not None:
                self._info = data
                info = self._store.deserialize_cdr(data, kind)
                self._camera = camera_model(info, rectified=is_rectified("auto", self._topic))
            return
        message = self._store.deserialize_cdr(data, kind)
        if kind == PERSON_ARRAY:
            self._gathering.add_people(_stamp_ns(data), people_from_message(message))
        elif kind == _PERSON_ARRAY_3D:
            keypoints, centroids = people_in_space(message)
            space = PeopleInSpace(keypoints, centroids, message.header.frame_id)
            self._gathering.add_space(_stamp_ns(data), space)

    def _moment(self, gathered: Gathered[tuple[bytes, str]]) -> Moment:
        encoded = None
        if gathered.image is not None:
            try:
                data, kind = gathered.image
                encoded = EncodedImage.of(read_image(data, kind, self._store).image)
            except ImageError as error:
                self._remark(str(error))
        self._number += 1
        camera = self._camera
        if camera is not None and (camera.height, camera.width) != gathered.people.image_size:
            camera = None
        return Moment(
            self._number - 1, gathered.people, stamp_ns=gathered.stamp_ns, image=encoded,
            camera=camera, in_space=gathered.in_space,
        )  # fmt: skip

    def _remark(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)


def _stamp_ns(data: bytes) -> int:
    """Of a serialised message that begins with a header: seconds int32, nanoseconds uint32."""
    kind = np.dtype("<i4" if data[1] & 1 else ">i4")
    seconds = int(np.frombuffer(data, kind, 1, 4)[0])
    return seconds * 10**9 + int(np.frombuffer(data, kind.newbyteorder("="), 1, 8)[0])
