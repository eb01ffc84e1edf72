# SPDX-License-Identifier: Apache-2.0
"""Golden vectors of the published pose networks: what went in, what came out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bmp_ros.networks.vit_pose import VitPose

DATA = Path(__file__).parents[1] / "data"
HEADS = {"maskpose_tiny": "heatmap", "pmpose_tiny": "pmpose"}


class Golden:
    """One file of golden vectors: ``golden["keypoints"]``, ``golden.network()``, ``.masks()``."""

    def __init__(self, name: str) -> None:
        self.head = HEADS[name]
        with np.load(DATA / f"{name}.npz") as file:
            self._arrays = dict(file)

    def __getitem__(self, key: str) -> np.ndarray:
        return self._arrays[key]

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {
            key[3:]: torch.from_numpy(value)
            for key, value in self._arrays.items()
            if key.startswith("sd/")
        }

    def network(self) -> VitPose:
        return VitPose.from_state_dict(self.state_dict(), head=self.head, num_heads=4)

    def masks(self) -> np.ndarray:
        """(N, H, W) bool."""
        people, height, width = self["mask_shape"]
        bits = np.unpackbits(self["masks"], axis=2)[:, :, :width]
        return bits.reshape(people, height, width).astype(bool)

    def dark_offsets(self) -> np.ndarray:
        """(N, K) float, how far the published sub-pixel step went, in heatmap pixels."""
        heatmaps = self["heatmaps_flip_averaged"]
        people, joints, height, width = heatmaps.shape
        y, x = np.divmod(heatmaps.reshape(people, joints, -1).argmax(axis=2), width)
        boxes = self["boxes_xyxy"].astype(np.float64)
        padded = 1.25 * (boxes[:, 2:] - boxes[:, :2])
        size = np.maximum(padded, padded[:, ::-1] * (0.75, 1 / 0.75))
        origin = (boxes[:, :2] + boxes[:, 2:] - size) / 2
        located = (self["keypoints"] - origin[:, None]) / size[:, None] * (width - 1, height - 1)
        return np.abs(located - np.stack([x, y], axis=2)).max(axis=2)
