# SPDX-License-Identifier: Apache-2.0
"""Hair, hats, beards, glasses and carried things."""

from __future__ import annotations

import numpy as np

from bmp_ros.synthetic.bodies import BodyShape, BodyTemplates
from bmp_ros.synthetic.body_regions import beard_cover, jaw_cover, scalp_cover, scarf_cover
from bmp_ros.synthetic.looks import Look
from bmp_ros.synthetic.surfaces import Kind, Material, Surface, ellipsoid, sheet, shell

HAIR_THICKNESS = {
    "short": 0.008, "medium": 0.022, "long": 0.018, "tail": 0.009, "bun": 0.01, "afro": 0.07,
}  # fmt: skip
HAIR_LOWERED = {"short": 0.0, "medium": 0.012, "long": 0.012, "tail": 0.0, "bun": 0.0, "afro": 0.0}
HATS = {
    "cap": (-0.012, 0.013),
    "beanie": (0.0, 0.016),
    "helmet": (-0.02, 0.034),
    "hood": (0.03, 0.03),
}
"""How far the rim lies below the hairline and how thick the hat is, metres."""
STRAND_ROWS, STRAND_COLUMNS = 8, 15


def head_surfaces(
    templates: BodyTemplates, skin: Surface, look: Look, scale: float
) -> list[Surface]:
    """Hair, hat, beard, mask and glasses of one person."""
    surfaces = []
    random = np.random.default_rng(look.seed + 7)
    if look.hair_style == "scarf":
        cloth = look.hat_material
        cover = scarf_cover()
        surfaces.append(shell(skin, cover, np.full(len(cover), 0.016 * scale), cloth))
    elif look.hair_style != "bald":
        surfaces += _hair(templates, skin, look, random, scale)
    if look.hat is not None and look.hair_style not in ("scarf", "afro"):
        surfaces += _hat(templates, skin, look, scale)
    if look.beard > 0:
        cover = beard_cover()
        offset = look.beard * np.clip(cover / 0.03, 0.15, 1)
        surfaces.append(shell(skin, cover, offset, look.hair))
    if look.face_mask is not None:
        cover = jaw_cover(0.875)
        surfaces.append(shell(skin, cover, np.full(len(cover), 0.006), look.face_mask))
    if look.glasses:
        surfaces += _glasses(templates, skin, random, scale)
    return surfaces


def _hair(
    templates: BodyTemplates, skin: Surface, look: Look, random: np.random.Generator, scale: float
) -> list[Surface]:
    style = look.hair_style
    cover = scalp_cover(HAIR_LOWERED[style])
    thick = HAIR_THICKNESS[style] * (0.6 + 0.8 * look.hair_length)
    uneven = np.zeros(len(cover))
    for _ in range(3):
        uneven += np.sin(skin.canonical @ random.normal(0, 55, 3) + random.uniform(0, 6.3))
    top = np.clip((skin.canonical[:, 2] - 0.96) / 0.05, 0, 1)  # hair stands higher on the crown
    offset = thick * np.clip(cover / 0.035, 0.12, 1) * (1 + 0.18 * uneven + 0.5 * top)
    surfaces = [shell(skin, cover, scale * np.maximum(offset, 0.003), look.hair)]
    head = _head_box(templates, skin)
    joint, joints = templates.joint("head"), len(templates.joint_names)
    if style == "long" or (style == "medium" and look.hair_length > 0.5):
        surfaces.append(_strands(templates, skin, look, random, scale))
    if style == "bun":
        center = head[0] + [0, head[1][1] * 1.0, head[1][2] * random.uniform(0.2, 1.0)]
        surfaces.append(ellipsoid(center, np.full(3, 0.042 * scale), joint, joints, look.hair))
    if style == "tail":
        center = head[0] + [0, head[1][1] * 1.12, -0.3 * head[1][2]]
        radii = np.array([0.03, 0.028, 0.07 + 0.07 * look.hair_length]) * scale
        surfaces.append(
            ellipsoid(center - [0, 0, radii[2] * 0.6], radii, joint, joints, look.hair)
        )
    return surfaces


