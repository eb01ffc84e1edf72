# SPDX-License-Identifier: Apache-2.0
"""How the published BBoxMaskPose conditions ViTs on masks: part of the baseline of `bmp bench`."""

from __future__ import annotations

import cv2
import numpy as np

from bmp_ros.engines.crops import crop_geometry, pose_inputs
from bmp_ros.engines.heatmaps import decode_udp_dark, merge_flipped
from bmp_ros.engines.pose_decoding import OUTPUTS
from bmp_ros.engines.top_down_pose import TopDownPoseEstimator
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.protocols import Poses
from bmp_ros.loop.skeletons import Skeleton

_DEFAULT_FACTOR = 0.8


class FullImageDimmingEstimator:
    """Dims whole images, flips in a second pass, decodes all channels person by person."""

    def __init__(self, estimator: TopDownPoseEstimator) -> None:
        self._estimator = estimator

    @property
    def skeleton(self) -> Skeleton:
        return self._estimator.skeleton

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        geometry = crop_geometry(boxes, self._estimator.input_size)
        crops = []
        for row in range(len(boxes)):
            image = frame.image if masks is None else self._dimmed(frame.image, masks[row])
            crops.append(pose_inputs(image, geometry[row : row + 1]))
        outputs = self._outputs(np.concatenate(crops))
        decoded = [decode_udp_dark(heatmaps[None]) for heatmaps in outputs["heatmaps"]]
        points = np.concatenate([points for points, _ in decoded])
        peaks = np.concatenate([peaks for _, peaks in decoded])
        height, width = outputs["heatmaps"].shape[2:]
        keypoints = geometry.points_to_image(points, (width, height))
        joints = len(self.skeleton)
        presence, visibility, scores = (outputs.get(name) for name in OUTPUTS["heatmaps"][1:])
        return Poses(
            keypoints[:, :joints],
            (peaks if scores is None else scores)[:, :joints],
            None if visibility is None else visibility[:, :joints],
            None if presence is None else presence[:, :joints],
        )

    def _outputs(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        straight: dict[str, np.ndarray] = self._estimator.graph.run({"crops": crops})
        if not self._estimator.flip_test:
            return straight
        mirrored = self._estimator.graph.run({"crops": crops[..., ::-1]})
        flip_indices = self._estimator.network_skeleton.flip_indices
        return {
            name: merge_flipped(np.concatenate([value, mirrored[name]]), flip_indices)
            for name, value in straight.items()
        }

    def _dimmed(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The whole image with the background darker, by way of the mask's outer polygons."""
        outlines, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        polygons = np.zeros(mask.shape, np.uint8)
        cv2.fillPoly(polygons, [line for line in outlines if len(line) > 3], 1)
        masked = image.copy() * polygons[:, :, None]
        factor = self._estimator.background_factor
        keep = _DEFAULT_FACTOR if factor is None else factor
        return cv2.addWeighted(image, keep, masked, 1 - keep, 0)
