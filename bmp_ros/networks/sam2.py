# SPDX-License-Identifier: Apache-2.0
"""SAM 2.1 for single images: the modules of the sam2 package, put together without its configs.

Only the image and prompt paths are built; the video memory of the published files is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from bmp_ros.networks.sam2_package import importing_sam2
from bmp_ros.networks.strict_loading import load_strictly

_WIDTH = 256  # channels of the image embedding and of every prompt token
_STRIDE = 16  # input pixels per cell of the image embedding

# A single mask counts as unstable when less than this share of the pixels above -delta also lies
# above +delta (sam2's build_sam, "dynamic_multimask_via_stability").
_STABILITY_DELTA = 0.05
_STABILITY_THRESHOLD = 0.98

# What the published files hold beside the image and prompt paths: the memory of the video tracker.
_VIDEO_MODULES = (
    "memory_attention",
    "memory_encoder",
    "obj_ptr_proj",
    "obj_ptr_tpos_proj",
    "mask_downsample",
)
_VIDEO_PARAMETERS = ("maskmem_tpos_enc", "no_mem_pos_enc", "no_obj_ptr", "no_obj_embed_spatial")


@dataclass(frozen=True)
class HieraSize:
    """The numbers that make a Hiera image encoder (Ryali et al. 2023, as configured by SAM 2.1).

    embed_dim: channels of the first stage, doubled at every next one; heads: attention heads of
    the first stage, doubled likewise; stages: blocks per stage; global_blocks: indices of the
    blocks that attend to the whole image; windows: window side per stage for all other blocks, in
    tokens; position_side: side of the learnt position embedding, in tokens.
    """

    embed_dim: int
    heads: int
    stages: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    windows: tuple[int, int, int, int]
    position_side: int


SAM2_SIZES: dict[str, HieraSize] = {
    "t": HieraSize(96, 1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), 7),
    "s": HieraSize(96, 1, (1, 2, 11, 2), (7, 10, 13), (8, 4, 14, 7), 7),
    "b+": HieraSize(112, 2, (2, 3, 16, 3), (12, 16, 20), (8, 4, 14, 7), 14),
    "l": HieraSize(144, 2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8), 7),
}


class Sam2Embedding(NamedTuple):
    """What the decoder reads of one image of S x S pixels.

    image: (1, 256, S/16, S/16). fine: the two finer maps, already projected for the decoder:
    (1, 32, S/4, S/4) and (1, 64, S/8, S/8).
    """

    image: torch.Tensor
    fine: list[torch.Tensor]


class Sam2Network(nn.Module):
    """SAM 2.1's image encoder, prompt encoder and mask decoder, in evaluation mode.

    Parameter names are those of the published files (SAM 2.1 t, s, b+, l and SAM-pose2seg).
    """

    def __init__(self, size: HieraSize, image_size: int = 1024) -> None:
        """Build the network of one size with untrained weights.

        image_size: side of the square input in pixels, a multiple of 32; published weights were
        trained at 1024 and load at every size.

        Raises ValueError for another image size, ModuleNotFoundError when sam2 is not installed.
        """
        super().__init__()
        if image_size < 32 or image_size % 32:
            raise ValueError(
                f"image_size must be a multiple of 32 pixels, got {image_size}; SAM 2.1 was "
                "trained at 1024"
            )
        self.image_size = image_size
        self.image_encoder = _image_encoder(size)
        self.sam_prompt_encoder = _prompt_encoder(image_size)
        self.sam_mask_decoder = _mask_decoder()
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, _WIDTH))
        self.eval().requires_grad_(False)

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping[str, torch.Tensor], image_size: int = 1024
    ) -> Sam2Network:
        """Build the network that a published file holds, its size read from the tensors.

        state_dict: parameter name -> tensor, what the published file has under "model".
        image_size: side of the square input in pixels.

        Raises ValueError when the size is not t, s, b+ or l, when names or shapes differ, and for
        an image size that is no multiple of 32.
        """
        tensors = image_tensors(state_dict)
        name = sam2_size(tensors)
        network = cls(SAM2_SIZES[name], image_size)
        load_strictly(network, tensors, f"SAM 2.1 hiera {name}")
        return network

    def embed(self, pixels: torch.Tensor) -> Sam2Embedding:
        """Encode one normalised RGB image (1, 3, S, S) float32, S = ``image_size``."""
        fine, middle, coarse = self.image_encoder(pixels)["backbone_fpn"]
        decoder = self.sam_mask_decoder
        # A still image is a video's first frame: no memory yet, which has an embedding of its own.
        image = coarse + self.no_mem_embed.view(1, _WIDTH, 1, 1)
        return Sam2Embedding(image, [decoder.conv_s0(fine), decoder.conv_s1(middle)])

    def decode(
        self,
        embedding: Sam2Embedding,
        points: torch.Tensor,
        labels: torch.Tensor,
        *,
        dynamic_multimask: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode one mask for each of G prompts in one pass.

        points: (G, P, 2) float32, x y in pixels of the S x S input. labels: (G, P) int32, 1 = on
        the object, 0 = not. dynamic_multimask: see `select_mask`. Returns mask logits
        (G, S/4, S/4) float32 and the IoU that the network expects of each mask, (G,) float32.
        """
        # Where things are stays in float32 also under autocast: sines of 2 pi times a Gaussian
        # projection of the place.
        with torch.autocast(points.device.type, enabled=False):
            sparse, dense = self.sam_prompt_encoder(
                points=(points, labels), boxes=None, masks=None
            )
            places = self.sam_prompt_encoder.get_dense_pe()
        logits, scores, _, _ = self.sam_mask_decoder.predict_masks(
            image_embeddings=embedding.image,
            image_pe=places,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=True,
            high_res_features=embedding.fine,
        )
        return select_mask(logits.float(), scores.float(), dynamic_multimask=dynamic_multimask)


