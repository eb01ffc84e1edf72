# SPDX-License-Identifier: Apache-2.0
"""What an exported file says about itself, in the metadata of the ONNX model.

A network is one or two graphs, each a file: the first one in ``NAME.onnx``, the other beside it
in ``NAME.PART.onnx``. Each file carries the same card, so that an engine knows the input size, the
normalisation and so on without being told, and notices files that do not belong together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bmp_ros.engines.crops import CONVENTIONS
from bmp_ros.engines.pose_decoding import DECODINGS, OUTPUTS
from bmp_ros.fields import (
    bool_field,
    choice_field,
    number_field,
    settings_from_mapping,
    size_field,
    str_field,
)
from bmp_ros.loop.skeletons import SKELETONS

METADATA_KEY = "bmp_ros"
FORMAT = 2
"""Of the card. What changes in one kind of network is counted by its `Kind.version`."""


@dataclass(frozen=True)
class RTMDetInsFacts:
    """Boxes, scores and dynamic masks of RTMDet-Ins."""

    input_size: int | tuple[int, int] = size_field(
        low=32, high=8192, multiple=32, text="canvas, [width, height]"
    )
    normalisation: str = choice_field(
        "imagenet_bgr", choices=("imagenet_bgr",), text="of the canvas"
    )


@dataclass(frozen=True)
class YOLOv5Facts:
    """Raw maps of YOLOv5; see `bmp_ros.engines.yolov5.YOLOv5Options`."""

    input_size: int | tuple[int, int] = size_field(
        low=32, high=8192, multiple=32, text="largest canvas, [width, height]"
    )
    anchors: str = str_field(text="width height of three anchors at three levels, in pixels")
    canvas: str = choice_field("minimal", choices=("minimal", "full"), text="of smaller images")
    enlarge: bool = bool_field(True, text="small images are scaled up")
    label: int = number_field(0, low=0, high=10_000, integer=True, text="class of the boxes")
    normalisation: str = choice_field("unit_rgb", choices=("unit_rgb",), text="of the canvas")


@dataclass(frozen=True)
class PoseFacts:
    """A top-down pose network: crops in; heatmaps, bins of coordinates or coordinates out."""

    input_size: int | tuple[int, int] = size_field(
        low=16, high=4096, multiple=1, text="of a crop, [width, height]"
    )
    skeleton: str = choice_field(choices=tuple(SKELETONS), text="keypoint set")
    outputs: str = choice_field(
        choices=("heatmap", "pmpose", "simcc", "coordinate"),
        text="pmpose: also presence, visibility and OKS",
    )
    background_factor: float | None = number_field(
        None, low=0.0, high=1.0, optional=True, text="brightness beside the mask; null: no masks"
    )
    normalisation: str = choice_field(
        "imagenet_rgb", choices=("imagenet_rgb",), text="of the crops"
    )
    decoding: str = choice_field("udp", choices=tuple(DECODINGS), text="how joints are read")
    crop: str = choice_field("udp", choices=CONVENTIONS, text="how crops lie in the image")
    shift_flipped: bool = bool_field(False, text="mirrored outputs are moved by one cell")


@dataclass(frozen=True)
class PointSegmenterFacts:
    """The small point-prompted segmenter."""

    side: int = number_field(
        low=32, high=8192, integer=True, text="longer side of the image, pixels"
    )
    normalisation: str = choice_field(
        "imagenet_rgb", choices=("imagenet_rgb",), text="of the canvas"
    )


@dataclass(frozen=True)
class Sam2Facts:
    """SAM 2.1 or SAM-pose2seg."""

    image_size: int = number_field(
        low=32, high=8192, integer=True, text="side of the square input"
    )
    dynamic_multimask: bool = bool_field(False, text="unstable masks give way to alternatives")
    normalisation: str = choice_field(
        "imagenet_rgb", choices=("imagenet_rgb",), text="of the image"
    )


@dataclass(frozen=True)
class Kind:
    """role: the section of a preset. facts: what its files tell. parts: its graphs, in order.

    version: of what the graphs take and return; counted up when files of before cannot be run any
    more. Files of other kinds stay valid.
    """

    role: str
    facts: type
    parts: tuple[str, ...]
    version: int = 1


KINDS = {
    "rtmdet_ins": Kind("detector", RTMDetInsFacts, ("boxes", "masks")),
    "yolov5": Kind("detector", YOLOv5Facts, ("maps",)),
    **{name: Kind("pose_estimator", PoseFacts, (name,)) for name in OUTPUTS},
    "point_segmenter": Kind("segmenter", PointSegmenterFacts, ("encoder", "decoder")),
    "sam2": Kind("segmenter", Sam2Facts, ("encoder", "decoder")),
}


@dataclass(frozen=True)
class Card:
    """network: a key of `KINDS`. part: which of its graphs this is. facts: of that kind.

    weights: hash of the weights and options; equal in the files of one export. precision: what the
    graph computes in, fp32 or fp16.
    """

    network: str
    part: str
    weights: str
    facts: Any
    precision: str = "fp32"

    def to_metadata(self) -> dict[str, str]:
        """Return the metadata to store in the ONNX model."""
        values = {
            "format": FORMAT,
            "version": KINDS[self.network].version,
            "network": self.network,
            "part": self.part,
            "weights": self.weights,
            "precision": self.precision,
            "facts": asdict(self.facts),
        }
        return {METADATA_KEY: json.dumps(values)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: Path) -> Card:
        """Read the card of the file ``path``.

        Raises ValueError when the file was not written by ``bmp export``, or by a newer one, and
        SettingsError when one of its facts is out of range.
        """
        text = metadata.get(METADATA_KEY)
        if text is None:
            raise ValueError(
                f"{path} was not written by `bmp export`: it says nothing about input size and "
                "normalisation; export the network from its checkpoint (docs/export.md)"
            )
        values = json.loads(text)
        if values.get("format") != FORMAT or values.get("network") not in KINDS:
            raise ValueError(
                f"{path} has format {values.get('format')!r} and network "
                f"{values.get('network')!r}, known here: format {FORMAT}, networks "
                f"{', '.join(KINDS)}; export it again with this version of bmp_ros"
            )
        network = values["network"]
        version = values.get("version", 1)  # the first files did not say it
        if version != KINDS[network].version:
            raise ValueError(
                f"{path} has version {version} of {network}, this bmp_ros runs version "
                f"{KINDS[network].version}; export it again with this version of bmp_ros"
            )
        facts: Any = settings_from_mapping(KINDS[network].facts, values["facts"], str(path))
        precision = values.get("precision", "fp32")
        return cls(network, values["part"], values["weights"], facts, precision)


def largest_canvas(facts: Any) -> int:
    """Pixels of the longest side of an image that a network of these facts may be given."""
    size = getattr(facts, "input_size", None) or getattr(facts, "side", None) or facts.image_size
    return size if isinstance(size, int) else max(size)


def part_path(first: Path, network: str, part: str) -> Path:
    """Return the file of one part of the network whose first part is the file ``first``."""
    if part == KINDS[network].parts[0]:
        return first
    return first.with_name(f"{first.stem}.{part}{first.suffix}")
