# SPDX-License-Identifier: Apache-2.0
"""Run the loop over images and videos and write what was asked for, one frame at a time."""

from __future__ import annotations

import sys
from collections.abc import (
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from bmp_ros.drawing import draw_people
from bmp_ros.image_files import (
    UnreadableImageError,
    UnwritableImageError,
    read_image,
    shown_name,
    write_image,
)
from bmp_ros.loop import BMPLoop, People
from bmp_ros.loop.protocols import Detections
from bmp_ros.loop.trace import Trace
from bmp_ros.offline.ahead import ahead
from bmp_ros.offline.box_file import BoxFile, BoxFileError
from bmp_ros.offline.gif import import_pillow, write_gif
from bmp_ros.offline.mot_file import MotFile
from bmp_ros.offline.results_file import ResultsFile
from bmp_ros.offline.sources import ImageSource, Source, VideoSource
from bmp_ros.offline.stages import stage_pictures
from bmp_ros.offline.video import UnreadableVideoError, VideoFile, VideoFrames
from bmp_ros.tracking import Keyframes, PersonTracker

RESULTS_NAME = "results.json"
IMAGES_MOT_NAME = "images.txt"
_NOTHING = np.zeros((0, 0, 3), np.uint8)
Watch = Callable[[np.ndarray, People, float, Mapping[str, float], str, str], object]
"""Is told of each image: the image, its people, seconds, milliseconds by stage, the name of the
video (empty for images), and what it is called."""


@dataclass(frozen=True)
class Wanted:
    """What to write.

    draw: images with boxes, masks and keypoints, each unless False. json: results. gif: stages.
    mot: tracks as MOTChallenge's text, one file per video and one of all images.
    """

    draw: bool = True
    boxes: bool = True
    masks: bool = True
    keypoints: bool = True
    json: bool = False
    gif: bool = False
    mot: bool = False

    def outputs(self, source: Source) -> list[str]:
        """Names of the files that come of a source, without the one that all share."""
        names = [source.drawn_name] * self.draw + [f"{source.stem}.gif"] * self.gif
        video = isinstance(source, VideoSource)
        return names + [f"{source.stem}.txt"] * (self.mot and video)


class NetworksFailedError(RuntimeError):
    """The networks fail on an image, such as one that is too large for their memory."""


@dataclass
class Outcome:
    """images, frames (of videos), people: processed and found. failures: one line per file that
    could not be read to its end, notes: one per file that was written otherwise than asked."""

    images: int = 0
    frames: int = 0
    people: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def infer(
    loop: BMPLoop,
    sources: Sequence[Source],
    output: Path,
    wanted: Wanted,
    *,
    count: int | None = None,
    info: dict[str, Any] | None = None,
    progress: bool = False,
    tracker: PersonTracker | None = None,
    keyframes: Keyframes | None = None,
    rate: float | None = None,
    boxes: BoxFile | None = None,
    boxes_missing: str = "detector",
    watch: Watch | None = None,
    at_once: int = 1,
) -> Outcome:
    """Process every source in turn and write into the folder ``output``, which is made.

    Drawn images keep their names, drawn videos become MP4; results of all go to ``results.json``
    (see `ResultsFile`; ``info`` is kept in it); ``NAME.gif`` shows the stages of an image, of a
    video those of the frame with the most people. count: stop after so many images and frames.
    progress: draw a bar on stderr. tracker: gives ids, anew in every video; images are one
    sequence of ``rate`` hertz, in the order of their names. keyframes: on which of the tracked
    images the detector runs; on all without it, with ``boxes`` and with ``wanted.gif``.
    boxes: take the detector's place, in one iteration (`BMPLoop`). boxes_missing: what an image
    that they say nothing of gets: the ``detector``, or ``skip``: nobody is found in it.
    watch: see `Watch`. at_once: images that pass the networks at a time, while the next one is
    read and earlier ones are written; with ``keyframes`` they pass one by one.

    Files that cannot be read, or on which the networks fail, are told in the outcome and skipped;
    of a video the frames on which they fail. Raises ValueError before any
    work when an output would overwrite an input or another output, when images are to be tracked
    and nothing says how fast they follow each other, and when no box belongs to any source.
    """
    if boxes is not None:
        _refuse_foreign_boxes(boxes, sources)
    if tracker is not None and rate is None:
        _refuse_images(sources)
    if wanted.gif:
        import_pillow()
    output.mkdir(parents=True, exist_ok=True)
    inputs = _identities(sources)
    names = _refuse_to_overwrite(sources, inputs, output, wanted)
    with ExitStack() as stack:
        results = None
        if wanted.json:
            path, skeleton = output / RESULTS_NAME, loop.pose_estimator.skeleton
            results = stack.enter_context(ResultsFile(path, skeleton, info or {}))
        advance = stack.enter_context(_progress_bar(sources, count, progress))
        images_mot = None
        if wanted.mot and any(isinstance(source, ImageSource) for source in sources):
            images_mot = stack.enter_context(MotFile(output / IMAGES_MOT_NAME))
        work = _Work(
            loop, output, wanted, results, count, advance, inputs, names, tracker, rate,
            images_mot, keyframes=keyframes, boxes=boxes, boxes_missing=boxes_missing,
            watch=watch, at_once=at_once if keyframes is None else 0,
        )  # fmt: skip
        for images, group in groupby(sources, lambda each: isinstance(each, ImageSource)):
            (work.images if images else work.videos)(group)
    work.tell_of_boxes()
    return work.outcome


@dataclass(frozen=True)
class _Item:
    """An image on its way. number: of a video's frame, or among the images. known: boxes of
    another program; without_boxes: it says nothing of this image. problem: why it was not read."""

    source: Source
    image: np.ndarray
    seconds: float
    number: int
    known: Detections | None = None
    without_boxes: bool = False
    problem: Exception | None = None


@dataclass(frozen=True)
class _Found:
    """What the loop found in an image."""

    people: People
    times_ms: Mapping[str, float]
    trace: Trace | None


@dataclass
class _Work:
    loop: BMPLoop
    output: Path
    wanted: Wanted
    results: ResultsFile | None
    count: int | None
    advance: Callable[[], object]
    inputs: Mapping[tuple[int, int], Path]
    reserved: Collection[str]
    tracker: PersonTracker | None = None
    rate: float | None = None
    images_mot: MotFile | None = None
    keyframes: Keyframes | None = None
    boxes: BoxFile | None = None
    boxes_missing: str = "detector"
    watch: Watch | None = None
    at_once: int = 1
    without_boxes: list[str] = field(default_factory=list)
    images_read: int = 0
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def done(self) -> bool:
        processed = self.outcome.images + self.outcome.frames
        return self.count is not None and processed >= self.count

    def _answers(
        self, items: Iterator[_Item]
    ) -> Generator[tuple[_Item, Callable[[], _Found]], None, None]:
        """Items and what the loop finds in them, no more than are still to be processed."""
        more = True
        while more and not self.done:
            # In portions, since an image that fails does not count.
            processed = self.outcome.images + self.outcome.frames
            left = None if self.count is None else self.count - processed
            more = False
            with closing(ahead(islice(items, left), self._find, self.at_once)) as answers:
                for each in answers:
                    more = True
                    yield each

    def images(self, sources: Iterable[Source]) -> None:
        """All images, in turn."""
        with closing(self._answers(self._read_images(sources))) as answers:
            for item, answer in answers:
                with self._failures_told(item.source):
                    self._image(item, answer)

    def _read_images(self, sources: Iterable[Source]) -> Iterator[_Item]:
        for source in sources:
            assert isinstance(source, ImageSource)
            number = self.images_read  # a file that cannot be read has its time all the same
            self.images_read += 1
            seconds = number / (self.rate or 1.0)
            try:
                image = read_image(source.path)
                yield self._item(source, image, seconds, number)
            except Exception as error:
                yield _Item(source, _NOTHING, seconds, number, problem=error)

    def _image(self, item: _Item, answer: Callable[[], _Found]) -> None:
        source, image = item.source, item.image
        assert isinstance(source, ImageSource)
        self._note_boxes(item)
        try:
            found = answer()
        except NetworksFailedError as error:
            raise NetworksFailedError(
                f"{shown_name(source.path)}: the networks failed: {error}"
            ) from error
        people = self._tracked(item, found)
        if self.wanted.draw:
            self._write(source, self._drawn(image, people))
        if found.trace is not None:
            write_gif(self.output / f"{source.stem}.gif", list(stage_pictures(image, found.trace)))
        self._tell(item, people, found, "", source.name)
        self._keep(people, source.name)
        if self.images_mot is not None:
            self.images_mot.add(people, item.number)
        self.outcome.images += 1

    def videos(self, sources: Iterable[Source]) -> None:
        """All videos, in turn."""
        for source in sources:
            if self.done:
                break
            assert isinstance(source, VideoSource)
            with self._failures_told(source):
                self._video(source)

    def _video(self, source: VideoSource) -> None:
        fullest: tuple[np.ndarray, Trace] | None = None
        broken: str | None = None
        failed, failures = "", 0
        with ExitStack() as stack:
            stack.enter_context(self._tracked_apart())
            video = stack.enter_context(VideoFrames(source.path))
            stack.enter_context(_interruptible(source))
            writer = mot = None
            if self.wanted.mot:
                mot = stack.enter_context(MotFile(self.output / f"{source.stem}.txt"))
            fps = video.steady_fps if self.wanted.draw else video.fps
            answers = self._answers(self._read_frames(source, video))
            stack.enter_context(closing(answers))
            try:
                for item, answer in answers:
                    image = item.image
                    self._note_boxes(item)
                    try:
                        found = answer()
                    except NetworksFailedError as error:
                        failed = failed or str(error)
                        failures += 1
                        self.advance()
                        continue
                    people = self._tracked(item, found)
                    if mot is not None:
                        mot.add(people, item.number)
                    if self.wanted.draw:
                        if writer is None:
                            height, width = image.shape[:2]
                            path = self.output / source.drawn_name
                            writer = VideoFile(path, fps, width, height)
                            stack.callback(writer.close)
                        writer.write(self._drawn(image, people), item.seconds)
                    if found.trace is not None and (
                        fullest is None or len(people) > len(fullest[1].people)
                    ):
                        fullest = image, found.trace
                    label = f"{source.name}, {item.seconds:.2f} s"
                    self._tell(item, people, found, source.name, label)
                    facts = {"frame": item.number, "seconds": round(item.seconds, 4)}
                    self._keep(people, source.name, **facts)
                    self.outcome.frames += 1
            except UnreadableVideoError as error:
                broken = str(error)
            if broken is None and not self.done and not isinstance(source.path, int):
                broken = video.broken()
        if fullest is not None:
            write_gif(self.output / f"{source.stem}.gif", list(stage_pictures(*fullest)))
        if failures:
            self.outcome.failures.append(
                f"{source.name}: {failures} frames have no result: the networks failed: {failed}"
            )
        if broken is not None:
            raise UnreadableVideoError(broken)

    def _read_frames(self, source: VideoSource, video: VideoFrames) -> Iterator[_Item]:
        for image in video:
            yield self._item(source, image, video.seconds, video.read - 1)

    @contextmanager
    def _failures_told(self, source: Source) -> Iterator[None]:
        """A file that cannot be read, or on which the networks fail, does not end the others."""
        try:
            yield
        except (
            UnreadableImageError, UnreadableVideoError, UnwritableImageError, BoxFileError,
            NetworksFailedError,
        ) as error:  # fmt: skip
            self.outcome.failures.append(str(error))
        except OSError as error:
            # Of the file that is read, such as one without permission; not a full disk.
            if not isinstance(source.path, Path) or not _is_about(error, source.path):
                raise
            self.outcome.failures.append(f"{shown_name(source.path)}: {error.strerror}")

    @contextmanager
    def _tracked_apart(self) -> Iterator[None]:
        """Know nobody at first, and in the end those whom the images before a video showed."""
        tracker, keyframes = self.tracker, self.keyframes
        if tracker is None:
            yield
            return
        before = tracker.save()
        tracker.reset()
        if keyframes is not None:
            keyframes.reset()
        try:
            yield
        finally:
            tracker.restore(before)
            if keyframes is not None:
                keyframes.reset()

    def _write(self, source: ImageSource, drawn: np.ndarray) -> None:
        """Under the image's name, or as a PNG where its format cannot hold it."""
        try:
            write_image(self.output / source.drawn_name, drawn)
        except UnwritableImageError as error:
            path = self.output / f"{source.drawn_name}.png"
            if path.name in self.reserved or _is_input(path, self.inputs):
                raise
            write_image(path, drawn)
            self.outcome.notes.append(f"{error}; written as {shown_name(path.name)}")

    def _item(self, source: Source, image: np.ndarray, seconds: float, number: int) -> _Item:
        """An image with the boxes that are known of it; without them, the detector is to look."""
        if self.boxes is None or not isinstance(source.path, Path):
            return _Item(source, image, seconds, number)
        height, width = image.shape[:2]
        frame = number if isinstance(source, VideoSource) else None
        known = self.boxes.of(source.path, height, width, frame)
        missing = known is None
        if known is None and self.boxes_missing == "skip":
            known = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        return _Item(source, image, seconds, number, known, missing)

    def _note_boxes(self, item: _Item) -> None:
        if item.without_boxes:
            name, video = item.source.name, isinstance(item.source, VideoSource)
            self.without_boxes.append(f"{name}, frame {item.number}" if video else name)

    def tell_of_boxes(self) -> None:
        """Note, once each, images without boxes and boxes without images."""
        if self.boxes is None:
            return
        name, missing, left = shown_name(self.boxes.path), self.without_boxes, []
        if not self.done:
            left = self.boxes.not_asked_for()
        if missing:
            what = "nobody was looked for" if self.boxes_missing == "skip" else "the detector ran"
            self.outcome.notes.append(
                f"{name} has no boxes of {len(missing)} images (first {missing[0]}): {what} there"
            )
        if left:
            self.outcome.notes.append(
                f"{name} has boxes of {len(left)} images that are not among the sources (first "
                f"{left[0]}): left out"
            )
        if self.boxes.other_classes:
            self.outcome.notes.append(
                f"{name} has {self.boxes.other_classes} entries of other classes than person: "
                "left out"
            )

    def _find(self, item: _Item) -> _Found:
        """The people of an image, without ids; several threads do this at a time.

        Raises NetworksFailedError.
        """
        tracker, keyframes = self.tracker, self.keyframes
        if item.problem is not None:
            raise item.problem
        try:
            if self.wanted.gif:
                trace = self.loop.trace(item.image, item.known)
                return _Found(trace.people, trace.report.stage_ms, trace)
            if tracker is None or keyframes is None or self.boxes is not None:
                people, report = self.loop.run(item.image, item.known)
            else:
                people, report = keyframes.find(self.loop, tracker, item.image, item.seconds)
        except AssertionError:  # a fault of this program, not of the image
            raise
        except Exception as error:  # what networks raise depends on what runs them
            first, _, _ = str(error).strip().partition("\n")
            raise NetworksFailedError(f"{type(error).__name__}: {first[:300]}") from error
        return _Found(people, report.stage_ms, None)

    def _tracked(self, item: _Item, found: _Found) -> People:
        """The people with ids, where those are wanted: one image after the other."""
        if self.tracker is None:
            return found.people
        people = self.tracker.update(found.people, item.seconds, image=item.image)
        if self.keyframes is not None:
            self.keyframes.remember(people, item.image, item.seconds)
        return people

    def _tell(self, item: _Item, people: People, found: _Found, sequence: str, label: str) -> None:
        if self.watch is not None:
            self.watch(item.image, people, item.seconds, found.times_ms, sequence, label)

    def _drawn(self, image: np.ndarray, people: People) -> np.ndarray:
        wanted = self.wanted
        return draw_people(
            image, people, boxes=wanted.boxes, masks=wanted.masks, keypoints=wanted.keypoints
        )

    def _keep(self, people: People, file_name: str, **facts: Any) -> None:
        if self.results is not None:
            self.results.add(people, file_name, **facts)
        self.outcome.people += len(people)
        self.advance()


def _refuse_images(sources: Sequence[Source]) -> None:
    images = [source for source in sources if isinstance(source, ImageSource)]
    if images:
        raise ValueError(
            f"{shown_name(images[0].path)} is an image, and images have no times: tracking needs "
            "to know how fast they follow each other; give --rate in images per second"
        )


def _refuse_foreign_boxes(boxes: BoxFile, sources: Sequence[Source]) -> None:
    files = [source.path for source in sources if isinstance(source.path, Path)]
    if not files:
        raise ValueError(
            f"{shown_name(boxes.path)}: boxes belong to files, and the source is a camera or a "
            "stream"
        )
    if not any(boxes.knows(path) for path in files):
        raise ValueError(
            f"{shown_name(boxes.path)} has no boxes of {shown_name(files[0])} or any other "
            "source: its `file_name` or `image_id` must be names of these files (docs/offline.md)"
        )


def _identities(sources: Sequence[Source]) -> dict[tuple[int, int], Path]:
    """The files that are read, by device and number: links and other spellings are the same."""
    return {
        _identity(source.path): source.path
        for source in sources
        if isinstance(source.path, Path) and source.path.is_file()
    }


def _refuse_to_overwrite(
    sources: Sequence[Source],
    inputs: Mapping[tuple[int, int], Path],
    output: Path,
    wanted: Wanted,
) -> list[str]:
    """Names of everything that will be written."""
    names = [name for source in sources for name in wanted.outputs(source)]
    names += [RESULTS_NAME] * wanted.json
    if wanted.mot and any(isinstance(source, ImageSource) for source in sources):
        names.append(IMAGES_MOT_NAME)
    for path in (output / name for name in names):
        if _is_input(path, inputs):
            raise ValueError(
                f"{shown_name(path)} is the input {shown_name(inputs[_identity(path)])} itself "
                "and would be overwritten; choose another --output"
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"two inputs would both be written to {shown_name(output / twice[0])}; process them "
            "one by one"
        )
    return names


def _is_input(path: Path, inputs: Mapping[tuple[int, int], Path]) -> bool:
    return path.exists() and _identity(path) in inputs


def _is_about(error: OSError, path: Path) -> bool:
    return isinstance(error.filename, str | Path) and Path(error.filename) == path


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino


@contextmanager
def _interruptible(source: VideoSource) -> Iterator[None]:
    """A camera or stream has no end: Ctrl-C is how one ends it, not a failure."""
    try:
        yield
    except KeyboardInterrupt:
        if not source.live:
            raise


@contextmanager
def _progress_bar(
    sources: Sequence[Source], count: int | None, wanted: bool
) -> Iterator[Callable[[], object]]:
    """Count images and frames on stderr, where that is a terminal and tqdm is installed."""
    bar: AbstractContextManager[Any] = nullcontext()
    if wanted and sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ImportError:
            pass
        else:
            lengths = [source.length() for source in sources]
            known = [length for length in lengths if length is not None]
            total = sum(known) if len(known) == len(lengths) else None
            if count is not None:
                total = count if total is None else min(count, total)
            bar = tqdm(desc="processing", total=total, unit="frame")
    with bar as drawn:
        yield (lambda: None) if drawn is None else drawn.update
