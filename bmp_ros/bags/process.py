# SPDX-License-Identifier: Apache-2.0
"""A bag in, a bag out: every message copied byte for byte, and the people of every image added.

Nothing is replaced by something newer, as the node does with images that it has no time for: each
image is processed, one after the other, and the tracker takes its time from the stamps.
"""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bmp_ros.bags.anonymise import (
    KINDS,
    WINDOW_S,
    WaitingFrames,
    cover,
    pixelated,
    shows_pictures,
)
from bmp_ros.bags.messages import (
    COMPRESSED,
    IMAGE,
    PERSON_ARRAY,
    BagImage,
    import_rosbags,
    read_image,
    type_store,
    write_image,
    write_people,
)
from bmp_ros.bags.recover import in_order, recover
from bmp_ros.loop import BMPLoop
from bmp_ros.loop.people import People
from bmp_ros.pixels import ImageError
from bmp_ros.tracking import PersonTracker

POSES = "/bmp/poses"
_UNKNOWN_HASH = "RIHS01_" + "0" * 64


class BagError(ValueError):
    """A bag cannot be read, or not as asked; the message names it and says what to do."""


@dataclass(frozen=True)
class Selection:
    """What of a bag is used.

    image: topic of the images; None: the only one that has some. start_s, duration_s: seconds of
    the bag's time; messages outside are not copied either. every: of the images, one in so many.
    copy: whether the bag's own messages are copied. anonymise: one of `anonymise.KINDS`: the
    images are written with people covered, under their own topic, and other topics that may show
    pictures are left out but those in keep_pictures; ``max_people`` does not count. None:
    everything is copied as it is.
    """

    image: str | None = None
    start_s: float = 0.0
    duration_s: float | None = None
    every: int = 1
    copy: bool = True
    anonymise: str | None = None
    keep_pictures: tuple[str, ...] = ()


@dataclass
class Outcome:
    """images, people: processed and found. copied: messages by topic. covered: images that were
    written with people covered. left_out: topics that show pictures and were not copied.
    failures: images that could not be read or processed, by reason. seconds: that the work on
    images took. bag_seconds: that the messages span. image_topic: None where the bag has none."""

    image_topic: str | None
    images: int = 0
    people: int = 0
    copied: Counter[tuple[str, str]] = field(default_factory=Counter)
    covered: int = 0
    left_out: list[str] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    bag_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def process_bag(
    loop: BMPLoop,
    source: Path,
    target: Path,
    selection: Selection,
    *,
    track: bool = True,
    advance: Callable[[int], object] = lambda count: None,
) -> Outcome:
    """Write the bag ``target``: what is in ``source``, and `POSES` of its images.

    source: a folder, a .mcap or a .db3. target: a folder, or a .mcap; it must not exist. It
    appears when it is complete: whatever ends the work before leaves nothing. advance: called with
    the number of messages read since.
    Raises BagError for bags that cannot be read, topics that are not there, and a target that is
    there already.
    """
    if selection.anonymise is not None and (
        selection.anonymise not in KINDS or selection.every != 1 or not selection.copy
    ):
        raise BagError(
            f"anonymise is {selection.anonymise!r}, allowed: {', '.join(KINDS)}, for every image "
            "(every 1) of a bag that is copied"
        )
    if target.exists():
        raise BagError(f"{target} is there already: nothing is overwritten; choose another name")
    notes: list[str] = []
    if selection.anonymise is not None:
        loop = copy.copy(loop)  # the caller's settings stay as they are
        loop.settings = replace(loop.settings, max_people=1000)
    with _staged(target) as folder, _opened(source, notes) as reader:
        images = _image_connections(reader, source, selection.image)
        if any(each.topic == POSES for each in reader.connections):
            raise BagError(f"{source} has a topic {POSES} already: it was processed before")
        outcome = Outcome(images[0].topic if images else None, notes=notes)
        writer_module = import_rosbags("rosbag2")
        store = type_store()
        with writer_module.Writer(
            folder / target.stem, version=9, storage_plugin=writer_module.StoragePlugin.MCAP
        ) as writer:
            _run(loop, reader, writer, store, images, selection, track, outcome, advance)
        _put(folder / target.stem, target)
    return outcome


