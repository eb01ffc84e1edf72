# SPDX-License-Identifier: Apache-2.0
"""People who belong together: hugging, pushing, boxing, side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bmp_ros.synthetic.people import (
    Person,
    PosedPerson,
    Stance,
    joint_position,
    pose_person,
)
from bmp_ros.synthetic.poses import jitter, sample_pose
from bmp_ros.synthetic.rotations import bend
from bmp_ros.synthetic.skeleton import HandTarget, Pose

PAIRS = {
    "train": ("hug", "side_hug", "push", "talk", "boxing"),
    "test": ("embrace", "arm_around", "grapple"),
}
"""Kinds of pairs by split; the words say the posture, not the intent."""


def facing(direction: np.ndarray) -> float:
    """Heading of a person who looks along ``direction`` (x, y): heading 0 looks along -y."""
    return float(np.arctan2(direction[0], -direction[1]))


def chest_depth(person: Person) -> tuple[float, float]:
    """How far the dressed trunk reaches in front of and behind the hips' line, metres."""
    mesh = person.mesh
    trunk = (np.abs(mesh.canonical[:, 2] - 0.45) < 0.2) & (np.abs(mesh.canonical[:, 0]) < 0.16)
    trunk &= mesh.is_person[mesh.surface]
    depth = mesh.vertices[trunk, 1]
    hips = float(person.shape.joints[0, 1])
    return hips - float(np.percentile(depth, 3)), float(np.percentile(depth, 97)) - hips


def pose_pair(
    random: np.random.Generator,
    split: str,
    first: Person,
    second: Person,
    center: np.ndarray,
    angle: float,
) -> list[PosedPerson]:
    """Two people in contact around ``center`` (3,), the line between them at ``angle``."""
    kind = str(random.choice(PAIRS[split]))
    if kind in ("side_hug", "arm_around"):
        return _side_by_side(random, first, second, center, angle)
    gap = {
        "hug": -0.02,
        "embrace": -0.035,
        "push": 0.25,
        "grapple": 0.12,
        "talk": 0.45,
        "boxing": 0.4,
    }
    spread = gap[kind] + abs(random.normal(0, 0.02 if gap[kind] < 0 else 0.08))
    distance = chest_depth(first)[0] + chest_depth(second)[0] + spread
    axis = np.array([np.cos(angle), np.sin(angle), 0])
    shift = np.array([-axis[1], axis[0], 0]) * random.normal(0, 0.03)
    places = (center - axis * distance / 2, center + axis * distance / 2 + shift)
    stances = []
    for place, direction in zip(places, (axis, -axis), strict=True):
        stances.append(Stance(_contact_pose(random, split, kind), place, facing(direction)))
    bodies = [pose_person(p, s) for p, s in zip((first, second), stances, strict=True)]
    if kind in ("talk", "boxing"):
        return bodies
    return [_reach(random, kind, bodies[0], bodies[1]), _reach(random, kind, bodies[1], bodies[0])]


def _contact_pose(random: np.random.Generator, split: str, kind: str) -> Pose:
    if kind == "talk":
        return sample_pose(random, split)[1]
    lean = {"hug": 0.06, "embrace": 0.1, "push": 0.3, "grapple": 0.35, "boxing": 0.15}[kind]
    step = random.uniform(0.05, 0.3) if kind in ("push", "grapple", "boxing") else 0.04
    pose = Pose(
        pelvis_height=0.99 - 0.5 * step**2,
        spine=np.array([lean * 0.6, 0, 0]),
        pelvis=np.array([lean * 0.4, 0, 0]),
        head=np.array([0.1, random.normal(0, 0.2), random.normal(0, 0.5)]),
        feet=np.array([[0.12, step], [0.12, -step]]),
        foot_pitch=np.array([0.0, step]),
        foot_lift=np.array([0.0, 0.1 * step]),
    )
    if kind == "boxing":
        guard = [
            [random.uniform(0.5, 1.4), 0.2, random.uniform(0.3, 2.1), 0.3, 0],
            [0.5, 0.2, 2.1, 0.35, 0],
        ]
        pose = replace(pose, arms=np.array(guard), grip=np.ones(2))
    return jitter(random, pose, 0.5)


def _reach(
    random: np.random.Generator, kind: str, body: PosedPerson, partner: PosedPerson
) -> PosedPerson:
    """``body`` with both hands on the partner's back, waist, shoulders or arms."""
    scale = partner.person.scale
    hands: list[HandTarget | None] = []
    turn = bend(0, 0, partner.stance.heading)
    own = bend(0, 0, body.stance.heading)
    high = bool(random.random() < 0.5)
    for side in (1.0, -1.0):  # own left, right; the partner faces us, so sides are mirrored
        fingers = None
        if kind in ("hug", "embrace"):
            fingers = turn @ np.array([side, -0.4, 0.1])  # flat across the partner's back
            name = "spine01" if (side > 0) == high else "spine03"
            behind = chest_depth(partner.person)[1] + 0.03
            local = np.array(
                [-side * random.uniform(0.0, 0.12), behind, random.uniform(-0.04, 0.06)]
            )
        elif kind == "grapple":
            name, local = f"upperarm01.{'R' if side > 0 else 'L'}", np.array([0, -0.06, 0.03])
        else:
            name, local = "spine01", np.array([-side * 0.13, -0.13, random.uniform(-0.1, 0.03)])
        point = joint_position(partner, name) + turn @ (local * [scale, 1, scale])
        outward = own @ np.array([side, -0.1, -0.5])
        hands.append(HandTarget(point, outward, fingers))
    stance = replace(body.stance, hands=(hands[0], hands[1]))
    return pose_person(body.person, stance)


def _side_by_side(
    random: np.random.Generator, first: Person, second: Person, center: np.ndarray, angle: float
) -> list[PosedPerson]:
    """Shoulder to shoulder, the first one's arm around the second."""
    axis = np.array([np.cos(angle), np.sin(angle), 0])
    heading = facing(np.array([axis[1], -axis[0]]))  # the second stands on the first one's left
    half = 0.17 * (first.scale + second.scale) / 2 + random.uniform(0.0, 0.03)
    bodies = []
    for person, sign in ((first, -1), (second, 1)):
        pose = jitter(random, Pose(spine=np.array([0.0, -sign * 0.04, 0.0])), 0.5)
        stance = Stance(pose, center + sign * half * axis, heading + random.normal(0, 0.15))
        bodies.append(pose_person(person, stance))
    shoulder = joint_position(bodies[1], "upperarm01.L" if random.random() < 0.5 else "spine02")
    behind = bend(0, 0, heading) @ np.array([0.04, 0.10, 0.04])
    elbow = bend(0, 0, heading) @ np.array([0.3, 1.0, -0.3])
    target = HandTarget(shoulder + behind, elbow)
    bodies[0] = pose_person(first, replace(bodies[0].stance, hands=(target, None)))
    return bodies
