# SPDX-License-Identifier: Apache-2.0
"""MMPose configs of the published ViT networks that MMPose itself does not ship.

ViTPose-b-multi and MaskPose-b 1.0.0 have 21 channels, MaskPose-{s,b,l,h} 1.1.0 have 23; all are
a plain ViT with MMPose's ``HeatmapHead``, UDP crops of 256x192 and UDP heatmaps of 64x48. Only
what inference reads is in here: no optimiser, no data.
"""

from __future__ import annotations

from typing import Any

from bmp_ros.loop.skeletons import MULTI_21, MULTI_23, Skeleton
from bmp_ros.networks.vit_pose import VIT_SIZES

_SKELETONS = {"21": MULTI_21, "23": MULTI_23}

VIT_CONFIG_NAMES = tuple(f"vit_{size}_{joints}" for size in VIT_SIZES for joints in _SKELETONS)
"""``vit_{s,b,l,h}_{21,23}``: size and number of keypoints."""


def named_vit_config(name: str) -> dict[str, Any]:
    """Return the config with one of ``VIT_CONFIG_NAMES``; KeyError for any other name."""
    _, size, joints = name.split("_")
    embed_dims, num_layers, num_heads = VIT_SIZES[size]
    return vit_config(
        _SKELETONS[joints],
        embed_dims=embed_dims,
        num_layers=num_layers,
        num_heads=num_heads,
        feedforward_channels=4 * embed_dims,
    )


def vit_config(
    skeleton: Skeleton,
    *,
    embed_dims: int,
    num_layers: int,
    num_heads: int,
    feedforward_channels: int,
    deconv_channels: tuple[int, int] = (256, 256),
) -> dict[str, Any]:
    """Return the config of a ViT pose network with one heatmap per joint of ``skeleton``."""
    codec = {
        "type": "UDPHeatmap",
        "input_size": (192, 256),
        "heatmap_size": (48, 64),
        "sigma": 2,
    }
    model = {
        "type": "TopdownPoseEstimator",
        "data_preprocessor": {
            "type": "PoseDataPreprocessor",
            "mean": [123.675, 116.28, 103.53],
            "std": [58.395, 57.12, 57.375],
            "bgr_to_rgb": True,
        },
        "backbone": {
            "type": "mmpretrain.VisionTransformer",
            "arch": {
                "embed_dims": embed_dims,
                "num_layers": num_layers,
                "num_heads": num_heads,
                "feedforward_channels": feedforward_channels,
            },
            "img_size": (256, 192),
            "patch_size": 16,
            "qkv_bias": True,
            "with_cls_token": False,
            "out_type": "featmap",
            "patch_cfg": {"padding": 2},
        },
        "head": {
            "type": "HeatmapHead",
            "in_channels": embed_dims,
            "out_channels": len(skeleton),
            "deconv_out_channels": deconv_channels,
            "deconv_kernel_sizes": (4, 4),
            "loss": {"type": "KeypointMSELoss", "use_target_weight": True},
            "decoder": codec,
        },
        "test_cfg": {"flip_test": True, "flip_mode": "heatmap", "shift_heatmap": False},
    }
    pipeline = [
        {"type": "LoadImage"},
        {"type": "GetBBoxCenterScale"},
        {"type": "TopdownAffine", "input_size": codec["input_size"], "use_udp": True},
        {"type": "PackPoseInputs"},
    ]
    dataset = {"type": "CocoDataset", "metainfo": _metainfo(skeleton), "pipeline": pipeline}
    return {
        "default_scope": "mmpose",
        "model": model,
        "train_dataloader": {"dataset": dataset},
        "test_dataloader": {"dataset": dataset},
    }


def _metainfo(skeleton: Skeleton) -> dict[str, Any]:
    """``skeleton`` in the form of MMPose's data set files."""
    mirror = skeleton.flip_indices
    names = skeleton.names
    return {
        "dataset_name": skeleton.name,
        "keypoint_info": {
            i: {"name": name, "id": i, "swap": names[mirror[i]] if mirror[i] != i else ""}
            for i, name in enumerate(names)
        },
        "skeleton_info": {
            i: {"link": (names[a], names[b]), "id": i} for i, (a, b) in enumerate(skeleton.edges)
        },
        "joint_weights": [1.0] * len(names),
        "sigmas": list(skeleton.sigmas),
    }
