# SPDX-License-Identifier: Apache-2.0
"""The loop scored on pictures of which it knows, or does not know, the answers."""

from __future__ import annotations

import gc
import json
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("pycocotools", reason="pycocotools is not installed")

from numbered import (  # noqa: E402
    HEIGHT,
    WIDTH,
    NumberedDataset,
    numbered_image,
    numbered_loop,
)
from scripted import Actor, rectangle_mask  # noqa: E402

from bmp_ros.evaluation.datasets import LabelledImage  # noqa: E402
from bmp_ros.evaluation.evaluate_loop import evaluate  # noqa: E402
from bmp_ros.evaluation.report import report_lines  # noqa: E402
from bmp_ros.evaluation.scores import Score  # noqa: E402
from bmp_ros.loop import LoopSettings, SettingsError  # noqa: E402
from bmp_ros.loop.trace import detector_masks, rows_in  # noqa: E402

PERFECT = Score(1.0, 1.0, 1.0, 1.0)
LEFT = Actor((10, 10, 60, 110), score=0.9)
RIGHT = Actor((120, 10, 180, 110), score=0.8)
OVERLAPPING = Actor((30, 10, 80, 110), score=0.7)  # IoU with LEFT is 3 / 7
BOTH = NumberedDataset({1: [LEFT, RIGHT], 2: [LEFT]})


def test_a_loop_that_knows_the_answers_scores_one() -> None:
    loop = numbered_loop({1: [[LEFT, RIGHT]], 2: [[LEFT]]})
    evaluation = evaluate(loop, BOTH)
    (setting,) = evaluation.settings
    assert setting.results.boxes == setting.results.masks == PERFECT
    assert setting.results.keypoints == setting.detector_masks == PERFECT
    assert (evaluation.images, evaluation.people, setting.people) == (2, 3, 3)
    assert setting.false_positives_per_image == 0.0
    assert (setting.iterations, setting.box_nms_iou) == (2, 0.3), "the loop's own"
    assert 0 < setting.median_ms <= setting.p95_ms
    assert set(setting.stage_ms) >= {"detect", "pose", "segment", "total"}


def test_a_loop_that_finds_nobody_scores_nothing() -> None:
    (setting,) = evaluate(numbered_loop({1: [[]], 2: [[]]}), BOTH).settings
    zero = Score(0.0, 0.0, 0.0, 0.0)
    assert setting.results.boxes == setting.results.masks == setting.results.keypoints == zero
    assert setting.detector_masks is None and setting.people == 0


def test_each_number_of_iterations_has_its_scores() -> None:
    loop = numbered_loop({1: [[LEFT], [RIGHT]], 2: [[LEFT]]})
    once, twice = evaluate(loop, BOTH, iterations=[1, 2]).settings
    assert once.results.boxes is not None and twice.results.boxes == PERFECT
    assert once.results.boxes.ar == pytest.approx(2 / 3)
    assert (once.people, twice.people) == (2, 3)


def test_each_box_nms_has_its_scores_in_every_combination() -> None:
    dataset = NumberedDataset({1: [LEFT, OVERLAPPING]})
    loop = numbered_loop({1: [[LEFT, OVERLAPPING]]})
    evaluation = evaluate(loop, dataset, iterations=[1, 2], box_nms_iou=[0.3, 0.6])
    reached = {
        (setting.iterations, setting.box_nms_iou): setting.results.boxes
        for setting in evaluation.settings
    }
    assert list(reached) == [(1, 0.3), (1, 0.6), (2, 0.3), (2, 0.6)]
    assert reached[1, 0.6] == reached[2, 0.6] == PERFECT
    assert reached[1, 0.3] is not None and reached[1, 0.3].ar == 0.5


def test_detector_masks_are_scored_beside_the_refined_ones() -> None:
    shifted = rectangle_mask(HEIGHT, WIDTH, (20, 10, 70, 110))  # IoU 2 / 3 with the truth
    rough = replace(LEFT, detector_mask=shifted)
    dataset = NumberedDataset({1: [LEFT]})
    (setting,) = evaluate(numbered_loop({1: [[rough]]}), dataset).settings
    assert setting.results.masks == PERFECT
    assert setting.detector_masks is not None
    assert setting.detector_masks.ap == pytest.approx(0.4), "IoU thresholds 0.50 to 0.65"
    (alone,) = evaluate(numbered_loop({1: [[rough]]}, segmenter=False), dataset).settings
    assert alone.results.masks == setting.detector_masks and alone.detector_masks is None
    (bare,) = evaluate(numbered_loop({1: [[rough]]}, masks=False), dataset).settings
    assert bare.results.masks == PERFECT and bare.detector_masks is None


def test_detector_masks_follow_their_people() -> None:
    """Somebody found first is dropped later on, and the boxes become those of the masks."""
    moved = replace(RIGHT, detector_mask=rectangle_mask(HEIGHT, WIDTH, (0, 50, 9, 60)))
    again = replace(moved, box=(121, 10, 181, 110), keypoints=moved.pose(17), keypoint_scores=0.95)
    loop = numbered_loop({1: [[LEFT, moved], [again]]}, boxes_from_masks=True)
    trace = loop.trace(numbered_image(1))
    assert trace.people.iterations.tolist() == [1, 2]
    masks = detector_masks(trace)
    np.testing.assert_array_equal(masks[0], rectangle_mask(HEIGHT, WIDTH, LEFT.box))
    np.testing.assert_array_equal(masks[1], moved.detector_mask)
    first = trace.iterations[0].survivors
    assert first is not None
    assert rows_in(first, trace.people) == [0, -1]


