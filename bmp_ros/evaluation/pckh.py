# SPDX-License-Identifier: Apache-2.0
"""PCKh: the share of joints closer to the truth than half a head, the score of MPII Human Pose.

Andriluka et al., "2D Human Pose Estimation: New Benchmark and State of the Art Analysis" (CVPR
2014). People are given, by centre and scale, so the pose estimator alone is scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bmp_ros.image_files import read_annotated_image
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.protocols import PoseEstimator
from bmp_ros.loop.skeletons import MPII_16, Skeleton
from bmp_ros.reading import read_json

HEAD_SHARE = 0.6
"""Of the diagonal of the head box: the length that errors are compared with."""
UNIT = 200.0
"""Pixels that a scale of 1 stands for."""
LOWER = 15.0
"""Pixels, per unit of scale, that crops are moved down by, as in every published evaluation."""
GROUPS = {
    "head": ("head_top",),
    "shoulder": ("left_shoulder", "right_shoulder"),
    "elbow": ("left_elbow", "right_elbow"),
    "wrist": ("left_wrist", "right_wrist"),
    "hip": ("left_hip", "right_hip"),
    "knee": ("left_knee", "right_knee"),
    "ankle": ("left_ankle", "right_ankle"),
}
NOT_SCORED = ("pelvis", "thorax")
"""Left out of the mean, as in MPII's own evaluation; the upper neck is in it."""


@dataclass(frozen=True)
class MpiiPerson:
    """One annotated person.

    image: file name. joints: (16, 2) float64 x y in the order of `MPII_16`, pixel centres at whole
    numbers from 0. visible: (16,) bool, labelled. box: (4,) xyxy whose crop is the published one.
    head_size: pixels that errors are compared with.
    """

    image: str
    joints: np.ndarray
    visible: np.ndarray
    box: np.ndarray
    head_size: float


@dataclass(frozen=True)
class PckhScores:
    """Percentages. mean: over all labelled joints that are scored. groups: by part of the body.

    people, joints: how many were compared.
    """

    mean: float
    groups: Mapping[str, float]
    threshold: float
    people: int
    joints: int


def read_mpii(file: Path, head_boxes: Path | None = None) -> list[MpiiPerson]:
    """Read annotations in the format of MMPose and of HRNet's authors.

    file: a JSON list, of each person ``image``, ``joints`` (16 x y, counted from 1),
    ``joints_vis``, ``center``, ``scale`` and, unless there is a file of them, ``head_box``
    (x1 y1 x2 y2). head_boxes: MPII's own ``mpii_gt_val.mat`` (``headboxes_src``), in the same
    order. Raises FileNotFoundError, or ValueError naming file, person and what is missing.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there. Name MPII's with --annotations FILE")
    entries = read_json(file)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{file} is not a list of people, as MPII's annotations are")
    boxes = None if head_boxes is None else _head_boxes(head_boxes, len(entries))
    return [
        _person(entry, None if boxes is None else boxes[number], f"{file}: person {number}")
        for number, entry in enumerate(entries)
    ]


def _person(entry: Any, head_box: np.ndarray | None, where: str) -> MpiiPerson:
    keys = ("image", "joints", "joints_vis", "center", "scale")
    lacking = [key for key in keys if not isinstance(entry, dict) or key not in entry]
    if head_box is None and not lacking and "head_box" not in entry:
        lacking = ["head_box (or name MPII's mpii_gt_val.mat with --head-boxes)"]
    if lacking:
        raise ValueError(f"{where} lacks {', '.join(lacking)}")
    try:
        joints = np.array(entry["joints"], np.float64).reshape(len(MPII_16), 2) - 1
        visible = np.array(entry["joints_vis"], np.float64).reshape(len(MPII_16)) > 0
        centre = np.array(entry["center"], np.float64).reshape(2)
        scale = float(entry["scale"])
        head = np.array(entry["head_box"] if head_box is None else head_box, np.float64)
        size = HEAD_SHARE * float(np.linalg.norm(head.reshape(4)[2:] - head.reshape(4)[:2]))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} is not as MPII's annotations are: {error}") from error
    if not (np.isfinite([*centre, scale, size]).all() and scale > 0 and size > 0):
        raise ValueError(f"{where} has scale {scale} and a head of {size} pixels, needs sizes > 0")
    centre = centre + (0, LOWER * scale) - 1
    half = UNIT * scale / 2
    return MpiiPerson(
        str(entry["image"]), joints, visible, np.concatenate([centre - half, centre + half]), size
    )


def _head_boxes(file: Path, people: int) -> np.ndarray:
    """(N, 4) x1 y1 x2 y2 of MPII's Matlab file."""
    from scipy.io import loadmat

    try:
        found = loadmat(file, variable_names=["headboxes_src"])["headboxes_src"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} has no headboxes_src, as mpii_gt_val.mat has: {error}"
        ) from error
    if found.shape != (2, 2, people):
        raise ValueError(
            f"{file} has head boxes of shape {found.shape}, the annotations have {people} people: "
            f"needs (2, 2, {people})"
        )
    return np.transpose(found, (2, 0, 1)).reshape(people, 4)


