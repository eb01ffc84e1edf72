# SPDX-License-Identifier: Apache-2.0
"""Pictures and their answers: the same every time, and true."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from bmp_ros.loop.box_nms import box_iou
from bmp_ros.synthetic.ground_truth import (
    NOT_IN_IMAGE,
    VISIBLE,
    mask_box,
    people_truth,
)
from bmp_ros.synthetic.scene import compose_scene, draw_scene
from bmp_ros.synthetic.splits import SPLITS, find_split

WIDTH, HEIGHT = 320, 240
PRINT_HASH = """
import hashlib
from bmp_ros.synthetic.generator import render_scene
sample = render_scene(4, "heavy", 320, 240)
print(hashlib.sha256(sample.image.tobytes() + sample.people.masks.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def crowd(renderer):
    """A crowded scene, its raster and its answers."""
    rules = find_split("train")
    scene = compose_scene(np.random.default_rng(8), "train", 6, rules.layouts[3], WIDTH, HEIGHT)
    raster = draw_scene(renderer, scene)
    return scene, raster, people_truth(scene.bodies, raster, scene.camera)


def test_same_seed_same_picture_in_one_process_and_in_another(renderer):
    from bmp_ros.synthetic.generator import render_scene

    first = render_scene(4, "heavy", WIDTH, HEIGHT)
    render_scene(5, "train", WIDTH, HEIGHT)  # what was drawn in between must not matter
    second = render_scene(4, "heavy", WIDTH, HEIGHT)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.depth, second.depth)
    np.testing.assert_array_equal(first.people.masks, second.people.masks)
    np.testing.assert_array_equal(first.people.keypoints, second.people.keypoints)
    other = subprocess.run(
        [sys.executable, "-c", PRINT_HASH], capture_output=True, text=True, check=True
    )
    digest = hashlib.sha256(first.image.tobytes() + first.people.masks.tobytes()).hexdigest()
    assert other.stdout.strip() == digest


def test_different_seeds_and_splits_differ(renderer):
    from bmp_ros.synthetic.generator import render_scene

    images = [render_scene(s, "train", WIDTH, HEIGHT).image for s in (0, 1)]
    images.append(render_scene(0, "easy", WIDTH, HEIGHT).image)
    for a in range(3):
        for b in range(a):
            assert np.abs(images[a].astype(int) - images[b]).mean() > 5


def test_masks_agree_with_drawing_each_person_alone(renderer, crowd):
    scene, raster, truth = crowd
    assert len(truth) >= 3
    silhouettes = {}
    for body in scene.bodies:
        alone = draw_scene(renderer, replace(scene, bodies=(body,)))
        silhouettes[body.person.identity] = alone.instances == body.person.identity
    assert not (truth.masks.sum(axis=0) > 1).any()
    for identity, mask in zip(truth.identities, truth.masks, strict=True):
        assert not (mask & ~silhouettes[identity]).any()
        hidden = silhouettes[identity] & ~mask
        # Whatever hides a person is another person or the thing that one carries.
        others = np.any([s for i, s in silhouettes.items() if i != identity], axis=0)
        assert (hidden & ~others).sum() < 0.35 * max(hidden.sum(), 1) + 20


def test_boxes_hold_the_masks_exactly_and_lie_in_the_amodal_boxes(crowd):
    _, _, truth = crowd
    for box, amodal, mask in zip(truth.boxes, truth.amodal_boxes, truth.masks, strict=True):
        np.testing.assert_array_equal(box, mask_box(mask))
        rows, columns = np.nonzero(mask)
        assert (box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).all()
        assert (amodal[:2] <= box[:2] + 1).all() and (amodal[2:] >= box[2:] - 1).all()


def test_keypoints_are_the_projected_joints_and_visible_ones_lie_on_the_mask(crowd):
    scene, _, truth = crowd
    bodies = {body.person.identity: body for body in scene.bodies}
    matrix, rotation, shift = scene.camera.matrix, scene.camera.rotation, scene.camera.translation
    seen = 0
    for row, identity in enumerate(truth.identities):
        homogeneous = (bodies[identity].keypoints @ rotation.T + shift) @ matrix.T
        np.testing.assert_allclose(
            truth.keypoints[row], homogeneous[:, :2] / homogeneous[:, 2:], atol=0.05
        )
        for (x, y), depth, flag in zip(
            truth.keypoints[row], truth.joint_depths[row], truth.visibility[row], strict=True
        ):
            inside = 0 <= x < WIDTH and 0 <= y < HEIGHT
            assert (flag == NOT_IN_IMAGE) == (not inside or depth <= 0.08)
            if flag == VISIBLE:
                seen += 1
                rows, columns = np.nonzero(truth.masks[row])
                reach = max(1.5, 1.5 * matrix[0, 0] * 0.035 / depth) + 1
                assert np.hypot(columns + 0.5 - x, rows + 0.5 - y).min() <= reach
    assert seen > 10


def test_depth_agrees_with_the_nearest_projected_vertices(crowd):
    scene, raster, truth = crowd
    bodies = {body.person.identity: body for body in scene.bodies}
    for identity, mask in zip(truth.identities, truth.masks, strict=True):
        body = bodies[identity]
        _, depth = scene.camera.project(body.vertices)
        shown = raster.depth[mask]
        assert shown.min() > depth.min() - 0.02 and shown.max() < depth.max() + 0.02
    assert (raster.depth > 0).all()  # the surroundings close every view


@pytest.mark.parametrize("name", ["easy", "crowded", "heavy"])
def test_splits_keep_their_promises(renderer, name):
    from bmp_ros.synthetic.generator import generate

    for sample in generate(name, 3, start=40):
        people = sample.people
        overlap = box_iou(people.boxes, people.boxes)[np.triu_indices(len(people), 1)]
        heights = people.boxes[:, 3] - people.boxes[:, 1]
        assert sample.image.shape == (480, 640, 3) and sample.image.dtype == np.uint8
        assert (people.masks.sum(axis=(1, 2)) >= 150).all()
        if name == "easy":
            assert 1 <= len(people) <= 4 and (heights >= 64).all()
            assert overlap.max(initial=0) < 0.3
        elif name == "crowded":
            assert 5 <= len(people) <= 12
        else:
            assert overlap.max() >= 0.5


def test_nobody_at_all(renderer):
    rules = find_split("train")
    scene = compose_scene(np.random.default_rng(0), "train", 0, rules.layouts[0], WIDTH, HEIGHT)
    raster = draw_scene(renderer, scene)
    truth = people_truth(scene.bodies, raster, scene.camera)
    assert len(truth) == 0 and truth.masks.shape == (0, HEIGHT, WIDTH)
    assert truth.keypoints.shape == (0, 17, 2)
    assert SPLITS["train"].accepts(truth, HEIGHT)
    assert not SPLITS["easy"].accepts(truth, HEIGHT)


def test_unknown_split_names_the_known_ones():
    from bmp_ros.synthetic.generator import render_scene

    with pytest.raises(ValueError, match="train, easy, crowded, heavy"):
        render_scene(0, "hard")


def test_clip_keeps_identities_and_moves_people(renderer):
    from bmp_ros.synthetic.clip import render_clip

    frames = list(render_clip(1, 10.0, 0.5, width=WIDTH, height=HEIGHT))
    assert [frame.stamp for frame in frames] == [0, 2, 4, 6, 8]
    identities = set().union(*(frame.people.identities.tolist() for frame in frames))
    assert {1, 2} <= identities
    hug = next(f for f in frames if f.stamp == 4)  # the meeting lasts from 3 s to 5.5 s
    rows = [hug.people.identities.tolist().index(i) for i in (1, 2)]
    boxes = hug.people.amodal_boxes[rows]
    assert box_iou(boxes, boxes)[0, 1] > 0.2
    again = next(iter(render_clip(1, 10.0, 0.5, width=WIDTH, height=HEIGHT)))
    np.testing.assert_array_equal(again.image, frames[0].image)
