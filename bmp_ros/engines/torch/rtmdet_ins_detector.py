# SPDX-License-Identifier: Apache-2.0
"""``RTMDetInsDetector``: people, boxes and lazily decoded masks with RTMDet-Ins on torch."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from bmp_ros.engines.box_selection import select_people
from bmp_ros.engines.letterbox import (
    BGR_MEAN,
    BGR_STD,
    Letterbox,
    canvas_size,
    grid_priors,
    mask_resampling,
)
from bmp_ros.engines.torch.devices import torch_dtype
from bmp_ros.engines.torch.dynamic_masks import mask_logits, masks_on_image
from bmp_ros.loop.protocols import Detections
from bmp_ros.networks.rtmdet_ins import ConvNormAct, Features, OutputConv, RTMDetIns

if TYPE_CHECKING:
    from bmp_ros.loop.frame import Frame

PERSON = 0
"""Class index of people, in the 80 classes of COCO as in networks with one class."""


class RTMDetInsDetector:
    """Finds people with RTMDet-Ins. Implements ``Detector``.

    network: kept as it is; the detector works on a copy prepared for inference.
    device: of torch, e.g. "cpu" or "cuda:0". precision: "fp32", "fp16" (GPU only) or "bf16";
    boxes, scores and masks are computed in float32 from the network's last layers on.
    input_size: (width, height) of the canvas, or the side of a square one; multiples of 32.
    nms_iou: greatest IoU of two people.
    candidates: locations, best first, that go on to the NMS. max_people: limit after it.
    channels_last: memory format; None means on for GPUs, off for CPUs (where it is slower).
    compile: run backbone and head through ``torch.compile`` (slow first call).
    """

    def __init__(
        self,
        network: RTMDetIns,
        *,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        input_size: int | tuple[int, int] = 640,
        nms_iou: float = 0.6,
        candidates: int = 1000,
        max_people: int = 100,
        channels_last: bool | None = None,
        compile: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self._dtype = torch_dtype(precision, self.device)
        self._canvas = canvas_size(input_size)
        self._nms_iou = nms_iou
        self._candidates = candidates
        self._max_people = max_people

        on_gpu = self.device.type != "cpu"
        use_channels_last = on_gpu if channels_last is None else channels_last
        self._memory = torch.channels_last if use_channels_last else torch.contiguous_format
        self._network = prepare_for_inference(network, self._dtype).to(self.device)
        self._network.to(memory_format=self._memory)
        self._forward: Any = torch.compile(self._find) if compile else self._find

        def constant(values: Any) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=self.device)

        self._mean = constant(BGR_MEAN).view(1, 3, 1, 1)
        self._std = constant(BGR_STD).view(1, 3, 1, 1)
        self._priors = torch.from_numpy(grid_priors(self._canvas))
        self._centres = self._priors[:, :2].to(self.device)
        self._corner = constant(self._canvas * 2)

    @torch.inference_mode()
    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        """Return people with score > ``score_threshold``, best first, at most ``max_people``.

        Also returned, last: candidates whose score or box is not finite, as NaN, for the caller
        to drop and count.
        """
        letterbox = Letterbox.fit(frame.height, frame.width, self._canvas)
        canvas = torch.from_numpy(letterbox.apply(frame.image)).to(self.device)
        features, found = self._forward(canvas)
        candidates = found.cpu().numpy()  # the one synchronisation with the device
        boxes, scores, chosen = select_people(
            candidates[:, :4],
            candidates[:, 4],
            letterbox,
            score_threshold=score_threshold,
            nms_iou=self._nms_iou,
            max_people=self._max_people,
        )
        locations = torch.from_numpy(candidates[chosen, 5].astype(np.int64))

        def masks(indices: np.ndarray) -> np.ndarray:
            rows = torch.from_numpy(np.array(indices, np.int64))
            return self._decode_masks(features, locations[rows], letterbox)

        return Detections(boxes, scores, masks)

    def _find(self, canvas: Tensor) -> tuple[Features, Tensor]:
        """Canvas (h, w, 3) uint8 -> feature maps, and the best candidates (k, 6) float32.

        A candidate is x0, y0, x1, y1 in canvas pixels, score, location (exact: P < 2 ** 24).
        The shapes depend on the canvas alone, so the device never waits for the host.
        """
        image = canvas.permute(2, 0, 1)[None].float()
        image = ((image - self._mean) / self._std).to(self._dtype, memory_format=self._memory)
        features = self._network.features(image)
        logits, distances = self._network.bbox_head.boxes(features)

        scores = logits[0, :, PERSON].float().sigmoid()
        best, locations = scores.topk(min(self._candidates, len(scores)))  # NaN ranks first
        distances = distances[0, locations].float()
        centres = self._centres[locations]
        boxes = torch.cat([centres - distances[:, :2], centres + distances[:, 2:]], dim=1)
        # Clipping would turn an overflow into a plausible box along the border of the canvas.
        inside = boxes.clamp(min=0).minimum(self._corner)
        boxes = torch.where(boxes.isfinite(), inside, torch.nan)
        return features, torch.cat([boxes, best[:, None], locations[:, None].float()], dim=1)

    @torch.inference_mode()
    def _decode_masks(
        self, features: Features, locations: Tensor, letterbox: Letterbox
    ) -> np.ndarray:
        """Masks (n, H, W) bool of the people found at ``locations`` (n,) int64, on the CPU."""
        if not len(locations):
            return np.empty((0, letterbox.image_height, letterbox.image_width), bool)
        head = self._network.bbox_head
        rows, columns = (
            torch.tensor(matrix, device=self.device) for matrix in mask_resampling(letterbox)
        )
        prototypes = head.mask_head(features)[0, :, : rows.shape[1], : columns.shape[1]]
        kernels = head.kernels_at(features, locations)
        logits = mask_logits(prototypes, kernels, self._priors[locations])
        return masks_on_image(logits, rows, columns)


def prepare_for_inference(network: RTMDetIns, dtype: torch.dtype) -> RTMDetIns:
    """Return a copy for inference: norms folded, people only, in ``dtype``.

    Folding a batch norm into its convolution changes results by rounding alone. The convolutions
    that levels share become one per level, since their norms are. The last layer of each branch
    stays in float32 (see ``OutputConv``).
    """
    network = copy.deepcopy(network).eval().float().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, ConvNormAct) and isinstance(module.bn, nn.BatchNorm2d):
            module.conv = nn.utils.fusion.fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
    for classifier in network.bbox_head.rtm_cls:
        cast(OutputConv, classifier).keep_channel(PERSON)
    network.to(dtype)
    for module in network.modules():
        if isinstance(module, OutputConv):
            module.float()
    return network
