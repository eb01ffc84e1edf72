# SPDX-License-Identifier: Apache-2.0
"""Triangle surfaces that move with a skeleton, and the materials they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from bmp_ros.synthetic.bodies import vertex_normals


class Kind(IntEnum):
    """How the fragment shader colours a material; keep in step with shaders.py."""

    CLOTH = 0
    SKIN = 1
    EYE = 2
    HAIR = 3
    TEXTURED = 4
    GLOWING = 5


class Pattern(IntEnum):
    """Patterns of cloth; keep in step with shaders.py."""

    PLAIN = 0
    STRIPES = 1
    UPRIGHT_STRIPES = 2
    CHECKS = 3
    DOTS = 4
    PRINT = 5
    CHEST_PRINT = 6
    GRADIENT = 7
    BLOTCHES = 8
    BLOCKS = 9


@dataclass(frozen=True)
class Material:
    """Colours are linear RGB in 0..1; ``scale`` is repeats per metre of the pattern or texture."""

    kind: Kind
    color: tuple[float, float, float]
    second_color: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 8.0
    pattern: Pattern = Pattern.PLAIN
    layer: int = 0
    shine: float = 0.05
    roughness: float = 0.3
    """Strength of creases and grain."""


@dataclass(frozen=True)
class Surface:
    """V vertices at rest, F triangles, and one material.

    canonical: (V, 3) coordinates for textures, the same for all bodies. cover: (V,) the surface
    exists where this is positive (metres to the hem, about). is_person: False for carried things,
    which hide people but belong to no person's mask.
    """

    vertices: np.ndarray
    normals: np.ndarray
    weights: np.ndarray
    faces: np.ndarray
    canonical: np.ndarray
    cover: np.ndarray
    material: Material
    is_person: bool = True


@dataclass(frozen=True)
class Mesh:
    """Surfaces joined to one vertex array; ``surface`` (V,) says where each vertex came from."""

    vertices: np.ndarray
    normals: np.ndarray
    weights: np.ndarray
    faces: np.ndarray
    canonical: np.ndarray
    cover: np.ndarray
    surface: np.ndarray
    materials: tuple[Material, ...]
    is_person: np.ndarray
    """(surfaces,) bool."""


def join(surfaces: Sequence[Surface]) -> Mesh:
    """One mesh of all ``surfaces`` (at least one, same number of bones)."""
    counts = [len(surface.vertices) for surface in surfaces]
    starts = np.cumsum([0, *counts[:-1]])
    faces = [s.faces + start for s, start in zip(surfaces, starts, strict=True)]
    return Mesh(
        vertices=np.concatenate([s.vertices for s in surfaces]).astype(np.float32),
        normals=np.concatenate([s.normals for s in surfaces]).astype(np.float32),
        weights=np.concatenate([s.weights for s in surfaces]).astype(np.float32),
        faces=np.concatenate(faces).astype(np.int32),
        canonical=np.concatenate([s.canonical for s in surfaces]).astype(np.float32),
        cover=np.concatenate([s.cover for s in surfaces]).astype(np.float32),
        surface=np.repeat(np.arange(len(surfaces)), counts),
        materials=tuple(s.material for s in surfaces),
        is_person=np.array([s.is_person for s in surfaces]),
    )


def shell(
    base: Surface,
    cover: np.ndarray,
    offset: np.ndarray,
    material: Material,
    *,
    is_person: bool = True,
) -> Surface:
    """A second skin: ``base`` where ``cover`` (V,) is positive, ``offset`` (V,) outwards."""
    faces = base.faces[(cover[base.faces] > 0).any(axis=1)]
    used, compact = compacted(faces, len(base.vertices))
    vertices = base.vertices[used] + offset[used, None] * base.normals[used]
    return Surface(
        vertices=vertices,
        normals=base.normals[
            used
        ],  # creases are the shader's: new normals cost more than skinning
        weights=base.weights[used],
        faces=compact,
        canonical=base.canonical[used],
        cover=cover[used],
        material=material,
        is_person=is_person,
    )


def compacted(faces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the vertices that ``faces`` use out of ``count``, and the faces among those."""
    member = np.zeros(count, bool)
    member[faces] = True
    return np.flatnonzero(member), (np.cumsum(member) - 1)[faces]


def uncovered(base: Surface, covers: Sequence[np.ndarray], margin: float) -> Surface:
    """``base`` without the triangles that lie more than ``margin`` inside one of ``covers``."""
    hidden = np.zeros(len(base.faces), bool)
    for cover in covers:
        hidden |= (cover[base.faces] > margin).all(axis=1)
    return Surface(**{**base.__dict__, "faces": base.faces[~hidden]})


def grid_faces(rows: int, columns: int, closed: bool) -> np.ndarray:
    """(F, 3) triangles of a rows x columns grid; ``closed`` joins last to first column."""
    row, column = np.meshgrid(
        np.arange(rows - 1), np.arange(columns - (not closed)), indexing="ij"
    )
    a = (row * columns + column).ravel()
    b = (row * columns + (column + 1) % columns).ravel()
    return np.concatenate(
        [np.stack([a, a + columns, b], 1), np.stack([b, a + columns, b + columns], 1)]
    )


def sheet(
    points: np.ndarray,
    weights: np.ndarray,
    material: Material,
    *,
    closed: bool,
    canonical: np.ndarray | None = None,
    is_person: bool = True,
) -> Surface:
    """A surface through a grid of points (rows, columns, 3) with weights (rows, columns, J)."""
    rows, columns = points.shape[:2]
    faces = grid_faces(rows, columns, closed)
    vertices = points.reshape(-1, 3)
    return Surface(
        vertices=vertices,
        normals=vertex_normals(vertices, faces),
        weights=weights.reshape(rows * columns, -1),
        faces=faces,
        canonical=vertices if canonical is None else canonical.reshape(-1, 3),
        cover=np.ones(len(vertices), np.float32),
        material=material,
        is_person=is_person,
    )


def ellipsoid(
    center: np.ndarray,
    radii: np.ndarray,
    joint: int,
    joints: int,
    material: Material,
    *,
    squareness: float = 1.0,
    is_person: bool = True,
) -> Surface:
    """A ball, or with ``squareness`` < 1 a rounded box, that moves with one joint."""
    polar, around = np.meshgrid(
        np.linspace(0.02, np.pi - 0.02, 9), np.linspace(0, 2 * np.pi, 14, endpoint=False),
        indexing="ij",
    )  # fmt: skip
    points = np.stack(
        [np.sin(polar) * np.cos(around), -np.sin(polar) * np.sin(around), np.cos(polar)], axis=-1
    )
    points = np.sign(points) * np.abs(points) ** squareness
    points = center + points * radii
    weights = np.zeros((*points.shape[:2], joints), np.float32)
    weights[..., joint] = 1.0
    return sheet(points, weights, material, closed=True, is_person=is_person)