def score(found: np.ndarray, people: Sequence[MpiiPerson], threshold: float = 0.5) -> PckhScores:
    """Score joints (N, 16, 2) in the order of `MPII_16`, row by row as ``people``.

    threshold: in heads; 0.5 is MPII's own. A group without a labelled joint scores NaN.
    """
    truth = np.stack([person.joints for person in people])
    labelled = np.stack([person.visible for person in people])
    sizes = np.array([person.head_size for person in people])
    errors = np.linalg.norm(found - truth, axis=2) / sizes[:, None]
    right = (errors <= threshold) & labelled

    def share(names: Sequence[str]) -> float:
        # Each joint counts alike in a group, however often it is labelled.
        columns = [MPII_16.names.index(name) for name in names]
        counts = labelled[:, columns].sum(axis=0)
        hits, known = right[:, columns].sum(axis=0), counts > 0
        rates = 100 * hits[known] / counts[known]
        return float(np.mean(rates)) if len(rates) else float("nan")

    scored = [name not in NOT_SCORED for name in MPII_16.names]
    joints = int(labelled[:, scored].sum())
    mean = 100 * float(right[:, scored].sum()) / joints if joints else float("nan")
    groups = {group: share(names) for group, names in GROUPS.items()}
    return PckhScores(mean, groups, threshold, len(people), joints)


def evaluate_pckh(
    estimator: PoseEstimator,
    folder: Path,
    people: Sequence[MpiiPerson],
    with_progress: Any = iter,
) -> PckhScores:
    """Estimate everybody's pose in the annotated crop and score it.

    folder: with the images, in ``images/`` of it or in itself. with_progress: wraps what is gone
    through. Raises ValueError for a network without MPII's joints, FileNotFoundError for a missing
    image.
    """
    columns = mpii_joints(estimator.skeleton)
    rows_of: dict[str, list[int]] = {}
    for row, person in enumerate(people):
        rows_of.setdefault(person.image, []).append(row)
    files = {name: _image_file(folder, name) for name in rows_of}
    found = np.zeros((len(people), len(MPII_16), 2))
    for name, rows in with_progress(list(rows_of.items())):
        frame = Frame(read_annotated_image(files[name], None, None))
        boxes = np.stack([people[row].box for row in rows]).astype(np.float32)
        found[rows] = estimator.estimate(frame, boxes, None).keypoints[:, columns]
    return score(found, people)


def mpii_joints(skeleton: Skeleton) -> list[int]:
    """Where MPII's joints are in a skeleton. Raises ValueError naming those that are missing."""
    missing = [name for name in MPII_16.names if name not in skeleton.names]
    if missing:
        raise ValueError(
            f"PCKh needs MPII's joints, {skeleton.name} lacks {', '.join(missing)}; use a network "
            "of MPII (mpii_16), or one of multi_21 with extra_keypoints: true"
        )
    return [skeleton.names.index(name) for name in MPII_16.names]


def report_lines(scores: PckhScores) -> list[str]:
    """The table for the terminal."""
    names, values = list(scores.groups), list(scores.groups.values())
    return [
        f"{scores.people} people, {scores.joints} joints; PCKh@{scores.threshold:g} in per cent",
        "".join(f"{name:>10}" for name in [*names, "mean"]),
        "".join(f"{value:>10.1f}" for value in [*values, scores.mean]),
    ]


def _image_file(folder: Path, name: str) -> Path:
    for place in (folder / "images" / name, folder / name):
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"{name} is neither in {folder / 'images'} nor in {folder}; a score over fewer people "
        "than annotated would mislead"
    )


def progress_bar(items: Iterable[Any]) -> Iterator[Any]:
    """A bar on stderr, where tqdm is installed and stderr is a terminal."""
    import sys

    try:
        from tqdm import tqdm
    except ImportError:
        return iter(items)
    return iter(tqdm(items, "evaluating", unit="image", disable=not sys.stderr.isatty()))
