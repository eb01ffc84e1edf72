# SPDX-License-Identifier: Apache-2.0
"""Postures of people who stand, walk, sit, reach and crouch, for train and for test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bmp_ros.synthetic.skeleton import Pose
from bmp_ros.synthetic.template import HANGING, Arm, Template, posed
from bmp_ros.synthetic.walking import walk


def _walking(random: np.random.Generator, stride: tuple[float, float], swing: float) -> Pose:
    return walk(
        random.uniform(0, 2 * np.pi), random.uniform(*stride), swing * random.uniform(0.5, 1.4)
    )


def _running(random: np.random.Generator) -> Pose:
    pose = walk(random.uniform(0, 2 * np.pi), random.uniform(0.45, 0.6), 0.9)
    arms = pose.arms.copy()
    arms[:, 2] = 1.5
    return replace(
        pose,
        arms=arms,
        foot_lift=pose.foot_lift * 2.2,
        pelvis=pose.pelvis + [0.15, 0, 0],
        grip=np.ones(2),
    )


def _sitting(random: np.random.Generator, left: Arm, right: Arm, lean: float) -> Pose:
    forward = random.uniform(0.40, 0.62)
    wide = random.uniform(0.08, 0.22)
    return posed(
        left,
        right,
        pelvis_height=random.uniform(0.46, 0.56),
        pelvis=[-0.12, 0.0, 0.0],
        spine=[lean, 0.0, 0.0],
        feet=[[wide, forward], [wide, forward + random.normal(0, 0.06)]],
        knees_out=[wide, wide],
    )


EVERYDAY: tuple[Template, ...] = (
    # Standing
    Template("relaxed", "train", lambda r: posed(), 2.0),
    Template(
        "contrapposto",
        "train",
        lambda r: posed(
            pelvis=[0, 0.08, 0.1],
            spine=[0, -0.12, 0],
            feet=[[0.1, 0.02], [0.2, 0.12]],
            pelvis_height=0.985,
        ),
    ),
    Template(
        "arms_crossed",
        "train",
        lambda r: posed((0.45, 0.35, 1.75, 1.15, 0.2), (0.40, 0.35, 1.8, 1.1, 0.2)),
    ),
    Template(
        "hands_clasped",
        "train",
        lambda r: posed((0.2, 0.2, 0.75, 0.85, 0), (0.2, 0.2, 0.75, 0.85, 0)),
    ),
    Template(
        "phone",
        "train",
        lambda r: posed((0.35, 0.2, 1.75, 0.55, 0.3), HANGING, head=[0.45, 0, 0.1]),
    ),
    Template(
        "phone_call",
        "train",
        lambda r: posed((0.7, 0.7, 2.35, 0.15, 0.0), HANGING, head=[0.1, 0.1, 0]),
    ),
    Template(
        "waving",
        "train",
        lambda r: posed((r.uniform(1.3, 2.0), 1.4, r.uniform(0.8, 1.8), 0.0, 0), HANGING),
    ),
    Template(
        "pointing",
        "train",
        lambda r: posed(
            (r.uniform(1.1, 1.8), r.uniform(0, 1.2), 0.15, 0, 0), HANGING, head=[0, 0, 0.3]
        ),
    ),
    Template(
        "hands_on_hips",
        "train",
        lambda r: posed((0.75, 1.75, 1.5, 1.3, 0.3), (0.75, 1.75, 1.5, 1.3, 0.3)),
    ),
    Template(
        "reach_forward",
        "train",
        lambda r: posed(
            (1.2, 0.2, 0.4, 0, 0), (r.uniform(0.9, 1.5), 0.25, 0.4, 0, 0), spine=[0.2, 0, 0]
        ),
    ),
    Template(
        "reach_up", "train", lambda r: posed((2.6, 0.5, 0.3, 0, 0), HANGING, head=[-0.4, 0, 0])
    ),
    Template(
        "hands_up",
        "train",
        lambda r: posed(
            (r.uniform(1.6, 2.7), 1.3, r.uniform(0.2, 1.2), 0, 0),
            (r.uniform(1.6, 2.7), 1.3, r.uniform(0.2, 1.2), 0, 0),
        ),
        0.6,
    ),
    Template(
        "carrying",
        "train",
        lambda r: posed((0.35, 0.25, 1.35, 0.35, -0.6), (0.35, 0.25, 1.35, 0.35, -0.6)),
    ),
    Template(
        "behind_back", "train", lambda r: posed((0.35, 2.7, 0.6, 1.4, 0), (0.35, 2.7, 0.6, 1.4, 0))
    ),
    # Moving
    Template("walking", "train", lambda r: _walking(r, (0.15, 0.38), 0.4), 4.0),
    Template("running", "train", _running, 0.6),
    Template(
        "lunge",
        "train",
        lambda r: posed(
            (1.3, 0.2, 0.5, 0, 0),
            (0.8, 0.3, 1.4, 0.3, 0),
            pelvis_height=0.82,
            feet=[[0.15, 0.5], [0.15, -0.45]],
            foot_pitch=[0, 0.5],
            foot_lift=[0, 0.06],
            spine=[0.2, 0, 0.2],
        ),
    ),
    Template(
        "kick",
        "train",
        lambda r: posed(
            (0.8, 1.5, 0.8, 0.2, 0),
            (0.8, 1.2, 1.0, 0.2, 0),
            feet=[[0.08, r.uniform(0.4, 0.75)], [0.1, 0]],
            foot_lift=[r.uniform(0.2, 0.55), 0],
            pelvis=[-0.15, 0, 0],
            grip=[1, 1],
        ),
        0.5,
    ),
    Template(
        "boxing",
        "train",
        lambda r: posed(
            (r.uniform(0.5, 1.4), 0.2, r.uniform(0.3, 2.1), 0.3, 0),
            (0.5, 0.2, 2.1, 0.35, 0),
            feet=[[0.15, 0.2], [0.15, -0.25]],
            pelvis_height=0.95,
            grip=[1, 1],
            spine=[0.15, 0, 0.2],
        ),
    ),
    # Low
    Template(
        "crouching",
        "train",
        lambda r: posed(
            (0.9, 0.2, 0.7, 0.3, 0),
            (0.8, 0.3, 0.9, 0.3, 0),
            pelvis_height=r.uniform(0.28, 0.5),
            feet=[[0.16, 0.12], [0.16, 0.0]],
            pelvis=[0.3, 0, 0],
            spine=[0.5, 0, 0],
            knees_out=[0.35, 0.35],
            foot_pitch=[0, 0.5],
            foot_lift=[0, 0.06],
        ),
    ),
    Template(
        "kneeling",
        "train",
        lambda r: posed(
            (0.6, 0.3, 1.0, 0.4, 0),
            (0.5, 0.3, 1.1, 0.4, 0),
            pelvis_height=0.52,
            feet=[[0.12, 0.42], [0.12, -0.5]],
            foot_pitch=[0, 1.1],
            foot_lift=[0, 0.03],
            spine=[0.2, 0, 0],
        ),
    ),
    Template(
        "bending",
        "train",
        lambda r: posed(
            (1.3, 0.1, 0.3, 0.1, 0),
            (1.2, 0.15, 0.3, 0.1, 0),
            pelvis=[r.uniform(0.4, 0.9), 0, 0],
            spine=[r.uniform(0.4, 1.0), 0, r.normal(0, 0.3)],
            pelvis_height=r.uniform(0.84, 0.98),
            feet=[[0.14, 0.1], [0.14, 0.0]],
            head=[-0.3, 0, 0],
        ),
    ),
    Template(
        "sit_hands_on_lap",
        "train",
        lambda r: _sitting(r, (0.5, 0.2, 1.0, 0.4, 0), (0.5, 0.2, 1.0, 0.4, 0), 0.1),
        1.5,
        True,
    ),
    Template(
        "sit_typing",
        "train",
        lambda r: _sitting(r, (0.45, 0.15, 1.35, 0.25, 0), (0.45, 0.15, 1.35, 0.25, 0), 0.25),
        1.2,
        True,
    ),
    Template(
        "sit_back",
        "train",
        lambda r: _sitting(r, HANGING, (0.5, 1.2, 1.4, 0.3, 0), -0.25),
        1.0,
        True,
    ),
    # Test only
    Template(
        "one_hand_on_hip",
        "test",
        lambda r: posed(
            (0.8, 1.7, 1.45, 1.3, 0.3),
            (0.3, 0.3, 0.9, 0.5, 0),
            pelvis=[0, 0.07, 0],
            feet=[[0.1, 0], [0.17, 0.1]],
        ),
        1.5,
    ),
    Template(
        "hand_to_chin",
        "test",
        lambda r: posed((0.55, 0.25, 2.3, 0.35, 0), (0.3, 0.35, 1.6, 1.1, 0)),
    ),
    Template(
        "standing_easy",
        "test",
        lambda r: posed(
            (0.22, 1.0, 0.45, 0.5, 0),
            (0.1, 1.5, 0.15, 0.1, 0),
            feet=[[0.16, 0.05], [0.1, -0.05]],
            spine=[0.05, 0.04, 0],
        ),
        2.5,
    ),
    Template(
        "greeting", "test", lambda r: posed((1.0, 1.2, 1.9, 0.1, 0.4), HANGING, head=[0, 0.1, 0.2])
    ),
    Template(
        "explaining",
        "test",
        lambda r: posed((0.55, 0.7, 1.3, -0.2, 0.5), (0.6, 0.6, 1.2, -0.1, 0.5)),
    ),
    Template(
        "arms_wide",
        "test",
        lambda r: posed((1.45, 1.5, 0.3, 0.2, 0), (1.3, 1.4, 0.4, 0.2, 0)),
        0.6,
    ),
    Template("stroll", "test", lambda r: _walking(r, (0.2, 0.3), 0.25), 2.5),
    Template("stride", "test", lambda r: _walking(r, (0.34, 0.44), 0.6), 1.5),
    Template(
        "squat",
        "test",
        lambda r: posed(
            (1.2, 0.25, 0.5, 0.5, 0),
            (1.2, 0.25, 0.5, 0.5, 0),
            pelvis_height=r.uniform(0.4, 0.6),
            feet=[[0.22, 0.1], [0.22, 0.1]],
            pelvis=[0.4, 0, 0],
            spine=[0.2, 0, 0],
            knees_out=[0.5, 0.5],
        ),
    ),
    Template(
        "bow_to_side",
        "test",
        lambda r: posed(
            (0.9, 0.3, 0.2, 0, 0),
            HANGING,
            pelvis=[0.35, 0.1, 0],
            spine=[0.45, 0.25, 0.3],
            pelvis_height=0.97,
        ),
    ),
    Template(
        "sit_lean_forward",
        "test",
        lambda r: _sitting(r, (0.75, 0.25, 1.2, 0.7, 0), (0.75, 0.25, 1.2, 0.7, 0), 0.6),
        1.5,
        True,
    ),
    Template(
        "sit_talking",
        "test",
        lambda r: _sitting(r, (0.4, 0.6, 1.6, 0.0, 0.4), (0.45, 0.2, 1.0, 0.4, 0), 0.05),
        1.2,
        True,
    ),
)
