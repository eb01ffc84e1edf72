# SPDX-License-Identifier: Apache-2.0
"""Heatmap networks at work: ViTPose, MaskPose, PMPose, ConvPose, and any of your own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bmp_ros.engines import options
from bmp_ros.engines.crops import crop_geometry, pose_inputs
from bmp_ros.engines.heatmaps import decode_udp_dark, merge_flipped
from bmp_ros.engines.registry import Engine, Runtime
from bmp_ros.fields import choice_field
from bmp_ros.loop.protocols import Poses
from bmp_ros.loop.skeletons import COCO_17, SKELETONS, Skeleton, skeleton_of_size

if TYPE_CHECKING:
    from bmp_ros.loop.frame import Frame

OUTPUTS = ("heatmaps", "presence", "visibility", "oks")
"""What a network returns: heatmaps (N, K, h, w) alone or, as PMPose does, all four; (N, K)."""


@dataclass(frozen=True)
class HeatmapOptions:
    """A top-down heatmap network."""

    weights: str = options.weights()
    background_factor: float | None = options.background_factor()
    flip_test: bool = options.flip_test()
    extra_keypoints: bool = options.extra_keypoints()


@dataclass(frozen=True)
class VitPoseOptions(HeatmapOptions):
    """Native ViTPose, MaskPose or PMPose."""

    head: str = choice_field(
        "heatmap", choices=("heatmap", "pmpose"), text="heatmap (ViTPose, MaskPose) or pmpose"
    )


class HeatmapNetwork(Protocol):
    """A network (``torch.nn.Module``) from crops to heatmaps, such as `VitPose` or `ConvPose`.

    input_size, heatmap_size: (width, height). num_keypoints: K, COCO's 17 first.
    Called with crops (N, 3, height, width) float32, see `crops.pose_inputs`, it returns heatmaps
    (N, K, h, w) or the tuple `OUTPUTS`. A method ``set_precision(dtype)`` is called where there
    is one; other networks run under autocast.
    """

    input_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    num_keypoints: int

    def __call__(self, crops: Any) -> Any: ...


class HeatmapPoseEstimator:
    """Top-down pose estimation, one crop per box, conditioned on masks by dimming the background.

    The score of a keypoint is the peak of its heatmap, for PMPose the similarity to the truth
    (OKS) that the network expects; PMPose also gives visibility and presence. Implements
    ``PoseEstimator``.
    """

    max_batch = 32
    """Crops, mirrored ones included, that pass the network at once; more take several passes."""

    def __init__(
        self,
        graph: Any,
        input_size: tuple[int, int],
        skeleton: Skeleton,
        device: str = "cpu",
        *,
        background_factor: float | None = 0.75,
        flip_test: bool = True,
        extra_keypoints: bool = False,
    ) -> None:
        """Put a graph (crops -> `OUTPUTS`) to work.

        input_size: (width, height) of the crops. skeleton: the network's keypoints.
        background_factor: brightness left outside of the mask: 0.8 for MaskPose 1.0.0 (21
        keypoints), 0.75 for MaskPose 1.1.0 and PMPose, the one of its training for ConvPose, None
        for ViTPose, which ignores masks. flip_test: average with the mirrored crop; doubles the
        cost. extra_keypoints: return all keypoints of the network, not only COCO's 17.
        Raises ValueError for a factor that is not in [0, 1].
        """
        if background_factor is not None and not 0 <= background_factor <= 1:
            raise ValueError(
                f"background_factor must be in [0, 1] or None, got {background_factor}"
            )
        self.graph = graph
        self.input_size = input_size
        self.device = device
        self.background_factor = background_factor
        self.flip_test = flip_test
        self.network_skeleton = skeleton
        self._skeleton = skeleton if extra_keypoints else COCO_17

    @classmethod
    def from_network(
        cls,
        network: HeatmapNetwork,
        *,
        skeleton: Skeleton | None = None,
        device: str = "cpu",
        precision: str = "fp32",
        compile: bool = False,
        **settings: Any,
    ) -> HeatmapPoseEstimator:
        """Run a network in PyTorch: move it to the device, set its precision.

        skeleton: None picks the known set of the network's size. precision: fp32, fp16 (not on a
        CPU) or bf16. settings: the constructor's keyword arguments.
        """
        import torch

        from bmp_ros.engines.torch_graph import TorchGraph, torch_dtype

        dtype = torch_dtype(precision, device)
        if skeleton is None:
            skeleton = skeleton_of_size(network.num_keypoints)
        if len(skeleton) != network.num_keypoints:
            raise ValueError(
                f"skeleton {skeleton.name} has {len(skeleton)} joints, the network "
                f"{network.num_keypoints}"
            )
        module: Any = network
        module.eval().to(device)
        autocast = dtype
        if hasattr(network, "set_precision"):
            network.set_precision(dtype)
            autocast = torch.float32
        graph = TorchGraph(
            module,
            lambda crops: module(crops),
            OUTPUTS,
            device,
            autocast=autocast,
            compile=compile,
        )
        return cls(graph, network.input_size, skeleton, device, **settings)

    @property
    def skeleton(self) -> Skeleton:
        """The keypoints that ``estimate`` returns."""
        return self._skeleton

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        """Estimate the pose in each box; see ``PoseEstimator.estimate``.

        Boxes may be degenerate or reach outside of the frame. Raises ValueError for boxes that are
        not finite and for masks of another number or size.
        """
        geometry = crop_geometry(boxes, self.input_size)
        people = len(geometry)
        if masks is not None and masks.shape != (people, frame.height, frame.width):
            raise ValueError(
                f"masks must have shape {(people, frame.height, frame.width)}, one per box in the "
                f"size of the frame, got {masks.shape}"
            )
        crops = pose_inputs(frame.image, geometry, masks, self.background_factor)
        # Passes of equal size: 17 people in two passes are 9 + 8, not 16 + 1.
        people_per_pass = max(1, self.max_batch // (2 if self.flip_test else 1))
        passes = np.array_split(crops, math.ceil(people / people_per_pass))
        outputs = [self._run(part) for part in passes]
        heatmaps, *others = (np.concatenate(part) for part in zip(*outputs, strict=True))
        points, scores = decode_udp_dark(heatmaps)
        height, width = heatmaps.shape[2:]
        keypoints = geometry.points_to_image(points, (width, height))
        if not others:
            return Poses(keypoints, scores)
        presence, visibility, oks = others
        return Poses(keypoints, oks, visibility, presence)

    def _run(self, crops: np.ndarray) -> list[np.ndarray]:
        """`OUTPUTS` of n crops, as far as the network has them; merged with the mirror images."""
        if self.flip_test:
            crops = np.concatenate([crops, crops[..., ::-1]])
        found = self.graph.run({"crops": crops})
        used = [found[name][:, : len(self._skeleton)] for name in OUTPUTS if name in found]
        if not self.flip_test:
            return used
        return [merge_flipped(output, self._skeleton.flip_indices) for output in used]


def heatmap_engine(
    name: str,
    load: Callable[[Mapping[str, Any], Any], Any],
    *,
    options: type = HeatmapOptions,
    skeleton: Skeleton | None = None,
    random_weights: Callable[[Any], Mapping[str, Any]] | None = None,
) -> Engine:
    """Declare the engine of a heatmap network in PyTorch; it can be exported, too.

    load: (state dict, options) -> the network, see `HeatmapNetwork` for what it must have.
    options: a dataclass with at least the fields of `HeatmapOptions`. skeleton: the network's
    keypoints, COCO's 17 first; None: the known set of that size.
    """

    def build(settings: Any, weights: Any, runtime: Runtime) -> Any:
        from bmp_ros.engines.torch_graph import state_dict_of

        return HeatmapPoseEstimator.from_network(
            load(state_dict_of(weights), settings),
            skeleton=skeleton,
            background_factor=settings.background_factor,
            flip_test=settings.flip_test,
            extra_keypoints=settings.extra_keypoints,
            device=runtime.device,
            precision=runtime.precision,
            compile=runtime.compile,
        )

    def export(settings: Any, state_dict: Mapping[str, Any]) -> Any:
        return export_source(load(state_dict, settings), settings, state_dict, skeleton)

    return Engine(
        name,
        "pose_estimator",
        options,
        build,
        runtime="torch",
        precisions=("fp32", "fp16", "bf16"),
        compiles=True,
        random_weights=random_weights,
        export=export,
    )


def export_source(
    network: Any,
    settings: HeatmapOptions,
    state_dict: Mapping[str, Any],
    skeleton: Skeleton | None = None,
) -> Any:
    """Return what is exported of a `HeatmapNetwork`; skeleton None: the known one of its size.

    Raises ValueError for keypoints that the engine ``onnx`` does not know.
    """
    import torch

    from bmp_ros.engines.export.source import (
        Call,
        GraphSource,
        NetworkSource,
        sample_picture,
        weights_hash,
    )
    from bmp_ros.engines.onnx.card import HeatmapFacts

    skeleton = skeleton or skeleton_of_size(network.num_keypoints)
    if skeleton.name not in SKELETONS:
        raise ValueError(
            f"the engine onnx knows the keypoint sets {', '.join(SKELETONS)}, not {skeleton.name}"
        )
    boxes = np.array([[40, 30, 250, 460], [300, 100, 620, 470], [500, 20, 560, 90]], np.float32)
    crops = torch.from_numpy(
        pose_inputs(sample_picture(), crop_geometry(boxes, network.input_size))
    )
    module = Call(network.eval(), network)
    with torch.inference_mode():
        several = not isinstance(module(crops[:1]), torch.Tensor)
    names = OUTPUTS if several else OUTPUTS[:1]
    facts = HeatmapFacts(
        input_size=network.input_size,
        skeleton=skeleton.name,
        outputs="pmpose" if several else "heatmap",
        background_factor=settings.background_factor,
    )
    graph = GraphSource(
        "heatmaps",
        module,
        names,
        [{"crops": crops[:2]}, {"crops": crops}],
        {name: {0: "people"} for name in ("crops", *names)},
    )
    used = {"flip_test": settings.flip_test, "extra_keypoints": settings.extra_keypoints}
    return NetworkSource("heatmaps", facts, [graph], used, weights_hash(state_dict, facts))


def _vit_pose(state_dict: Mapping[str, Any], settings: VitPoseOptions) -> Any:
    from bmp_ros.networks.vit_pose import VitPose

    return VitPose.from_state_dict(state_dict, head=settings.head)


def _random_vit_pose(settings: VitPoseOptions) -> Mapping[str, Any]:
    from bmp_ros.engines.torch_graph import size_by_name
    from bmp_ros.networks.vit_pose import (
        VIT_SIZES,
        HeatmapHead,
        PMPoseHead,
        VisionTransformer,
        VitPose,
    )

    size = size_by_name(settings.weights, r"(?:maskpose|vitpose|pmpose)-(s|b|l|h)\b")
    width, depth, heads = VIT_SIZES[size]
    backbone = VisionTransformer(width, depth, 4 * width, heads, 16, (16, 12))
    if settings.head == "pmpose":
        return VitPose(backbone, PMPoseHead(width, (256, 256), 23)).state_dict()
    return VitPose(backbone, HeatmapHead(width, (256, 256), 21)).state_dict()


def _conv_pose(state_dict: Mapping[str, Any], _: HeatmapOptions) -> Any:
    from bmp_ros.networks.conv_pose import ConvPose

    return ConvPose.from_state_dict(state_dict)


def _random_conv_pose(_: HeatmapOptions) -> Mapping[str, Any]:
    from bmp_ros.networks.conv_pose import ConvPose

    return ConvPose().state_dict()


ENGINES = (
    heatmap_engine("vit_pose", _vit_pose, options=VitPoseOptions, random_weights=_random_vit_pose),
    heatmap_engine("conv_pose", _conv_pose, random_weights=_random_conv_pose),
)
