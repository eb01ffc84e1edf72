# SPDX-License-Identifier: Apache-2.0
"""Run the loop over a data set, with one or several settings, and score what it finds."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bmp_ros.evaluation.coco_results import CollectedResults, mask_result
from bmp_ros.evaluation.datasets import Dataset, LabelledImage
from bmp_ros.evaluation.ground_truth import people_of
from bmp_ros.evaluation.scores import (
    ResultScores,
    Score,
    ScoreDetails,
    import_pycocotools,
    score_results,
)
from bmp_ros.fields import settings_from_mapping
from bmp_ros.loop import BMPLoop, LoopSettings, People
from bmp_ros.loop.trace import detector_masks
from bmp_ros.machine import machine

Watch = Callable[[int, LabelledImage, People, Mapping[str, float]], object]
"""Is told of each image and combination of settings: the combination's number, the image, its
people, milliseconds by stage."""


@dataclass
class SettingScores:
    """What the loop reached with one combination of settings.

    results: scores of its boxes, masks and keypoints. detector_masks: of the detector's masks of
    the same people, None where the detector has none or nothing refines them. people: found in all
    images. false_positives_per_image: boxes above the threshold that match no person at IoU 0.5.
    median_ms, p95_ms: of the loop alone, per frame; stage_ms: medians by stage.
    """

    iterations: int
    box_nms_iou: float
    results: ResultScores
    detector_masks: Score | None
    people: int
    false_positives_per_image: float
    median_ms: float
    p95_ms: float
    stage_ms: dict[str, float]


@dataclass
class Evaluation:
    """The outcome for a data set.

    images, people: in its ground truth, crowd regions left out. detection_threshold: of the runs.
    later_threshold: of their iterations after the first, where that is another one, else None.
    false_positive_threshold: score above which a box counts as a false positive. settings: one
    entry per combination. machine: see `bmp_ros.machine`.
    """

    dataset: str
    images: int
    people: int
    detection_threshold: float
    later_threshold: float | None
    false_positive_threshold: float
    settings: list[SettingScores]
    machine: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return asdict(self)


@dataclass
class _Run:
    """One combination of settings and what it has found so far."""

    settings: LoopSettings
    results: CollectedResults = field(default_factory=CollectedResults)
    detector_masks: list[dict[str, Any]] = field(default_factory=list)
    stage_ms: list[dict[str, float]] = field(default_factory=list)


def evaluate(
    loop: BMPLoop,
    dataset: Dataset,
    *,
    iterations: Sequence[int] | None = None,
    box_nms_iou: Sequence[float] | None = None,
    detection_threshold: float | None = None,
    progress: bool = False,
    watch: Watch | None = None,
    details: list[ScoreDetails] | None = None,
) -> Evaluation:
    """Score ``loop`` on ``dataset``, every combination of the given settings on every image.

    iterations, box_nms_iou: values to try, by default the loop's own. detection_threshold: of the
    detector in all runs; a low one (0.05) gives COCO's precision-recall curve its tail. False
    positives are counted above the loop's own threshold, or this one where it is higher.
    progress: draw a bar on stderr. watch: see `Watch`. details: gets one entry per combination.

    Images are made, processed and forgotten one by one. Times leave out the first image, when
    there are more: it warms the networks up. The loop's settings are restored in the end.
    Raises SettingsError for a value out of range, ModuleNotFoundError without pycocotools.
    """
    import_pycocotools()  # before the work, not after it
    before = loop.settings
    runs = [
        _Run(settings)
        for settings in _combinations(before, iterations, box_nms_iou, detection_threshold)
    ]
    truth: dict[str, Any] = {
        "images": [], "annotations": [], "categories": list(dataset.categories),
    }  # fmt: skip
    try:
        for labelled in _with_progress(dataset, len(dataset), progress):
            truth["images"].append(labelled.entry)
            truth["annotations"] += labelled.annotations
            for number, run in enumerate(runs):
                loop.settings = run.settings
                people = _process(loop, labelled, run)
                if watch is not None:
                    watch(number, labelled, people, run.stage_ms[-1])
    finally:
        loop.settings = before
    has_coco = loop.pose_estimator.skeleton.begins_with_coco
    used = runs[0].settings
    threshold = max(before.detection_threshold, used.detection_threshold)
    several = any(run.settings.iterations > 1 for run in runs)
    higher = used.later_threshold is not None and used.later_threshold > used.detection_threshold
    return Evaluation(
        dataset=dataset.name,
        images=len(truth["images"]),
        people=sum(not person.get("iscrowd") for person in people_of(truth)),
        detection_threshold=used.detection_threshold,
        later_threshold=used.later_threshold if several and higher else None,
        false_positive_threshold=threshold,
        settings=[_scores_of(run, truth, threshold, has_coco, details) for run in runs],
        machine=machine(),
    )


def _combinations(
    settings: LoopSettings,
    iterations: Sequence[int] | None,
    box_nms_iou: Sequence[float] | None,
    detection_threshold: float | None,
) -> Iterator[LoopSettings]:
    threshold = (
        settings.detection_threshold if detection_threshold is None else detection_threshold
    )
    for count, overlap in itertools.product(
        iterations or (settings.iterations,), box_nms_iou or (settings.box_nms_iou,)
    ):
        changed = {
            "iterations": count, "box_nms_iou": overlap, "detection_threshold": threshold,
        }  # fmt: skip
        yield settings_from_mapping(LoopSettings, {**asdict(settings), **changed}, "evaluation")


def _process(loop: BMPLoop, labelled: LabelledImage, run: _Run) -> People:
    trace = loop.trace(labelled.image)
    run.stage_ms.append(trace.report.stage_ms)
    image_id = labelled.entry["id"]
    run.results.add(trace.people, image_id)
    if loop.segmenter is not None:
        scores = trace.people.scores.tolist()
        for mask, score in zip(detector_masks(trace), scores, strict=True):
            if mask is not None:
                run.detector_masks.append(mask_result(mask, score, image_id))
    return trace.people


def _scores_of(
    run: _Run,
    truth: dict[str, Any],
    threshold: float,
    has_coco: bool,
    details: list[ScoreDetails] | None,
) -> SettingScores:
    """has_coco: the skeleton begins with COCO's joints; keypoints of others are not scored."""
    found = run.results
    detail = ScoreDetails()
    results = score_results(
        truth, boxes=found.boxes, masks=found.masks,
        keypoints=found.keypoints if has_coco else None, score_threshold=threshold,
        details=detail,
    )  # fmt: skip
    if details is not None:
        details.append(detail)
    coarse = None
    if run.detector_masks:
        coarse = score_results(truth, masks=run.detector_masks).masks
    timed = run.stage_ms[1:] or run.stage_ms
    total = [frame["total"] for frame in timed]
    stages = {name: None for frame in timed for name in frame}  # a set that keeps its order
    assert results.false_positives is not None
    return SettingScores(
        iterations=run.settings.iterations,
        box_nms_iou=run.settings.box_nms_iou,
        results=results,
        detector_masks=coarse,
        people=len(found.boxes),
        false_positives_per_image=results.false_positives / len(truth["images"]),
        median_ms=float(np.median(total)),
        p95_ms=float(np.percentile(total, 95)),
        stage_ms={
            name: float(np.median([frame.get(name, 0.0) for frame in timed])) for name in stages
        },
    )


def _with_progress(
    images: Iterable[LabelledImage], count: int, wanted: bool
) -> Iterable[LabelledImage]:
    """A bar on stderr, where that is a terminal; none without tqdm, which is a convenience."""
    if not wanted:
        return images
    try:
        from tqdm import tqdm
    except ImportError:
        return images
    return tqdm(images, "evaluating", count, unit="image", disable=not sys.stderr.isatty())