def select_mask(
    logits: torch.Tensor, scores: torch.Tensor, *, dynamic_multimask: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose one of the decoder's four masks per prompt: (G, 4, h, w), (G, 4) -> (G, h, w), (G,).

    Mask 0 answers prompts of several points; masks 1 to 3 are the readings of an ambiguous one.
    With ``dynamic_multimask`` an unstable mask 0, whose area changes by more than 2 % when the
    threshold moves from -0.05 to +0.05, gives way to the best-scored of the others.
    """
    people = logits.shape[0]  # not len(), which would be a constant in an exported graph
    choice = torch.zeros(people, dtype=torch.long, device=logits.device)
    if dynamic_multimask:
        single = logits[:, 0].flatten(1)
        inner = (single > _STABILITY_DELTA).sum(1)
        outer = (single > -_STABILITY_DELTA).sum(1)
        # An empty mask is stable.
        stability = torch.where(outer > 0, inner.float() / outer.float(), 1.0)
        choice = torch.where(
            stability >= _STABILITY_THRESHOLD, choice, scores[:, 1:].argmax(1) + 1
        )
    rows = torch.arange(people, device=logits.device)
    return logits[rows, choice], scores[rows, choice]


def sam2_size(state_dict: Mapping[str, torch.Tensor]) -> str:
    """Return which of `SAM2_SIZES` a state dict belongs to, from its first width and its depth.

    Raises ValueError naming what was found when it is none of them.
    """
    trunk = "image_encoder.trunk."
    first = state_dict.get(trunk + "patch_embed.proj.weight")
    if first is None:
        raise ValueError(
            f"not a state dict of SAM 2.1: it has no {trunk}patch_embed.proj.weight; give what a "
            'file of facebook/sam2.1-hiera-* or SAM-pose2seg has under "model"'
        )
    blocks = trunk + "blocks."
    width = first.shape[0]
    depth = len({key[len(blocks) :].split(".")[0] for key in state_dict if key.startswith(blocks)})
    for name, size in SAM2_SIZES.items():
        if (width, depth) == (size.embed_dim, sum(size.stages)):
            return name
    known = ", ".join(f"{n} {s.embed_dim}/{sum(s.stages)}" for n, s in SAM2_SIZES.items())
    raise ValueError(
        f"unknown SAM 2.1 size: the image encoder has {width} channels and {depth} blocks; known "
        f"sizes (channels/blocks) are {known}"
    )


def image_tensors(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Leave out, by name, what only the video tracker uses."""
    return {
        name: tensor
        for name, tensor in state_dict.items()
        if name.split(".")[0] not in _VIDEO_MODULES and name not in _VIDEO_PARAMETERS
    }


def _image_encoder(size: HieraSize) -> Any:
    """Hiera with a feature pyramid whose coarsest of four levels is dropped."""
    with importing_sam2():
        from sam2.modeling.backbones.hieradet import Hiera
        from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
        from sam2.modeling.position_encoding import PositionEmbeddingSine
    trunk = Hiera(
        embed_dim=size.embed_dim,
        num_heads=size.heads,
        stages=size.stages,
        global_att_blocks=size.global_blocks,
        window_pos_embed_bkg_spatial_size=(size.position_side, size.position_side),
        window_spec=size.windows,
    )
    neck = FpnNeck(
        position_encoding=PositionEmbeddingSine(num_pos_feats=_WIDTH),
        d_model=_WIDTH,
        backbone_channel_list=trunk.channel_list,
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    return ImageEncoder(trunk=trunk, neck=neck, scalp=1)


def _prompt_encoder(image_size: int) -> Any:
    with importing_sam2():
        from sam2.modeling.sam.prompt_encoder import PromptEncoder
    cells = image_size // _STRIDE
    return PromptEncoder(
        embed_dim=_WIDTH,
        image_embedding_size=(cells, cells),
        input_image_size=(image_size, image_size),
        mask_in_chans=16,
    )


def _mask_decoder() -> Any:
    with importing_sam2():
        from sam2.modeling.sam.mask_decoder import MaskDecoder
        from sam2.modeling.sam.transformer import TwoWayTransformer
    return MaskDecoder(
        transformer=TwoWayTransformer(depth=2, embedding_dim=_WIDTH, mlp_dim=2048, num_heads=8),
        transformer_dim=_WIDTH,
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
        use_high_res_features=True,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        use_multimask_token_for_obj_ptr=True,
    )