def _run(
    loop: BMPLoop,
    reader: Any,
    writer: Any,
    store: Any,
    images: list[Any],
    selection: Selection,
    track: bool,
    outcome: Outcome,
    advance: Callable[[int], object],
) -> None:
    wanted = {each.id for each in images}
    copied = _copied_connections(reader, wanted, selection, store, outcome)
    copies = {each.id: _copied_connection(writer, each, store) for each in copied}
    poses = _poses_connection(writer, store) if images else None
    covering = None
    if selection.anonymise and images:
        covering = _Covering(writer, store, images, outcome)
    people_of = _Processing(loop, PersonTracker() if track else None)
    chosen = [each for each in reader.connections if each.id in copies or each.id in wanted]
    start, stop = _span(reader, selection)
    count, first_ns, last_ns, image_ns, bits = 0, None, 0, -1, 8
    for connection, log_ns, data in _messages(reader, chosen, start, stop, outcome):
        advance(1)
        first_ns, last_ns = log_ns if first_ns is None else first_ns, max(last_ns, log_ns)
        if connection.id in copies:
            writer.write(copies[connection.id], log_ns, data)
            outcome.copied[connection.topic, connection.msgtype] += 1
        if connection.id not in wanted:
            continue
        count += 1
        if (count - 1) % selection.every:
            continue
        begun = time.perf_counter()
        try:
            if log_ns < image_ns:  # those around it, which people are tracked by, have gone
                raise ImageError("images come more than 2 s late in a file without an index")
            image_ns = log_ns
            image = read_image(bytes(data), connection.msgtype, store, bits)
            bits = image.bits  # the camera's, as in the node: its dark images stay dark
            people, ages = people_of(image, log_ns)
            covered = cover(people, selection.anonymise) if selection.anonymise else None
        except Exception as error:  # what networks raise depends on what runs them
            reason = _reason(error)
            outcome.failures[reason] = outcome.failures.get(reason, 0) + 1
            continue
        writer.write(poses, log_ns, write_people(image.header, people, ages, store))
        if covering is not None and covered is not None:
            covering.add(connection, log_ns, image, covered)
        outcome.images += 1
        outcome.people += len(people)
        outcome.seconds += time.perf_counter() - begun
    if covering is not None:
        covering.finish()
    if first_ns is not None:
        outcome.bag_seconds = (last_ns - first_ns) / 1e9


def _reason(error: Exception) -> str:
    """Why an image has no result; without what differs from image to image in the lines below."""
    if isinstance(error, ImageError):
        return str(error)
    first, _, _ = str(error).strip().partition("\n")
    return f"the networks failed: {type(error).__name__}: {first[:300]}"


def _copied_connections(
    reader: Any, images: set[int], selection: Selection, store: Any, outcome: Outcome
) -> list[Any]:
    """What is copied as it is; which topics of pictures are not is noted in the outcome."""
    if not selection.copy:
        return []
    if selection.anonymise is None:
        return list(reader.connections)
    missing = set(selection.keep_pictures) - {each.topic for each in reader.connections}
    if missing:
        raise BagError(f"there is no topic {', '.join(sorted(missing))} to keep")
    copied = []
    for each in reader.connections:
        if each.id in images:
            if each.topic in selection.keep_pictures:
                raise BagError(f"{each.topic} is the topic that is anonymised, it cannot be kept")
        elif each.topic in selection.keep_pictures:
            copied.append(each)
        elif shows_pictures(each.msgtype, _definition(each, store)):
            outcome.left_out.append(each.topic)
        else:
            copied.append(each)
    outcome.left_out = sorted(set(outcome.left_out))
    return copied


class _Covering:
    """Writes the images with people covered, under their own topic and at their own times."""

    def __init__(self, writer: Any, store: Any, images: list[Any], outcome: Outcome) -> None:
        self._writer, self._store, self._outcome = writer, store, outcome
        self._connections = {each.id: _copied_connection(writer, each, store) for each in images}
        self._frames: WaitingFrames[tuple[Any, int, BagImage]] = WaitingFrames(int(WINDOW_S * 1e9))

    def add(self, connection: Any, log_ns: int, image: BagImage, covered: np.ndarray) -> None:
        for item, total in self._frames.add(log_ns, (connection, log_ns, image), covered):
            self._write(item, total)

    def finish(self) -> None:
        for item, total in self._frames.rest():
            self._write(item, total)

    def _write(self, item: tuple[Any, int, BagImage], covered: np.ndarray) -> None:
        connection, log_ns, image = item
        hidden = pixelated(image.image, covered)
        data = write_image(image.header, hidden, connection.msgtype, self._store)
        self._writer.write(self._connections[connection.id], log_ns, data)
        self._outcome.covered += 1


