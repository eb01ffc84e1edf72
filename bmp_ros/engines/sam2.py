# SPDX-License-Identifier: Apache-2.0
"""SAM 2.1 at work: all people of one frame from one embedding and one decoder call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from bmp_ros.engines import options
from bmp_ros.engines.crops import normalised
from bmp_ros.engines.point_prompts import PromptedSegmenter, torch_graphs
from bmp_ros.engines.registry import Engine, Runtime
from bmp_ros.fields import bool_field, number_field

if TYPE_CHECKING:
    import torch

    from bmp_ros.loop.frame import Frame
    from bmp_ros.networks.sam2 import Sam2Network

PROMPTS_ON_CPU = 3
"""People that pass the decoder at once on a CPU, whose caches hold so many: ten at once took 1.5
times as long per person. GPUs take all."""
EMBEDDING = ("embedding", "fine_4", "fine_8")


@dataclass(frozen=True)
class Sam2Options:
    """SAM 2.1 or SAM-pose2seg through the sam2 package; mask logits have 256x256 cells."""

    weights: str = options.weights()
    image_size: int = number_field(
        1024, low=256, high=1024, integer=True,
        text="side of the square input, a multiple of 32; trained at 1024, 512 is a quarter of "
        "the work",
    )  # fmt: skip
    dynamic_multimask: bool = bool_field(
        False, text="use one of the three other masks when the first one is unstable"
    )
    max_hole_area: int = options.max_hole_area(10)
    max_sprinkle_area: int = options.max_sprinkle_area(50)


class Sam2Segmenter(PromptedSegmenter):
    """Segments people from point prompts; masks are ignored. Implements ``Segmenter``."""

    kept = EMBEDDING

    def __init__(
        self,
        graphs: Mapping[str, Any],
        side: int,
        device: str = "cpu",
        *,
        max_hole_area: int = 10,
        max_sprinkle_area: int = 50,
    ) -> None:
        """Put graphs to work, see `PromptedSegmenter`. side: of the square input, in pixels."""
        super().__init__(
            graphs, device, max_hole_area=max_hole_area, max_sprinkle_area=max_sprinkle_area
        )
        self._side = side

    @classmethod
    def from_network(
        cls,
        network: Sam2Network,
        *,
        dynamic_multimask: bool = False,
        device: str = "cpu",
        precision: str = "fp32",
        compile: bool = False,
        **areas: int,
    ) -> Sam2Segmenter:
        """Run a network in PyTorch, fp16 and bf16 under autocast.

        dynamic_multimask: an unstable mask gives way to the best of the three alternatives.
        """

        def functions(network: Sam2Network) -> dict[str, Any]:
            parts = graph_functions(network, dynamic_multimask)
            encoder, outputs = parts["encoder"]
            return {**parts, "encoder": (_of_pixels(encoder, network.image_size, device), outputs)}

        most = PROMPTS_ON_CPU if device == "cpu" else None
        graphs = torch_graphs(network, functions, device, precision, compile, most=most)
        return cls(graphs, network.image_size, device, **areas)

    def image_input(self, frame: Frame) -> dict[str, np.ndarray]:
        if self.graphs["encoder"].whole:
            return {"image": frame.image}
        return {"image": sam2_input(frame.image, self._side)}

    def prompt_inputs(
        self, frame: Frame, points: np.ndarray, masks: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        return {"points": points_to_input(points, frame.width, frame.height, self._side)}

    def masks_on_image(self, logits: np.ndarray, frame: Frame) -> np.ndarray:
        return masks_of_size(logits, frame.height, frame.width)


def sam2_input(image: np.ndarray, side: int) -> np.ndarray:
    """Return an image (H, W, 3) uint8 BGR as the encoder reads it: (1, 3, side, side) float32.

    The ratio of the sides is not kept. Resampling is bilinear with antialiasing where the image
    shrinks, as in sam2 (``torch.nn.functional.interpolate`` with ``antialias=True``).
    """
    resized = _resize_rows(image.astype(np.float32), side)
    resized = _resize_rows(resized.transpose(1, 0, 2), side).transpose(1, 0, 2)
    inputs = resized[None, ..., ::-1].transpose(0, 3, 1, 2).copy()
    return normalised(inputs)


def points_to_input(points: np.ndarray, width: int, height: int, side: int) -> np.ndarray:
    """Map points (..., 2) x y from pixels of the image to pixels of the input, as sam2 does."""
    image_size = np.array([width, height], np.float32)
    return points.astype(np.float32) / image_size * np.float32(side)


def masks_of_size(logits: np.ndarray, height: int, width: int) -> np.ndarray:
    """Upsample logits (G, h, w) float32 of the whole image; (G, H, W) bool, where they are > 0."""
    masks = np.empty((len(logits), height, width), np.bool_)
    for mask, grid in zip(masks, logits, strict=True):
        full = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        np.greater(full, 0, out=mask)
    return masks


def _resize_rows(image: np.ndarray, length: int) -> np.ndarray:
    """Return the image (H, W, 3) float32 with ``length`` rows."""
    indices, weights = _taps(len(image), length)
    resized = image[indices[0]] * weights[0, :, None, None]
    for index, weight in zip(indices[1:], weights[1:], strict=True):
        resized += image[index] * weight[:, None, None]
    return resized


@lru_cache(maxsize=8)
def _taps(before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """Return indices (T, after) into ``before`` pixels, and weights (T, after) float32.

    A triangle around each new pixel's centre, as wide as the pixel (at least as one old one).
    """
    scale = before / after
    reach = max(scale, 1.0)
    centres = (np.arange(after) + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + reach + 0.5).astype(np.int64), before)
    indices = first + np.arange((last - first).max())[:, None]
    weights = np.maximum(1 - np.abs((indices - centres + 0.5) / reach), 0)
    weights[indices >= last] = 0
    weights /= weights.sum(axis=0)
    return np.minimum(indices, before - 1), weights.astype(np.float32)


def graph_functions(network: Sam2Network, dynamic_multimask: bool) -> dict[str, Any]:
    """Encoder and decoder as functions of named tensors, with the names of their outputs."""
    from bmp_ros.networks.sam2 import Sam2Embedding

    def encoder(image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        embedding = network.embed(image)
        return embedding.image, *embedding.fine

    def decoder(
        embedding: torch.Tensor,
        fine_4: torch.Tensor,
        fine_8: torch.Tensor,
        points: torch.Tensor,
        labels: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return network.decode(
            Sam2Embedding(embedding, [fine_4, fine_8]),
            points,
            labels,
            dynamic_multimask=dynamic_multimask,
        )

    return {"encoder": (encoder, EMBEDDING), "decoder": (decoder, ("logits", "scores"))}


def _of_pixels(encoder: Any, side: int, device: str) -> Any:
    """The encoder, which also takes an image (H, W, 3) uint8 BGR; see `sam2_input`."""
    from torch.nn.functional import interpolate

    from bmp_ros.engines.torch_graph import RgbNormalisation, rgb_levels

    normalise = RgbNormalisation(device)

    def encode(image: torch.Tensor) -> Any:
        if image.dtype.is_floating_point:
            return encoder(image)
        levels = rgb_levels(image)[None]
        resized = interpolate(levels, (side, side), mode="bilinear", antialias=True)
        return encoder(normalise(resized))

    return encode


def _build(settings: Sam2Options, weights: Any, runtime: Runtime) -> Sam2Segmenter:
    from bmp_ros.engines.torch_networks import state_dict_of
    from bmp_ros.networks.sam2 import Sam2Network

    return Sam2Segmenter.from_network(
        Sam2Network.from_state_dict(state_dict_of(weights), settings.image_size),
        dynamic_multimask=settings.dynamic_multimask,
        max_hole_area=settings.max_hole_area,
        max_sprinkle_area=settings.max_sprinkle_area,
        device=runtime.device,
        precision=runtime.precision,
        compile=runtime.compile,
    )


def _random_weights(settings: Sam2Options) -> Mapping[str, Any]:
    from bmp_ros.engines.torch_networks import size_by_name
    from bmp_ros.networks.sam2 import SAM2_SIZES, Sam2Network

    pattern = r"(?:sam2\.1-hiera-|sam-pose2seg-)(tiny|small|base-plus|large|b\+)"
    name = size_by_name(settings.weights, pattern)
    sizes = {"tiny": "t", "small": "s", "base-plus": "b+", "large": "l"}
    return Sam2Network(SAM2_SIZES[sizes.get(name, name)]).state_dict()


def _export(settings: Sam2Options, state_dict: Mapping[str, Any]) -> Any:
    from bmp_ros.networks.sam2 import Sam2Network

    return export_source(Sam2Network.from_state_dict(state_dict, settings.image_size), settings)


def export_source(network: Sam2Network, settings: Sam2Options) -> Any:
    """Return what is exported of a network of any size."""
    from unittest.mock import patch

    import torch

    from bmp_ros.engines.export.source import (
        Call,
        GraphSource,
        NetworkSource,
        sample_image,
        sample_prompts,
        weights_hash,
    )
    from bmp_ros.engines.onnx.card import Sam2Facts

    side = network.image_size
    facts = Sam2Facts(image_size=side, dynamic_multimask=settings.dynamic_multimask)
    functions = graph_functions(network, settings.dynamic_multimask)
    encode, decode = functions["encoder"][0], functions["decoder"][0]
    sample = sample_image()
    height, width = sample.shape[:2]
    image = torch.from_numpy(sam2_input(sample, side))
    with torch.inference_mode():
        features = encode(image)
    maps = {name: value.clone() for name, value in zip(EMBEDDING, features, strict=True)}
    samples = []
    for people, count in ((3, 4), (1, 1), (5, 7)):
        points, labels = sample_prompts(people, count, width, height)
        on_input = torch.from_numpy(points_to_input(points, width, height, side))
        samples.append({**maps, "points": on_input, "labels": labels})

    trunk = network.image_encoder.trunk
    with torch.inference_mode(False), torch.no_grad():
        places = trunk._get_pos_embed((side // 4, side // 4)).detach().clone()

    def traceable_encode(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # A constant, not a tiling whose trace has branches; TensorRT takes none.
        with patch.object(trunk, "_get_pos_embed", lambda _: places):
            return encode(*inputs)

    def traceable_decode(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # sam2 repeats the image for every person with a function whose trace holds their number.
        with patch.object(torch, "repeat_interleave", _expanded):
            return decode(*inputs)

    prompt_axes, people_axis = {0: "people", 1: "points"}, {0: "people"}
    axes = {"points": prompt_axes, "labels": prompt_axes, "logits": people_axis,
            "scores": people_axis}  # fmt: skip
    graphs = [
        GraphSource("encoder", Call(network, traceable_encode), EMBEDDING, [{"image": image}]),
        GraphSource(
            "decoder", Call(network, traceable_decode), functions["decoder"][1], samples, axes
        ),
    ]
    used = {"max_hole_area": settings.max_hole_area,
            "max_sprinkle_area": settings.max_sprinkle_area}  # fmt: skip
    return NetworkSource("sam2", facts, graphs, used, weights_hash(network.state_dict(), facts))


def _expanded(x: torch.Tensor, repeats: int, dim: int) -> torch.Tensor:
    """Do what ``torch.repeat_interleave`` does for a tensor of length 1 along ``dim`` 0."""
    if dim != 0 or x.shape[0] != 1:
        raise ValueError(f"expected length 1 along dimension 0, got {x.shape}, dimension {dim}")
    return x.expand(repeats, *x.shape[1:])


ENGINE = Engine(
    "sam2",
    "segmenter",
    Sam2Options,
    _build,
    runtime="torch",
    precisions=("fp32", "fp16", "bf16"),
    compiles=True,
    random_weights=_random_weights,
    export=_export,
    needs="sam2 (Apache-2.0)",
)
