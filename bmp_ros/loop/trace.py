# SPDX-License-Identifier: Apache-2.0
"""What a run of the loop tells about itself: a small report always, a full trace on request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bmp_ros.loop.people import People
    from bmp_ros.loop.prompts import PromptGroup
    from bmp_ros.loop.protocols import Detections


@dataclass
class RunReport:
    """How one frame went.

    stage_ms: wall milliseconds by stage, summed over the iterations: paint_out, detect, box_nms,
        pose, pose_nms, prompts, segment, exclusive_masks, and total. Stages that did not run are
        absent.
    iterations: how many were begun.
    not_finite: people dropped because a network returned NaN or infinity for them.
    """

    stage_ms: dict[str, float] = field(default_factory=dict)
    iterations: int = 0
    not_finite: int = 0


@dataclass(eq=False)
class IterationTrace:
    """What the stages of one iteration saw and said; None where a stage was not reached.

    image: BGR uint8 (H, W, 3), what the detector saw. detections: all that it said. detected:
    after box NMS. posed: with keypoints. survivors: after pose NMS. prompts: the segmenter's
    point prompts; rows are those of ``survivors``. segmented: the survivors with raw masks.
    people: all people accepted after this iteration; masks become exclusive in the
    end, see ``Trace.people``.
    """

    iteration: int = 1
    image: np.ndarray | None = None
    detections: Detections | None = None
    detected: People | None = None
    posed: People | None = None
    survivors: People | None = None
    prompts: list[PromptGroup] | None = None
    segmented: People | None = None
    people: People | None = None


class _Discarded(IterationTrace):
    """Forgets what is assigned, for runs of which no trace is wanted."""

    def __setattr__(self, name: str, value: Any) -> None:
        pass


DISCARDED = _Discarded()


@dataclass
class Trace:
    """The iterations of one frame, the people in the end, and the report."""

    iterations: list[IterationTrace]
    people: People
    report: RunReport


def detector_masks(trace: Trace) -> list[np.ndarray | None]:
    """The detector's mask (H, W) bool of each person in ``trace.people``; None without one."""
    masks: list[np.ndarray | None] = [None] * len(trace.people)
    for step in trace.iterations:
        if step.survivors is None:
            continue
        for row, earlier in enumerate(rows_in(step.survivors, trace.people)):
            found_here = earlier >= 0 and trace.people.iterations[row] == step.iteration
            if found_here and step.survivors.has_mask[earlier]:
                masks[row] = step.survivors.raw_masks[earlier]
    return masks


def rows_in(earlier: People, later: People) -> list[int]:
    """For each person in ``later`` their row in ``earlier``, -1 for those who are not there.

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