def _messages(
    reader: Any, chosen: list[Any], start: int | None, stop: int | None, outcome: Outcome
) -> Iterator[tuple[Any, int, bytes]]:
    """The messages of the chosen connections, by log time; up to where the bag is damaged."""
    if not chosen or not reader.message_count:
        return
    messages = reader.messages(chosen, start, stop)
    number = 0
    while True:
        try:
            message = next(messages)
        except StopIteration:
            return
        except Exception as error:  # see `_try_open`
            outcome.notes.append(
                f"the bag is damaged after message {number} ({error or type(error).__name__}): "
                "read up to there"
            )
            return
        number += 1
        yield message


class _Processing:
    """The loop and the tracker over one image topic."""

    def __init__(self, loop: BMPLoop, tracker: PersonTracker | None) -> None:
        self._loop, self._tracker = loop, tracker
        self._stamp_s = 0.0

    def __call__(self, image: BagImage, log_ns: int) -> tuple[People, np.ndarray]:
        """The people of an image, and the seconds (N,) since their tracks began, NaN without."""
        people, _ = self._loop.run(image.image)
        if self._tracker is None:
            return people, np.full(len(people), np.nan)
        if image.stamp_ns != 0:  # an image without a stamp is as late as the one before
            self._stamp_s = image.stamp_ns / 1e9
        tracked = self._tracker.update(
            people, self._stamp_s, image=image.image, arrival_s=log_ns / 1e9
        )
        report = self._tracker.report()
        known = dict(zip(report.ids.tolist(), report.ages.tolist(), strict=True))
        ages = [known.get(each, np.nan) for each in tracked.track_ids.tolist()]
        return tracked, np.array(ages, float)


# ---------------------------------------------------------------- bags


@contextmanager
def _opened(source: Path, notes: list[str]) -> Iterator[Any]:
    """A reader of rosbags, open. That a file was cut short is noted.

    The whole part of such a file is read as a copy in the system's folder for temporary files,
    not beside the new bag, where it would be taken for that.
    Raises BagError.
    """
    with ExitStack() as stack:
        yield _open(source, notes, stack)


def _open(source: Path, notes: list[str], stack: ExitStack) -> Any:
    rosbag2 = import_rosbags("rosbag2")
    if not source.exists():
        raise BagError(f"there is no bag {source}")
    path = _storage_file(source)
    reader, error = _try_open(rosbag2.Reader, path)
    if reader is None:
        files = sorted(path.glob("*.mcap")) if path.is_dir() else [path]
        left_out = None
        if len(files) == 1 and files[0].suffix == ".mcap":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bmp-bag-"))
            whole = Path(folder) / "recovered.mcap"
            left_out = recover(files[0], whole)
        if left_out is not None:
            reader, _ = _try_open(rosbag2.Reader, whole)
            notes.append(
                f"{files[0]} was cut short ({error}): read up to the break, {left_out} bytes at "
                "the end were left out"
            )
    if reader is None:
        raise BagError(
            f"{source} cannot be read as a rosbag2: {error}. Give the folder of a bag, a .mcap or "
            "a .db3; `ros2 bag reindex` mends folders"
        )
    stack.callback(reader.close)
    return reader


def _storage_file(source: Path) -> Path:
    """The bag itself, or the only file of a folder without metadata.yaml."""
    if source.is_dir() and not (source / "metadata.yaml").is_file():
        files = [*source.glob("*.mcap"), *source.glob("*.db3")]
        if len(files) == 1:
            return files[0]
    return source


def _try_open(kind: Any, path: Path) -> tuple[Any, str]:
    """An open reader, or None and why not: rosbags raises whatever a damaged byte leads to."""
    try:
        reader = kind(path)
        reader.open()
        _put_in_order(reader)
    except Exception as error:
        return None, str(error) or type(error).__name__
    return reader, ""


