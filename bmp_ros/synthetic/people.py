# SPDX-License-Identifier: Apache-2.0
"""One person in a scene: body, look, posture, place; posed to triangles and COCO joints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from bmp_ros.synthetic.bodies import (
    BodyShape,
    body_templates,
    skin_keypoints,
    skin_with_normals,
)
from bmp_ros.synthetic.clothing import dressed_mesh
from bmp_ros.synthetic.looks import Look, sample_look
from bmp_ros.synthetic.skeleton import HandTarget, Pose, Skeleton
from bmp_ros.synthetic.surfaces import Mesh


@dataclass(frozen=True)
class Person:
    """A dressed body that can be posed. identity: unique in a scene, 1..254, kept over time."""

    identity: int
    shape: BodyShape
    look: Look
    mesh: Mesh
    skeleton: Skeleton

    @property
    def scale(self) -> float:
        """Height relative to a 1.75 m adult."""
        return self.shape.height / 1.75


@dataclass(frozen=True)
class Stance:
    """How a person stands: posture, place on the ground (3,), heading, reaching hands."""

    pose: Pose
    position: np.ndarray
    heading: float
    hands: tuple[HandTarget | None, HandTarget | None] = (None, None)
    seat: bool = False


@dataclass(frozen=True)
class PosedPerson:
    """World triangles and joints. vertices, normals (V, 3) float32; keypoints (17, 3)."""

    person: Person
    stance: Stance
    transforms: np.ndarray
    vertices: np.ndarray
    normals: np.ndarray
    keypoints: np.ndarray


def make_person(
    identity: int,
    random: np.random.Generator,
    split: str,
    age_range: tuple[float, float] = (0, 99),
    look: Look | None = None,
) -> Person:
    """A random person of ``split`` whose age in years lies in ``age_range`` if there is one.

    look: what they wear, for people in the same clothes; sampled by default.
    """
    templates = body_templates()
    numbers = templates.people_of(split)
    years = templates.years[numbers]
    fitting = numbers[(years >= age_range[0]) & (years <= age_range[1])]
    shape = _shape(int(random.choice(fitting if len(fitting) else numbers)))
    if look is None:
        look = sample_look(random, split, shape.female, shape.years)
    mesh = dressed_mesh(templates, shape, look)
    return Person(identity, shape, look, mesh, Skeleton(templates, shape))


@lru_cache(maxsize=64)
def _shape(number: int) -> BodyShape:
    return body_templates().shape(number)


def pose_person(person: Person, stance: Stance) -> PosedPerson:
    """Skin the dressed mesh with the person's lowest point on the ground.

    Reaching hands are solved after the body has been put down, so that they meet their targets.
    """
    ground = np.asarray(stance.position, float)
    body = _skinned(person, stance, ground, (None, None))
    on_ground = person.mesh.is_person[person.mesh.surface]
    drop = np.array([0, 0, float(body.vertices[on_ground, 2].min()) - ground[2]])
    if any(hand is not None for hand in stance.hands):
        return _skinned(person, stance, ground - drop, stance.hands)
    transforms = body.transforms.copy()
    transforms[:, :, 3] -= drop
    return replace(
        body,
        transforms=transforms,
        vertices=body.vertices - drop.astype(np.float32),
        keypoints=body.keypoints - drop,
    )


def _skinned(
    person: Person,
    stance: Stance,
    position: np.ndarray,
    hands: tuple[HandTarget | None, HandTarget | None],
) -> PosedPerson:
    transforms = person.skeleton.transforms(stance.pose, position, stance.heading, hands)
    mesh = person.mesh
    vertices, normals = skin_with_normals(transforms, mesh.weights, mesh.vertices, mesh.normals)
    keypoints = skin_keypoints(transforms, person.shape.keypoint_moments)
    return PosedPerson(person, stance, transforms, vertices, normals, keypoints)


def joint_position(posed: PosedPerson, name: str) -> np.ndarray:
    """(3,) world position of a joint of the skeleton."""
    index = body_templates().joint(name)
    transform = posed.transforms[index]
    return transform[:, :3] @ posed.person.shape.joints[index] + transform[:, 3]


def seated_height(posed: PosedPerson) -> float:
    """Height of the underside of the thighs and buttocks above the ground, metres."""
    hips = (joint_position(posed, "upperleg01.L") + joint_position(posed, "upperleg01.R")) / 2
    near = np.linalg.norm(posed.vertices[:, :2] - hips[:2], axis=1) < 0.13 * posed.person.scale
    near &= posed.vertices[:, 2] > hips[2] - 0.25 * posed.person.scale
    return float(posed.vertices[near, 2].min()) if near.any() else float(hips[2] - 0.1)
