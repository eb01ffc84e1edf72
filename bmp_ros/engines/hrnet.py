# SPDX-License-Identifier: Apache-2.0
"""Engines of the HRNet family: PoseHRNet with its heads (heatmaps, SimDR, RLE), OmniPose.

The files do not tell how a network was trained, so the zoo and the presets do: how crops lie and
joints are read are options.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bmp_ros.engines import options
from bmp_ros.engines.crops import CONVENTIONS
from bmp_ros.engines.pose_decoding import DECODINGS
from bmp_ros.engines.top_down_pose import Training, top_down_engine
from bmp_ros.fields import bool_field, choice_field, size_field


def _input_size() -> Any:
    text = "of a crop, [width, height], as trained; SimDR networks accept only their own"
    return size_field((192, 256), low=32, high=1024, multiple=32, text=text)


@dataclass(frozen=True)
class PoseHRNetOptions:
    """PoseHRNet-W32, W48 or of any width, with heatmaps, SimDR/SimCC or RLE."""

    weights: str = options.weights()
    input_size: int | tuple[int, int] = _input_size()
    decoding: str = choice_field(
        "quarter",
        choices=tuple(DECODINGS),
        text="how joints are read, from heatmaps: quarter (official), quarter_mmpose, dark, udp, "
        "udp_combined; from bins: simdr (SimDR), simcc (MMPose); rle",
    )
    crop: str = choice_field(
        "corners",
        choices=CONVENTIONS,
        text="how crops lie in the image: corners (official, MMPose, SimDR), udp (MMPose with "
        "UDP), width (OmniPose)",
    )
    shift_flipped: bool = bool_field(
        True, text="move mirrored outputs by one cell; the official evaluation does, UDP does not"
    )
    flip_test: bool = options.flip_test()


@dataclass(frozen=True)
class OmniPoseOptions:
    """OmniPose of COCO or MPII, or OmniPose-Lite; read as it was trained, with DARK."""

    weights: str = options.weights()
    input_size: int | tuple[int, int] = _input_size()
    flip_test: bool = options.flip_test()


def width_and_height(input_size: int | tuple[int, int]) -> tuple[int, int]:
    """The size of an option: a side stands for a square."""
    return (input_size, input_size) if isinstance(input_size, int) else input_size


def _pose_hrnet(state_dict: Mapping[str, Any], settings: PoseHRNetOptions) -> Any:
    from bmp_ros.networks.hrnet import load_pose_hrnet

    return load_pose_hrnet(state_dict, width_and_height(settings.input_size))


def _omnipose(state_dict: Mapping[str, Any], settings: OmniPoseOptions) -> Any:
    from bmp_ros.networks.omnipose import load_omnipose

    return load_omnipose(state_dict, width_and_height(settings.input_size))


def _random_pose_hrnet(settings: PoseHRNetOptions) -> Mapping[str, Any]:
    from bmp_ros.engines.torch_networks import size_by_name
    from bmp_ros.networks.hrnet import W32, W48, PoseHRNet, RLEHRNet, SimDRHRNet

    pattern = r"(?:pose)?(?:hrnet|simdr)-w(32|48)\b"
    size = {"32": W32, "48": W48}[size_by_name(settings.weights, pattern)]
    crop = width_and_height(settings.input_size)
    if DECODINGS[settings.decoding].returns == "simcc":
        bins = 2 * crop[0], 2 * crop[1]
        return SimDRHRNet(size, 17, bins=bins, input_size=crop).state_dict()
    if settings.decoding == "rle":
        return RLEHRNet(size, 17).state_dict()
    return PoseHRNet(size, 17 * DECODINGS[settings.decoding].channels).state_dict()


def _random_omnipose(settings: OmniPoseOptions) -> Mapping[str, Any]:
    from bmp_ros.engines.torch_networks import size_by_name
    from bmp_ros.networks.omnipose import OmniPose

    variant = size_by_name(settings.weights, r"omnipose-(lite-coco|w48-coco|w48-mpii)\b")
    joints = 16 if variant.endswith("mpii") else 17
    return OmniPose(joints, lite=variant.startswith("lite")).state_dict()


ENGINES = (
    top_down_engine(
        "hrnet",
        _pose_hrnet,
        PoseHRNetOptions,
        random_weights=_random_pose_hrnet,
        training=lambda settings: Training(
            settings.decoding, settings.crop, settings.shift_flipped
        ),
    ),
    top_down_engine(
        "omnipose",
        _omnipose,
        OmniPoseOptions,
        random_weights=_random_omnipose,
        training=lambda settings: Training("dark", "width"),
    ),
)
