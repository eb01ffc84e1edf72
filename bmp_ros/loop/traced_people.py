# SPDX-License-Identifier: Apache-2.0
"""Who is who between the stages of a traced run, and the detector's masks of the people found."""

from __future__ import annotations

import numpy as np

from bmp_ros.loop.people import People
from bmp_ros.loop.trace import Trace


def detector_masks(trace: Trace) -> list[np.ndarray | None]:
    """The detector's mask (H, W) bool of everybody in ``trace.people``; None where it had none."""
    assert trace.people is not None
    masks: list[np.ndarray | None] = [None] * len(trace.people)
    for step in trace.iterations:
        # Masks that nobody gave have strides of 0 (`People.of_boxes`).
        if step.survivors is None or not any(step.survivors.raw_masks.strides):
            continue
        for row, earlier in enumerate(rows_in(step.survivors, trace.people)):
            if earlier >= 0 and trace.people.iteration[row] == step.iteration:
                masks[row] = step.survivors.raw_masks[earlier]
    return masks


def rows_in(earlier: People, later: People) -> list[int]:
    """For everybody in ``later`` their row in ``earlier``, -1 for those who are not there.

    Both are of one run of the loop, after poses were estimated: score and keypoints of a person
    stay the same from then on, rows are dropped, and boxes may become those of the masks.
    """
    known = {_key(earlier, row): row for row in reversed(range(len(earlier)))}
    return [known.get(_key(later, row), -1) for row in range(len(later))]


def _key(people: People, row: int) -> tuple[float, bytes, bytes]:
    return (
        float(people.scores[row]),
        people.keypoints[row].tobytes(),
        people.keypoint_scores[row].tobytes(),
    )
