# SPDX-License-Identifier: Apache-2.0
"""Run the loop over images and videos and write what was asked for, one frame at a time."""

from __future__ import annotations

import errno
import sys
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from bmp_ros.drawing import draw_people
from bmp_ros.image_files import (
    UnreadableImageError,
    UnwritableImageError,
    shown_name,
    write_image,
)
from bmp_ros.loop import BMPLoop, People
from bmp_ros.loop.trace import Trace
from bmp_ros.offline.box_file import BoxFile, BoxFileError
from bmp_ros.offline.checks import (
    identities,
    is_input,
    refuse_foreign_boxes,
    refuse_images,
    refuse_to_overwrite,
)
from bmp_ros.offline.finding import Finder, Found, Item, NetworksFailedError
from bmp_ros.offline.gif import import_pillow, write_gif
from bmp_ros.offline.mot_file import MotFile
from bmp_ros.offline.results_file import ResultsFile
from bmp_ros.offline.sources import ImageSource, Source, VideoSource
from bmp_ros.offline.stages import stage_pictures
from bmp_ros.offline.video import UnreadableVideoError, VideoFile, VideoFrames
from bmp_ros.tracking import Keyframes, PersonTracker

RESULTS_NAME = "results.json"
IMAGES_MOT_NAME = "images.txt"
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
    outcome: Outcome | None = None,
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
    read and earlier ones are written; with ``keyframes`` they pass one by one. outcome: is kept up
    to date and returned, for those who tell of it after an interruption.

    Files that cannot be read, or on which the networks fail, are told in the outcome and skipped;
    of a video the frames on which they fail. Raises ValueError before any
    work when an output would overwrite an input or another output, when images are to be tracked
    and nothing says how fast they follow each other, and when no box belongs to any source.
    """
    if boxes is not None:
        refuse_foreign_boxes(boxes, sources)
    if tracker is not None and rate is None:
        refuse_images(sources)
    if wanted.gif:
        import_pillow()
    output.mkdir(parents=True, exist_ok=True)
    inputs = identities(sources) | ({} if boxes is None else identities([boxes]))
    names = _names_of_outputs(sources, wanted)
    refuse_to_overwrite(names, inputs, output)
    with ExitStack() as stack:
        results = None
        if wanted.json:
            path, skeleton = output / RESULTS_NAME, loop.pose_estimator.skeleton
            results = stack.enter_context(ResultsFile(path, skeleton, info or {}))
        advance = stack.enter_context(_progress_bar(sources, count, progress))
        images_mot = None
        if wanted.mot and any(isinstance(source, ImageSource) for source in sources):
            images_mot = stack.enter_context(MotFile(output / IMAGES_MOT_NAME))
        finder = Finder(
            loop, wanted.gif, tracker, rate, keyframes, boxes, boxes_missing,
            at_once if keyframes is None else 0,
        )  # fmt: skip
        work = _Work(
            finder, output, wanted, results, count, advance, inputs, names, images_mot, watch,
            outcome or Outcome(),
        )  # fmt: skip
        for images, group in groupby(sources, lambda each: isinstance(each, ImageSource)):
            (work.images if images else work.videos)(group)
    work.outcome.notes += finder.notes(left_out=not work.done)
    return work.outcome


def _names_of_outputs(sources: Sequence[Source], wanted: Wanted) -> list[str]:
    """Names of everything that will be written."""
    names = [name for source in sources for name in wanted.outputs(source)]
    names += [RESULTS_NAME] * wanted.json
    if wanted.mot and any(isinstance(source, ImageSource) for source in sources):
        names.append(IMAGES_MOT_NAME)
    return names


@dataclass
class _Work:
    """Writes what the finder finds. inputs, reserved: files and names not to be overwritten."""

    finder: Finder
    output: Path
    wanted: Wanted
    results: ResultsFile | None
    count: int | None
    advance: Callable[[], object]
    inputs: Mapping[tuple[int, int], Path]
    reserved: Collection[str]
    images_mot: MotFile | None = None
    watch: Watch | None = None
    outcome: Outcome = field(default_factory=Outcome)

    def left(self) -> int | None:
        """How many images and frames are still to be processed; None: all there are."""
        processed = self.outcome.images + self.outcome.frames
        return None if self.count is None else self.count - processed

    @property
    def done(self) -> bool:
        left = self.left()
        return left is not None and left <= 0

    def images(self, sources: Iterable[Source]) -> None:
        """All images, in turn."""
        with closing(self.finder.found(self.finder.images(sources), self.left)) as answers:
            for item, answer in answers:
                with self._failures_told(item.source):
                    self._image(item, answer)

    def _image(self, item: Item, answer: Callable[[], Found]) -> None:
        source, image = item.source, item.image
        assert isinstance(source, ImageSource)
        try:
            found = answer()
        except NetworksFailedError as error:
            raise NetworksFailedError(
                f"{shown_name(source.path)}: the networks failed: {error}"
            ) from error
        people = self.finder.tracked(item, found)
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
            stack.enter_context(self.finder.tracked_apart())
            video = stack.enter_context(VideoFrames(source.path))
            stack.enter_context(_interruptible(source))
            writer = mot = None
            if self.wanted.mot:
                mot = stack.enter_context(MotFile(self.output / f"{source.stem}.txt"))
            fps = video.steady_fps if self.wanted.draw else video.fps
            answers = self.finder.found(self.finder.frames(source, video), self.left)
            stack.enter_context(closing(answers))
            try:
                for item, answer in answers:
                    image = item.image
                    try:
                        found = answer()
                    except NetworksFailedError as error:
                        failed = failed or str(error)
                        failures += 1
                        self.advance()
                        continue
                    people = self.finder.tracked(item, found)
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
            if error.errno == errno.ENAMETOOLONG:  # of an output, which has a longer name
                self.outcome.failures.append(
                    f"{source.name}: its outputs would have names that are too long for the file "
                    "system; give it a shorter one"
                )
                return
            # Of the file that is read, such as one without permission; not a full disk.
            if not isinstance(source.path, Path) or not _is_about(error, source.path):
                raise
            self.outcome.failures.append(f"{shown_name(source.path)}: {error.strerror}")

    def _write(self, source: ImageSource, drawn: np.ndarray) -> None:
        """Under the image's name, or as a PNG where its format cannot hold it."""
        try:
            write_image(self.output / source.drawn_name, drawn)
        except UnwritableImageError as error:
            path = self.output / f"{source.drawn_name}.png"
            if path.name in self.reserved or is_input(path, self.inputs):
                raise
            write_image(path, drawn)
            self.outcome.notes.append(f"{error}; written as {shown_name(path.name)}")

    def _tell(self, item: Item, people: People, found: Found, sequence: str, label: str) -> None:
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


def _is_about(error: OSError, path: Path) -> bool:
    return isinstance(error.filename, str | Path) and Path(error.filename) == path


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