def _head_box(templates: BodyTemplates, skin: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Middle and half extent (3,) of this person's skull, without the jaw and the nose."""
    canonical = skin.canonical
    skull = templates.part("head") & (canonical[:, 2] > 0.90) & (canonical[:, 1] > -0.135)
    low, high = skin.vertices[skull].min(axis=0), skin.vertices[skull].max(axis=0)
    return (low + high) / 2, (high - low) / 2


def _strands(
    templates: BodyTemplates, skin: Surface, look: Look, random: np.random.Generator, scale: float
) -> Surface:
    """Hair that hangs over ears, neck and shoulders: an open tube around the back of the head."""
    center, half = _head_box(templates, skin)
    neck = float(skin.vertices[skin.canonical[:, 2] > 0.74][:, 2].min())
    length = (0.06 + 0.30 * look.hair_length) * scale if look.hair_style == "long" else 0.02
    spread = np.radians(random.uniform(105, 128))
    angles = np.linspace(-spread, spread, STRAND_COLUMNS)
    levels = np.linspace(center[2] + 0.35 * half[2], neck - length, STRAND_ROWS)
    joints = len(templates.joint_names)
    points = np.zeros((STRAND_ROWS, STRAND_COLUMNS, 3))
    weights = np.zeros((STRAND_ROWS, STRAND_COLUMNS, joints), np.float32)
    phase = random.uniform(0, 6.3)
    for row, level in enumerate(levels):
        fallen = np.clip((center[2] - level) / (0.30 * scale), 0, 2)
        wide = half[0] + (0.014 + 0.012 * min(fallen, 1)) * scale
        deep = half[1] + 0.014 * scale - 0.25 * half[1] * min(fallen, 1)
        ripple = 1 + 0.05 * np.sin(angles * 4 + phase + row * 0.4)
        points[row, :, 0] = center[0] + wide * np.sin(angles) * ripple
        points[row, :, 1] = center[1] + deep * np.cos(angles) * ripple + 0.02 * fallen * scale
        points[row, :, 2] = level + 0.02 * scale * np.sin(angles * 3 + phase) * min(fallen, 1)
        to_chest = float(np.clip((fallen - 0.45) / 0.8, 0, 0.85))
        weights[row, :, templates.joint("head")] = 1 - to_chest
        weights[row, :, templates.joint("spine01")] = to_chest
    return sheet(points, weights, look.hair, closed=False)


def _hat(templates: BodyTemplates, skin: Surface, look: Look, scale: float) -> list[Surface]:
    assert look.hat is not None
    lowered, thick = HATS[look.hat]
    cover = scalp_cover(lowered)
    if look.hat in ("cap", "helmet"):  # a level rim
        cover = np.minimum(cover + 0.1, skin.canonical[:, 2] - 0.955 - 0.15 * skin.canonical[:, 1])
    offset = thick * np.clip(cover / 0.04, 0.5, 1)
    if look.hair_style in ("medium", "long"):
        offset = offset + 0.02
    surfaces = [shell(skin, cover, scale * offset, look.hat_material)]
    if look.hat in ("cap", "helmet"):
        center, half = _head_box(templates, skin)
        front = center + [0, -half[1] - 0.035 * scale, 0.12 * half[2]]
        radii = np.array([0.07, 0.06, 0.006]) * scale
        joint = templates.joint("head")
        surfaces.append(
            ellipsoid(front, radii, joint, len(templates.joint_names), look.hat_material)
        )
    return surfaces


def _glasses(
    templates: BodyTemplates, skin: Surface, random: np.random.Generator, scale: float
) -> list[Surface]:
    dark = float(random.uniform(0.0, 0.25))
    glass = Material(Kind.CLOTH, (dark, dark, dark), shine=0.9, roughness=0.0)
    surfaces = []
    for sign in (1, -1):
        eye = skin.vertices[templates.part("eye") & (skin.canonical[:, 0] * sign > 0)].mean(axis=0)
        center = eye + np.array([0.004 * sign, -0.022, 0.0]) * scale
        radii = np.array([0.027, 0.004, 0.02]) * scale
        joint, joints = templates.joint("head"), len(templates.joint_names)
        surfaces.append(ellipsoid(center, radii, joint, joints, glass, squareness=0.7))
    return surfaces


def carried_things(
    templates: BodyTemplates, shape: BodyShape, look: Look, scale: float
) -> list[Surface]:
    """The bag or the thing in the hand; things hide people but are not part of them."""
    if look.bag is None:
        return []
    place = {"backpack": "spine02", "handbag": "root"}.get(look.bag, "wrist.L")
    joint = templates.joint(place)
    hand = templates.part("hand") & (templates.canonical_vertices[:, 0] > 0)
    grip = shape.vertices[hand].mean(axis=0)
    back = shape.vertices[np.abs(templates.canonical_vertices[:, 2] - 0.5) < 0.1][:, 1].max()
    hips = shape.vertices[np.abs(templates.canonical_vertices[:, 2] - 0.1) < 0.05]
    hips = hips[np.abs(hips[:, 0]) < 0.3]
    centers = {
        "backpack": shape.joints[joint] * [0, 0, 1] + np.array([0, back + 0.08 * scale, 0.02]),
        "handbag": np.array([hips[:, 0].max() + 0.05 * scale, 0, hips[:, 2].mean()]),
    }
    radii = {
        "backpack": (0.15, 0.085, 0.22),
        "handbag": (0.05, 0.14, 0.11),
        "phone": (0.04, 0.012, 0.08),
        "box": (0.13, 0.1, 0.08),
        "cup": (0.035, 0.035, 0.06),
    }[look.bag]
    center = centers.get(look.bag, grip)
    return [
        ellipsoid(
            center, np.array(radii) * scale, joint, len(templates.joint_names), look.bag_material,
            squareness=0.45, is_person=False,
        )
    ]  # fmt: skip
