# SPDX-License-Identifier: Apache-2.0
"""Sequences of images in which everybody has an identity: MOTChallenge folders and our clips."""

from __future__ import annotations

import configparser
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from bmp_ros.evaluation.clip_truth import LEAST_AREA
from bmp_ros.image_files import natural_key, read_image
from bmp_ros.synthetic.clip_file import Clip, open_clip
from bmp_ros.synthetic.ground_truth import PeopleTruth
from bmp_ros.tracking.motion import rotation_homography

_log = logging.getLogger(__name__)
Warn = Callable[[str], object]


@dataclass(frozen=True)
class FrameTruth:
    """Who is in one image.

    identities: (N,) int64. boxes: (N, 4) float32 xyxy. masks: (N, H, W) bool, or None where the
    sequence has none. ignored: (N,) bool, people who count neither way.
    """

    identities: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray | None
    ignored: np.ndarray

    def __len__(self) -> int:
        return len(self.identities)


@dataclass(frozen=True)
class SequenceFrame:
    """image: BGR uint8 (H, W, 3). stamp: seconds. number: from 0. people: all that a rendered clip
    knows, None elsewhere."""

    image: np.ndarray
    truth: FrameTruth
    stamp: float
    number: int
    people: PeopleTruth | None = None


@dataclass(frozen=True)
class ClipSequence:
    """A rendered clip (`bmp_ros.synthetic.clip_file`); slivers of people are ignored."""

    name: str
    clip: Clip

    @property
    def has_masks(self) -> bool:
        return True

    @property
    def stamps(self) -> np.ndarray:
        """(F,) seconds."""
        return self.clip.stamps

    def __len__(self) -> int:
        return len(self.clip)

    def truth(self, number: int) -> FrameTruth:
        return clip_truth(self.clip.people(number))

    def ego_motion(self, before: int, after: int) -> np.ndarray | None:
        """(3, 3) homography from frame ``before`` to ``after`` by the camera's rotation; None
        where the clip does not tell. What the camera moved is not in it."""
        rotations = self.clip.camera_rotations
        if rotations is None:
            return None
        return rotation_homography(self.clip.camera_matrix, rotations[before], rotations[after])

    def __iter__(self) -> Iterator[SequenceFrame]:
        for frame in self.clip:
            yield SequenceFrame(
                frame.image, clip_truth(frame.people), frame.stamp, frame.number, frame.people
            )


def clip_truth(people: PeopleTruth) -> FrameTruth:
    """The identities of a rendered frame; who shows less than `LEAST_AREA` is ignored."""
    height, width = people.masks.shape[1:]
    least = LEAST_AREA * width * height / (640 * 480)
    areas = np.count_nonzero(people.masks, axis=(1, 2))
    return FrameTruth(people.identities, people.boxes, people.masks, areas < least)


@dataclass(frozen=True)
class MotSequence:
    """A MOTChallenge folder: ``seqinfo.ini``, the images in ``imDir``, ``gt/gt.txt``.

    Rows of gt.txt: frame (from 1), id, left, top, width, height, confidence; those of confidence 0
    and, where a class column says so, of other classes than pedestrians are ignored.
    """

    name: str
    images: tuple[Path, ...]
    rate: float
    rows: np.ndarray

    @property
    def has_masks(self) -> bool:
        return False

    @property
    def stamps(self) -> np.ndarray:
        """(F,) seconds."""
        return np.arange(len(self.images)) / self.rate

    def __len__(self) -> int:
        return len(self.images)

    def ego_motion(self, before: int, after: int) -> np.ndarray | None:
        """None: nothing says how the camera moved."""
        return None

    def truth(self, number: int) -> FrameTruth:
        rows = self.rows[self.rows[:, 0] == number + 1]
        boxes = np.concatenate([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]], axis=1)
        ignored = rows[:, 6] == 0
        return FrameTruth(rows[:, 1].astype(np.int64), boxes.astype(np.float32), None, ignored)

    def __iter__(self) -> Iterator[SequenceFrame]:
        for number, path in enumerate(self.images):
            image = read_image(path)
            yield SequenceFrame(image, self.truth(number), number / self.rate, number)


Sequence = ClipSequence | MotSequence


