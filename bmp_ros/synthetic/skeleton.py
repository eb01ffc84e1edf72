# SPDX-License-Identifier: Apache-2.0
"""From a pose to bone transforms; legs and reaching hands by inverse kinematics.

World frame: x, y on the ground, z up, metres. A person with heading 0 looks along -y.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bmp_ros.synthetic.bodies import BodyShape, BodyTemplates
from bmp_ros.synthetic.rotations import about, bend, cross, frame, unit

SPINE = ("spine05", "spine04", "spine03", "spine02", "spine01")
NECK = ("neck01", "neck02", "neck03", "head")
SIDES = (("L", 1.0), ("R", -1.0))
MAX_REACH = 0.997  # of the limb's length: fully stretched limbs look stiff and flip their hinge
MAX_WRIST = 1.2  # radians a hand bends out of the line of its forearm


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape)


@dataclass(frozen=True)
class Pose:
    """One posture, independent of the body's size. Angles in radians, rows of sides: left, right.

    Lengths of the legs are fractions of the leg's length, so children and adults share poses.
    """

    pelvis_height: float = 0.992
    """Height of the hips above the ankles, 1 = straight legs, 0.97 = knees bent by 28 degrees."""
    pelvis: np.ndarray = field(default_factory=lambda: _zeros(3))
    """Pitch (forward), roll (left), yaw (left) of the pelvis relative to the heading."""
    spine: np.ndarray = field(default_factory=lambda: _zeros(3))
    head: np.ndarray = field(default_factory=lambda: _zeros(3))
    feet: np.ndarray = field(default_factory=lambda: np.array([[0.12, 0.0], [0.12, 0.0]]))
    """(2, 2): outward from the middle and forward from the hips, of the ankles."""
    foot_lift: np.ndarray = field(default_factory=lambda: _zeros(2))
    foot_pitch: np.ndarray = field(default_factory=lambda: _zeros(2))
    """Positive: toes down."""
    toe_out: np.ndarray = field(default_factory=lambda: np.array([0.15, 0.15]))
    knees_out: np.ndarray = field(default_factory=lambda: np.array([0.12, 0.12]))
    arms: np.ndarray = field(default_factory=lambda: np.array([[0.15, 1.2, 0.25, 0.2, 0.0]] * 2))
    """(2, 5): upper arm's angle from hanging, its azimuth (0 forward, pi/2 outward), elbow
    flexion, swivel of the forearm (0 continues the raise, pi/2 inward), pronation."""
    grip: np.ndarray = field(default_factory=lambda: np.array([0.35, 0.35]))
    """Curl of the fingers, 0 flat, 1 fist."""

    def blend(self, other: Pose, share: float) -> Pose:
        """The pose ``share`` (0..1) of the way to ``other``, field by field."""
        mixed: dict[str, Any] = {
            name: (1 - share) * np.asarray(value) + share * np.asarray(getattr(other, name))
            for name, value in self.__dict__.items()
        }
        return replace(self, **{**mixed, "pelvis_height": float(mixed["pelvis_height"])})


@dataclass(frozen=True)
class HandTarget:
    """Where a wrist shall be (world, metres), to which side the elbow points, and the fingers.

    All in the world; ``fingers`` None keeps the hand in line with the forearm.
    """

    wrist: np.ndarray
    elbow_hint: np.ndarray
    fingers: np.ndarray | None = None


class Skeleton:
    """The joints of one body at rest, ready to be posed."""

    def __init__(self, templates: BodyTemplates, shape: BodyShape) -> None:
        self._index = {name: i for i, name in enumerate(templates.joint_names)}
        self._parents = templates.joint_parents
        self._rest = shape.joints.astype(float)
        self._offset = self._rest - self._rest[np.maximum(self._parents, 0)]
        self.leg_length = self._length("upperleg01.L", "lowerleg01.L") + self._length(
            "lowerleg01.L", "foot.L"
        )
        soles = float(shape.vertices[templates.part("foot"), 2].min())
        self._ankle_height = float(self._rest[self._index["foot.L"], 2]) - soles

    def _length(self, start: str, end: str) -> float:
        return float(np.linalg.norm(self._bone(start, end)))

    def _bone(self, start: str, end: str) -> np.ndarray:
        return self._rest[self._index[end]] - self._rest[self._index[start]]

    def transforms(
        self,
        pose: Pose,
        position: np.ndarray = np.zeros(3),  # noqa: B008 (never written to)
        heading: float = 0.0,
        hands: tuple[HandTarget | None, HandTarget | None] = (None, None),
    ) -> np.ndarray:
        """(J, 3, 4) float32 transforms of rest points into the world.

        position: (3,) under the hips, z = height of the ground. heading: to the left, radians.
        """
        turn = bend(0.0, 0.0, heading)
        rotations, points = np.zeros((len(self._rest), 3, 3)), np.zeros_like(self._rest)
        fixed = self._torso_rotations(pose, turn)
        # Parents come first, so a limb is solved when its first joint's place is known; joints
        # that nothing fixes copy their parent.
        limbs = {
            self._index[f"{bone}.{side}"]: (bone, number, side, sign)
            for bone in ("clavicle", "upperarm01", "upperleg01", "wrist")
            for number, (side, sign) in enumerate(SIDES)
        }
        hip_middle = self._rest[self._index["upperleg01.L"]] * [0, 1, 1]
        hips = np.array([0, 0, self._ankle_height + pose.pelvis_height * self.leg_length])
        rotations[0] = fixed[0]
        points[0] = position + hips + fixed[0] @ (self._rest[0] - hip_middle)
        for joint, parent in enumerate(self._parents):
            if parent >= 0:
                points[joint] = points[parent] + rotations[parent] @ self._offset[joint]
            if joint in limbs:
                bone, number, side, sign = limbs[joint]
                if bone == "upperleg01":
                    fixed.update(
                        self._leg_rotations(
                            pose, number, side, sign, turn, position, points[joint]
                        )
                    )
                elif bone == "wrist":
                    fixed.update(self._finger_rotations(fixed[joint], side, pose.grip[number]))
                else:
                    chest = fixed[self._index["spine01"]]
                    fixed.update(
                        self._shoulder_rotation(pose, number, side, sign, chest)
                        if bone == "clavicle"
                        else self._arm_rotations(
                            pose, number, side, sign, chest, points[joint], hands[number]
                        )
                    )
            if parent >= 0:
                rotations[joint] = fixed.get(joint, rotations[parent])
        offsets = points - np.einsum("jab,jb->ja", rotations, self._rest)
        return np.concatenate([rotations, offsets[:, :, None]], axis=2).astype(np.float32)

    def _torso_rotations(self, pose: Pose, turn: np.ndarray) -> dict[int, np.ndarray]:
        fixed = {self._index["root"]: turn @ bend(*pose.pelvis)}
        current = fixed[self._index["root"]]
        for chain, angles in ((SPINE, pose.spine), (NECK, pose.head)):
            step = bend(*(np.asarray(angles) / len(chain)))
            for name in chain:
                current = current @ step
                fixed[self._index[name]] = current
        return fixed

    def _leg_rotations(
        self,
        pose: Pose,
        number: int,
        side: str,
        sign: float,
        turn: np.ndarray,
        position: np.ndarray,
        start: np.ndarray,
    ) -> dict[int, np.ndarray]:
        outward, forward = pose.feet[number] * self.leg_length
        lift = self._ankle_height + float(pose.foot_lift[number]) * self.leg_length
        ankle = position + turn @ np.array([sign * outward, -forward, lift])
        knee_direction = turn @ bend(0, 0, sign * float(pose.knees_out[number])) @ [0, -1, 0.3]
        thigh = self._bone(f"upperleg01.{side}", f"lowerleg01.{side}")
        shin = self._bone(f"lowerleg01.{side}", f"foot.{side}")
        upper, lower = two_bones(
            ankle - start,
            float(np.linalg.norm(thigh)),
            float(np.linalg.norm(shin)),
            knee_direction,
        )
        hinge_rest = np.array([1.0, 0.0, 0.0])
        hinge = _hinge(upper, lower, -knee_direction)
        toe = bend(float(pose.foot_pitch[number]), 0, 0)
        foot = turn @ bend(0, 0, sign * float(pose.toe_out[number])) @ toe
        upper_rotation = frame(upper, hinge) @ frame(thigh, hinge_rest).T
        lower_rotation = frame(lower, hinge) @ frame(shin, hinge_rest).T
        return {
            self._index[f"upperleg01.{side}"]: upper_rotation,
            self._index[f"lowerleg01.{side}"]: lower_rotation,
            self._index[f"foot.{side}"]: foot,
        }

    def _shoulder_rotation(
        self, pose: Pose, number: int, side: str, sign: float, chest: np.ndarray
    ) -> dict[int, np.ndarray]:
        """Above shoulder height a third of the arm's raise comes from the shoulder girdle."""
        shrug = 0.35 * max(0.0, float(pose.arms[number, 0]) - 0.9)
        return {
            self._index[f"clavicle.{side}"]: chest @ about(np.array([0, -1.0, 0]), sign * shrug)
        }

    def _arm_rotations(
        self,
        pose: Pose,
        number: int,
        side: str,
        sign: float,
        chest: np.ndarray,
        start: np.ndarray,
        target: HandTarget | None,
    ) -> dict[int, np.ndarray]:
        raise_angle, azimuth, elbow, swivel, pronation = pose.arms[number]
        upper_rest = self._bone(f"upperarm01.{side}", f"lowerarm01.{side}")
        lower_rest = self._bone(f"lowerarm01.{side}", f"wrist.{side}")
        if target is None:
            upper, lower, bend_hint = _arm_directions(raise_angle, azimuth, elbow, swivel, sign)
            upper, lower, bend_hint = chest @ upper, chest @ lower, chest @ bend_hint
        else:
            upper, lower = two_bones(
                target.wrist - start,
                float(np.linalg.norm(upper_rest)),
                float(np.linalg.norm(lower_rest)),
                target.elbow_hint,
            )
            bend_hint = -target.elbow_hint
        hinge_rest = cross(upper_rest, lower_rest)
        hinge = _hinge(upper, lower, bend_hint)
        lower_rotation = frame(lower, hinge) @ frame(lower_rest, hinge_rest).T
        axis = unit(lower_rest)
        hand = lower_rotation @ about(axis, sign * pronation)
        if target is not None and target.fingers is not None:
            hand = _turned_towards(lower, target.fingers) @ hand
        return {
            self._index[f"upperarm01.{side}"]: frame(upper, hinge)
            @ frame(upper_rest, hinge_rest).T,
            self._index[f"lowerarm01.{side}"]: lower_rotation,
            self._index[f"lowerarm02.{side}"]: lower_rotation @ about(axis, sign * pronation / 2),
            self._index[f"wrist.{side}"]: hand,
        }

    def _finger_rotations(self, hand: np.ndarray, side: str, grip: float) -> dict[int, np.ndarray]:
        across = self._bone(f"finger5-1.{side}", f"finger2-1.{side}")
        sign = 1.0 if side == "L" else -1.0
        fixed = {}
        for finger in range(1, 6):
            along = unit(self._bone(f"finger{finger}-1.{side}", f"finger{finger}-3.{side}"))
            axis = unit(across - (across @ along) * along)
            amount = float(grip) * (0.5 if finger == 1 else 1.25) * sign
            for bone in range(1, 4):
                fixed[self._index[f"finger{finger}-{bone}.{side}"]] = hand @ about(
                    axis, amount * bone
                )
        return fixed


