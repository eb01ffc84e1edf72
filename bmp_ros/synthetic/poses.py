# SPDX-License-Identifier: Apache-2.0
"""Sampled postures. Train and test draw from different templates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bmp_ros.synthetic.pose_templates import TEMPLATES
from bmp_ros.synthetic.skeleton import Pose
from bmp_ros.synthetic.template import Template


def sample_pose(random: np.random.Generator, split: str) -> tuple[Template, Pose]:
    """A template of ``split`` ("train" or "test") and one posture of it, joints jittered."""
    choices = [template for template in TEMPLATES if template.split == split]
    odds = np.array([template.odds for template in choices])
    template = choices[random.choice(len(choices), p=odds / odds.sum())]
    return template, jitter(random, template.build(random))


def jitter(random: np.random.Generator, pose: Pose, strength: float = 1.0) -> Pose:
    """``pose`` with small independent changes of every joint, and mirrored half of the time."""
    arms = pose.arms + random.normal(0, strength, (2, 5)) * [0.10, 0.18, 0.15, 0.15, 0.3]
    arms[:, 2] = np.clip(arms[:, 2], 0.08, 2.45)
    changed = replace(
        pose,
        pelvis=pose.pelvis + random.normal(0, 0.04 * strength, 3),
        spine=pose.spine + random.normal(0, strength, 3) * [0.07, 0.05, 0.12],
        head=pose.head + random.normal(0, strength, 3) * [0.15, 0.10, 0.35],
        feet=pose.feet + random.normal(0, 0.03 * strength, (2, 2)),
        toe_out=pose.toe_out + random.normal(0, 0.12 * strength, 2),
        knees_out=pose.knees_out + random.normal(0, 0.1 * strength, 2),
        arms=arms,
        grip=np.clip(pose.grip + random.normal(0, 0.2, 2), 0, 1),
    )
    return mirrored(changed) if random.random() < 0.5 else changed


def mirrored(pose: Pose) -> Pose:
    """The same posture with left and right exchanged."""
    flip = np.array([1.0, -1.0, -1.0])
    return replace(
        pose,
        pelvis=pose.pelvis * flip,
        spine=pose.spine * flip,
        head=pose.head * flip,
        feet=pose.feet[::-1],
        foot_lift=pose.foot_lift[::-1],
        foot_pitch=pose.foot_pitch[::-1],
        toe_out=pose.toe_out[::-1],
        knees_out=pose.knees_out[::-1],
        arms=pose.arms[::-1],
        grip=pose.grip[::-1],
    )
