# SPDX-License-Identifier: Apache-2.0
"""The demo clip as images with ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmp_ros.evaluation.datasets import LabelledImage
from bmp_ros.evaluation.ground_truth import CATEGORY
from bmp_ros.synthetic.clip_file import open_clip
from bmp_ros.synthetic.dataset import annotations_of
from bmp_ros.synthetic.ground_truth import PeopleTruth

LEAST_AREA = 150
"""Visible pixels at 640x480 below which a person counts neither way, as in the rendered splits."""


@dataclass(frozen=True)
class DemoClip:
    """``count`` frames of the demo clip, evenly spaced over it; all of them without a count."""

    count: int | None = None
    name: str = "demo"
    categories: Sequence[Mapping[str, Any]] = (CATEGORY,)

    def __len__(self) -> int:
        everything = len(open_clip())
        return min(self.count or everything, everything)

    def __iter__(self) -> Iterator[LabelledImage]:
        clip = open_clip()
        wanted = set(np.linspace(0, len(clip) - 1, len(self)).round().astype(int).tolist())
        width, height = clip.size
        for frame in clip:
            if frame.number in wanted:
                entry = {"id": frame.number, "width": width, "height": height}
                yield LabelledImage(
                    frame.image, entry, clip_annotations(frame.people, frame.number)
                )


def clip_annotations(people: PeopleTruth, image_id: int) -> list[dict[str, Any]]:
    """COCO annotations of one frame of a clip.

    A clip's truth lists whoever shows at least one pixel. Nobody could find the last slivers of
    somebody who walks behind a wall, so they are regions in which results count neither way.
    """
    height, width = people.masks.shape[1:]
    least = LEAST_AREA * width * height / (640 * 480)
    return [
        {**annotation, "iscrowd": int(annotation["area"] < least)}
        for annotation in annotations_of(people, image_id)
    ]
