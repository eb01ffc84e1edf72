# SPDX-License-Identifier: Apache-2.0
"""Random weights of the small pose network and segmenter whose answers depend on what they see.

Every batch norm is calibrated on a picture, and the last layers are scaled so that heatmaps have
peaks and masks have foreground and background.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bmp_ros.networks.conv_pose import ConvPose
from bmp_ros.networks.point_segmenter import PointSegmenter
from bmp_ros.networks.residual_pyramid import PyramidSize

SMALL = PyramidSize(channels=(8, 8, 16, 16, 24), depths=(1, 1, 1, 1), widths=(16, 16, 24))


def random_conv_pose(
    seed: int = 0, num_keypoints: int = 17, size: PyramidSize = SMALL
) -> dict[str, Tensor]:
    """State dict of a ConvPose."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = ConvPose(size, num_keypoints)
        crops = _smooth_noise(4, 192, 144)
        _calibrate(network, lambda: network(crops))
        last = network.head[1]
        last.weight.div_(0.4 * network.logits(crops).std())
        last.bias.zero_()
    return network.state_dict()


def random_point_segmenter(seed: int = 0, size: PyramidSize = SMALL) -> dict[str, Tensor]:
    """State dict of a PointSegmenter."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = PointSegmenter(size)
        canvas = _smooth_noise(1, 160, 192)
        points = torch.rand(4, 3, 2) * 160
        labels = torch.tensor([[1, 1, 1], [1, 0, -1], [1, 1, 0], [1, -1, -1]])
        masks = torch.zeros(4, 40, 48)
        masks[1:, 10:30, 12:20] = 1
        given = points, labels, masks
        _calibrate(network, lambda: network.decode(network.encode(canvas), *given))
        logits, _ = network.decode(network.encode(canvas), *given)
        last = network.refine[2]
        last.bias.sub_(logits.median()).mul_(5 / logits.std())
        last.weight.mul_(5 / logits.std())
        raw: list[Tensor] = []
        hook = network.score.register_forward_hook(lambda *called: raw.append(called[2]))
        network.decode(network.encode(canvas), *given)
        hook.remove()
        for parameter in network.score[2].parameters():
            parameter.div_(raw[0].abs().max())
    return network.state_dict()


def _smooth_noise(images: int, height: int, width: int) -> Tensor:
    coarse = torch.randn(images, 3, height // 16, width // 16)
    return nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")


def _calibrate(network: nn.Module, forward) -> None:
    """Set the running statistics of every batch norm to those of one forward pass."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.5, 1.0)
        nn.init.normal_(norm.bias, 0.5, 0.2)
    network.train()
    forward()
    network.eval()
