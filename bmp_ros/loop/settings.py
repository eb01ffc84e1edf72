# SPDX-License-Identifier: Apache-2.0
"""``LoopSettings``: the thresholds and rules of the loop."""

from __future__ import annotations

from dataclasses import dataclass

from bmp_ros.fields import CheckedSettings, bool_field, choice_field, number_field
from bmp_ros.loop.prompts import PROMPT_METHODS


@dataclass(frozen=True)
class LoopSettings(CheckedSettings):
    """Everything that steers the loop itself; the defaults are those of the preset ``bmp_d3``."""

    iterations: int = number_field(
        2, low=1, high=5, integer=True, text="maximum detection rounds; from the second on, "
        "people already found are masked out of the image",
    )  # fmt: skip
    detection_threshold: float = number_field(
        0.3, low=0.0, high=1.0, text="minimum detector score of a person"
    )
    later_threshold: float | None = number_field(
        None, low=0.0, high=1.0, optional=True, text="minimum detector score from the second "
        "iteration on, where it is higher; null: detection_threshold",
    )  # fmt: skip
    behind_threshold: float | None = number_field(
        None, low=0.0, high=1.0, optional=True, text="minimum detector score, from the second "
        "iteration on, of a box that overlaps a sure person's by more than box_nms_iou, so that "
        "NMS kept it from being found earlier, and while people are tracked also the place of "
        "one who is missing; null: as for others",
    )  # fmt: skip
    behind_score: float = number_field(
        0.6, low=0.0, high=1.0, text="detector score from which a person is sure, for "
        "behind_threshold",
    )  # fmt: skip
    look_again_score: float | None = number_field(
        None, low=0.0, high=1.0, optional=True, text="run another iteration only if the detector "
        "saw a box of at least this score that overlaps a person but is not theirs: someone may "
        "be hidden; null: always",
    )  # fmt: skip
    box_nms_iou: float = number_field(
        0.3, low=0.0, high=1.0, text="NMS: IoU above which the lower-scoring box is removed"
    )
    max_people: int = number_field(
        50,
        low=1,
        high=1000,
        integer=True,
        text="maximum people per frame, highest detector scores first",
    )
    confidence_threshold: float = number_field(
        0.3, low=0.0, high=1.0, text="minimum score of a keypoint that counts as found"
    )
    visibility_threshold: float = number_field(
        0.3, low=0.0, high=1.0, text="minimum visibility (or score, for networks without "
        "visibility) of a keypoint that prompts the segmenter",
    )  # fmt: skip
    oks_threshold: float = number_field(
        0.8,
        low=0.0,
        high=1.0,
        text="pose NMS: OKS above which two poses are the same person and one is removed",
    )
    pose_nms_keeps: str = choice_field(
        "keypoints", choices=("keypoints", "score"), text="pose NMS: which of two poses of one "
        "person stays, the one with more keypoints above confidence_threshold or the one with the "
        "higher detector score",
    )  # fmt: skip
    keep_poseless: str = choice_field(
        "first", choices=("first", "never"), text="which people to keep without any keypoint "
        "above confidence_threshold: those of the first iteration, or none",
    )  # fmt: skip
    prompt_method: str = choice_field(
        "distance+confidence",
        choices=PROMPT_METHODS,
        text="how the keypoints that prompt the segmenter are chosen",
    )
    num_positive: int = number_field(
        6, low=1, high=17, integer=True, text="maximum positive prompt points per person"
    )
    num_positive_crowded: int = number_field(
        6,
        low=1,
        high=17,
        integer=True,
        text="maximum positive prompt points per person in a crowd",
    )
    crowd_iou: float | None = number_field(
        None, low=0.0, high=1.0, optional=True, text="IoU with another box above which a person "
        "is in a crowd; null: never",
    )  # fmt: skip
    num_negative: int = number_field(
        0,
        low=0,
        high=17,
        integer=True,
        text="maximum negative prompt points per person, on the nearest other people",
    )
    box_score_weight: float = number_field(
        0.0, low=0.0, high=1.0, text="each pixel goes to the mask with the highest mask score * "
        "detector score ** box_score_weight; 0: to the highest mask score",
    )  # fmt: skip
    boxes_from_masks: bool = bool_field(
        False, text="replace the detector's boxes by the bounding boxes of the final masks"
    )
