# SPDX-License-Identifier: Apache-2.0
"""A bag in, a bag out: every message copied byte for byte, and the people of every image added.

Nothing is replaced by something newer, as the node does with images that it has no time for: each
image is processed, one after the other, and the tracker takes its time from the stamps.
"""

from __future__ import annotations

import copy
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bmp_ros.bags.anonymise import shows_pictures
from bmp_ros.bags.depth_of_bag import DepthOfBag, DepthSelection, Lookahead
from bmp_ros.bags.files import (
    copied_connection,
    definition_of,
    is_compressed,
    opened,
    put_in_place,
    staged,
)
from bmp_ros.bags.messages import COMPRESSED, IMAGE, BagError, import_rosbags, type_store
from bmp_ros.bags.results import Covering, Results
from bmp_ros.covering import KINDS
from bmp_ros.loop import BMPLoop, People
from bmp_ros.pixels import ImageError

POSES = "/bmp/poses"
MOST_REASONS = 20
"""Different reasons that are told apart; more are counted together."""
_NAMESPACE = re.compile(r"(/[A-Za-z_][A-Za-z0-9_]*)+\Z")


Watch = Callable[[np.ndarray, People, float, Mapping[str, float]], object]
"""Is told of each image: the image as it was, its people, seconds since the start of the bag, and
milliseconds by stage."""


@dataclass(frozen=True)
class Selection:
    """What of a bag is used, and what is made of it.

    image: topic of the images; None: the only one that has some. start_s, duration_s: seconds of
    the bag's time; messages outside are not copied either. every: of the images, one in so many.
    copy: whether the bag's own messages are copied. anonymise: one of `covering.KINDS`: the
    images are written with people covered, under their own topic, and other topics that may show
    pictures are left out but those in keep_pictures; ``max_people`` does not count. None:
    everything is copied as it is. blur: cover with smooth colours rather than with cells. depth:
    where depth is, for people in space; None: without. smooth: also write smoothed joints.
    prefix: namespace of the results.
    """

    image: str | None = None
    start_s: float = 0.0
    duration_s: float | None = None
    every: int = 1
    copy: bool = True
    anonymise: str | None = None
    keep_pictures: tuple[str, ...] = ()
    blur: bool = False
    depth: DepthSelection | None = None
    smooth: bool = False
    prefix: str = "/bmp"


@dataclass
class Outcome:
    """images, people: processed and found. added: messages of results by topic and type. copied:
    messages by topic and type. covered: images that were written with people covered. left_out:
    topics that show pictures and were not copied. failures: images that could not be read or
    processed, by reason. without_depth: images with people but not in space, by reason.
    silent_depth: images whose people in space all are NaN, by reason. doubtful_depth: images whose
    depth may be of another view, by reason. seconds: that the work on images took. bag_seconds:
    that the messages span. image_topic: None where the bag has none. notes: what is wrong with the
    bag."""

    image_topic: str | None
    images: int = 0
    people: int = 0
    added: Counter[tuple[str, str]] = field(default_factory=Counter)
    copied: Counter[tuple[str, str]] = field(default_factory=Counter)
    covered: int = 0
    left_out: list[str] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    without_depth: dict[str, int] = field(default_factory=dict)
    silent_depth: dict[str, int] = field(default_factory=dict)
    doubtful_depth: dict[str, int] = field(default_factory=dict)
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
    expect: Callable[[int], object] = lambda count: None,
    watch: Watch | None = None,
) -> Outcome:
    """Write the bag ``target``: what is in ``source``, and the people of its images.

    source: a folder, a .mcap or a .db3. target: a folder, or a .mcap; it must not exist. It
    appears when it is complete: whatever ends the work before leaves nothing. advance: called with
    the number of messages read since. expect: called once, with how many there are if all of the
    bag is used and whole. watch: see `Watch`.
    Raises BagError for bags that cannot be read, topics that are not there, and a target that is
    there already.
    """
    _check(selection, source, target)
    notes: list[str] = []
    if selection.anonymise is not None:
        loop = copy.copy(loop)  # the caller's settings stay as they are
        loop.settings = replace(loop.settings, max_people=1000)
    with staged(target) as folder, opened(source, notes) as reader:
        images = _image_connections(reader, source, selection.image)
        outcome = Outcome(images[0].topic if images else None, notes=notes)
        rosbag2 = import_rosbags("rosbag2")
        store = type_store()
        written = folder / target.stem
        writer = rosbag2.Writer(written, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP)
        if is_compressed(reader):
            writer.set_compression(rosbag2.CompressionMode.STORAGE, rosbag2.CompressionFormat.ZSTD)
        with writer:
            run = _Run(reader, writer, store, images, selection, outcome, str(source), watch)
            expect(run.expected)
            run.process(loop, track, advance)
        put_in_place(written, target)
    return outcome


def _check(selection: Selection, source: Path, target: Path) -> None:
    if selection.anonymise is not None and (
        selection.anonymise not in KINDS or selection.every != 1 or not selection.copy
    ):
        raise BagError(
            f"anonymise is {selection.anonymise!r}, allowed: {', '.join(KINDS)}, for every image "
            "(every 1) of a bag that is copied"
        )
    if not _NAMESPACE.match(selection.prefix):
        raise BagError(
            f"prefix is {selection.prefix!r}, must be a namespace such as /bmp or /robot/bmp"
        )
    if os.path.lexists(target):
        raise BagError(f"{target} is there already: nothing is overwritten; choose another name")
    if target.suffix.lower() in (".db3", ".bag"):
        raise BagError(f"{target}: bags are written as MCAP; name a .mcap, or a folder")
    if source.is_dir() and source.resolve() in target.resolve().parents:
        raise BagError(
            f"{target} is in the folder of the bag that is read, {source}, which would no longer "
            "be one bag; choose another place"
        )


