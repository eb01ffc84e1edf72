# SPDX-License-Identifier: Apache-2.0
"""Random but meaningful RTMDet-Ins weights in the published layout.

Untrained weights find nothing, or everything, and so prove nothing. Here every batch norm is
calibrated on an image and the last layers are scaled by what they answer to it, so that dozens of
"people" with distinct scores in (0.3, 0.95), boxes of a few cells and masks of all shapes result.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from bmp_ros.engines.letterbox import BGR_MEAN, BGR_STD, Letterbox, grid_priors
from bmp_ros.networks.rtmdet_ins import (
    PUBLISHED_SIZES,
    RTMDetIns,
    RTMDetInsSize,
)

SMALL = RTMDetInsSize.scaled(0.25, 0.167)
"""Smaller than any published size: for tests that do not depend on the size."""

CANDIDATES = 120
"""Locations on the image that score above 0.3; up to a quarter more."""

LOWEST_SCORE, HIGHEST_SCORE = 0.3, 0.65


def random_rtmdet_ins(
    size: RTMDetInsSize | str,
    classes: int,
    seed: int,
    *,
    image: np.ndarray | None = None,
    input_size: int = 640,
) -> dict[str, Tensor]:
    """Return a state dict that finds many "people" of class 0 in ``image``.

    size: widths and depths, or the name of a published size. image: (H, W, 3) uint8, by default
    ``drawn_image(480, 640, seed)``. With more than one class, class 1 fires as often as class 0,
    at other places, and the others rarely. input_size: side of the canvas.
    """
    if isinstance(size, str):
        size = RTMDetInsSize.scaled(*PUBLISHED_SIZES[size])
    if image is None:
        image = drawn_image(480, 640, seed)
    letterbox = Letterbox.fit(*image.shape[:2], input_size)
    canvas = _normalised(letterbox.apply(image))
    generator = torch.Generator().manual_seed(seed)

    network = RTMDetIns(size, classes)
    with torch.no_grad():
        _draw_weights(network, generator)
        _calibrate_norms(network, canvas)
        _scale_outputs(network, canvas, letterbox)
    return {name: value.clone() for name, value in network.state_dict().items()}


def drawn_image(height: int, width: int, seed: int) -> np.ndarray:
    """Return (height, width, 3) uint8 with ellipses of all sizes on a noisy gradient."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    gradient = 80 + 60 * x / width + 60 * y / height
    image = np.repeat(gradient[:, :, None], 3, axis=2).astype(np.uint8)
    for _ in range(60):
        centre = int(rng.integers(width)), int(rng.integers(height))
        axes = tuple(int(a) for a in rng.integers(2, max(3, min(height, width) // 5), 2))
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
    noise = rng.normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _normalised(canvas: np.ndarray) -> Tensor:
    image = (canvas.astype(np.float32) - np.float32(BGR_MEAN)) / np.float32(BGR_STD)
    return torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()


def _draw_weights(network: RTMDetIns, generator: torch.Generator) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)
            if module.bias is not None:
                module.bias.normal_(0, 0.1, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            # Around 1 SiLU is nearly linear. Around 0 a deep random network is chaotic: it
            # multiplies the rounding of float32 a thousandfold, and no two orders of summation
            # agree to what a comparison of implementations asks for.
            module.weight.uniform_(0.2, 0.4, generator=generator)
            module.bias.normal_(1, 0.2, generator=generator)


def _calibrate_norms(network: RTMDetIns, canvas: Tensor) -> None:
    """Set the running statistics of every batch norm to those of ``canvas``."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    network.train()
    network(canvas)
    network.eval()


def _scale_outputs(network: RTMDetIns, canvas: Tensor, letterbox: Letterbox) -> None:
    head = network.bbox_head
    features = network.features(canvas)
    class_logits, _ = head.boxes(features)
    distances = torch.cat(
        [
            measure(tower(x)).flatten(2).transpose(1, 2)  # in cells, before the ReLU
            for x, tower, measure in zip(features, head.cls_convs, head.rtm_reg, strict=True)
        ],
        dim=1,
    )
    kernels = head.kernels(features)
    priors = grid_priors(letterbox.canvas)
    levels = [torch.from_numpy(priors[:, 2] == stride) for stride in np.unique(priors[:, 2])]
    for classifier, measure, kernel, level in zip(
        head.rtm_cls, head.rtm_reg, head.rtm_kernel, levels, strict=True
    ):
        _standardise(classifier, class_logits[0, level])
        _standardise(measure, distances[0, level])
        measure.bias += 3  # cells from a prior to a side of its box, on average
        _standardise(kernel, kernels[0, level])
        kernel.weight *= 0.7
        kernel.bias *= 0.7
    _standardise(head.mask_head.projection, head.mask_head(features)[0].flatten(1).T)

    logits = head.boxes(features)[0][0]
    on_image = torch.from_numpy(
        (priors[:, 0] < letterbox.resized_width) & (priors[:, 1] < letterbox.resized_height)
    )
    lowest, highest = (math.log(p / (1 - p)) for p in (LOWEST_SCORE, HIGHEST_SCORE))
    for index in range(logits.shape[1]):
        scale, shift = 1.0, -6.5
        if index < 2:
            best = logits[:, index].max()
            # Through the widest gap nearby, so that rounding moves nobody over the threshold.
            ranked = logits[on_image, index].sort(descending=True).values
            number = min(CANDIDATES, len(ranked) * 4 // 5)
            nearby = ranked[number : number + number // 4 + 2]
            widest = int((nearby[:-1] - nearby[1:]).argmax())
            last = nearby[widest : widest + 2].mean()
            scale = float((highest - lowest) / (best - last))
            shift = float(highest - scale * best)
        for classifier in head.rtm_cls:
            classifier.weight[index] *= scale
            classifier.bias[index] = classifier.bias[index] * scale + shift


def _standardise(layer: nn.Conv2d, answers: Tensor) -> None:
    """Scale the layer so that its ``answers`` (locations, channels) get mean 0 and deviation 1."""
    deviation, mean = torch.std_mean(answers, dim=0, correction=0)
    layer.weight /= deviation[:, None, None, None]
    layer.bias.copy_((layer.bias - mean) / deviation)
