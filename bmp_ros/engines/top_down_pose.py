# SPDX-License-Identifier: Apache-2.0
"""Top-down pose networks at work: a crop per box in, joints out, whatever the head of the network.

What differs between networks is how crops lie (`bmp_ros.engines.crops`) and how joints are read
(`bmp_ros.engines.pose_decoding`), each as in the network's training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bmp_ros.engines.crops import (
    CropGeometry,
    background_weights,
    crop_geometry,
    pose_inputs,
    warp_crops,
)
from bmp_ros.engines.pose_decoding import DECODINGS, OUTPUTS, Decoding, Outputs, find_decoding
from bmp_ros.engines.registry import Engine, Runtime
from bmp_ros.loop.protocols import Poses
from bmp_ros.loop.skeletons import COCO_17, SKELETONS, Skeleton, skeleton_of_size

if TYPE_CHECKING:
    import torch

    from bmp_ros.loop.frame import Frame


class PoseNetwork(Protocol):
    """A network (``torch.nn.Module``) from crops to joints, such as `VitPose` or `PoseHRNet`.

    input_size: (width, height). num_keypoints: K. Called with crops (N, 3, height, width)
    float32, see `crops.pose_inputs`. Two more attributes where there are some: ``returns``, a key
    of `OUTPUTS` (heatmaps without it), and a method ``set_precision(dtype)``; networks without it
    run under autocast.
    """

    input_size: tuple[int, int]
    num_keypoints: int

    def __call__(self, crops: Any) -> Any: ...


class TopDownPoseEstimator:
    """Top-down pose estimation, one crop per box, conditioned on masks by dimming the background.

    The score of a keypoint is what its decoding says, for PMPose the similarity to the truth (OKS)
    that the network expects; PMPose also gives visibility and presence. Implements
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
        decoding: str = "udp",
        crop: str = "udp",
        shift_flipped: bool = False,
        background_factor: float | None = 0.75,
        flip_test: bool = True,
        extra_keypoints: bool = False,
    ) -> None:
        """Put a graph (crops -> `OUTPUTS`) to work.

        input_size: (width, height) of the crops. skeleton: the network's keypoints. decoding: how
        joints are read, a key of `DECODINGS`. crop: how crops lie, one of `crops.CONVENTIONS`.
        shift_flipped: mirrored outputs are moved by a cell before they are averaged in.
        background_factor: brightness left outside of the mask: 0.8 for MaskPose 1.0.0 (21
        keypoints), 0.75 for MaskPose 1.1.0 and PMPose, the one of its training for ConvPose, None
        for networks that ignore masks. flip_test: average with the mirrored crop; doubles the
        cost. extra_keypoints: of a network whose keypoints begin with COCO's 17, return all.
        Raises ValueError for a factor that is not in [0, 1], and for a decoding that cannot go
        with the crops.
        """
        if background_factor is not None and not 0 <= background_factor <= 1:
            raise ValueError(
                f"background_factor must be in [0, 1] or None, got {background_factor}"
            )
        self.decoding: Decoding = find_decoding(decoding, crop, shift_flipped)
        self.graph = graph
        self.input_size = input_size
        self.device = device
        self.background_factor = background_factor
        self.flip_test = flip_test
        self.network_skeleton = skeleton
        self._crop = crop
        self._shift_flipped = shift_flipped
        only_coco = skeleton.begins_with_coco and not extra_keypoints
        self._skeleton = COCO_17 if only_coco else skeleton

    @classmethod
    def from_network(
        cls,
        network: PoseNetwork,
        *,
        skeleton: Skeleton | None = None,
        device: str = "cpu",
        precision: str = "fp32",
        compile: bool = False,
        **settings: Any,
    ) -> TopDownPoseEstimator:
        """Run a network in PyTorch: move it to the device, set its precision.

        skeleton: None picks the known set of the network's size. precision: fp32, fp16 (not on a
        CPU) or bf16. settings: the constructor's keyword arguments.
        """
        import torch

        from bmp_ros.engines.torch_graph import TorchGraph
        from bmp_ros.engines.torch_networks import holding_weights, torch_dtype

        dtype = torch_dtype(precision, device)
        skeleton = skeleton_of(network, settings.get("decoding", "udp"), skeleton)
        module: Any = network
        module.eval().to(device)
        autocast = dtype
        if hasattr(network, "set_precision"):
            network.set_precision(dtype)
            autocast = torch.float32
        else:
            module = holding_weights(module, dtype)
        graph = TorchGraph(
            module,
            _of_pixels(module, device, settings.get("flip_test", True)),
            OUTPUTS[_returns(network)],
            device,
            autocast=autocast,
            compile=compile,
            whole=True,
            people=("crops", "weights"),
        )
        estimator = cls(graph, network.input_size, skeleton, device, **settings)
        # On a GPU fewer launches (the graph takes less where memory is short). On a CPU eight
        # crops fit the caches: ViT-b took 6 % longer per crop with 18.
        estimator.max_batch = 64 if torch.device(device).type == "cuda" else 8
        return estimator

    @property
    def skeleton(self) -> Skeleton:
        """The keypoints that ``estimate`` returns."""
        return self._skeleton

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        """Estimate the pose in each box; see ``PoseEstimator.estimate``.

        Boxes may be degenerate or reach outside of the frame. Raises ValueError for boxes that are
        not finite and for masks of another number or size.
        """
        geometry = crop_geometry(boxes, self.input_size, self._crop)
        people = len(geometry)
        if masks is not None and masks.shape != (people, frame.height, frame.width):
            raise ValueError(
                f"masks must have shape {(people, frame.height, frame.width)}, one per box in the "
                f"size of the frame, got {masks.shape}"
            )
        # Passes of equal size: 17 people in two passes are 9 + 8, not 16 + 1.
        people_per_pass = max(1, self.max_batch // (2 if self.flip_test else 1))
        count = math.ceil(people / people_per_pass)
        parts = [
            self._run(
                frame, geometry[rows[0] : rows[-1] + 1], None if masks is None else masks[rows]
            )
            for rows in np.array_split(np.arange(people), count)
        ]
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        points, scores, grid = self.decoding.locate(outputs)
        keypoints = geometry.points_to_image(points, grid)
        if "oks" not in outputs:
            return Poses(keypoints, scores)
        return Poses(keypoints, outputs["oks"], outputs["visibility"], outputs["presence"])

    def _run(self, frame: Frame, geometry: CropGeometry, masks: np.ndarray | None) -> Outputs:
        """The outputs of n crops that the network has; merged with those of the mirror images."""
        found = self.graph.run(self._inputs(frame, geometry, masks))
        used = self.decoding.channels * len(self._skeleton)
        outputs = self.decoding.of_pass({name: value[:, :used] for name, value in found.items()})
        if not self.flip_test:
            return outputs
        partners, width = self._skeleton.flip_indices, self.input_size[0]
        return self.decoding.merge(outputs, partners, self._shift_flipped, width)

    def _inputs(
        self, frame: Frame, geometry: CropGeometry, masks: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """Crops as the graph takes them, mirror images included where it does not make them."""
        if not self.graph.whole:
            crops = pose_inputs(frame.image, geometry, masks, self.background_factor)
            return {
                "crops": np.concatenate([crops, crops[..., ::-1]]) if self.flip_test else crops
            }
        inputs = {"crops": warp_crops(frame.image, geometry)}
        if masks is not None and self.background_factor is not None:
            inputs["weights"] = background_weights(masks, geometry, self.background_factor)
        return inputs


def _of_pixels(network: Any, device: str, flip_test: bool) -> Callable[..., Any]:
    """The network, which also takes crops (n, h, w, 3) uint8 BGR; see `pose_inputs`.

    weights: (n, h, w) float32, see `background_weights`. flip_test: of pixels the mirror images
    pass the network, too, after the crops.
    """
    import torch

    from bmp_ros.engines.torch_graph import RgbNormalisation, rgb_levels

    normalise = RgbNormalisation(device)

    def run(crops: torch.Tensor, weights: torch.Tensor | None = None) -> Any:
        if crops.dtype.is_floating_point:
            return network(crops)
        levels = rgb_levels(crops)
        if weights is not None:
            levels = (levels * weights[:, None]).round()
        inputs = normalise(levels)
        return network(torch.cat([inputs, inputs.flip(3)]) if flip_test else inputs)

    return run


def _returns(network: PoseNetwork) -> str:
    return getattr(network, "returns", "heatmaps")


def skeleton_of(network: PoseNetwork, decoding: str, skeleton: Skeleton | None = None) -> Skeleton:
    """Return the network's keypoints; None: the known set of its size.

    Raises ValueError where they do not fit the network, or the decoding does not.
    """
    rules = DECODINGS[decoding]
    if rules.returns != _returns(network):
        raise ValueError(
            f"decoding {decoding} reads {rules.returns}, the network returns {_returns(network)}"
        )
    joints, left = divmod(network.num_keypoints, rules.channels)
    if left:
        raise ValueError(
            f"decoding {decoding} reads {rules.channels} channels per keypoint, the network has "
            f"{network.num_keypoints}"
        )
    skeleton = skeleton or skeleton_of_size(joints)
    if len(skeleton) != joints:
        raise ValueError(
            f"skeleton {skeleton.name} has {len(skeleton)} joints, the network {joints}"
        )
    return skeleton


@dataclass(frozen=True)
class Training:
    """How a network was trained, as far as its use depends on it; see `TopDownPoseEstimator`."""

    decoding: str = "udp"
    crop: str = "udp"
    shift_flipped: bool = False


def top_down_engine(
    name: str,
    load: Callable[[Mapping[str, Any], Any], Any],
    options: type,
    *,
    skeleton: Skeleton | None = None,
    random_weights: Callable[[Any], Mapping[str, Any]] | None = None,
    training: Callable[[Any], Training] = lambda settings: Training(),
) -> Engine:
    """Declare the engine of a pose network in PyTorch; it can be exported, too.

    load: (state dict, options) -> the network, see `PoseNetwork` for what it must have.
    options: a dataclass with at least ``weights`` and ``flip_test``; ``background_factor`` and
    ``extra_keypoints`` are read where it has them. skeleton: the network's keypoints; None: the
    known set of that size. training: options -> how crops lie and joints are read.
    """

    def used(settings: Any) -> dict[str, Any]:
        return {
            **asdict(training(settings)),
            "background_factor": getattr(settings, "background_factor", None),
            "flip_test": settings.flip_test,
            "extra_keypoints": getattr(settings, "extra_keypoints", False),
        }

    def build(settings: Any, weights: Any, runtime: Runtime) -> Any:
        from bmp_ros.engines.torch_networks import state_dict_of

        return TopDownPoseEstimator.from_network(
            load(state_dict_of(weights), settings),
            skeleton=skeleton,
            device=runtime.device,
            precision=runtime.precision,
            compile=runtime.compile,
            **used(settings),
        )

    def export(settings: Any, state_dict: Mapping[str, Any]) -> Any:
        return export_source(load(state_dict, settings), used(settings), state_dict, skeleton)

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
    used: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    skeleton: Skeleton | None = None,
) -> Any:
    """Return what is exported of a `PoseNetwork`; skeleton None: the known one of its size.

    used: keyword arguments of `TopDownPoseEstimator`.
    Raises ValueError for keypoints that the engine ``onnx`` does not know.
    """
    import torch

    from bmp_ros.engines.export.source import (
        Call,
        GraphSource,
        NetworkSource,
        sample_image,
        weights_hash,
    )
    from bmp_ros.engines.onnx.card import PoseFacts

    skeleton = skeleton_of(network, used["decoding"], skeleton)
    if skeleton.name not in SKELETONS:
        raise ValueError(
            f"the engine onnx knows the keypoint sets {', '.join(SKELETONS)}, not {skeleton.name}"
        )
    boxes = np.array([[40, 30, 250, 460], [300, 100, 620, 470], [500, 20, 560, 90]], np.float32)
    geometry = crop_geometry(boxes, network.input_size, used["crop"])
    crops = torch.from_numpy(pose_inputs(sample_image(), geometry))
    module = Call(network.eval(), network)
    with torch.inference_mode():
        found = module(crops[:1])
    kind = _returns(network)
    names = OUTPUTS[kind][: 1 if isinstance(found, torch.Tensor) else len(found)]
    facts = PoseFacts(
        input_size=network.input_size,
        skeleton=skeleton.name,
        outputs="pmpose" if "oks" in names else kind.removesuffix("s"),
        background_factor=used["background_factor"],
        decoding=used["decoding"],
        crop=used["crop"],
        shift_flipped=used["shift_flipped"],
    )
    graph = GraphSource(
        kind,
        module,
        names,
        [{"crops": crops[:2]}, {"crops": crops}],
        {name: {0: "people"} for name in ("crops", *names)},
    )
    options = {key: used[key] for key in ("flip_test", "extra_keypoints")}
    return NetworkSource(kind, facts, [graph], options, weights_hash(state_dict, facts))
