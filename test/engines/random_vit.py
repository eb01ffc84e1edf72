# SPDX-License-Identifier: Apache-2.0
"""State dicts of pose networks in the published layout, for tests: random ones and one that works.

``random_state_dict`` has random weights of any size. ``colour_finder`` has weights chosen by hand
so that its heatmaps have a meaning: joint k is where the picture shows the k-th colour.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bmp_ros.engines.crops import RGB_MEAN, RGB_STD
from bmp_ros.loop.skeletons import Skeleton
from bmp_ros.networks.vit_pose import VitPose


def random_state_dict(
    *,
    width: int = 48,
    depth: int = 2,
    hidden: int = 96,
    channels: int = 32,
    num_keypoints: int = 23,
    head: str = "heatmap",
    patch: int = 16,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Random weights with outputs of order one; pass ``num_heads`` when loading odd widths."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        fan_in = max(1, int(np.prod(shape[1:])))
        return torch.randn(shape, generator=generator) / fan_in**0.5

    def scale(size: int) -> Tensor:
        return 0.75 + 0.5 * torch.rand(size, generator=generator)

    def shift(size: int) -> Tensor:
        return 0.1 * torch.randn(size, generator=generator)

    tensors: dict[str, Tensor] = {}

    def linear(name: str, weight: Tensor, outputs: int) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = weight, shift(outputs)

    def layer_norm(name: str) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = scale(width), shift(width)

    def batch_norm(name: str, size: int) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = scale(size), shift(size)
        tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"] = shift(size), scale(size)
        tensors[f"{name}.num_batches_tracked"] = torch.tensor(0)

    tensors["backbone.pos_embed"] = 0.1 * torch.randn(1, 192, width, generator=generator)
    linear("backbone.patch_embed.projection", normal(width, 3, patch, patch), width)
    for layer in range(depth):
        prefix = f"backbone.layers.{layer}"
        layer_norm(f"{prefix}.ln1")
        linear(f"{prefix}.attn.qkv", normal(3 * width, width), 3 * width)
        linear(f"{prefix}.attn.proj", normal(width, width), width)
        layer_norm(f"{prefix}.ln2")
        linear(f"{prefix}.ffn.layers.0.0", normal(hidden, width), hidden)
        linear(f"{prefix}.ffn.layers.1", normal(width, hidden), width)
    layer_norm("backbone.ln1")
    tensors["head.deconv_layers.0.weight"] = normal(width, channels, 4, 4) * 2
    batch_norm("head.deconv_layers.1", channels)
    tensors["head.deconv_layers.3.weight"] = normal(channels, channels, 4, 4) * 2
    batch_norm("head.deconv_layers.4", channels)
    linear("head.final_layer", normal(num_keypoints, channels, 1, 1), num_keypoints)
    for tower in ("probability", "visibility", "oks", "error") if head == "pmpose" else ():
        for place in (0, 4, 8):
            linear(f"head.{tower}_layers.{place}", normal(width, width, 3, 3), width)
            batch_norm(f"head.{tower}_layers.{place + 1}", width)
        linear(f"head.{tower}_layers.12", normal(num_keypoints, width, 1, 1), num_keypoints)
    return tensors


GREY = 127.0
"""Background that no joint answers to."""
SPOT = 110.0
"""Grey levels by which a spot of strength 1 differs from the background: heatmap value 1."""


def joint_colours(joints: int) -> np.ndarray:
    """(K, 3) unit vectors RGB, well spread: a Fibonacci lattice on the sphere around grey."""
    step = np.arange(joints) + 0.5
    polar, turn = np.arccos(1 - 2 * step / joints), np.pi * (1 + 5**0.5) * step
    return np.stack(
        [np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1
    )


def unpaired_skeleton(joints: int) -> Skeleton:
    """A mirrored colour is still the same colour, so no joint has a partner."""
    names = tuple(f"colour_{k}" for k in range(joints))
    return Skeleton(f"colours_{joints}", names, (), (), (0.05,) * joints)


def draw_spot(
    image: np.ndarray, point: np.ndarray, colour: np.ndarray, sigma: float, strength: float = 1
) -> None:
    """Add a Gaussian spot of an RGB colour to a grey BGR float image, in place."""
    (x, y), reach = point, int(4 * sigma) + 1
    top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
    part = image[top : int(y) + reach, left : int(x) + reach]
    rows, columns = np.mgrid[: part.shape[0], : part.shape[1]]
    spot = np.exp(-((columns + left - x) ** 2 + (rows + top - y) ** 2) / (2 * sigma**2))
    part += SPOT * strength * spot[..., None] * colour[::-1]


def colour_finder(joints: int = 17) -> VitPose:
    """A pose network whose heatmap k shows where the crop has colour k on grey ground.

    Its patches carry the mean colour of their 4x4 blocks as channels (and negated, so that layer
    normalisation finds mean zero), its transformer layer adds nothing, its transposed convolutions
    sort the blocks back into an image. Heatmap pixel h answers to crop pixels 4 h ... 4 h + 3.
    """
    width, ballast = 100, 100.0
    tensors = {k: torch.zeros_like(v) for k, v in random_state_dict(
        width=width, depth=1, channels=24, num_keypoints=joints).items()}  # fmt: skip
    patches = tensors["backbone.patch_embed.projection.weight"]
    patch_bias = tensors["backbone.patch_embed.projection.bias"]
    first, second = (tensors[f"head.deconv_layers.{i}.weight"] for i in (0, 3))

    for y in range(4):
        for x in range(4):
            window = patches.new_zeros(16, 16)
            window[4 * y + 2 : 4 * y + 6, 4 * x + 2 : 4 * x + 6] = 1
            window /= window.sum()
            for colour in range(3):
                for negated, sign in enumerate((1, -1)):
                    channel = ((y * 4 + x) * 3 + colour) * 2 + negated
                    std, mean = float(RGB_STD[colour]), float(RGB_MEAN[colour])
                    patches[channel, colour] = sign * window * std / 255
                    patch_bias[channel] = sign * (mean - GREY) / 255
                    fine = ((y % 2 * 2 + x % 2) * 3 + colour) * 2 + negated
                    first[channel, fine, y // 2 + 1, x // 2 + 1] = 1
                    if y < 2 and x < 2:
                        second[fine, colour * 2 + negated, y + 1, x + 1] = 1
    patch_bias[96:] = torch.tensor([ballast, ballast, -ballast, -ballast])
    for norm in ("layers.0.ln1", "layers.0.ln2", "ln1"):
        tensors[f"backbone.{norm}.weight"] += (4 * ballast**2 / width) ** 0.5
    for norm in (1, 4):
        tensors[f"head.deconv_layers.{norm}.weight"] += 1
        tensors[f"head.deconv_layers.{norm}.running_var"] += 1 - 1e-5
    answer = torch.from_numpy(joint_colours(joints)).float() * 255 / SPOT
    tensors["head.final_layer.weight"][:, :6, 0, 0] = torch.stack([answer, -answer], 2).flatten(1)
    return VitPose.from_state_dict(tensors, head="heatmap", num_heads=4)