def open_sequences(folder: Path, warn: Warn = _log.warning) -> list[Sequence]:
    """The sequences in ``folder``, by name: itself one, or one per subfolder or clip.

    Those that would have the same name have that of their folder or file. warn: is told what of
    the ground truth is left out. Raises FileNotFoundError, or ValueError naming the file, where
    there is none or it is broken.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder with sequences")
    if (folder / "seqinfo.ini").is_file():
        return [open_mot_folder(folder, warn)]
    found: dict[Path, Sequence] = {}
    for path in sorted(folder.iterdir()):
        if (path / "seqinfo.ini").is_file():
            found[path] = open_mot_folder(path, warn)
        elif path.suffix == ".mp4" and path.with_suffix(".npz").is_file():
            found[path] = ClipSequence(path.stem, open_clip(path))
    if not found:
        raise FileNotFoundError(
            f"{folder} has neither MOTChallenge sequences (folders with seqinfo.ini, gt/gt.txt "
            "and images) nor rendered clips (NAME.mp4 with NAME.npz)"
        )
    return _with_names_of_their_own(found)


def _with_names_of_their_own(found: dict[Path, Sequence]) -> list[Sequence]:
    """``found`` by path; those of one name are called as their path, which no two share."""
    names = {path: sequence.name for path, sequence in found.items()}
    # Again and again: another one may be called like one of those paths.
    while shared := {name for name, times in Counter(names.values()).items() if times > 1}:
        names = {path: path.name if name in shared else name for path, name in names.items()}
    return [replace(sequence, name=names[path]) for path, sequence in found.items()]


def open_mot_folder(folder: Path, warn: Warn = _log.warning) -> MotSequence:
    """Open one sequence in MOTChallenge's layout. Raises as `open_sequences`."""
    info = configparser.ConfigParser(interpolation=None)
    file = folder / "seqinfo.ini"
    try:
        info.read_string(file.read_text(encoding="utf-8-sig"))
        section = info["Sequence"]
        rate = section.getfloat("frameRate", fallback=0.0)
        count = section.getint("seqLength", fallback=0)
        image_folder = folder / section.get("imDir", "img1")
        suffix = section.get("imExt", ".jpg")
        name = section.get("name", folder.name)
    except (configparser.Error, KeyError, ValueError) as error:
        raise ValueError(
            f"{file} is no description of a MOTChallenge sequence: {error}"
        ) from error
    if not rate > 0 or count < 1:
        raise ValueError(f"{file}: frameRate is {rate:g} and seqLength {count}, must be above 0")
    images = _numbered_images(image_folder, suffix)[:count]
    if len(images) < count:
        raise FileNotFoundError(
            f"{image_folder} has {len(images)} images {suffix}, {file} says {count}"
        )
    truth = folder / "gt" / "gt.txt"
    if not truth.is_file():
        raise FileNotFoundError(f"{truth} is missing: without it nothing says who is who")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a file without rows, see below
            rows = np.loadtxt(truth, delimiter=",", ndmin=2, encoding="utf-8-sig")
    except ValueError as error:
        raise ValueError(f"{truth} is not in MOTChallenge's format: {error}") from error
    if rows.size == 0:
        raise ValueError(
            f"{truth} has no rows: nothing says who is who, and all scores would be 0; put the "
            "ground truth there, or take the sequence out of the folder"
        )
    if rows.shape[1] < 7:
        raise ValueError(f"{truth} has {rows.shape[1]} columns, MOTChallenge's format at least 7")
    if rows.shape[1] == 9:  # MOT16 and later: the class; 1 are pedestrians. MOT15 has 10 columns
        rows = rows.copy()
        rows[rows[:, 7] != 1, 6] = 0
    _check_rows(truth, rows)
    late = rows[rows[:, 0] > count]
    if len(late) == len(rows):
        raise ValueError(
            f"{truth} has rows of frame {rows[:, 0].min():g} and later only, seqLength of {file} "
            f"is {count}: number the frames from 1, or correct seqLength"
        )
    if len(late):
        warn(
            f"{truth}: {len(late)} of {len(rows)} rows are ignored: their frames, up to "
            f"{late[:, 0].max():g}, come after seqLength of {file}, {count}"
        )
    return MotSequence(name, images, rate, rows)


def _numbered_images(folder: Path, suffix: str) -> tuple[Path, ...]:
    """The images of a sequence in the order of their numbers, 2 before 10; hidden files are none.

    Raises ValueError where a number is missing: those that follow would be taken for others.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder with images")
    names = (path for path in folder.iterdir() if path.name.endswith(suffix))
    images = tuple(sorted((path for path in names if path.name[0] != "."), key=natural_key))
    numbers = [int(path.stem) for path in images if path.stem.isascii() and path.stem.isdigit()]
    if len(numbers) == len(images):
        for before, after in pairwise(numbers):
            if after != before + 1:
                raise ValueError(
                    f"{folder} has no image {before + 1} between {before} and {after}: the "
                    "ground truth goes by these numbers; number the images without gaps, and the "
                    "rows of gt.txt with them"
                )
    return images


def _check_rows(file: Path, rows: np.ndarray) -> None:
    """Raises ValueError for ground truth that would be scored as another one."""
    if not np.isfinite(rows[:, :7]).all():
        raise ValueError(f"{file} has values that are no finite numbers")
    for column, name in ((0, "frame"), (1, "id")):
        odd = rows[rows[:, column] != np.round(rows[:, column]), column]
        if len(odd):
            raise ValueError(f"{file} has the {name} {odd[0]:g}, needs whole numbers")
    if len(rows) and rows[:, 0].min() < 1:
        raise ValueError(
            f"{file} has the frame {rows[:, 0].min():g}; frames are counted from 1: all boxes "
            "would belong to the image before"
        )
    flat = np.flatnonzero((rows[:, 6] != 0) & (rows[:, 4:6] <= 0).any(axis=1))
    if len(flat):
        frame, identity, _, _, width, height = rows[flat[0], :6]
        raise ValueError(
            f"{file}, row {flat[0] + 1} (frame {frame:g}, id {identity:g}): the box is {width:g} "
            f"wide and {height:g} high, both must be above 0; correct it, or set its confidence "
            "(column 7) to 0"
        )
    counted = rows[rows[:, 6] != 0]
    if len(counted) and counted[:, 1].min() < 0:
        raise ValueError(
            f"{file} has the id {counted[:, 1].min():g}, as files of detections have: nothing "
            "says who is who"
        )
    pairs, times = np.unique(counted[:, :2], axis=0, return_counts=True)
    if (times > 1).any():
        frame, identity = pairs[times > 1][0]
        raise ValueError(f"{file} has the id {identity:g} twice in frame {frame:g}")
