# SPDX-License-Identifier: Apache-2.0
"""``OnnxPoseEstimator``: an exported heatmap network at work on the people of a frame."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bmp_ros.engines.crops import crop_geometry, pose_inputs
from bmp_ros.engines.heatmaps import decode_udp_dark, merge_flipped
from bmp_ros.engines.onnx.graph import load_network
from bmp_ros.engines.onnx.target import Target
from bmp_ros.loop.protocols import Poses
from bmp_ros.loop.skeletons import COCO_17, SKELETONS, Skeleton

if TYPE_CHECKING:
    from bmp_ros.loop.frame import Frame


class OnnxPoseEstimator:
    """Top-down pose estimation, one crop per box, conditioned on masks by dimming the background.

    Does what `bmp_ros.engines.torch.heatmap_estimator.HeatmapEstimator` does. Implements
    ``PoseEstimator``.
    """

    def __init__(
        self,
        path: Path,
        target: Target,
        *,
        flip_test: bool = True,
        extra_keypoints: bool = False,
        max_batch: int = 32,
    ) -> None:
        """Load the graph of ``path``; raises what `load_network` raises.

        flip_test: average with the mirrored crop; doubles the cost. extra_keypoints: return all
        keypoints of the network, not only COCO's 17. max_batch: crops, mirrored ones included,
        that pass the network at once.
        """
        self._graph = load_network(path, "pose_estimator", target)["heatmaps"]
        facts = self._graph.card.facts
        self.device = target.device
        self.background_factor: float | None = facts.background_factor
        side = facts.input_size
        self._crop_size = (side, side) if isinstance(side, int) else side
        self._has_towers = facts.outputs == "pmpose"
        self._skeleton = SKELETONS[facts.skeleton] if extra_keypoints else COCO_17
        self._flip_indices = self._skeleton.flip_indices if flip_test else None
        self._people_per_pass = max(1, max_batch // (2 if flip_test else 1))

    @property
    def skeleton(self) -> Skeleton:
        """The keypoints that ``estimate`` returns."""
        return self._skeleton

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        """Estimate the pose in each box; see ``PoseEstimator.estimate``.

        Boxes may be degenerate or reach outside of the frame. Raises ValueError for boxes that are
        not finite and for masks of another number or size.
        """
        geometry = crop_geometry(boxes, self._crop_size)
        people = len(geometry)
        if masks is not None and masks.shape != (people, frame.height, frame.width):
            raise ValueError(
                f"masks must have shape {(people, frame.height, frame.width)}, one per box in the "
                f"size of the frame, got {masks.shape}"
            )
        crops = pose_inputs(frame.image, geometry, masks, self.background_factor)
        # Passes of equal size: 17 people in two passes are 9 + 8, not 16 + 1.
        passes = np.array_split(crops, math.ceil(people / self._people_per_pass))
        outputs = [self._run(part) for part in passes]
        heatmaps, *towers = (np.concatenate(part) for part in zip(*outputs, strict=True))
        points, peaks = decode_udp_dark(heatmaps)
        height, width = heatmaps.shape[2:]
        keypoints = geometry.points_to_image(points, (width, height))
        if not towers:
            return Poses(keypoints, peaks)
        presence, visibility, oks = towers
        return Poses(keypoints, oks, visibility, presence)

    def _run(self, crops: np.ndarray) -> list[np.ndarray]:
        """Heatmaps (n, K, h, w), for PMPose also presence, visibility and OKS (n, K); merged."""
        if self._flip_indices is not None:
            crops = np.concatenate([crops, crops[..., ::-1]])
        found = self._graph.run({"crops": crops})
        names = ["heatmaps", *(("presence", "visibility", "oks") if self._has_towers else ())]
        outputs = [found[name][:, : len(self._skeleton)] for name in names]
        if self._flip_indices is None:
            return outputs
        return [merge_flipped(output, self._flip_indices) for output in outputs]