def _put_in_order(reader: Any) -> None:
    """Let files without an index be read by time: rosbags ends at the first message out of it."""
    for storage in (reader.storage, *getattr(reader.storage, "storages", ())):
        if hasattr(storage, "messages_scan") and not storage.chunks:
            scan = storage.messages_scan
            storage.messages = lambda *args, scan=scan: in_order(scan(*args))


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A folder beside the target that is gone in the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".bmp-bag-", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put(written: Path, target: Path) -> None:
    """Move a written bag to its place: the folder, or its only file for a .mcap."""
    if target.suffix == ".mcap":
        (file,) = written.glob("*.mcap")
        os.replace(file, target)
    else:
        os.replace(written, target)


def _span(reader: Any, selection: Selection) -> tuple[int | None, int | None]:
    """Start and end of what is used, log times in nanoseconds; None: that of the bag."""
    begin = reader.start_time + int(selection.start_s * 1e9)
    end = None
    if selection.duration_s is not None:
        end = begin + int(selection.duration_s * 1e9)
    return begin if selection.start_s else None, end


def _image_connections(reader: Any, source: Path, wanted: str | None) -> list[Any]:
    """The connections of the image topic; empty where the bag has no images."""
    kinds: dict[str, set[str]] = {}
    for each in reader.connections:
        kinds.setdefault(each.topic, set()).add(each.msgtype)
    pictures = {topic for topic, types in kinds.items() if types & {IMAGE, COMPRESSED}}
    if wanted is None:
        candidates = sorted(topic for topic in pictures if "depth" not in topic.lower())
        if len(candidates) > 1:
            raise BagError(
                f"{source} has several topics of images; choose one with --image: "
                f"{', '.join(candidates)}"
            )
        wanted = candidates[0] if candidates else None
    elif wanted not in pictures:
        there = ", ".join(sorted(pictures)) or "none"
        raise BagError(f"{source} has no images on {wanted!r}; topics of images: {there}")
    if wanted is None:
        return []
    if len(kinds[wanted]) > 1:
        raise BagError(
            f"{wanted} of {source} has messages of several types: "
            f"{', '.join(sorted(kinds[wanted]))}; split the recording"
        )
    return [each for each in reader.connections if each.topic == wanted]


def _copied_connection(writer: Any, origin: Any, store: Any) -> Any:
    """The same topic, type, definition and quality of service in the new bag.

    One for several that agree in topic, type and quality of service, as merged recordings have.
    """
    for known in writer.connections:
        if (known.topic, known.msgtype, known.ext) == (origin.topic, origin.msgtype, origin.ext):
            return known
    definition = _definition(origin, store)
    return writer.add_connection(
        origin.topic,
        origin.msgtype,
        msgdef=definition or "",
        rihs01=origin.digest or _hash_of(origin.msgtype, definition),
        serialization_format=origin.ext.serialization_format,
        offered_qos_profiles=origin.ext.offered_qos_profiles,
    )


def _definition(connection: Any, store: Any) -> str | None:
    """The type's definition; ours where the bag has none (.db3 of Humble), None if unknown.

    That of std_msgs/Empty is empty, and known.
    """
    definition = str(connection.msgdef.data)
    if connection.msgtype in store.types:
        return definition or str(store.generate_msgdef(connection.msgtype, ros_version=2)[0])
    return definition if definition.strip() else None


def _hash_of(kind: str, definition: str | None) -> str:
    """The type's hash, which a bare .mcap does not tell; zeros where it cannot be computed."""
    if definition is None:
        return _UNKNOWN_HASH
    typesys = import_rosbags("typesys")
    try:
        store = typesys.get_typestore(typesys.Stores.EMPTY)
        store.register(typesys.get_types_from_msg(definition, kind))
        return str(store.hash_rihs01(kind))
    except (
        Exception
    ):  # a definition that rosbags cannot parse; the messages are copied all the same
        return _UNKNOWN_HASH


def _poses_connection(writer: Any, store: Any) -> Any:
    """Reliable, volatile, the last five: what the node offers."""
    interfaces = import_rosbags("interfaces")
    lasting = interfaces.QosTime(0x7FFFFFFF, 0xFFFFFFFF)
    qos = interfaces.Qos(
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
    return writer.add_connection(POSES, PERSON_ARRAY, typestore=store, offered_qos_profiles=[qos])
