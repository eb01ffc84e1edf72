# SPDX-License-Identifier: Apache-2.0
"""Exact answers for a rendered scene: boxes, visible masks, COCO keypoints with visibility."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from bmp_ros.synthetic.camera import NEAR, Camera
from bmp_ros.synthetic.people import PosedPerson
from bmp_ros.synthetic.render import Raster

NOT_IN_IMAGE, OCCLUDED, VISIBLE = 0, 1, 2

BODY_DEPTH = np.array(
    [0.05] * 5 + [0.13] * 2 + [0.09] * 2 + [0.07] * 2 + [0.17] * 2 + [0.12] * 2 + [0.10] * 2
)
"""Per COCO joint: metres of the own body and clothes (1.75 m tall) that may lie in front of a
joint that still counts as visible. Joints lie inside the limb: more than this is
self-occlusion."""
SEARCH_RADIUS = 0.03
"""Metres around the joint within which one visible pixel is enough."""


@dataclass(frozen=True)
class PeopleTruth:
    """The N people with at least one visible pixel, in the order of their identities.

    boxes: (N, 4) float32 xyxy of the visible mask. amodal_boxes: (N, 4) of the whole person,
    clipped to the image. masks: (N, H, W) bool, disjoint. keypoints: (N, 17, 2) float32 in COCO's
    order (true positions, also outside the image). visibility: (N, 17) int64, COCO's 0 not in the
    image, 1 occluded, 2 visible. joint_depths: (N, 17) metres. identities: (N,) int64.
    Coordinates are continuous: pixel i covers [i, i + 1).
    """

    boxes: np.ndarray
    amodal_boxes: np.ndarray
    masks: np.ndarray
    keypoints: np.ndarray
    visibility: np.ndarray
    joint_depths: np.ndarray
    identities: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)


def people_truth(bodies: Sequence[PosedPerson], raster: Raster, camera: Camera) -> PeopleTruth:
    """Read the answers off the id and depth buffers and the posed joints."""
    seen = set(np.unique(raster.instances).tolist())
    bodies = sorted(bodies, key=lambda body: body.person.identity)
    bodies = [body for body in bodies if body.person.identity in seen]
    count = len(bodies)
    masks = np.zeros((count, camera.height, camera.width), bool)
    boxes, amodal = np.zeros((count, 4), np.float32), np.zeros((count, 4), np.float32)
    keypoints = np.zeros((count, 17, 2), np.float32)
    visibility = np.zeros((count, 17), np.int64)
    depths = np.zeros((count, 17), np.float32)
    for row, body in enumerate(bodies):
        masks[row] = raster.instances == body.person.identity
        boxes[row] = mask_box(masks[row])
        amodal[row] = projected_box(body, camera)
        keypoints[row], depths[row] = camera.project(body.keypoints)
        visibility[row] = joint_visibility(
            keypoints[row], depths[row], body.person.scale, masks[row], raster.depth, camera
        )
    identities = np.array([body.person.identity for body in bodies], np.int64)
    return PeopleTruth(boxes, amodal, masks, keypoints, visibility, depths, identities)


def mask_box(mask: np.ndarray) -> np.ndarray:
    """(4,) xyxy edges of the True pixels of ``mask`` (H, W), which has at least one."""
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    return np.array([left, top, left + width, top + height], np.float32)


def projected_box(body: PosedPerson, camera: Camera) -> np.ndarray:
    """(4,) xyxy around all projected vertices of the person, clipped to the image."""
    mesh = body.person.mesh
    chosen = mesh.is_person[mesh.surface] & (mesh.cover >= 0)
    pixels, depth = camera.project(body.vertices[chosen])
    pixels = pixels[depth > NEAR]
    if len(pixels) == 0:
        return np.zeros(4, np.float32)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    size = [camera.width, camera.height]
    return np.concatenate([np.clip(low, 0, size), np.clip(high, 0, size)]).astype(np.float32)


def joint_visibility(
    keypoints: np.ndarray,
    depths: np.ndarray,
    scale: float,
    mask: np.ndarray,
    depth: np.ndarray,
    camera: Camera,
) -> np.ndarray:
    """(17,) 0, 1 or 2: visible if near the joint the person is the frontmost thing, at most the
    body's own thickness (``BODY_DEPTH``) before the joint."""
    result = np.full(17, NOT_IN_IMAGE, np.int64)
    for joint, ((x, y), z) in enumerate(zip(keypoints, depths, strict=True)):
        if z <= NEAR or not (0 <= x < camera.width and 0 <= y < camera.height):
            continue
        radius = max(1, round(float(camera.matrix[0, 0] * SEARCH_RADIUS * scale / z)))
        rows = slice(max(0, int(y) - radius), int(y) + radius + 1)
        columns = slice(max(0, int(x) - radius), int(x) + radius + 1)
        near = mask[rows, columns] & (
            depth[rows, columns] > z - BODY_DEPTH[joint] * max(scale, 0.5)
        )
        result[joint] = VISIBLE if near.any() else OCCLUDED
    return result
