# SPDX-License-Identifier: Apache-2.0
"""Bodies and skeletons: sizes of people, exact joints, feet on the ground, hands on targets."""

from __future__ import annotations

import numpy as np
import pytest

from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.synthetic.bodies import (
    BodyTemplates,
    body_templates,
    skin,
    skin_keypoints,
    skin_with_normals,
    vertex_normals,
)
from bmp_ros.synthetic.people import Stance, joint_position, make_person, pose_person
from bmp_ros.synthetic.pose_templates import TEMPLATES
from bmp_ros.synthetic.poses import jitter, mirrored
from bmp_ros.synthetic.skeleton import HandTarget, Pose, Skeleton, two_bones
from bmp_ros.synthetic.walking import walk

templates = body_templates()


def still() -> np.ndarray:
    return np.repeat(np.eye(3, 4)[None], len(templates.joint_names), axis=0).astype(np.float32)


def test_people_of_all_ages_have_human_heights():
    heights = np.array([templates.shape(number).height for number in range(0, 640, 8)])
    years = templates.years[0:640:8]
    assert 1.5 < heights[years > 18].mean() < 1.8
    assert heights[years > 18].min() > 1.3 and heights.max() < 2.15
    assert 0.75 < heights[years < 8].min() and heights[years < 8].max() < 1.45


def test_train_and_test_bodies_are_different_people():
    train, test = templates.people_of("train"), templates.people_of("test")
    assert len(train) >= 400 and len(test) >= 100
    assert len(train) + len(test) == len(templates.years)
    gaps = np.abs(templates.coefficients[test][:, None] - templates.coefficients[train][None])
    assert gaps.max(axis=2).min() > 1e-3


def test_weights_are_a_partition_of_unity():
    np.testing.assert_allclose(templates.weights.sum(axis=1), 1, atol=5e-3)


def test_regressed_joints_lie_inside_the_body_and_on_their_sides():
    shape = templates.shape(3)
    points = dict(zip(COCO_17.names, skin_keypoints(still(), shape.keypoint_moments), strict=True))
    low, high = shape.vertices.min(axis=0), shape.vertices.max(axis=0)
    for name, point in points.items():
        assert (point > low - 0.02).all() and (point < high + 0.02).all(), name
        if name.startswith("left"):
            assert point[0] > 0.02
            np.testing.assert_allclose(
                point * [-1, 1, 1], points[name.replace("left", "right")], atol=0.01
            )
    assert points["nose"][1] < points["left_ear"][1]  # the face looks along -y
    assert points["left_ankle"][2] < points["left_knee"][2] < points["left_hip"][2]


def test_joint_moments_are_exact_under_a_rigid_motion():
    shape = templates.shape(11)
    rest = skin_keypoints(still(), shape.keypoint_moments)
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    moved = still()
    moved[:, :, :3], moved[:, :, 3] = turn, [1, 2, 3]
    expected = rest @ turn.T + [1, 2, 3]
    np.testing.assert_allclose(skin_keypoints(moved, shape.keypoint_moments), expected, atol=1e-4)


def test_skinning_with_and_without_normals_agree():
    shape = templates.shape(0)
    transforms = Skeleton(templates, shape).transforms(walk(1.0))
    normals = vertex_normals(shape.vertices, templates.faces)
    both, turned = skin_with_normals(transforms, templates.weights, shape.vertices, normals)
    np.testing.assert_allclose(
        both, skin(transforms, templates.weights, shape.vertices), atol=1e-5
    )
    fresh = vertex_normals(both, templates.faces)
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    assert np.median((fresh * turned).sum(axis=1)) > 0.97


def test_normals_point_outwards():
    shape = templates.shape(0)
    head = templates.part("head")
    out = shape.vertices[head] - shape.vertices[head].mean(axis=0)
    normals = vertex_normals(shape.vertices, templates.faces)[head]
    assert ((out * normals).sum(axis=1) > 0).mean() > 0.75


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_every_posture_keeps_bones_and_stands_on_the_ground(template):
    random = np.random.default_rng(5)
    person = make_person(1, random, template.split, (16, 90))
    pose = jitter(random, template.build(random))
    body = pose_person(person, Stance(pose, np.array([1.0, 2.0, 0.0]), 0.4))
    rotations = body.transforms[:, :, :3]
    identity = np.broadcast_to(np.eye(3), rotations.shape)
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), identity, atol=1e-4)
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-4)
    person_only = person.mesh.is_person[person.mesh.surface]
    assert abs(body.vertices[person_only, 2].min()) < 1e-4
    ankles = [joint_position(body, f"foot.{side}")[2] for side in "LR"]
    assert min(ankles) < 0.2  # a foot, not a hand or the head, is what touches the ground
    head = joint_position(body, "head")
    assert head[2] > 0.25 and np.hypot(*(head[:2] - [1, 2])) < 1.0


def test_hands_reach_their_targets():
    person = make_person(1, np.random.default_rng(2), "train", (20, 60))
    body = pose_person(person, Stance(Pose(), np.zeros(3), 0.0))
    shoulder = joint_position(body, "upperarm01.L")
    goal = shoulder + np.array([0.1, -0.35, -0.1])
    target = HandTarget(goal, np.array([0.3, 0.2, -1.0]))
    reached = pose_person(person, Stance(Pose(), np.zeros(3), 0.0, (target, None)))
    np.testing.assert_allclose(joint_position(reached, "wrist.L"), goal, atol=0.01)


def test_two_bones_meet_the_target_and_stop_at_their_reach():
    upper, lower = two_bones(np.array([0.3, 0.1, -0.2]), 0.3, 0.25, np.array([0, 0, -1.0]))
    np.testing.assert_allclose(0.3 * upper + 0.25 * lower, [0.3, 0.1, -0.2], atol=1e-9)
    upper, lower = two_bones(np.array([9.0, 0, 0]), 0.3, 0.25, np.array([0, 0, -1.0]))
    assert 0.54 < (0.3 * upper + 0.25 * lower)[0] < 0.55


def test_mirroring_twice_changes_nothing():
    pose = jitter(np.random.default_rng(0), walk(0.7))
    twice = mirrored(mirrored(pose))
    for name, value in pose.__dict__.items():
        np.testing.assert_array_equal(value, getattr(twice, name))


def test_missing_templates_name_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="bmp_ros.synthetic.bodies --export"):
        BodyTemplates.load(tmp_path / "none.npz")
