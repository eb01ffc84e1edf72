# SPDX-License-Identifier: Apache-2.0
"""Where on the body a vertex lies: along the arm, along the leg, height of the torso, head.

Everything is measured on the canonical adult (metres), so that a sleeve that ends at the elbow
ends there on a child too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bmp_ros.synthetic.bodies import BodyTemplates, body_templates

FAR = 9.0
CROTCH, WAIST, NECK_BASE = 0.06, 0.27, 0.745
"""Heights on the canonical adult, metres above the origin of the body frame."""


@dataclass(frozen=True)
class BodyRegions:
    """Per vertex (V,): positions along limbs and membership of parts."""

    along_arm: np.ndarray
    """0 at the shoulder, 1 at the elbow, 2 at the wrist; -FAR off the arms."""
    along_leg: np.ndarray
    """0 at the hip, 1 at the knee, 2 at the ankle; -FAR above the legs."""
    is_arm: np.ndarray
    is_leg: np.ndarray
    is_head: np.ndarray
    is_neck: np.ndarray
    is_foot: np.ndarray
    is_hand: np.ndarray
    outward: np.ndarray
    """(V, 3) unit vectors away from the axis of the limb or torso: the way loose cloth hangs."""


@lru_cache(maxsize=1)
def body_regions() -> BodyRegions:
    """The regions of the shipped templates."""
    templates = body_templates()
    canonical = templates.canonical_vertices
    along_arm = np.full(len(canonical), -FAR)
    along_leg = np.full(len(canonical), -FAR)
    outward = canonical - np.array([0, 0, 1]) * canonical[:, 2:]
    is_arm = _weight_of(templates, ("upperarm", "lowerarm", "wrist", "finger")) > 0.5
    is_leg = _weight_of(templates, ("upperleg", "lowerleg", "foot")) > 0.5
    for side, sign in (("L", 1.0), ("R", -1.0)):
        on_side = canonical[:, 0] * sign > 0
        arm = [f"{bone}.{side}" for bone in ("upperarm01", "lowerarm01", "wrist")]
        leg = [f"{bone}.{side}" for bone in ("upperleg01", "lowerleg01", "foot")]
        for names, member, result in ((arm, is_arm, along_arm), (leg, is_leg, along_leg)):
            corners = [templates.canonical_joints[templates.joint(name)] for name in names]
            chosen = on_side & member
            result[chosen], outward[chosen] = _along(canonical[chosen], corners)
    is_head = templates.part("head") | templates.part("eye")
    is_neck = (_weight_of(templates, ("neck",)) > 0.3) & ~is_head
    length = np.linalg.norm(outward, axis=1, keepdims=True)
    return BodyRegions(
        along_arm=along_arm,
        along_leg=along_leg,
        is_arm=is_arm,
        is_leg=is_leg,
        is_head=is_head,
        is_neck=is_neck,
        is_foot=templates.part("foot"),
        is_hand=templates.part("hand"),
        outward=(outward / np.maximum(length, 1e-6)).astype(np.float32),
    )


def _weight_of(templates: BodyTemplates, prefixes: tuple[str, ...]) -> np.ndarray:
    chosen = [i for i, name in enumerate(templates.joint_names) if name.startswith(prefixes)]
    return templates.weights[:, chosen].sum(axis=1)


def _along(points: np.ndarray, corners: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Position along the line through three ``corners`` (0, 1, 2) and direction away from it."""
    first, middle, last = corners
    upper = (points - first) @ (middle - first) / ((middle - first) @ (middle - first))
    lower = (points - middle) @ (last - middle) / ((last - middle) @ (last - middle))
    beyond = lower > np.maximum(1 - upper, 0)
    position = np.where(beyond & (lower > 0), 1 + lower, np.minimum(upper, 1.0))
    closest = np.where(
        (position > 1)[:, None],
        middle + (position - 1)[:, None] * (last - middle),
        first + position[:, None] * (middle - first),
    )
    return position, points - closest


