# SPDX-License-Identifier: Apache-2.0
"""An evaluation as a table for the terminal."""

from __future__ import annotations

from bmp_ros.evaluation.evaluate_loop import Evaluation, SettingScores
from bmp_ros.evaluation.scores import Score

_LABEL_WIDTH = 18


def report_lines(evaluation: Evaluation) -> list[str]:
    """Tables of scores and of costs, one block or row per combination of settings."""
    later = ""
    if evaluation.later_threshold is not None:
        later = f", from the second iteration on above {evaluation.later_threshold:g}"
    lines = [
        f"{evaluation.dataset}: {evaluation.images} images, {evaluation.people} people; "
        f"detections above {evaluation.detection_threshold:g}{later}",
        "",
        f"{'iterations':>10}  {'box NMS':>7}  {'':<{_LABEL_WIDTH}}{'AP':>7}{'AP50':>7}{'AP75':>7}"
        f"{'AR':>7}",
    ]
    for setting in evaluation.settings:
        for label, score in _rows(setting):
            lines.append(f"{_name(setting)}  {label:<{_LABEL_WIDTH}}{_numbers(score)}")
    lines += [
        "",
        f"{'iterations':>10}  {'box NMS':>7}  {'found':>7}  {'false per image':>15}  "
        f"{'ms, median':>10}  {'ms, p95':>8}",
    ]
    for setting in evaluation.settings:
        lines.append(
            f"{_name(setting)}  {setting.people:>7}  {setting.false_positives_per_image:>15.3f}  "
            f"{setting.median_ms:>10.1f}  {setting.p95_ms:>8.1f}"
        )
    lines += [
        "",
        "AP, AR: mean over IoU (keypoints: OKS) 0.50 to 0.95, as COCO's. false: boxes above",
        f"{evaluation.false_positive_threshold:g} that match no person at IoU 0.5. ms: the loop "
        "alone.",
    ]
    return lines


def _rows(setting: SettingScores) -> list[tuple[str, Score | None]]:
    rows = [("boxes", setting.results.boxes), ("masks", setting.results.masks)]
    if setting.detector_masks is not None:
        rows.append(("masks, detector's", setting.detector_masks))
    return [*rows, ("keypoints", setting.results.keypoints)]


def _name(setting: SettingScores) -> str:
    return f"{setting.iterations:>10}  {setting.box_nms_iou:>7g}"


def _numbers(score: Score | None) -> str:
    values = (None,) * 4 if score is None else (score.ap, score.ap50, score.ap75, score.ar)
    return "".join(f"{'-':>7}" if value is None else f"{value:>7.3f}" for value in values)
