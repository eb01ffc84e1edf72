# SPDX-License-Identifier: Apache-2.0
"""How the published BBoxMaskPose conditions ViTs on masks: part of the baseline of `bmp bench`."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from bmp_ros.engines.crops import crop_geometry, pose_inputs
from bmp_ros.engines.heatmaps import decode_udp_dark
from bmp_ros.engines.torch.heatmap_estimator import HeatmapEstimator
from bmp_ros.engines.torch.heatmaps import merge_flipped
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.protocols import Poses
from bmp_ros.loop.skeletons import Skeleton, skeleton_of_size

_DEFAULT_FACTOR = 0.8


class FullImageDimmingEstimator:
    """Dims whole images, flips in a second pass, decodes all channels person by person."""

    def __init__(self, estimator: HeatmapEstimator) -> None:
        self._estimator = estimator
        self._network = estimator.network
        self._channels = skeleton_of_size(self._network.num_keypoints)

    @property
    def skeleton(self) -> Skeleton:
        return self._estimator.skeleton

    @torch.inference_mode()
    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        geometry = crop_geometry(boxes, self._network.input_size)
        crops = []
        for row in range(len(boxes)):
            image = frame.image if masks is None else self._dimmed(frame.image, masks[row])
            crops.append(pose_inputs(image, geometry[row : row + 1]))
        inputs = torch.from_numpy(np.concatenate(crops)).to(self._estimator.device)
        straight, mirrored = (_as_tuple(self._network(half)) for half in (inputs, inputs.flip(3)))
        flip_indices = torch.from_numpy(self._channels.flip_indices).to(inputs.device)
        outputs = [
            merge_flipped(torch.cat(pair), flip_indices).float().cpu().numpy()
            for pair in zip(straight, mirrored, strict=True)
        ]
        decoded = [decode_udp_dark(heatmaps[None]) for heatmaps in outputs[0]]
        points = np.concatenate([points for points, _ in decoded])
        peaks = np.concatenate([peaks for _, peaks in decoded])
        joints = len(self.skeleton)
        presence, visibility, scores = outputs[1:] if len(outputs) > 1 else (None, None, peaks)
        return Poses(
            geometry.points_to_image(points, self._network.heatmap_size)[:, :joints],
            scores[:, :joints],
            None if visibility is None else visibility[:, :joints],
            None if presence is None else presence[:, :joints],
        )

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


def _as_tuple(output: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Heatmaps alone, or PMPose's heatmaps, presence, visibility and OKS."""
    return (output,) if isinstance(output, torch.Tensor) else output
