# SPDX-License-Identifier: Apache-2.0
"""SAM 2.1 as a `Segmenter`: all people of one frame from one embedding and one decoder call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from bmp_ros.engines.crops import IMAGENET_MEAN, IMAGENET_STD
from bmp_ros.engines.point_prompts import check_prompts
from bmp_ros.engines.torch.crops import frame_tensor
from bmp_ros.engines.torch.devices import torch_dtype
from bmp_ros.loop.masks import remove_holes_and_sprinkles
from bmp_ros.loop.protocols import Segments
from bmp_ros.networks.sam2 import Sam2Embedding, Sam2Network

if TYPE_CHECKING:
    from bmp_ros.loop.frame import Frame

# Full-size logits are float32 and exist only until they are thresholded: 64 Mi pixels = 256 MiB at
# a time, so that fifty people in a 12 megapixel image do not take 2.4 GB.
_PIXELS_AT_A_TIME = 64 * 2**20


class Sam2Segmenter:
    """Segments people from point prompts with SAM 2.1 or SAM-pose2seg (`Segmenter`)."""

    def __init__(
        self,
        network: Sam2Network,
        *,
        dynamic_multimask: bool = False,
        max_hole_area: int = 10,
        max_sprinkle_area: int = 50,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        compile: bool = False,
    ) -> None:
        """Put a network to work on one device.

        network: moved to ``device``.
        dynamic_multimask: an unstable mask gives way to the best of the three alternatives.
        max_hole_area, max_sprinkle_area: holes and sprinkles up to this many pixels of the 256x256
            logits are removed; 0 = off (`remove_holes_and_sprinkles`).
        precision: "fp32"; "fp16" and "bf16" run under autocast, "fp16" on a GPU only.
        compile: run the image encoder through ``torch.compile`` (slow first
            frame).

        Raises ValueError for an unknown precision, fp16 on the CPU, or a negative area.
        """
        self.device = torch.device(device)
        self._dtype = torch_dtype(precision, self.device)
        for name, area in (
            ("max_hole_area", max_hole_area),
            ("max_sprinkle_area", max_sprinkle_area),
        ):
            if area < 0:
                raise ValueError(f"{name} must be >= 0 (0 = off), got {area}")
        self.dynamic_multimask = dynamic_multimask
        self.max_hole_area = max_hole_area
        self.max_sprinkle_area = max_sprinkle_area
        self.network = network.to(self.device).eval()
        if compile:
            self.network.image_encoder.compile()

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping[str, torch.Tensor], **options: Any
    ) -> Sam2Segmenter:
        """Build network and segmenter from a published state dict.

        options: the constructor's keyword arguments. Raises what `Sam2Network.from_state_dict` and
        the constructor raise.
        """
        return cls(Sam2Network.from_state_dict(state_dict), **options)

    @torch.inference_mode()
    def segment(
        self,
        frame: Frame,
        points: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
    ) -> Segments:
        """Segment G people, each from P points, in one decoder call.

        points: (G, P, 2) floating, x y in pixels of the frame, may lie outside of it.
        labels: (G, P) integer, 1 = on the person, 0 = not. masks: ignored, the published networks
        are prompted with points alone. Returns masks (G, H, W) bool and scores (G,) float32.

        Raises ValueError for other shapes, dtypes or labels and for points that are not finite.
        """
        logits, scores = self.decode(frame, points, labels)
        logits = self._without_holes_and_sprinkles(logits)
        found = _upsampled_masks(logits, frame.height, frame.width)
        return Segments(masks=found.cpu().numpy(), scores=scores.cpu().numpy())

    @torch.inference_mode()
    def decode(
        self, frame: Frame, points: np.ndarray, labels: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the network says, before any clean-up, as tensors on the device.

        Arguments and errors as in `segment`. Returns mask logits (G, 256, 256) float32 of the
        whole frame (its ratio is not kept) and scores (G,) float32.
        """
        check_prompts(points, labels)
        embedding = frame.cached((self, "embedding"), lambda: self._embed(frame))
        # In sam2's order and precision, so that results agree to the last bit.
        image_size = np.array([frame.width, frame.height], np.float32)
        inputs = points.astype(np.float32) / image_size * np.float32(self.network.image_size)
        with self._autocast():
            return self.network.decode(
                embedding,
                torch.from_numpy(inputs).to(self.device),
                torch.from_numpy(labels.astype(np.int32)).to(self.device),
                dynamic_multimask=self.dynamic_multimask,
            )

    def _embed(self, frame: Frame) -> Sam2Embedding:
        """Resize as sam2 does (bilinear with antialiasing, ratio not kept), normalise, encode."""
        bgr = frame_tensor(frame, self.device).permute(2, 0, 1)[None]
        side = self.network.image_size
        rgb = functional.interpolate(
            bgr.flip(1).float() / 255,
            size=(side, side),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        mean = torch.tensor(IMAGENET_MEAN, device=self.device).view(1, 3, 1, 1)
        std = torch.tensor(IMAGENET_STD, device=self.device).view(1, 3, 1, 1)
        with self._autocast():
            return self.network.embed((rgb - mean) / std)

    def _autocast(self) -> torch.autocast:
        reduced = self._dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self._dtype, enabled=reduced)

    def _without_holes_and_sprinkles(self, logits: torch.Tensor) -> torch.Tensor:
        if self.max_hole_area == 0 and self.max_sprinkle_area == 0:
            return logits  # no round trip to the CPU for nothing
        cleaned = remove_holes_and_sprinkles(
            logits.cpu().numpy(),
            max_hole_area=self.max_hole_area,
            max_sprinkle_area=self.max_sprinkle_area,
        )
        return torch.from_numpy(cleaned).to(self.device)


def _upsampled_masks(logits: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Upsample mask logits (G, h, w) bilinearly to (G, height, width) bool: where they are > 0."""
    masks = torch.empty((len(logits), height, width), dtype=torch.bool, device=logits.device)
    people = max(1, _PIXELS_AT_A_TIME // (height * width))
    for few, target in zip(logits.split(people), masks.split(people), strict=True):
        full = functional.interpolate(
            few[:, None], size=(height, width), mode="bilinear", align_corners=False
        )
        torch.gt(full[:, 0], 0, out=target)
    return masks