def test_keypoints_half_a_pixel_off_score_less() -> None:
    small = Actor((50, 50, 62, 62))
    off = replace(small, keypoints=small.pose(17) + np.float32(0.5))
    (setting,) = evaluate(numbered_loop({1: [[off]]}), NumberedDataset({1: [small]})).settings
    assert setting.results.boxes == PERFECT
    assert setting.results.keypoints is not None and setting.results.keypoints.ap is not None
    assert 0 < setting.results.keypoints.ap < 1


def test_false_positives_are_counted_above_the_presets_threshold() -> None:
    ghost, doubtful = replace(RIGHT, score=0.6), Actor((70, 10, 100, 110), score=0.2)
    loop = numbered_loop({1: [[LEFT, ghost, doubtful]], 2: [[LEFT]]}, detection_threshold=0.5)
    dataset = NumberedDataset({1: [LEFT], 2: [LEFT]})

    def outcome(threshold: float | None) -> tuple[int, float, float]:
        evaluation = evaluate(loop, dataset, detection_threshold=threshold)
        (setting,) = evaluation.settings
        limit = evaluation.false_positive_threshold
        return setting.people, setting.false_positives_per_image, limit

    assert outcome(None) == (3, 0.5, 0.5)
    assert outcome(0.05) == (4, 0.5, 0.5), "the doubtful one is found and does not count"
    assert outcome(0.7) == (2, 0.0, 0.7)


def test_the_loops_settings_are_as_before() -> None:
    loop = numbered_loop({1: [[LEFT]]}, iterations=3)
    before = loop.settings
    evaluate(loop, NumberedDataset({1: [LEFT]}), iterations=[1], detection_threshold=0.1)
    assert loop.settings is before
    with pytest.raises(AssertionError, match="no script for picture 50"):
        evaluate(loop, NumberedDataset({50: [LEFT]}), iterations=[1])
    assert loop.settings is before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": [0]}, "iterations is 0, allowed: a whole number from 1 to 5"),
        ({"box_nms_iou": [0.3, 1.5]}, "box_nms_iou is 1.5, allowed: a number from 0 to 1"),
        ({"detection_threshold": -1.0}, "detection_threshold is -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        evaluate(numbered_loop({1: [[LEFT]]}), BOTH, **changes)


def test_pictures_are_forgotten_one_by_one() -> None:
    alive: list[weakref.ref] = []
    counts = []

    class Stream(NumberedDataset):
        def __iter__(self) -> Iterator[LabelledImage]:
            for picture in super().__iter__():
                gc.collect()
                counts.append(sum(reference() is not None for reference in alive))
                alive.append(weakref.ref(picture.image))
                yield picture

    truth = {number: [LEFT] for number in range(1, 9)}
    loop = numbered_loop({number: [[LEFT]] for number in truth})
    evaluate(loop, Stream(truth), iterations=[1, 2])
    assert len(counts) == 8
    assert max(counts) <= 1, "all but the one in hand are gone"


def test_everything_is_plain_json_and_printed() -> None:
    loop = numbered_loop({1: [[LEFT], [RIGHT]], 2: [[LEFT]]})
    evaluation = evaluate(loop, BOTH, iterations=[1, 2])
    data = json.loads(json.dumps(evaluation.to_dict()))
    assert data["settings"][1]["results"]["boxes"] == {"ap": 1, "ap50": 1, "ap75": 1, "ar": 1}
    assert data["machine"]["processor"] and data["dataset"] == "numbered"
    lines = report_lines(evaluation)
    assert "2 images, 3 people" in lines[0]
    rows = [line.split() for line in lines if line.strip().startswith("2")]
    assert rows[0] == ["2", "0.3", "boxes", *["1.000"] * 4]
    assert rows[2][2:4] == ["masks,", "detector's"]
    assert rows[4][:4] == ["2", "0.3", "3", "0.000"]
    assert max(map(len, lines)) <= 100


def test_nobody_to_find_prints_dashes() -> None:
    evaluation = evaluate(numbered_loop({1: [[LEFT]]}), NumberedDataset({1: []}))
    assert evaluation.settings[0].false_positives_per_image == 1.0
    assert [line.split()[-4:] for line in report_lines(evaluation) if "boxes " in line][0] == (
        ["-"] * 4
    )


def test_missing_pycocotools_is_told_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    monkeypatch.setitem(sys.modules, "pycocotools", None)

    class Untouched(NumberedDataset):
        def __iter__(self) -> Iterator[LabelledImage]:
            raise AssertionError("no picture is needed to find out")

    with pytest.raises(ModuleNotFoundError, match="requirements/evaluate.txt"):
        evaluate(numbered_loop({}, **vars(LoopSettings())), Untouched({1: [LEFT]}))
