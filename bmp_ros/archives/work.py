# SPDX-License-Identifier: Apache-2.0
"""One file of an archive: what `bmp infer` or `bmp bag` makes of it, in place when complete."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from bmp_ros.archives.files import BAG, IMAGE, VIDEO, ArchiveFile
from bmp_ros.bags.files import BagError
from bmp_ros.bags.process import Selection, process_bag
from bmp_ros.engines import build_loop
from bmp_ros.image_files import shown_name
from bmp_ros.loop import BMPLoop
from bmp_ros.offline.infer_files import Wanted, infer
from bmp_ros.offline.sources import ImageSource, VideoSource
from bmp_ros.tracking import PersonTracker

DONE_NAME = "done.json"
STAGE_NAME = ".in_progress"
BAG_NAME = "people.mcap"


@dataclass(frozen=True)
class Orders:
    """What is made of every file, and by which networks; travels to the workers.

    build, options: a function and its arguments that make the loop, `build_loop`'s by default.
    device: see `build_loop`; auto and cuda take the machine's GPUs in turns. wanted: of images and
    videos. track: ids in videos and bags. image_topic, copy_bags: see `bags.process.Selection`.
    info: kept in every results.json.
    """

    options: Mapping[str, Any]
    device: str = "auto"
    wanted: Wanted = field(default_factory=Wanted)
    track: bool = False
    image_topic: str | None = None
    copy_bags: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)
    build: Callable[..., BMPLoop] = build_loop

    def fingerprint(self) -> str:
        """The same for the same outputs: where it computes is left out."""
        known = {**asdict(self), "device": "", "build": self.build.__qualname__}
        text = json.dumps(known, sort_keys=True, default=str)
        return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True)
class FileReport:
    """What came of one file; kept as `DONE_NAME` beside its outputs.

    images: and frames of videos. failures: why it was not read to its end, or images that have no
    result; notes: what is otherwise than asked. seconds: that it took. source_bytes,
    source_changed_ns: of the file. orders: `Orders.fingerprint`.
    """

    name: str
    kind: str
    images: int
    people: int
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float
    source_bytes: int
    source_changed_ns: int
    orders: str


def process_file(loop: BMPLoop, file: ArchiveFile, orders: Orders, output: Path) -> FileReport:
    """Write the folder ``output / file.name``; it appears when all of it is on disk.

    What cannot be read to its end is told in the report. Raises what says that the work as such
    failed: a full disk, the networks, a bag that is no bag.
    """
    stage = stage_of(output, file)
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    try:
        begun = time.perf_counter()
        images, people, failures, notes = _MAKERS[file.kind](loop, file, orders, stage)
        report = FileReport(
            file.name, file.kind, images, people, tuple(failures), tuple(notes),
            round(time.perf_counter() - begun, 3), file.bytes, file.changed_ns,
            orders.fingerprint(),
        )  # fmt: skip
        document = json.dumps(asdict(report), indent=2)
        (stage / DONE_NAME).write_text(
            document + "\n", encoding="utf-8", errors="backslashreplace"
        )
        _put_in_place(stage, output / file.name)
        return report
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def read_report(folder: Path) -> FileReport | None:
    """The report of a file that is done; None where there is none."""
    try:
        document = json.loads((folder / DONE_NAME).read_text(encoding="utf-8"))
        document["failures"] = tuple(document["failures"])
        document["notes"] = tuple(document["notes"])
        return FileReport(**document)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def is_in_the_way(target: Path) -> bool:
    """Whether where a file's outputs belong there is something that was not written as such: it
    may be the recording itself, where outputs go beside their inputs."""
    return os.path.lexists(target) and not (target / DONE_NAME).is_file()


def stage_of(output: Path, file: ArchiveFile) -> Path:
    """Where this process works on a file; its id is in the name, whoever looks who holds it."""
    number = sha256(os.fsencode(file.name)).hexdigest()[:12]
    return output / STAGE_NAME / f"{number}-{os.getpid()}"


def _images_and_videos(
    loop: BMPLoop, file: ArchiveFile, orders: Orders, stage: Path
) -> tuple[int, int, list[str], list[str]]:
    source = ImageSource(file.path) if file.kind == IMAGE else VideoSource(file.path)
    info = {**orders.info, "source": shown_name(file.path)}
    # Images that are processed one by one are no sequence.
    tracker = PersonTracker() if orders.track and file.kind == VIDEO else None
    outcome = infer(loop, [source], stage, orders.wanted, info=info, tracker=tracker)
    images = outcome.images + outcome.frames
    return images, outcome.people, outcome.failures, outcome.notes


def _bag(
    loop: BMPLoop, file: ArchiveFile, orders: Orders, stage: Path
) -> tuple[int, int, list[str], list[str]]:
    selection = Selection(image=orders.image_topic, copy=orders.copy_bags)
    outcome = process_bag(loop, file.path, stage / BAG_NAME, selection, track=orders.track)
    failures = [
        f"{count} images have no result: {reason}" for reason, count in outcome.failures.items()
    ]
    if outcome.image_topic is None:
        failures.append("no topic with images")
    return outcome.images, outcome.people, failures, outcome.notes


_MAKERS = {IMAGE: _images_and_videos, VIDEO: _images_and_videos, BAG: _bag}


def _put_in_place(stage: Path, target: Path) -> None:
    """Rename a folder when its files are on disk; an earlier one of the same file makes room.

    Raises FileExistsError for anything else that is there.
    """
    for path in stage.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    if is_in_the_way(target):
        raise FileExistsError(f"{shown_name(target)} is there already, and no earlier output")
    if target.is_dir():
        old = stage.with_name(stage.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(target, old)
        os.replace(stage, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(stage, target)


# ---------------------------------------------------------------- in a worker


@dataclass(frozen=True)
class Answer:
    """What a worker says about its file. error: why there is no report; tried again if it may
    go well another time (``may_go_well``): networks fail for want of memory, bags stay damaged."""

    name: str
    report: FileReport | None = None
    error: str = ""
    may_go_well: bool = False


class Worker:
    """Holds one loop and processes one file after the other; lives in a process of its own."""

    def __init__(self, orders: Orders, output: Path, number: int) -> None:
        self._orders, self._output = orders, output
        device = device_of(number, orders.device)
        self._loop = orders.build(device=device, **orders.options)

    def process(self, file: ArchiveFile) -> Answer:
        try:
            report = process_file(self._loop, file, self._orders, self._output)
        except Exception as error:  # whatever a file leads to: the next one may be good
            text = f"{type(error).__name__}: {str(error).strip() or 'no reason given'}"
            lasting = isinstance(error, BagError | ModuleNotFoundError)
            return Answer(file.name, None, text, may_go_well=not lasting)
        return Answer(file.name, report)


def device_of(number: int, device: str) -> str:
    """The device of the worker of that number: GPUs in turns where none is named."""
    if device not in ("auto", "cuda"):
        return device
    try:
        import torch
    except ImportError:
        return device
    count = torch.cuda.device_count()
    return f"cuda:{number % count}" if count > 1 else device


def end_with_parent() -> None:
    """Ask Linux to end this process when the one that forked it ends, however that happens.

    That one, Python's fork server, ends with the process that uses it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def share_processors(workers: int) -> None:
    """Let each of several workers on a machine take its part of the processors.

    Before the networks' libraries are loaded; a number that is set already stays.
    """
    share = max(1, len(os.sched_getaffinity(0)) // workers)
    os.environ.setdefault("OMP_NUM_THREADS", str(share))
