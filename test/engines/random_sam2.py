# SPDX-License-Identifier: Apache-2.0
"""SAM 2.1 with random weights, as the sam2 package itself builds it from its published configs.

The weights are scaled so that the answers depend on image and prompt: masks with foreground and
background, different for different people, some stable and some not.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch

from bmp_ros.networks.sam2 import HieraSize

# A real Hiera, small enough for tests of a second.
SMALL = HieraSize(
    embed_dim=32,
    heads=1,
    stages=(1, 1, 2, 1),
    global_blocks=(3,),
    windows=(8, 4, 14, 7),
    position_side=7,
)
SMALL_IMAGE_SIZE = 256


def random_sam2_checkpoint(name: str, seed: int = 0) -> dict[str, Any]:
    """The content of a published file, {"model": state dict}, for size t, s, b+ or l."""
    return {"model": random_sam2(name, seed).state_dict()}


@lru_cache(maxsize=1)
def random_sam2(name: str, seed: int = 0, image_size: int = 1024) -> Any:
    """The ``SAM2Base`` of the published config for size t, s, b+ or l; the last one is kept."""
    return _build(name, [f"model.image_size={image_size}"], seed)


def small_random_sam2(seed: int = 0) -> Any:
    """A ``SAM2Base`` with the image encoder ``SMALL`` at ``SMALL_IMAGE_SIZE``."""
    widths = [SMALL.embed_dim * 2**stage for stage in (3, 2, 1, 0)]
    trunk = "model.image_encoder.trunk"
    overrides = [
        f"{trunk}.embed_dim={SMALL.embed_dim}",
        f"{trunk}.num_heads={SMALL.heads}",
        f"{trunk}.stages={list(SMALL.stages)}",
        f"{trunk}.global_att_blocks={list(SMALL.global_blocks)}",
        f"{trunk}.window_pos_embed_bkg_spatial_size={[SMALL.position_side] * 2}",
        f"model.image_encoder.neck.backbone_channel_list={widths}",
        f"model.image_size={SMALL_IMAGE_SIZE}",
    ]
    return _build("t", overrides, seed)


def patchwork(width: int, height: int) -> np.ndarray:
    """A BGR image of smooth random colours with sharp noise on top: resizing filters matter."""
    rng = np.random.default_rng(7)
    smooth = cv2.resize(
        rng.integers(0, 256, (9, 16, 3), dtype=np.uint8), (width, height), cv2.INTER_CUBIC
    )
    noise = rng.integers(0, 40, (height, width, 3), dtype=np.uint8)
    return cv2.add(smooth, noise)


def _build(name: str, overrides: list[str], seed: int) -> Any:
    from sam2.build_sam import build_sam2

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_sam2(
            f"configs/sam2.1/sam2.1_hiera_{name}.yaml",
            device="cpu",
            hydra_overrides_extra=overrides,
            apply_postprocessing=False,
        )
    with torch.no_grad():
        _make_answers_vary(model)
    return model


def _make_answers_vary(model: Any) -> None:
    """Scale random weights: fresh ones give logits near 0 that hardly depend on the prompt."""
    for embedding in model.sam_prompt_encoder.point_embeddings:
        embedding.weight.mul_(3.0)
    for network in model.sam_mask_decoder.output_hypernetworks_mlps:
        network.layers[-1].weight.mul_(28.0)
        network.layers[-1].bias.mul_(28.0)
    model.sam_mask_decoder.iou_prediction_head.layers[-1].weight.mul_(5.0)
