# SPDX-License-Identifier: Apache-2.0
"""What the demo tells in the end: figures, as a file and as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bmp_ros.demo.recorder import Recorder, Result
from bmp_ros.demo.truth_messages import truth_from_message
from bmp_ros.evaluation.clip_truth import clip_annotations
from bmp_ros.evaluation.coco_results import CollectedResults
from bmp_ros.evaluation.ground_truth import CATEGORY
from bmp_ros.evaluation.scores import ResultScores, score_results
from bmp_ros.machine import machine, machine_line
from bmp_ros.ros.person_messages import people_from_message

_LABEL_WIDTH = 22


@dataclass(frozen=True)
class Summary:
    """The figures of ``summary.json``; None where nothing is known.

    people_mean: per result. age_ms: from the image's stamp to the result's arrival.
    stage_ms_median: of the last 100 frames, as the node's diagnostics say.
    box_ap50, mask_ap50, keypoint_ap: COCO's, over the frames that were processed; frames_scored
    of them. People of whom fewer than 150 pixels are to be seen count neither way.
    """

    preset: str
    device: str
    source: str
    frames_sent: int
    frames_received: int
    frames_processed: int
    results_received: int
    people_mean: float
    age_ms_p50: float | None
    age_ms_p95: float | None
    stage_ms_median: Mapping[str, float]
    frames_scored: int
    box_ap50: float | None
    mask_ap50: float | None
    keypoint_ap: float | None
    machine: Mapping[str, Any] = field(default_factory=machine)


def summarize(recorder: Recorder, preset: str, source: str) -> Summary:
    """Compute the figures. Raises ModuleNotFoundError without pycocotools."""
    results = recorder.results()
    said = recorder.diagnostics
    ages = [result.age_ms for result in results]
    known = [result for result in results if result.truth is not None]
    scored = scores(known)
    return Summary(
        preset=preset,
        device=said.engines.get("device", ""),
        source=source,
        frames_sent=said.sent,
        frames_received=said.received,
        frames_processed=said.processed,
        results_received=len(results),
        people_mean=float(np.mean([len(r.people.people) for r in results] or [0])),
        age_ms_p50=float(np.percentile(ages, 50)) if ages else None,
        age_ms_p95=float(np.percentile(ages, 95)) if ages else None,
        stage_ms_median=said.stages(),
        frames_scored=len(known),
        box_ap50=scored.boxes.ap50 if scored.boxes else None,
        mask_ap50=scored.masks.ap50 if scored.masks else None,
        keypoint_ap=scored.keypoints.ap if scored.keypoints else None,
    )


def scores(results: Sequence[Result]) -> ResultScores:
    """COCO's scores of results whose truth is known."""
    if not results:
        return ResultScores()
    found = CollectedResults()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, result in enumerate(results):
        assert result.truth is not None
        size = {"width": result.people.width, "height": result.people.height}
        images.append({"id": number, **size})
        annotations += clip_annotations(truth_from_message(result.truth), number)
        found.add(people_from_message(result.people), number)
    truth = {"images": images, "annotations": annotations, "categories": [CATEGORY]}
    return score_results(truth, boxes=found.boxes, masks=found.masks, keypoints=found.keypoints)


def write_summary(folder: Path, summary: Summary) -> Path:
    path = folder / "summary.json"
    path.write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
    return path


def table(summary: Summary, files: Sequence[Path]) -> list[str]:
    """Lines for the terminal."""
    rows: list[tuple[str, str]] = [
        ("preset", f"{summary.preset} on {summary.device}"),
        ("frames", f"{summary.frames_sent} sent, {summary.frames_received} arrived, "
         f"{summary.frames_processed} processed (the newest each time)"),
        ("results received", f"{summary.results_received}, {summary.people_mean:.1f} people each"),
        ("age of results", f"{summary.age_ms_p50:.0f} ms median, {summary.age_ms_p95:.0f} ms p95"
         if summary.age_ms_p50 is not None and summary.age_ms_p95 is not None else "-"),
        ("stages, median", ", ".join(
            f"{stage} {milliseconds:.1f} ms"
            for stage, milliseconds in summary.stage_ms_median.items()
        )),
        ("box AP50", _known(summary.box_ap50)),
        ("mask AP50", _known(summary.mask_ap50)),
        ("keypoint AP", _known(summary.keypoint_ap)),
        ("machine", machine_line()),
    ]  # fmt: skip
    lines = [f"{label:<{_LABEL_WIDTH}}{text}" for label, text in rows]
    return [*lines, "", *(f"wrote {path}" for path in files)]


def _known(score: float | None) -> str:
    return "no ground truth" if score is None else f"{score:.3f}"
