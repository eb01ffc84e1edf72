# SPDX-License-Identifier: Apache-2.0
"""Scores of results whose score is known beforehand."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycocotools", reason="pycocotools is not installed")

from bmp_ros.evaluation.ground_truth import complete_person, people_of, truth_for  # noqa: E402
from bmp_ros.evaluation.scores import Score, ScoreDetails, score_results  # noqa: E402
from bmp_ros.loop.skeletons import COCO_SIGMAS  # noqa: E402
from bmp_ros.offline.coco_format import run_length_string  # noqa: E402

HEIGHT, WIDTH = 240, 320
BOX = [40.0, 20.0, 100.0, 200.0]
PERSON_CATEGORY = {"id": 1, "name": "person"}
THRESHOLDS = np.arange(0.5, 0.96, 0.05)
PERFECT = Score(1.0, 1.0, 1.0, 1.0)
NOTHING = Score(0.0, 0.0, 0.0, 0.0)


def rectangle(box: list[float]) -> np.ndarray:
    x, y, width, height = (round(value) for value in box)
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y : y + height, x : x + width] = True
    return mask


def joints(box: list[float]) -> np.ndarray:
    """(17, 2) spread over a box."""
    k = np.arange(17)
    unit = np.stack([(37 * k) % 101 / 101, (53 * k) % 97 / 97], axis=1)
    return np.array(box[:2]) + np.array(box[2:]) * unit


def annotation(box: list[float] = BOX, image_id: Any = 1, **changes: Any) -> dict[str, Any]:
    keypoints = np.column_stack([joints(box), np.full(17, 2)]).ravel().tolist()
    known = {
        "id": 7, "image_id": image_id, "category_id": 1, "iscrowd": 0, "bbox": box,
        "area": box[2] * box[3], "segmentation": run_length_string(rectangle(box)),
        "keypoints": keypoints, "num_keypoints": 17,
    }  # fmt: skip
    return known | changes


def document(*annotations: dict[str, Any], images: int = 1) -> dict[str, Any]:
    return {
        "images": [
            {"id": number + 1, "width": WIDTH, "height": HEIGHT, "file_name": f"{number}.jpg"}
            for number in range(images)
        ],
        "annotations": list(annotations),
        "categories": [PERSON_CATEGORY],
    }


def box_result(box: list[float] = BOX, score: float = 0.9, image_id: Any = 1) -> dict[str, Any]:
    return {"image_id": image_id, "bbox": box, "score": score}


def mask_result(box: list[float] = BOX, score: float = 0.9) -> dict[str, Any]:
    segmentation = run_length_string(rectangle(box))
    return {"image_id": 1, "segmentation": segmentation, "score": score}


def pose_result(points: np.ndarray, score: float = 0.9) -> dict[str, Any]:
    keypoints = np.column_stack([points, np.ones(17)]).ravel().tolist()
    return {"image_id": 1, "keypoints": keypoints, "score": score}


def shifted(pixels: float, box: list[float] = BOX) -> list[float]:
    return [box[0] + pixels, *box[1:]]


def mean_precision(overlap: float) -> float:
    """AP of one person with one result of this IoU or OKS."""
    return float((overlap >= THRESHOLDS - 1e-9).mean())


def test_perfect_results_score_one() -> None:
    truth = document(annotation(), annotation(shifted(120)))
    scores = score_results(
        truth,
        boxes=[box_result(), box_result(shifted(120))],
        masks=[mask_result(), mask_result(shifted(120))],
        keypoints=[pose_result(joints(BOX)), pose_result(joints(shifted(120)))],
    )
    assert scores.boxes == scores.masks == scores.keypoints == PERFECT
    assert scores.false_positives == 0


def test_no_results_score_zero() -> None:
    scores = score_results(document(annotation()), boxes=[], masks=[], keypoints=[])
    assert scores.boxes == scores.masks == scores.keypoints == NOTHING
    assert scores.false_positives == 0


def test_nobody_to_find_has_no_score_but_false_positives() -> None:
    scores = score_results(document(), boxes=[box_result()], masks=[])
    assert scores.boxes == scores.masks == Score(None, None, None, None)
    assert scores.keypoints is None, "not given, not scored"
    assert scores.false_positives == 1


@pytest.mark.parametrize("pixels", [1, 7, 13, 20, 32, 34, 50])
def test_shifted_box_has_the_ap_of_its_overlap(pixels: int) -> None:
    overlap = (100 - pixels) / (100 + pixels)
    scores = score_results(document(annotation()), boxes=[box_result(shifted(pixels))])
    assert scores.boxes is not None
    assert scores.boxes.ap == pytest.approx(mean_precision(overlap))
    assert scores.boxes.ap50 == float(overlap >= 0.5)
    assert scores.boxes.ap75 == float(overlap >= 0.75)
    assert scores.boxes.ar == pytest.approx(mean_precision(overlap))
    assert scores.false_positives == int(overlap < 0.5)


def test_fractions_of_a_pixel_count() -> None:
    """Boxes are continuous: width 10 shifted by half a pixel overlaps 9.5 / 10.5."""
    truth = document(annotation([10.0, 10.0, 10.0, 10.0], keypoints=[]))
    scores = score_results(truth, boxes=[box_result([10.5, 10.0, 10.0, 10.0])])
    assert scores.boxes is not None
    assert scores.boxes.ap == pytest.approx(mean_precision(9.5 / 10.5)) == 0.9


def test_masks_are_compared_pixel_by_pixel() -> None:
    scores = score_results(document(annotation()), masks=[mask_result(shifted(20))])
    assert scores.masks is not None
    assert scores.masks.ap == pytest.approx(mean_precision(80 / 120))


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_keypoints_off_by_a_part_of_a_pixel_have_the_ap_of_their_oks(shift: float) -> None:
    """A person of 12x12 pixels: half a pixel is a lot."""
    box = [50.0, 50.0, 12.0, 12.0]
    truth = document(annotation(box))
    found = joints(box) + [shift, 0]
    variance = (2 * np.array(COCO_SIGMAS)) ** 2
    oks = np.exp(-(shift**2) / variance / 144 / 2).mean()
    scores = score_results(truth, keypoints=[pose_result(found)])
    assert scores.keypoints is not None
    assert scores.keypoints.ap == pytest.approx(mean_precision(float(oks)))
    assert scores.keypoints.ap < 1.0
    exact = score_results(truth, keypoints=[pose_result(joints(box))])
    assert exact.keypoints == PERFECT


def test_a_false_positive_with_a_better_score_costs_precision() -> None:
    truth = document(annotation())
    elsewhere = box_result(shifted(150), score=0.95)
    scores = score_results(truth, boxes=[box_result(), elsewhere], score_threshold=0.5)
    assert scores.boxes is not None
    assert scores.boxes.ap == pytest.approx(0.5)
    assert scores.false_positives == 1
    high = score_results(truth, boxes=[box_result(), elsewhere], score_threshold=0.95)
    assert high.false_positives == 0, "the threshold itself is not above the threshold"


def test_results_on_a_crowd_count_neither_way() -> None:
    crowd = annotation([200.0, 20.0, 110.0, 200.0], iscrowd=1)
    inside = [box_result([210.0, 40.0, 30.0, 90.0], 0.99), box_result([250.0, 40, 30, 90], 0.98)]
    scores = score_results(
        document(annotation(), crowd),
        boxes=[box_result(), *inside],
        masks=[mask_result(), mask_result([210.0, 40.0, 30.0, 90.0], 0.99)],
        keypoints=[pose_result(joints(BOX)), pose_result(joints([210.0, 40, 30, 90]), 0.99)],
    )
    assert scores.boxes == scores.masks == scores.keypoints == PERFECT
    assert scores.false_positives == 0
    counted = score_results(
        document(annotation(), {**crowd, "iscrowd": 0}), boxes=[box_result(), *inside]
    )
    assert counted.false_positives == 2


@pytest.mark.parametrize("segmentation", [None, [], [[]], {}])
def test_person_without_a_mask(segmentation: Any) -> None:
    """Found or not, with any mask: the score of the others stays what it is."""
    bare = annotation(shifted(120), segmentation=segmentation)
    truth = document(annotation(), bare)
    missed = score_results(truth, boxes=[box_result()], masks=[mask_result()])
    found = score_results(
        truth, masks=[mask_result(), mask_result([180.0, 50.0, 30.0, 60.0], score=0.99)]
    )
    assert missed.masks == found.masks == PERFECT
    assert missed.boxes is not None and missed.boxes.ar == 0.5, "the box is there to be found"


@pytest.mark.parametrize("keypoints", [None, [], [0] * 51])
def test_person_without_keypoints(keypoints: Any) -> None:
    bare = annotation(shifted(120), keypoints=keypoints, num_keypoints=0)
    truth = document(annotation(), bare)
    scores = score_results(
        truth, keypoints=[pose_result(joints(BOX)), pose_result(joints(shifted(120)), 0.99)]
    )
    assert scores.keypoints == PERFECT


def test_joints_that_are_not_labelled_do_not_matter() -> None:
    keypoints = np.column_stack([joints(BOX), np.full(17, 2)])
    keypoints[3:9] = 0
    found = joints(BOX)
    found[3:9] += 200
    truth = document(annotation(keypoints=keypoints.ravel().tolist(), num_keypoints=11))
    assert score_results(truth, keypoints=[pose_result(found)]).keypoints == PERFECT


def test_polygons_and_plain_run_lengths_are_the_same_masks() -> None:
    x, y, width, height = BOX
    polygon = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    columns = rectangle(BOX).T.ravel().astype(np.int8)
    edges = np.flatnonzero(np.diff(columns)) + 1
    counts = np.diff(np.concatenate([[0], edges, [columns.size]])).tolist()
    for segmentation in (polygon, {"size": [HEIGHT, WIDTH], "counts": counts}):
        truth = document(annotation(segmentation=segmentation))
        assert score_results(truth, masks=[mask_result()]).masks == PERFECT


def test_what_can_be_computed_may_be_missing() -> None:
    full = annotation()
    bare = {key: full[key] for key in ("image_id", "category_id", "segmentation", "keypoints")}
    person = complete_person(bare, {"id": 1})
    assert person["bbox"] == BOX and person["area"] == 100 * 200
    assert person["iscrowd"] == 0 and person["num_keypoints"] == 17
    assert complete_person({**full, "segmentation": None, "area": None}, {"id": 1})["area"] == 2e4


def test_ids_of_zero_are_no_trap() -> None:
    """pycocotools marks what is unmatched with 0, so an annotation 0 would never be found."""
    truth = document(annotation(id=0))
    assert score_results(truth, boxes=[box_result()]).boxes == PERFECT


def test_the_truth_is_left_alone() -> None:
    truth = document(annotation())
    before = copy.deepcopy(truth)
    score_results(truth, boxes=[box_result()], masks=[mask_result()], keypoints=[])
    assert truth == before


def test_only_people_count() -> None:
    truth = document(annotation(), annotation(shifted(120), category_id=3))
    truth["categories"] = [{"id": 3, "name": "dog"}, {"id": 1, "name": "person"}]
    assert score_results(truth, boxes=[box_result()]).boxes == PERFECT
    truth["categories"] = [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}]
    with pytest.raises(ValueError, match="no category 'person'.*dog, cat"):
        people_of(truth)


def test_images_are_scored_apart() -> None:
    truth = document(annotation(), images=2)
    scores = score_results(truth, boxes=[box_result(image_id=2)])
    assert scores.boxes == NOTHING and scores.false_positives == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": None, "segmentation": None}, "neither a bbox nor a segmentation"),
        ({"keypoints": [1, 2, 3]}, "3 numbers of keypoints, needs 51"),
        ({"image_id": 5}, "image 5, which the ground truth does not list"),
        (
            {"segmentation": run_length_string(np.zeros((10, 20), np.bool_))},
            "mask of 20x10 pixels, its image 1 320x240",
        ),
    ],
)
def test_unusable_annotations_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        truth_for("boxes", document(annotation(**changes)))


def test_polygon_needs_the_size_of_its_image() -> None:
    truth = document(annotation(segmentation=[[0, 0, 10, 0, 10, 10]]))
    truth["images"] = [{"id": 1, "file_name": "a.jpg"}]
    with pytest.raises(ValueError, match="image 1 needs its width and height"):
        truth_for("masks", truth)


def test_results_of_strange_images_are_refused() -> None:
    with pytest.raises(ValueError, match="does not have: 5"):
        score_results(document(annotation()), boxes=[box_result(image_id=5)])
    doubled = document(annotation())
    doubled["images"] *= 2
    with pytest.raises(ValueError, match="same id"):
        score_results(doubled, boxes=[])


def test_details_say_which_images_and_how_precise() -> None:
    """Image 1 is right, 2 misses its person and has a false box, 3 finds it with a low score."""
    other = [200.0, 20.0, 60.0, 100.0]
    truth = document(
        annotation(), annotation(image_id=2, id=8), annotation(image_id=3, id=9), images=4
    )
    results = [
        box_result(), box_result(other, image_id=2), box_result(image_id=3, score=0.2),
        box_result(other, image_id=4, score=0.2),
    ]  # fmt: skip
    details = ScoreDetails()
    scores = score_results(truth, boxes=results, score_threshold=0.3, details=details)
    assert details.mistakes == {1: (0, 0), 2: (1, 1), 3: (1, 0), 4: (0, 0)}
    assert scores.false_positives == 1
    curve = details.curves["boxes"]
    assert curve.shape == (10, 101) and np.allclose(details.thresholds, THRESHOLDS)
    assert curve.mean() == pytest.approx(scores.boxes.ap)
    assert curve[0, 10] == pytest.approx(1.0) and curve[0, 100] == 0.0
