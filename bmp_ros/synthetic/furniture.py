# SPDX-License-Identifier: Apache-2.0
"""Things that are not people: boxes joined to tables, chairs, shelves, poles, trees, walls."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bmp_ros.synthetic.render import Drawable, drawable
from bmp_ros.synthetic.rotations import bend, cross
from bmp_ros.synthetic.surfaces import Material, grid_faces

_CORNERS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)


@dataclass
class ThingBuilder:
    """Collects quads and their materials; ``finish`` gives one drawable and the material list."""

    materials: list[Material] = field(default_factory=list)
    _corners: list[np.ndarray] = field(default_factory=list)
    _normals: list[np.ndarray] = field(default_factory=list)
    _places: list[np.ndarray] = field(default_factory=list)
    _material: list[np.ndarray] = field(default_factory=list)
    _faces: list[np.ndarray] = field(default_factory=list)
    _count: int = 0

    def quad(
        self,
        center: np.ndarray,
        half_u: np.ndarray,
        half_v: np.ndarray,
        material: Material,
        *,
        fit: bool = False,
    ) -> None:
        """A rectangle with half axes ``half_u``, ``half_v`` (world, metres).

        fit: the texture is stretched over it once; otherwise its scale is per metre.
        """
        points = center + _CORNERS[:, :1] * half_u + _CORNERS[:, 1:] * half_v
        normal = cross(half_u, half_v)
        lengths = np.array([np.linalg.norm(half_u), np.linalg.norm(half_v)])
        place = (_CORNERS * [1, -1] + 1) / 2 / material.scale if fit else _CORNERS * lengths
        place = np.concatenate([place, np.full((4, 1), float(center @ [0.3, 0.5, 0.7]))], axis=1)
        normal = normal / max(float(np.linalg.norm(normal)), 1e-9)
        self._add(points, np.repeat(normal[None], 4, 0), place, material, [[0, 1, 2], [0, 2, 3]])

    def box(
        self, center: np.ndarray, half: np.ndarray, heading: float, material: Material
    ) -> None:
        """A box with half sizes ``half`` (3,), turned about the vertical."""
        axes = bend(0, 0, heading) * np.asarray(half)
        for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            for sign in (1.0, -1.0):
                self.quad(center + sign * axes[:, c], axes[:, a], sign * axes[:, b], material)

    def ball(
        self, center: np.ndarray, radii: np.ndarray, material: Material, lumps: float
    ) -> None:
        """An ellipsoid, its surface displaced by ``lumps`` (relative): a crown, a bush, a ball."""
        polar, around = np.meshgrid(
            np.linspace(0.02, np.pi - 0.02, 12), np.linspace(0, 2 * np.pi, 18, endpoint=False),
            indexing="ij",
        )  # fmt: skip
        out = np.stack(
            [np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], -1
        ).reshape(-1, 3)
        bumps = 1 + lumps * np.sin(out @ [9.1, 7.3, 5.9] * 2) * np.sin(out @ [-6.1, 8.7, 9.9] * 2)
        place = np.stack([around.ravel(), polar.ravel(), 0 * polar.ravel()], axis=1) * 0.5
        faces = grid_faces(12, 18, closed=True)
        self._add(center + out * radii * bumps[:, None], out, place, material, faces)

    def column(self, base: np.ndarray, radius: float, height: float, material: Material) -> None:
        """An upright round pole."""
        angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        out = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
        rows = np.stack([base + out * radius, base + out * radius + [0, 0, height]]).reshape(-1, 3)
        place = np.stack(
            [np.tile(angles * radius, 2), np.repeat([0, height], 16), np.zeros(32)], 1
        )
        self._add(rows, np.tile(out, (2, 1)), place, material, grid_faces(2, 16, closed=True))

    def _add(
        self,
        points: np.ndarray,
        normals: np.ndarray,
        places: np.ndarray,
        material: Material,
        faces: np.ndarray | list[list[int]],
    ) -> None:
        self._corners.append(points)
        self._normals.append(normals)
        self._places.append(places)
        self._material.append(np.full(len(points), len(self.materials)))
        self._faces.append(np.asarray(faces) + self._count)
        self._count += len(points)
        self.materials.append(material)

    def finish(self) -> Drawable:
        """Everything collected, instance 0, materials numbered from 0 in ``self.materials``."""
        return drawable(
            np.concatenate(self._corners),
            np.concatenate(self._normals),
            np.concatenate(self._places),
            np.ones(self._count),
            np.concatenate(self._material),
            0,
            np.concatenate(self._faces),
        )


def chair(
    things: ThingBuilder, seat: np.ndarray, heading: float, material: Material, *, back: bool
) -> None:
    """A chair whose seat's middle is at ``seat`` (3,); its sitter looks along ``heading``."""
    turn = bend(0, 0, heading)
    things.box(seat - [0, 0, 0.025], np.array([0.22, 0.22, 0.025]), heading, material)
    for x in (-0.19, 0.19):
        for y in (-0.19, 0.19):
            leg = seat + turn @ np.array([x, y, 0]) - [0, 0, seat[2] / 2 + 0.025]
            things.box(
                leg, np.array([0.02, 0.02, max(seat[2] / 2 - 0.025, 0.02)]), heading, material
            )
    if back:
        behind = seat + turn @ np.array([0, 0.23, 0.28])
        things.box(behind, np.array([0.22, 0.02, 0.24]), heading, material)


def table(
    things: ThingBuilder, base: np.ndarray, size: tuple[float, float, float], heading: float,
    material: Material, *, solid: bool,
) -> None:  # fmt: skip
    """A table or counter on the ground at ``base``; size: half width, half depth, height."""
    wide, deep, height = size
    if solid:
        things.box(
            base + [0, 0, height / 2], np.array([wide, deep, height / 2]), heading, material
        )
        return
    things.box(base + [0, 0, height - 0.02], np.array([wide, deep, 0.02]), heading, material)
    turn = bend(0, 0, heading)
    for x in (-wide + 0.05, wide - 0.05):
        for y in (-deep + 0.05, deep - 0.05):
            leg = base + turn @ np.array([x, y, height / 2])
            things.box(leg, np.array([0.025, 0.025, height / 2]), heading, material)


def tree(
    things: ThingBuilder, base: np.ndarray, height: float, bark: Material, leaves: Material
) -> None:
    """A trunk with a lumpy crown."""
    things.column(base, 0.05 * height**0.7, height * 0.5, bark)
    crown = base + [0, 0, height * 0.7]
    things.ball(crown, np.array([0.32, 0.32, 0.36]) * height, leaves, 0.16)
