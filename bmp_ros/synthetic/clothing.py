# SPDX-License-Identifier: Apache-2.0
"""Dress a body: garments as shells and tubes around it, as one mesh that its skeleton moves."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from bmp_ros.synthetic.bodies import (
    BodyShape,
    BodyTemplates,
    body_templates,
    vertex_normals,
)
from bmp_ros.synthetic.body_regions import (
    CROTCH,
    WAIST,
    body_regions,
    shirt_cover,
    shoe_cover,
    trouser_cover,
)
from bmp_ros.synthetic.hair import carried_things, head_surfaces
from bmp_ros.synthetic.looks import Garment, Look
from bmp_ros.synthetic.surfaces import (
    Kind,
    Material,
    Mesh,
    Surface,
    compacted,
    join,
    sheet,
    shell,
    uncovered,
)

SKIRT_COLUMNS, SKIRT_ROWS = 28, 9


def dressed_mesh(templates: BodyTemplates, shape: BodyShape, look: Look) -> Mesh:
    """The whole person at rest: body, clothes, shoes, hair, carried things."""
    skin = Surface(
        vertices=shape.vertices,
        normals=vertex_normals(shape.vertices, templates.faces),
        weights=templates.weights,
        faces=templates.faces,
        canonical=templates.canonical_vertices,
        cover=np.ones(len(shape.vertices), np.float32),
        material=look.skin,
    )
    scale = shape.height / 1.75
    covers = {
        "top": shirt_cover(look.sleeve, look.hem, look.neckline),
        "bottom": trouser_cover(look.trouser_end, WAIST - 0.02),
        "shoes": shoe_cover(look.shoe_height),
    }
    if look.skirt_end is not None:
        covers["bottom"] = trouser_cover(0.2, WAIST - 0.02)  # what is under the skirt
    if look.jacket is not None:
        covers["jacket"] = _jacket_cover(look)
    garments = {
        "shoes": look.shoes, "bottom": look.bottom, "top": look.top, "jacket": look.jacket,
    }  # fmt: skip
    # From the inside out: each layer is built on what is already worn, so none pokes through.
    worn = Surface(**{**skin.__dict__, "vertices": _without_toes(templates, shape.vertices)})
    dressed = []
    for number, (name, garment) in enumerate(garments.items()):
        if garment is not None:
            worn, surface = _garment(worn, covers[name], garment, look.seed + number, scale)
            dressed.append(surface)
    if look.skirt_end is not None:
        dressed.append(_skirt(templates, shape, look))
    hidden = [covers["top"], covers["bottom"], covers["shoes"]]
    body = uncovered(skin, hidden, margin=0.03)
    body = uncovered(body, [np.where(body_regions().is_foot, covers["shoes"], -1)], margin=0.0)
    surfaces = [*_split_eyes(templates, body, look), *dressed]
    surfaces += head_surfaces(templates, skin, look, scale)
    surfaces += carried_things(templates, shape, look, scale)
    return join(surfaces)


def _garment(
    worn: Surface, cover: np.ndarray, garment: Garment, seed: int, scale: float
) -> tuple[Surface, Surface]:
    """A shell with creases over ``worn``; returns what is worn then, and the garment.

    Loose cloth keeps away from the limb, most of all towards its hem.
    """
    random = np.random.default_rng(seed)
    creases = np.zeros(len(cover))
    for _ in range(4):
        wave = random.normal(0, 1, 3) * [18, 18, 26]
        creases += np.sin(worn.canonical @ wave + random.uniform(0, 6.3))
    loose = garment.looseness * np.clip(1 - cover / 0.35, 0.25, 1.0)
    offset = garment.thickness + np.clip(creases, -1.5, 3) * (0.0012 + 0.15 * garment.looseness)
    offset = scale * np.maximum(offset, 0.003)
    vertices = worn.vertices + scale * loose[:, None] * body_regions().outward
    widened = Surface(**{**worn.__dict__, "vertices": vertices})
    outside = np.where(
        (cover > 0)[:, None], vertices + offset[:, None] * worn.normals, worn.vertices
    )
    return (
        Surface(**{**worn.__dict__, "vertices": outside}),
        shell(widened, cover, offset, garment.material),
    )


def _without_toes(templates: BodyTemplates, vertices: np.ndarray) -> np.ndarray:
    """``vertices`` (V, 3) with the feet smoothed to lasts, for shoes to be built on."""
    start, end, degree = _foot_edges(templates.faces.tobytes())
    smooth = vertices.astype(float)
    for _ in range(12):
        for axis in range(3):
            total = np.bincount(start, smooth[end, axis], minlength=len(vertices))
            smooth[:, axis] = np.where(degree > 0, total / np.maximum(degree, 1), smooth[:, axis])
    return smooth.astype(np.float32)


@lru_cache(maxsize=1)
def _foot_edges(faces: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directed edges that start on a foot, and how many start at each vertex."""
    triangles = np.frombuffer(faces, np.int32).reshape(-1, 3)
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    is_foot = body_regions().is_foot
    edges = edges[is_foot[edges[:, 0]]]
    return edges[:, 0], edges[:, 1], np.bincount(edges[:, 0], minlength=len(is_foot))


