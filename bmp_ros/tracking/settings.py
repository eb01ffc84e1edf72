# SPDX-License-Identifier: Apache-2.0
"""What the tracker takes for the same person, and for how long; how much joints are smoothed."""

from __future__ import annotations

from dataclasses import dataclass

from bmp_ros.fields import CheckedSettings, bool_field, number_field


@dataclass(frozen=True)
class TrackerSettings(CheckedSettings):
    """Settings of `PersonTracker`; the values were chosen on rendered clips (docs/tracking.md)."""

    high_score: float = number_field(
        0.35, low=0, high=1, text="detector score from which people are matched first"
    )
    birth_score: float = number_field(
        0.5, low=0, high=1, text="minimum detector score of a person who gets a new track"
    )
    match_threshold: float = number_field(
        0.25,
        low=0,
        high=1,
        text="minimum similarity of a match with a detector score of at least 0.9",
    )
    low_match_threshold: float = number_field(
        0.5, low=0, high=1,
        text="minimum similarity of a match with a detector score of at most 0.5; between 0.5 and "
        "0.9 it falls to match_threshold",
    )  # fmt: skip
    mask_weight: float = number_field(
        0.45, low=0, high=1, text="weight of the overlap of masks in the similarity"
    )
    pose_weight: float = number_field(
        0.35, low=0, high=1, text="weight of the likeness of poses (OKS) in the similarity"
    )
    box_weight: float = number_field(
        0.2, low=0, high=1, text="weight of the overlap of boxes in the similarity"
    )
    appearance_weight: float = number_field(
        0.3, low=0, high=1, text="weight of the colours of clothes in the similarity"
    )
    box_buffer: float = number_field(
        0.2, low=0, high=2, text="by which share of their size boxes grow before they are compared"
    )
    birth_overlap: float = number_field(
        0.7, low=0, high=1,
        text="share of a new person's mask on a tracked person's place that makes it a part of "
        "that person",
    )  # fmt: skip
    confirm_hits: int = number_field(
        2,
        low=1,
        high=10,
        integer=True,
        text="images that must show a person before the track gets an id",
    )
    confirm_s: float = number_field(
        0.5, low=0, high=5, text="seconds within which the images of confirm_hits must come"
    )
    double_s: float = number_field(
        1.0, low=0, high=60,
        text="seconds for which a new track whose box overlaps that of a tracked person waits for "
        "its id: it may be that person, found twice",
    )  # fmt: skip
    lost_s: float = number_field(
        1.0, low=0, high=10, text="seconds for which a person out of sight is expected by motion"
    )
    occluded_s: float = number_field(
        3.0,
        low=0,
        high=20,
        text="seconds for which a person hidden by another one is expected by motion",
    )
    memory_s: float = number_field(
        10.0,
        low=0,
        high=600,
        text="seconds for which a person out of sight can be recognised by colours",
    )
    appearance_threshold: float = number_field(
        0.55,
        low=0,
        high=1,
        text="minimum similarity of the colours at which a person is recognised",
    )
    velocity_noise: float = number_field(
        2.0, low=0.01, high=50,
        text="variance that a velocity gains per second, in body heights per second squared",
    )  # fmt: skip
    swap_guard: bool = bool_field(
        True, text="after two people met, exchange their ids if they look exchanged"
    )


@dataclass(frozen=True)
class SmoothingSettings(CheckedSettings):
    """Settings of `JointSmoother`, chosen on rendered clips (docs/tracking.md)."""

    min_cutoff: float = number_field(
        0.3, low=0.01, high=50, text="cut-off frequency of still joints, hertz"
    )
    beta: float = number_field(
        0.7,
        low=0,
        high=1000,
        text="hertz that the cut-off gains per body scale per second, where images are at most "
        "0.05 s apart; in proportion more where they come more slowly",
    )
    trend: float = number_field(
        1.0, low=0, high=1,
        text="share of its speed with which a moving joint is expected to go on: more lags less",
    )  # fmt: skip
    speed_cutoff: float = number_field(
        1.0, low=0.01, high=50, text="cut-off frequency of the speed itself, hertz"
    )
    forget_s: float = number_field(
        0.5, low=0.01, high=10,
        text="seconds without the person after which smoothing begins anew; who was in the image "
        "before, too, goes on for 2 s at least",
    )  # fmt: skip
    jump: float = number_field(
        0.5,
        low=0.01,
        high=100,
        text="body scales (metres in space) that a sure joint must jump within 0.05 s to be taken "
        "as it is; in proportion more where images come more slowly",
    )