def shirt_cover(sleeve: float, hem: float, neckline: float) -> np.ndarray:
    """(V,) cover of an upper garment.

    sleeve: where it ends along the arm (0 shoulder .. 2 wrist). hem: height of its lower edge.
    neckline: metres that the opening lies below the base of the neck in front.
    """
    regions, canonical = body_regions(), body_templates().canonical_vertices
    # The opening is a plane that falls to the front: the back stays high.
    front = np.clip(-(canonical[:, 1] - 0.05) / 0.12, 0, 1)
    opening = NECK_BASE + 0.015 - canonical[:, 2] - front * neckline
    narrow = np.abs(canonical[:, 0]) - 0.085  # shoulders stay covered beside a deep neckline
    opening = np.where(canonical[:, 2] < NECK_BASE, np.maximum(opening, narrow), opening)
    torso = np.minimum(canonical[:, 2] - hem, opening)
    arm = np.minimum((sleeve - regions.along_arm) * 0.28, 0.3)
    cover = np.where(regions.is_arm, arm, torso)
    return np.where(regions.is_head | regions.is_hand, -1.0, cover)


def trouser_cover(end: float, waist: float) -> np.ndarray:
    """(V,) cover of trousers or shorts: from height ``waist`` down to ``end`` along the leg."""
    regions, canonical = body_regions(), body_templates().canonical_vertices
    legs = np.minimum((end - regions.along_leg) * 0.45, 0.3)
    cover = np.where(regions.is_leg, legs, waist - canonical[:, 2])
    cover = np.minimum(cover, waist - canonical[:, 2])
    return np.where(regions.is_arm | regions.is_hand, -1.0, cover)


def shoe_cover(height: float) -> np.ndarray:
    """(V,) cover of shoes or boots up to ``height`` metres above the ankle."""
    regions, canonical = body_regions(), body_templates().canonical_vertices
    templates = body_templates()
    ankle = float(templates.canonical_joints[templates.joint("foot.L"), 2])
    cover = ankle + height - canonical[:, 2]
    return np.where(regions.is_leg | regions.is_foot, cover, -1.0)


def scalp_cover(lowered: float) -> np.ndarray:
    """(V,) cover of hair or a hat: above a hairline that runs over forehead, ears and nape.

    lowered: metres by which the line lies below (positive) or above a usual hairline.
    """
    canonical = body_templates().canonical_vertices
    line = np.interp(
        canonical[:, 1],
        [-0.19, -0.13, -0.10, -0.07, -0.05, -0.03, 0.0, 0.03],
        [0.985, 0.972, 0.955, 0.925, 0.885, 0.880, 0.845, 0.815],
    )
    cover = canonical[:, 2] - line + lowered
    is_ear = (np.abs(canonical[:, 0]) > 0.077) & (canonical[:, 2] < 0.935)
    return np.where(body_regions().is_head & ~is_ear, cover, -1.0)


def jaw_cover(top: float) -> np.ndarray:
    """(V,) cover of a beard or a face mask: the lower face below height ``top``."""
    canonical = body_templates().canonical_vertices
    behind = np.interp(canonical[:, 2], [0.80, 0.90], [-0.03, -0.075])
    cover = np.minimum(top - canonical[:, 2], behind - canonical[:, 1])
    return np.where(body_regions().is_head, cover, -1.0)


def beard_cover() -> np.ndarray:
    """(V,) cover of a beard: the jaw and the upper lip, not the mouth."""
    canonical = body_templates().canonical_vertices
    mouth = np.hypot(canonical[:, 0] / 0.030, (canonical[:, 2] - 0.842) / 0.011) - 1
    return np.minimum(jaw_cover(0.862), mouth * 0.02)


def scarf_cover() -> np.ndarray:
    """(V,) cover of a headscarf: head and neck without the oval of the face."""
    regions, canonical = body_regions(), body_templates().canonical_vertices
    across = canonical[:, 0] / 0.066
    upright = (canonical[:, 2] - 0.88) / 0.088
    oval = np.where(canonical[:, 1] < -0.05, np.hypot(across, upright) - 1, 1.0) * 0.06
    down = canonical[:, 2] - (NECK_BASE - 0.1)
    return np.where(regions.is_arm, -1.0, np.minimum(oval, down))
