# SPDX-License-Identifier: Apache-2.0
"""The report of `bmp evaluate --dataset`: curves, times, and the pictures with most mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bmp_ros.evaluation.datasets import LabelledImage
from bmp_ros.evaluation.evaluate_loop import Evaluation, SettingScores
from bmp_ros.evaluation.report import report_lines
from bmp_ros.evaluation.scores import ScoreDetails
from bmp_ros.loop import People
from bmp_ros.reporting import figures
from bmp_ros.reporting.page import Section, figure, pictures, table, time_section, write_page
from bmp_ros.reporting.people_log import stage_times, thumbnail

WORST_PICTURES = 16
_TRUTH_COLOR = (255, 255, 255)


@dataclass
class EvaluationLog:
    """What the report needs of the run: times by combination, and small pictures of the first.

    Pictures are kept as JPEGs of 480 pixels' width, some 20 kB each, with people above
    ``score_threshold``, above which boxes count as mistakes.
    """

    score_threshold: float

    _times: dict[int, list[Mapping[str, float]]] = field(default_factory=dict)
    _pictures: dict[Any, tuple[str, bytes]] = field(default_factory=dict)

    def add(
        self, setting: int, labelled: LabelledImage, people: People, times_ms: Mapping[str, float]
    ) -> None:
        """As `evaluate_loop.Watch` says."""
        self._times.setdefault(setting, []).append(dict(times_ms))
        if setting == 0:
            name = str(labelled.entry.get("file_name", labelled.entry["id"]))
            image = _with_truth(labelled)
            certain = people[people.scores > self.score_threshold]
            self._pictures[labelled.entry["id"]] = name, thumbnail(image, certain)

    def times_ms(self, setting: int) -> dict[str, np.ndarray]:
        """Milliseconds of every picture by stage."""
        return stage_times(self._times.get(setting, []))

    def picture(self, image_id: Any) -> tuple[str, bytes]:
        """Name and JPEG of a picture."""
        return self._pictures[image_id]


def write_evaluation_page(
    path: Path,
    title: str,
    facts: Sequence[tuple[str, str]],
    evaluation: Evaluation,
    details: Sequence[ScoreDetails],
    log: EvaluationLog,
) -> None:
    """details: one per combination of settings, in the evaluation's order."""
    sections = [
        Section("Scores", "\n".join(report_lines(evaluation)[-3:]), _scores(evaluation)),
        Section(
            "Precision and recall",
            "At IoU (keypoints: OKS) 0.50, and dotted at 0.75.",
            _curves(evaluation, details),
        ),
        *time_section(log.times_ms(0)),
        _worst(evaluation, details[0], log),
    ]
    write_page(path, title, facts, sections)


def _scores(evaluation: Evaluation) -> str:
    header = ("", "AP", "AP50", "AP75", "AR", "found", "false per image", "ms, median", "ms, p95")
    rows = []
    for setting in evaluation.settings:
        costs = (
            str(setting.people), f"{setting.false_positives_per_image:.3f}",
            f"{setting.median_ms:.1f}", f"{setting.p95_ms:.1f}",
        )  # fmt: skip
        for kind in ("boxes", "masks", "keypoints"):
            score = getattr(setting.results, kind)
            if score is not None:
                values = (score.ap, score.ap50, score.ap75, score.ar)
                numbers = ["-" if value is None else f"{value:.3f}" for value in values]
                rest = costs if kind == "boxes" else ("",) * len(costs)
                rows.append((f"{_name(setting)}: {kind}", *numbers, *rest))
    return table(header, rows)


def _curves(evaluation: Evaluation, details: Sequence[ScoreDetails]) -> str:
    several = len(details) > 1
    curves = {
        f"{kind} ({_name(setting)})" if several else kind: precision
        for setting, detail in zip(evaluation.settings, details, strict=True)
        for kind, precision in detail.curves.items()
    }
    return figure(figures.precision_recall(curves, details[0].thresholds))


def _worst(evaluation: Evaluation, details: ScoreDetails, log: EvaluationLog) -> Section:
    ranked = sorted(details.mistakes.items(), key=lambda entry: -sum(entry[1]))
    shown = [(image_id, counts) for image_id, counts in ranked if sum(counts)][:WORST_PICTURES]
    entries = []
    for image_id, (missed, false) in shown:
        name, jpeg = log.picture(image_id)
        entries.append((f"{name}: {missed} missed, {false} false", jpeg))
    wrong = sum(1 for counts in details.mistakes.values() if sum(counts))
    missed, false = np.array([*details.mistakes.values(), (0, 0)]).sum(axis=0)
    return Section(
        "Worst pictures",
        f"{wrong} of {evaluation.images} pictures have mistakes: {missed} people missed, {false} "
        f"boxes false, by boxes above {evaluation.false_positive_threshold:g} at IoU 0.5"
        + (f" ({_name(evaluation.settings[0])})" if len(evaluation.settings) > 1 else "")
        + ". Thin white: the ground truth.",
        pictures(entries),
    )


def _name(setting: SettingScores) -> str:
    return f"iterations {setting.iterations}, box NMS {setting.box_nms_iou:g}"


def _with_truth(labelled: LabelledImage) -> np.ndarray:
    image = labelled.image.copy()
    for annotation in labelled.annotations:
        x, y, width, height = (round(float(value)) for value in annotation["bbox"])
        cv2.rectangle(image, (x, y), (x + width, y + height), _TRUTH_COLOR, 1)
    return image
