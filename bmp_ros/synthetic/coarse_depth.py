# SPDX-License-Identifier: Apache-2.0
"""Depth images for clips, whose files keep the depth of joints, but not of pixels."""

from __future__ import annotations

import cv2
import numpy as np

from bmp_ros.synthetic.ground_truth import PeopleTruth

_STEP = 4


def depth_of_people(truth: PeopleTruth) -> np.ndarray:
    """(H, W) float32 metres along the optical axis: of people between the depths of their joints.

    Each pixel of a mask has the mean of the joints' depths, weighted by the inverse square of
    their distances in the image. What is no person is 0, unknown.
    """
    height, width = truth.masks.shape[1:]
    depth = np.zeros((height, width), np.float32)
    for row, mask in enumerate(truth.masks):
        x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
        if not w:
            continue
        known = truth.joint_depths[row] > 0
        joints, metres = truth.keypoints[row, known], truth.joint_depths[row, known]
        if not len(joints):
            continue
        columns, rows = np.meshgrid(np.arange(x, x + w, _STEP), np.arange(y, y + h, _STEP))
        places = np.stack([columns, rows], axis=-1)[:, :, None]
        weights = 1 / (((places - joints) ** 2).sum(axis=-1) + 1.0)
        coarse = (weights * metres).sum(axis=-1) / weights.sum(axis=-1)
        fine = cv2.resize(coarse.astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR)
        own = mask[y : y + h, x : x + w]
        depth[y : y + h, x : x + w][own] = fine[own]
    return depth
