# SPDX-License-Identifier: Apache-2.0
"""The circle at work, with the networks that come with the package: who is hidden is found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from bmp_ros.engines import build_loop
from bmp_ros.loop.box_nms import box_iou
from bmp_ros.synthetic.generator import render_scene

SEEDS = range(5000, 5010)
"""No figure is of these pictures."""


@pytest.mark.slow
def test_the_second_look_finds_people_behind_others(renderer: object) -> None:
    """On pictures in which people overlap by half and more, as models/tiny/README.md says."""
    loop = build_loop("tiny", device="cpu")
    missed = found = 0
    for seed in SEEDS:
        sample = render_scene(seed, "heavy", 640, 480)
        people, truth = loop(sample.image), sample.people.boxes.astype(np.float32)
        first = people.iterations == 1
        same = box_iou(truth, people.boxes) >= 0.5
        rows, columns = linear_sum_assignment(-same[:, first].astype(float))
        unseen = np.ones(len(truth), np.bool_)
        unseen[rows[same[:, first][rows, columns]]] = False
        missed += int(unseen.sum())
        rows, columns = linear_sum_assignment(-same[unseen][:, ~first].astype(float))
        found += int(same[unseen][:, ~first][rows, columns].sum())
    assert missed >= 10
    assert found >= 0.1 * missed, f"{found} of {missed}"