def two_bones(
    target: np.ndarray, upper_length: float, lower_length: float, hint: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Unit directions of two bones that end at ``target`` (3,), the joint bent towards ``hint``.

    A target out of reach is approached along its direction. Law of cosines.
    """
    reach = upper_length + lower_length
    distance = float(np.clip(np.linalg.norm(target), 0.35 * reach, MAX_REACH * reach))
    along = unit(target)
    across = unit(hint - (hint @ along) * along)
    cosine = (upper_length**2 + distance**2 - lower_length**2) / (2 * upper_length * distance)
    cosine = float(np.clip(cosine, -1, 1))
    upper = cosine * along + np.sqrt(1 - cosine**2) * across
    return upper, unit(distance * along - upper_length * upper)


def _turned_towards(direction: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """(3, 3) rotation of ``direction`` towards ``goal``, as far as a wrist bends."""
    axis = cross(direction, unit(goal))
    sine = float(np.linalg.norm(axis))
    if sine < 1e-6:
        return np.eye(3)
    angle = float(np.arctan2(sine, direction @ unit(goal)))
    return about(axis / sine, min(angle, MAX_WRIST))


def _hinge(upper: np.ndarray, lower: np.ndarray, bend_direction: np.ndarray) -> np.ndarray:
    """Axis about which the lower bone turns out of the upper one; straight: from the hint."""
    axis = cross(upper, lower)
    if np.linalg.norm(axis) > 0.05:
        return unit(axis)
    return unit(cross(upper, bend_direction))


def _arm_directions(
    raise_angle: float, azimuth: float, elbow: float, swivel: float, sign: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Upper arm, forearm and bend direction in the chest's frame; ``sign`` is 1 for the left."""
    down, forward, out = (np.array(v, float) for v in ([0, 0, -1], [0, -1, 0], [sign, 0, 0]))
    level = np.cos(azimuth) * forward + np.sin(azimuth) * out
    upper = np.cos(raise_angle) * down + np.sin(raise_angle) * level
    raising = -np.sin(raise_angle) * down + np.cos(raise_angle) * level
    inward = np.sin(azimuth) * forward - np.cos(azimuth) * out
    bending = np.cos(swivel) * raising + np.sin(swivel) * inward
    return upper, np.cos(elbow) * upper + np.sin(elbow) * bending, bending
