# SPDX-License-Identifier: Apache-2.0
"""Postures of people who do sports or move as they like: for training only.

Photographs are full of them, and a network that saw only people at rest misses them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bmp_ros.synthetic.skeleton import Pose
from bmp_ros.synthetic.template import Arm, Template, posed
from bmp_ros.synthetic.walking import walk


def _any_arm(random: np.random.Generator) -> Arm:
    raised = random.uniform(0.1, 2.6) if random.random() < 0.5 else random.uniform(0.1, 1.2)
    return (
        raised, random.uniform(0.0, 1.9), random.uniform(0.1, 2.2), random.uniform(-0.2, 1.0),
        random.uniform(-0.4, 0.4),
    )  # fmt: skip


def _free(random: np.random.Generator) -> Pose:
    """Arms and legs anywhere, one foot in the air at times."""
    lift = np.zeros(2)
    if random.random() < 0.4:
        lift[random.integers(2)] = random.uniform(0.05, 0.4)
    low = random.uniform(0.55, 0.9) if random.random() < 0.5 else random.uniform(0.85, 0.97)
    feet = np.column_stack([random.uniform(0.06, 0.35, 2), random.uniform(-0.4, 0.4, 2)])
    return posed(
        _any_arm(random),
        _any_arm(random),
        pelvis_height=low,
        pelvis=random.normal(0, 1, 3) * [0.22, 0.1, 0.25],
        spine=random.normal(0, 1, 3) * [0.25, 0.15, 0.3] + [0.15, 0, 0],
        head=random.normal(0, 1, 3) * [0.2, 0.12, 0.4],
        feet=feet,
        foot_lift=lift,
        foot_pitch=np.where(lift > 0, random.uniform(0, 0.9), random.uniform(0, 0.3, 2)),
        knees_out=random.uniform(0.0, 0.5, 2),
        grip=random.uniform(0, 1, 2),
    )


def _sprint(random: np.random.Generator) -> Pose:
    pose = walk(random.uniform(0, 2 * np.pi), random.uniform(0.5, 0.75), random.uniform(0.7, 1.2))
    arms = pose.arms.copy()
    arms[:, 2] = random.uniform(1.2, 1.9)
    return replace(
        pose,
        arms=arms,
        foot_lift=pose.foot_lift * random.uniform(1.5, 4.0),
        pelvis_height=pose.pelvis_height * random.uniform(0.9, 1.0),
        pelvis=pose.pelvis + [random.uniform(0.1, 0.5), 0, 0],
        spine=pose.spine + [random.uniform(0, 0.3), 0, 0],
        grip=np.ones(2),
    )


def _ready(random: np.random.Generator) -> Pose:
    """Knees bent, trunk forward, hands in front: a skier, a goalkeeper, a skater."""
    wide = random.uniform(0.1, 0.3)
    forward = random.normal(0, 0.15)
    return posed(
        (random.uniform(0.2, 1.0), random.uniform(0.1, 0.9), random.uniform(0.6, 1.6), 0.2, 0),
        (random.uniform(0.2, 1.0), random.uniform(0.1, 0.9), random.uniform(0.6, 1.6), 0.2, 0),
        pelvis_height=random.uniform(0.68, 0.93),
        pelvis=[random.uniform(0.15, 0.6), 0, random.normal(0, 0.15)],
        spine=[random.uniform(0.1, 0.5), random.normal(0, 0.1), random.normal(0, 0.2)],
        head=[-0.4, 0, 0],
        feet=[[wide, forward], [wide, -forward]],
        knees_out=[wide, wide],
        grip=[1, 1],
    )


def _swing(random: np.random.Generator) -> Pose:
    """Both hands to one side, trunk turned: with a bat, a racket, an oar."""
    turn, raised = random.uniform(0.3, 1.0), random.uniform(0.7, 1.9)
    return posed(
        (raised, random.uniform(0.0, 0.4), random.uniform(0.3, 1.2), random.uniform(0.3, 1.0), 0),
        (raised, random.uniform(0.6, 1.5), random.uniform(0.3, 1.8), 0.2, 0),
        pelvis_height=random.uniform(0.82, 0.95),
        pelvis=[random.uniform(0, 0.3), 0, -0.5 * turn],
        spine=[random.uniform(0, 0.3), 0, -turn],
        head=[0, 0, turn],
        feet=[[random.uniform(0.15, 0.4), 0.1], [random.uniform(0.15, 0.4), -0.1]],
        foot_pitch=[0, random.uniform(0, 0.5)],
        grip=[1, 1],
    )


def _low_seat(random: np.random.Generator) -> Pose:
    """On a stool or a kerb, legs drawn up, stretched or crossed."""
    return posed(
        _any_arm(random),
        (0.5, 0.4, random.uniform(0.6, 1.6), 0.4, 0),
        pelvis_height=random.uniform(0.3, 0.48),
        pelvis=[random.uniform(-0.3, 0.1), 0, 0],
        spine=[random.uniform(0.0, 0.7), random.normal(0, 0.1), random.normal(0, 0.2)],
        feet=np.column_stack([random.uniform(-0.05, 0.25, 2), random.uniform(0.35, 0.8, 2)]),
        foot_lift=[0, random.uniform(0, 0.3) if random.random() < 0.3 else 0],
        knees_out=random.uniform(0.0, 0.6, 2),
    )


LIVELY: tuple[Template, ...] = (
    Template("free", "train", _free, 6.0),
    Template("sprint", "train", _sprint, 3.0),
    Template("ready", "train", _ready, 2.5),
    Template("swing", "train", _swing, 1.5),
    Template("low_seat", "train", _low_seat, 2.0, seat=True),
)
