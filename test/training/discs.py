# SPDX-License-Identifier: Apache-2.0
"""Images for the training tests: discs as people, drawn in microseconds, no renderer needed."""

from __future__ import annotations

import numpy as np

from bmp_ros.training.images import TrainingImage


def disc_image(seed: int, people: int, width: int = 128, height: int = 96) -> TrainingImage:
    """``people`` discs of bright colours on a dark ground; 17 joints lie inside each."""
    random = np.random.default_rng(seed)
    image = np.full((height, width, 3), 40, np.uint8)
    masks = np.zeros((people, height, width), bool)
    keypoints = np.zeros((people, 17, 2), np.float32)
    for row in range(people):
        radius = random.uniform(10, 18)
        x, y = random.uniform(radius, [width - radius, height - radius])
        grid_y, grid_x = np.mgrid[:height, :width]
        masks[row] = (grid_x - x) ** 2 + (grid_y - y) ** 2 < radius**2
        masks[:row] &= ~masks[row]
        image[masks[row]] = random.integers(120, 255, 3)
        keypoints[row] = [x, y] + random.uniform(-0.6, 0.6, (17, 2)) * radius
    kept = masks.any(axis=(1, 2))
    return TrainingImage(image, masks[kept], keypoints[kept], np.full((kept.sum(), 17), 2))