def _jacket_cover(look: Look) -> np.ndarray:
    """An outer layer: long sleeves, below the shirt's hem, with a gap in front when open."""
    hem = max(CROTCH + 0.01, look.hem - 0.08)
    cover = shirt_cover(1.96, hem, max(0.02, look.neckline))
    points = body_templates().canonical_vertices
    gap = np.abs(points[:, 0]) - look.jacket_open
    in_front = (points[:, 1] < 0.0) & ~body_regions().is_arm & (look.jacket_open > 0)
    return np.where(in_front, np.minimum(cover, gap), cover)


def _split_eyes(templates: BodyTemplates, body: Surface, look: Look) -> list[Surface]:
    """Skin and eyes as two surfaces: eyeballs have their own colours."""
    is_eye = templates.part("eye")[body.faces].all(axis=1)
    eyes = Material(Kind.EYE, look.brows, shine=0.6)
    parts = [(~is_eye, look.skin), (is_eye, eyes)]
    surfaces = []
    for chosen, material in parts:
        used, compact = compacted(body.faces[chosen], len(body.vertices))
        surfaces.append(
            Surface(
                vertices=body.vertices[used],
                normals=body.normals[used],
                weights=body.weights[used],
                faces=compact,
                canonical=body.canonical[used],
                cover=body.cover[used],
                material=material,
            )
        )
    return surfaces


def _skirt(templates: BodyTemplates, shape: BodyShape, look: Look) -> Surface:
    """A tube from the waist around both legs; its halves follow thighs and shins."""
    garment = look.top if look.skirt_is_top else look.bottom
    canonical, vertices = templates.canonical_vertices, shape.vertices
    assert look.skirt_end is not None
    levels = np.linspace(WAIST + 0.02, look.skirt_end, SKIRT_ROWS)
    angles = np.linspace(0, 2 * np.pi, SKIRT_COLUMNS, endpoint=False)
    around = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    joints = len(templates.joint_names)
    random = np.random.default_rng(look.seed + 5)
    folds = np.sin(angles * random.integers(5, 11) + random.uniform(0, 6.3))
    points = np.zeros((SKIRT_ROWS, SKIRT_COLUMNS, 3))
    weights = np.zeros((SKIRT_ROWS, SKIRT_COLUMNS, joints), np.float32)
    regions = body_regions()
    below = ~(regions.is_arm | regions.is_hand)
    radii = np.zeros(2)
    for row, level in enumerate(levels):
        ring = vertices[below & (np.abs(canonical[:, 2] - level) < 0.025)]
        center = np.array([0.0, ring[:, 1].mean()])
        share = row / (SKIRT_ROWS - 1)
        tight = np.abs(ring[:, :2] - center).max(axis=0) + 0.012
        # Cloth hangs: it never gets narrower on its way down, and the spread of the resting legs
        # is not the width of a skirt.
        radii = np.maximum(radii, np.minimum(tight, radii + 0.012) if row else tight)
        grown = radii + share * look.skirt_flare * shape.height / 1.75
        ripple = 1 + 0.05 * share * folds[:, None]
        points[row, :, :2] = center + around * grown * ripple
        points[row, :, 2] = ring[:, 2].mean()
        _skirt_weights(templates, weights[row], around[:, 0], share, level)
    flat = np.concatenate(
        [points[..., :2], np.broadcast_to(levels[:, None, None], points[..., :1].shape)], -1
    )
    return sheet(points, weights, garment.material, closed=True, canonical=flat)


def _skirt_weights(
    templates: BodyTemplates, weights: np.ndarray, side: np.ndarray, share: float, level: float
) -> None:
    """Fill (columns, J) weights of one ring; ``side`` is -1 (right) .. 1 (left)."""
    knee = float(templates.canonical_joints[templates.joint("lowerleg01.L"), 2])
    legs = np.clip(1.3 * share + 0.1, 0, 0.95) if share > 0 else 0.0
    left = 0.5 + 0.5 * np.clip(side * 1.6, -1, 1)
    shin = np.clip((knee - level) / 0.25, 0, 0.8)
    weights[:, templates.joint("root")] = 1 - legs
    for name, half in (("L", left), ("R", 1 - left)):
        weights[:, templates.joint(f"upperleg01.{name}")] = legs * half * (1 - shin)
        weights[:, templates.joint(f"lowerleg01.{name}")] = legs * half * shin
