# SPDX-License-Identifier: Apache-2.0
"""PCKh on people whose joints are known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from bmp_ros.evaluation.pckh import (
    evaluate_pckh,
    mpii_joints,
    read_mpii,
    report_lines,
    score,
)
from bmp_ros.loop.protocols import Poses
from bmp_ros.loop.skeletons import COCO_17, MPII_16, MULTI_21


def joints_of(seed: int) -> np.ndarray:
    """(16, 2) whole pixels, counted from 1."""
    return np.random.default_rng(seed).integers(20, 180, (16, 2)).astype(float)


def entry(image: str, seed: int, **changes) -> dict:
    """A person with a head of 0.6 x 50 = 30 pixels."""
    own = {
        "image": image, "joints": joints_of(seed).tolist(), "joints_vis": [1] * 16,
        "center": [101.0, 91.0], "scale": 0.8, "head_box": [10, 10, 40, 50],
    }  # fmt: skip
    return {**own, **changes}


class Oracle:
    """Says the true joints of the people of each image, some of them moved."""

    def __init__(self, skeleton, answers: dict[int, np.ndarray]) -> None:
        self.skeleton, self._answers, self.boxes = skeleton, answers, []

    def estimate(self, frame, boxes, masks):
        assert masks is None
        self.boxes.append(boxes)
        joints = self._answers[int(frame.image[0, 0, 0])]
        keypoints = np.zeros((len(boxes), len(self.skeleton), 2), np.float32)
        keypoints[:, mpii_joints(self.skeleton)] = joints
        return Poses(keypoints, np.ones(keypoints.shape[:2], np.float32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number, name in ((10, "a.png"), (20, "b.png")):
        cv2.imwrite(str(tmp_path / "images" / name), np.full((200, 200, 3), number, np.uint8))
    return tmp_path


def write(folder: Path, entries) -> Path:
    file = folder / "annotations.json"
    file.write_text(json.dumps(entries))
    return file


def test_joints_without_a_label_do_not_count_as_right(folder):
    file = write(folder, [entry("a.png", 1, joints_vis=[1] * 8 + [0] * 8)])
    (person,) = people = read_mpii(file)
    scores = score(person.joints[None], people)
    assert scores.mean == 100 and 0 < scores.joints < 14


@pytest.mark.parametrize("skeleton", [MPII_16, MULTI_21], ids=lambda skeleton: skeleton.name)
def test_joints_within_half_a_head_are_right(folder, skeleton):
    hidden = [1] * 16
    hidden[MPII_16.names.index("left_wrist")] = 0
    file = write(folder, [entry("b.png", 0), entry("a.png", 1), entry("a.png", 2,
                 joints_vis=hidden)])  # fmt: skip
    people = read_mpii(file)
    answers = {20: joints_of(0)[None] - 1, 10: np.stack([joints_of(1), joints_of(2)]) - 1}
    moved = {"right_knee": 15.0, "left_ankle": 15.1, "left_wrist": 400.0, "pelvis": 99.0}
    for name, pixels in moved.items():  # of the second person in a.png
        answers[10][1, MPII_16.names.index(name), 0] += pixels
    oracle = Oracle(skeleton, answers)
    scores = evaluate_pckh(oracle, folder, people)
    assert scores.groups["knee"] == scores.groups["wrist"] == scores.groups["head"] == 100
    assert scores.groups["ankle"] == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert scores.joints == 3 * 14 - 1
    assert scores.mean == pytest.approx(100 * 40 / 41)
    assert [len(boxes) for boxes in oracle.boxes] == [1, 2]
    # Centre (101, 91) counted from 1, 12 pixels lower, a square of 160 pixels.
    assert oracle.boxes[0].tolist() == [[20, 22, 180, 182]]
    assert "PCKh@0.5" in report_lines(scores)[0] and "83.3" in report_lines(scores)[2]


def test_head_boxes_of_mpiis_own_file(folder):
    scipy_io = pytest.importorskip("scipy.io", reason="scipy is not installed")
    heads = np.zeros((2, 2, 2))
    heads[:, :, 0], heads[:, :, 1] = [[0, 0], [30, 40]], [[5, 5], [65, 85]]
    scipy_io.savemat(folder / "gt.mat", {"headboxes_src": heads})
    without = entry("a.png", 0)
    del without["head_box"]
    people = read_mpii(write(folder, [without, without]), folder / "gt.mat")
    assert [person.head_size for person in people] == pytest.approx([30, 60])
    with pytest.raises(ValueError, match=r"shape \(2, 2, 2\), the annotations have 1 people"):
        read_mpii(write(folder, [without]), folder / "gt.mat")
    with pytest.raises(ValueError, match=r"person 0 lacks head_box .*--head-boxes"):
        read_mpii(write(folder, [without]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"joints": [[1, 2]]}, "person 1 is not as MPII's annotations are"),
        ({"scale": 0}, "person 1 has scale 0.0"),
        ({"head_box": [3, 3, 3, 3]}, "a head of 0.0 pixels"),
    ],
)
def test_a_wrong_annotation_is_named(folder, changes, message):
    file = write(folder, [entry("a.png", 0), entry("a.png", 0, **changes)])
    with pytest.raises(ValueError, match=message):
        read_mpii(file)


def test_annotations_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="a.json is not there. Name MPII's with --annot"):
        read_mpii(tmp_path / "a.json")


def test_what_is_missing_is_named(folder):
    with pytest.raises(ValueError, match="coco_17 lacks pelvis, thorax, upper_neck, head_top"):
        mpii_joints(COCO_17)
    with pytest.raises(ValueError, match="is not a list of people"):
        read_mpii(write(folder, {}))
    with pytest.raises(ValueError, match="person 0 lacks center, scale"):
        read_mpii(write(folder, [{"image": "a", "joints": [], "joints_vis": []}]))
    people = read_mpii(write(folder, [entry("lost.png", 0)]))
    with pytest.raises(FileNotFoundError, match=r"lost\.png is neither in"):
        evaluate_pckh(Oracle(MPII_16, {}), folder, people)