class _Run:
    """One bag on its way into another; used once."""

    def __init__(
        self,
        reader: Any,
        writer: Any,
        store: Any,
        images: list[Any],
        selection: Selection,
        outcome: Outcome,
        source: str,
        watch: Watch | None,
    ) -> None:
        self._watch = watch
        self._reader, self._writer, self._store = reader, writer, store
        self._selection, self._outcome = selection, outcome
        self._wanted = {each.id for each in images}
        copied = _copied_connections(reader, self._wanted, selection, store, outcome)
        self._copies = {each.id: copied_connection(writer, each, store) for each in copied}
        self._depth = None
        if selection.depth is not None and images:
            self._depth = DepthOfBag(reader, store, images[0].topic, selection.depth, source)
        self._results = None
        if images:
            self._results = Results(
                writer,
                store,
                selection.prefix,
                in_space=self._depth is not None,
                smooth=selection.smooth,
            )
            there = {each.topic for each in copied} & set(self._results.topics)
            if there:
                raise BagError(
                    f"{source} has a topic {', '.join(sorted(there))} already: it was processed "
                    "before, or the node was recorded; choose another --prefix for the results"
                )
        self._covering = None
        if selection.anonymise and images:
            self._covering = Covering(
                writer, store, images, selection.anonymise, blur=selection.blur
            )

    def process(self, loop: BMPLoop, track: bool, advance: Callable[[int], object]) -> None:
        outcome, selection = self._outcome, self._selection
        start, stop = _span(self._reader, selection)
        if self._depth is not None:
            self._depth.begin(self._reader, start)
        if self._results is not None:
            self._results.begin(loop, track=track)
        messages = Lookahead(
            _messages(self._reader, self._chosen(), start, stop, outcome),
            self._depth.notice if self._depth is not None else lambda connection, data: None,
        )
        count, first_ns, last_ns = 0, None, 0
        for connection, log_ns, data in messages:
            advance(1)
            first_ns, last_ns = log_ns if first_ns is None else first_ns, max(last_ns, log_ns)
            if connection.id in self._copies:
                self._writer.write(self._copies[connection.id], log_ns, data)
                outcome.copied[connection.topic, connection.msgtype] += 1
            if connection.id not in self._wanted:
                continue
            count += 1
            if (count - 1) % selection.every == 0:
                begun = time.perf_counter()
                self._image(connection, log_ns, bytes(data), messages)
                outcome.seconds += time.perf_counter() - begun
        if self._covering is not None:
            self._covering.finish()
            outcome.covered = self._covering.count
        if self._results is not None:
            outcome.added = self._results.written
        if first_ns is not None:
            outcome.bag_seconds = (last_ns - first_ns) / 1e9

    @property
    def expected(self) -> int:
        """Messages to read, if all of the bag is used and whole."""
        return sum(each.msgcount for each in self._chosen())

    def _chosen(self) -> list[Any]:
        needed = set(self._copies) | self._wanted
        if self._depth is not None:
            needed |= {each.id for each in self._depth.connections}
        return [each for each in self._reader.connections if each.id in needed]

    def _image(self, connection: Any, log_ns: int, data: bytes, messages: Lookahead) -> None:
        """Process one image; a failure costs its result only, and is counted."""
        results, outcome = self._results, self._outcome
        assert results is not None
        try:
            image = results.read(data, connection.msgtype, log_ns, self._depth)
            found = results.find(image, log_ns)
            cover = self._covering.patches(found) if self._covering is not None else None
        except Exception as error:  # what networks raise depends on what runs them
            _count(outcome.failures, _reason(error))
            return
        problem = results.write(image.header, log_ns, found, self._depth, messages)
        if problem:
            _count(outcome.without_depth, problem)
        elif self._depth is not None and self._depth.silence:
            _count(outcome.silent_depth, self._depth.silence)
        elif self._depth is not None and self._depth.doubt:
            _count(outcome.doubtful_depth, self._depth.doubt)
        if self._covering is not None and cover is not None:
            self._covering.add(connection, log_ns, image, found, cover)
        outcome.images += 1
        outcome.people += len(found.people)
        if self._watch is not None:
            seconds = (log_ns - self._reader.start_time) / 1e9
            self._watch(image.image, found.people, seconds, results.times_ms)


def _count(reasons: dict[str, int], reason: str) -> None:
    if reason not in reasons and len(reasons) >= MOST_REASONS:
        reason = "other reasons"
    reasons[reason] = reasons.get(reason, 0) + 1


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
        elif shows_pictures(each.msgtype, definition_of(each, store)):
            outcome.left_out.append(each.topic)
        else:
            copied.append(each)
    outcome.left_out = sorted(set(outcome.left_out))
    return copied


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
        except Exception as error:  # rosbags raises whatever a damaged byte leads to
            outcome.notes.append(
                f"the bag is damaged after message {number} ({error or type(error).__name__}): "
                "read up to there"
            )
            return
        number += 1
        yield message


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
