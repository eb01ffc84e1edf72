# SPDX-License-Identifier: Apache-2.0
"""People as ellipses with joints, at places that a test chooses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bmp_ros.loop.people import People

HEIGHT, WIDTH = 240, 320
BODY = np.random.default_rng(0).uniform([-0.35, -0.45], [0.35, 0.45], (17, 2))


def walkers(
    places: list[tuple[float, float]], *, tall: float = 100.0, scores: list[float] | None = None
) -> People:
    """People around ``places`` (x, y), ``tall`` pixels high; the earlier ones are in front."""
    size = np.array([0.4 * tall, tall])
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    free = np.ones((HEIGHT, WIDTH), np.bool_)
    masks = np.zeros((len(places), HEIGHT, WIDTH), np.bool_)
    for mask, (cx, cy) in zip(masks, places, strict=True):
        mask[:] = ((x - cx) / size[0]) ** 2 + ((y - cy) / size[1]) ** 2 <= 0.25
        mask &= free
        free &= ~mask
    centres = np.array(places, np.float64).reshape(-1, 2)
    boxes = np.concatenate([centres - size / 2, centres + size / 2], axis=1)
    boxes = boxes.clip(0, [WIDTH, HEIGHT] * 2).astype(np.float32)
    sure = np.array(scores or [0.9] * len(places), np.float32)
    people = People.from_boxes(boxes, sure, HEIGHT, WIDTH, masks=masks)
    joints = centres[:, None] + BODY * size
    return replace(
        people,
        keypoints=joints.astype(np.float32),
        keypoint_scores=np.full(joints.shape[:2], 0.9, np.float32),
        mask_scores=np.full(len(places), 0.9, np.float32),
    )


def picture(people: People, colours: list[tuple[int, int, int]]) -> np.ndarray:
    """A grey image in which the masks have ``colours`` (BGR)."""
    image = np.full((*people.image_size, 3), 128, np.uint8)
    for mask, colour in zip(people.masks, colours, strict=True):
        image[mask] = colour
    return image
