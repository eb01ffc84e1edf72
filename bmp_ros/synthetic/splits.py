# SPDX-License-Identifier: Apache-2.0
"""What each split promises about its images, and the check that an image keeps it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bmp_ros.loop.box_nms import box_iou
from bmp_ros.synthetic.ground_truth import PeopleTruth
from bmp_ros.synthetic.scene import Layout


@dataclass(frozen=True)
class Split:
    """A kind of images. assets: "train" or "test" bodies, clothes, textures, posture templates.

    people: least and most people in the ground truth. max_iou: every two boxes overlap less.
    min_iou: at least one pair overlaps as much. min_height: pixels at 480 rows, of every box.
    """

    name: str
    code: int
    assets: str
    people: tuple[int, int]
    layouts: tuple[Layout, ...]
    max_iou: float = 1.01
    min_iou: float = 0.0
    min_height: float = 0.0

    def accepts(self, truth: PeopleTruth, rows: int) -> bool:
        """Whether the image's ground truth keeps the promises of the split."""
        low, high = self.people
        if not low <= len(truth) <= high:
            return False
        heights = truth.boxes[:, 3] - truth.boxes[:, 1]
        if (heights < self.min_height * rows / 480).any():
            return False
        overlap = box_iou(truth.boxes, truth.boxes)
        highest = float(overlap[np.triu_indices(len(truth), 1)].max(initial=0.0))
        return self.min_iou <= highest < self.max_iou


_EASY = Layout(pairs=0.0, queues=0.0, gather=0.0, pixel_heights=(90, 560))
_LOOSE = Layout(pairs=0.2, queues=0.1, gather=0.3, pixel_heights=(60, 600))
_CROWD = Layout(pairs=0.15, queues=0.25, gather=0.35, pixel_heights=(80, 480))
_TIGHT = Layout(pairs=0.6, queues=0.2, gather=0.75, pixel_heights=(160, 620))
_CLOSE = Layout(pairs=0.3, queues=0.1, gather=0.5, pixel_heights=(350, 1300))

SPLITS = {
    split.name: split
    for split in (
        Split("train", 11, "train", (0, 12), (_EASY, _LOOSE, _CROWD, _TIGHT, _TIGHT, _CLOSE)),
        Split("easy", 21, "test", (1, 4), (_EASY,), max_iou=0.3, min_height=64),
        Split("crowded", 22, "test", (5, 12), (_CROWD,)),
        Split("heavy", 23, "test", (2, 8), (_TIGHT,), min_iou=0.5),
    )
}
"""train mixes everything, empty scenes included; the others are for measuring only."""


def find_split(name: str) -> Split:
    """The split called ``name``. Raises ValueError naming those that exist."""
    if name not in SPLITS:
        raise ValueError(f"unknown split {name!r}; there are {', '.join(SPLITS)}")
    return SPLITS[name]


def sample_count(random: np.random.Generator, split: Split) -> int:
    """How many people to place; training has more small groups, 4 % are empty."""
    low, high = split.people
    if split.name != "train":
        return int(random.integers(low, high + 1))
    if random.random() < 0.04:
        return 0
    return (
        int(np.clip(1 + random.geometric(0.28) - 1, 1, high))
        if random.random() < 0.7
        else int(random.integers(4, high + 1))
    )
