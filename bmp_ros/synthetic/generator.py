# SPDX-License-Identifier: Apache-2.0
"""Seed and split in, image with ground truth out: the same on every run and in every process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from bmp_ros.loop.box_nms import box_iou
from bmp_ros.synthetic.camera import Camera
from bmp_ros.synthetic.ground_truth import PeopleTruth, people_truth, projected_box
from bmp_ros.synthetic.photograph import photograph
from bmp_ros.synthetic.render import Raster, Renderer
from bmp_ros.synthetic.scene import Scene, compose_scene, draw_scene
from bmp_ros.synthetic.splits import Split, find_split, sample_count

MAX_ATTEMPTS = 60
LEAST_AREA = 150
"""Visible pixels at 640x480 below which a person cannot be labelled; such people are taken out."""


@dataclass(frozen=True)
class Sample:
    """One image with its answers.

    image: BGR uint8 (H, W, 3). depth: float32 (H, W) metres along the optical axis.
    stamp: seconds since the start of a clip, 0 for single images.
    """

    image: np.ndarray
    people: PeopleTruth
    depth: np.ndarray
    camera: Camera
    split: str
    seed: int
    stamp: float = 0.0


@lru_cache(maxsize=1)
def shared_renderer() -> Renderer:
    """The process's renderer; OpenGL contexts are costly and belong to one thread."""
    return Renderer()


def render_scene(seed: int, split: str, width: int = 640, height: int = 480) -> Sample:
    """The image number ``seed`` (>= 0) of ``split``: train, easy, crowded or heavy.

    Scenes that do not keep the split's promises are drawn again with the next attempt's numbers.
    Raises ValueError for an unknown split, RuntimeError naming what to install without OpenGL.
    """
    rules = find_split(split)
    for attempt in range(MAX_ATTEMPTS):
        random = np.random.default_rng((rules.code, seed, attempt))
        layout = rules.layouts[random.integers(len(rules.layouts))]
        count = sample_count(random, rules)
        scene = compose_scene(random, rules.assets, count, layout, width, height)
        if not _promising(scene, rules):
            continue
        scene, raster, truth = _without_slivers(scene)
        if rules.accepts(truth, height):
            image = photograph(raster.color, raster.depth, scene.optics, random)
            return Sample(image, truth, raster.depth, scene.camera, split, seed)
    raise RuntimeError(
        f"no scene of split {split!r} for seed {seed} at {width}x{height} in {MAX_ATTEMPTS} "
        "attempts; use another seed or a larger image"
    )


def generate(
    split: str, count: int, start: int = 0, width: int = 640, height: int = 480
) -> Iterator[Sample]:
    """The images ``start`` .. ``start + count - 1`` of ``split``, one after the other."""
    find_split(split)
    for seed in range(start, start + count):
        yield render_scene(seed, split, width, height)


def _promising(scene: Scene, rules: Split) -> bool:
    """Cheap test before drawing: whole-person boxes must leave the split's promises possible."""
    boxes = np.array([projected_box(body, scene.camera) for body in scene.bodies]).reshape(-1, 4)
    size = boxes[:, 2:] - boxes[:, :2]
    shown = boxes[(size > 4).all(axis=1)]
    if not rules.people[0] <= len(shown):
        return False
    if (shown[:, 3] - shown[:, 1] < rules.min_height * scene.camera.height / 480).any():
        return False
    overlap = box_iou(shown, shown)[np.triu_indices(len(shown), 1)].max(initial=0.0)
    return bool(overlap < rules.max_iou + 0.1 and overlap >= rules.min_iou - 0.2)


def _without_slivers(scene: Scene) -> tuple[Scene, Raster, PeopleTruth]:
    """Draw; take out people of whom almost nothing is seen and draw again, until none are left."""
    least = LEAST_AREA * scene.camera.width * scene.camera.height / (640 * 480)
    while True:
        raster = draw_scene(shared_renderer(), scene)
        truth = people_truth(scene.bodies, raster, scene.camera)
        too_small = truth.identities[truth.masks.sum(axis=(1, 2)) < least]
        if len(too_small) == 0:
            return scene, raster, truth
        kept = tuple(b for b in scene.bodies if b.person.identity not in too_small)
        scene = replace(scene, bodies=kept)
