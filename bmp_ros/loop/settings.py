# SPDX-License-Identifier: Apache-2.0
"""``LoopSettings``: the thresholds and rules of the loop."""

from __future__ import annotations

from dataclasses import dataclass

from bmp_ros.fields import bool_field, choice_field, number_field
from bmp_ros.loop.prompts import PROMPT_METHODS


@dataclass(frozen=True)
class LoopSettings:
    """Everything that steers the loop itself; the defaults are those of the preset ``bmp_d3``."""

    iterations: int = number_field(
        2, low=1, high=5, integer=True, text="detection rounds; from the second on, the people "
        "found so far are painted out",
    )  # fmt: skip
    detection_threshold: float = number_field(
        0.3, low=0.0, high=1.0, text="people need a detector score above this"
    )
    box_nms_iou: float = number_field(
        0.3, low=0.0, high=1.0, text="of two boxes that overlap more (IoU), the worse one goes"
    )
    max_people: int = number_field(
        50, low=1, high=1000, integer=True, text="at most so many people per frame, best first"
    )
    confidence_threshold: float = number_field(
        0.3, low=0.0, high=1.0, text="keypoints count as found with a score above this"
    )
    visibility_threshold: float = number_field(
        0.3, low=0.0, high=1.0, text="keypoints may prompt the segmenter with a visibility (or, "
        "for networks without one, a score) of at least this",
    )  # fmt: skip
    oks_threshold: float = number_field(
        0.8, low=0.0, high=1.0, text="poses more similar than this (OKS) are one person"
    )
    keep_poseless: str = choice_field(
        "first", choices=("first", "never"), text="people without a keypoint above the confidence "
        "threshold: keep those found in the first iteration, or none",
    )  # fmt: skip
    prompt_method: str = choice_field(
        "distance+confidence", choices=PROMPT_METHODS, text="which keypoints prompt the segmenter"
    )
    num_positive: int = number_field(
        6, low=1, high=17, integer=True, text="prompt points on the person"
    )
    num_positive_crowded: int = number_field(
        6, low=1, high=17, integer=True, text="prompt points on a person in a crowd"
    )
    crowd_iou: float | None = number_field(
        None, low=0.0, high=1.0, optional=True, text="a box that overlaps another one more than "
        "this (IoU) is in a crowd; null: nobody is",
    )  # fmt: skip
    num_negative: int = number_field(
        0, low=0, high=17, integer=True, text="prompt points on the nearest other people"
    )
    boxes_from_masks: bool = bool_field(
        False, text="replace the detector's boxes by those of the final masks"
    )
