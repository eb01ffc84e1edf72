# SPDX-License-Identifier: Apache-2.0
"""``HeatmapEstimator``: ViTPose, MaskPose, PMPose or ConvPose at work on the people of a frame."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bmp_ros.engines import crops as host_crops
from bmp_ros.engines.crops import CropGeometry, crop_geometry
from bmp_ros.engines.torch import crops as device_crops
from bmp_ros.engines.torch.devices import torch_dtype
from bmp_ros.engines.torch.heatmaps import decode_udp_dark, merge_flipped
from bmp_ros.loop.protocols import Poses
from bmp_ros.loop.skeletons import COCO_17, Skeleton, skeleton_of_size
from bmp_ros.networks.vit_pose import PMPoseOutput

if TYPE_CHECKING:
    from bmp_ros.loop.frame import Frame


class HeatmapNetwork(Protocol):
    """A network (``torch.nn.Module``) from crops to heatmaps, such as `VitPose` or `ConvPose`.

    input_size, heatmap_size: (width, height). num_keypoints: K.
    """

    input_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    num_keypoints: int

    def __call__(self, crops: Tensor) -> Tensor | PMPoseOutput:
        """(N, 3, height, width) float32, see `crops.pose_inputs` -> heatmaps (N, K, h, w)."""
        ...

    def eval(self) -> Any: ...

    def to(self, *args: Any, **kwargs: Any) -> Any: ...


class HeatmapEstimator:
    """Top-down pose estimation, one crop per box, conditioned on masks by dimming the background.

    The score of a keypoint is the peak of its heatmap, for PMPose the similarity to the truth
    (OKS) that the network expects; PMPose also gives visibility and presence. Read-only:
    ``network``, ``device``, ``background_factor``.
    """

    def __init__(
        self,
        network: HeatmapNetwork,
        *,
        skeleton: Skeleton | None = None,
        background_factor: float | None = 0.75,
        flip_test: bool = True,
        extra_keypoints: bool = False,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        channels_last: bool = False,
        compile: bool = False,
        max_batch: int = 32,
        crop_on_device: bool | None = None,
    ) -> None:
        """Take over ``network``: move it to the device and set its precision.

        skeleton: the network's keypoints; None picks the published set of that size.
        background_factor: brightness left outside of the mask: 0.8 for MaskPose 1.0.0 (21
            keypoints), 0.75 for MaskPose 1.1.0 and PMPose, the one of its training for ConvPose,
            None for ViTPose, which ignores masks.
        flip_test: average with the mirrored crop; doubles the cost.
        extra_keypoints: return all keypoints of the network, not only COCO's 17.
        precision: "fp32", "fp16" (not on a CPU) or "bf16".
        channels_last: memory layout of the convolutions; for half precision on tensor cores.
        compile: fuse the network with ``torch.compile`` at the first frame (minutes).
        max_batch: crops, mirrored ones included, that pass the network at once; more people take
            several passes. The largest activations of 32 crops in fp32 take 100 MB each.
        crop_on_device: warp and dim with torch on the device (True) or with OpenCV on the host
            (False); None means on the device unless that is the CPU, where OpenCV is faster.
        Raises ValueError for values out of range and what the device cannot do.
        """
        self.device = torch.device(device)
        dtype = torch_dtype(precision, self.device)
        if background_factor is not None and not 0 <= background_factor <= 1:
            raise ValueError(
                f"background_factor must be in [0, 1] or None, got {background_factor}"
            )
        if max_batch < (2 if flip_test else 1):
            raise ValueError(
                f"max_batch must hold one person: at least {2 if flip_test else 1} crops with "
                f"flip_test={flip_test}, got {max_batch}"
            )
        all_keypoints = skeleton_of_size(network.num_keypoints) if skeleton is None else skeleton
        if len(all_keypoints) != network.num_keypoints:
            raise ValueError(
                f"skeleton {all_keypoints.name} has {len(all_keypoints)} joints, the network "
                f"{network.num_keypoints}"
            )
        self._skeleton = all_keypoints if extra_keypoints else COCO_17
        self.background_factor = background_factor
        self._flip_indices = (
            torch.from_numpy(self._skeleton.flip_indices).to(self.device) if flip_test else None
        )
        self._people_per_pass = max_batch // (2 if flip_test else 1)
        self._crop_on_device = (
            self.device.type != "cpu" if crop_on_device is None else crop_on_device
        )
        self.network = network.eval().to(self.device)
        if hasattr(network, "set_precision"):
            network.set_precision(dtype)
        elif dtype != torch.float32:
            raise ValueError(f"{type(network).__name__} has no set_precision and runs in fp32")
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        self._forward = torch.compile(self.network, dynamic=True) if compile else self.network

    @property
    def skeleton(self) -> Skeleton:
        """The keypoints that ``estimate`` returns."""
        return self._skeleton

    @torch.inference_mode()
    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        """Estimate the pose in each box; see ``PoseEstimator.estimate``.

        Waits for the device once, when everything is computed. Boxes may be degenerate or reach
        outside of the frame. Raises ValueError for boxes that are not finite and for masks of
        another number or size.
        """
        geometry = crop_geometry(boxes, self.network.input_size)
        people = len(geometry)
        if masks is not None and masks.shape != (people, frame.height, frame.width):
            raise ValueError(
                f"masks must have shape {(people, frame.height, frame.width)}, one per box in the "
                f"size of the frame, got {masks.shape}"
            )
        crops = self._inputs(frame, geometry, masks)
        # Passes of equal size: 17 people in two passes are 9 + 8, not 16 + 1.
        passes = math.ceil(people / self._people_per_pass)
        table = torch.cat([self._estimate_pass(part) for part in crops.chunk(passes)])
        table = table.cpu().numpy()
        return Poses(
            keypoints=geometry.points_to_image(table[..., :2], self.network.heatmap_size),
            scores=table[..., 2].copy(),
            visibility=table[..., 3].copy() if table.shape[2] > 3 else None,
            presence=table[..., 4].copy() if table.shape[2] > 3 else None,
        )

    def _inputs(self, frame: Frame, geometry: CropGeometry, masks: np.ndarray | None) -> Tensor:
        factor = self.background_factor
        if self._crop_on_device:
            image = device_crops.frame_tensor(frame, self.device)
            return device_crops.pose_inputs(image, geometry, masks, factor)
        inputs = host_crops.pose_inputs(frame.image, geometry, masks, factor)
        return torch.from_numpy(inputs).to(self.device)

    def _estimate_pass(self, crops: Tensor) -> Tensor:
        """Return a row (x, y in heatmap pixels, score[, visibility, presence]) per keypoint.

        Shape (n, K, 3), for PMPose (n, K, 5), float32 on the device.
        """
        if self._flip_indices is not None:
            crops = torch.cat([crops, crops.flip(3)])
        output = self._forward(crops)
        heatmaps, *towers = (output,) if isinstance(output, Tensor) else output
        points, peaks = decode_udp_dark(self._used(heatmaps))
        columns = [peaks]
        if towers:
            presence, visibility, oks = (self._used(tower) for tower in towers)
            columns = [oks, visibility, presence]
        return torch.cat([points.float(), torch.stack(columns, dim=2)], dim=2)

    def _used(self, output: Tensor) -> Tensor:
        """Drop the keypoints nobody asked for and merge with the mirrored crops."""
        output = output[:, : len(self._skeleton)]
        return output if self._flip_indices is None else merge_flipped(output, self._flip_indices)
