# SPDX-License-Identifier: Apache-2.0
"""The trainings by name: network, samples and loss of each, and how long and how fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bmp_ros.engines.letterbox import BGR_MEAN, BGR_STD, grid_priors
from bmp_ros.networks.conv_pose import ConvPose
from bmp_ros.networks.point_segmenter import PointSegmenter
from bmp_ros.networks.rtmdet_ins import (
    PACKAGED_SIZE,
    PUBLISHED_SIZES,
    RTMDetIns,
    RTMDetInsOutput,
    RTMDetInsSize,
)
from bmp_ros.training.detector_loss import Truth, detector_loss
from bmp_ros.training.detector_samples import (
    MOSAIC_SHARE,
    PAINTED_SHARE,
    VIEW,
    DetectorSample,
    detector_sample,
    fitted_detector_sample,
)
from bmp_ros.training.mixture import Images, RenderedImages
from bmp_ros.training.optimisation import Schedule
from bmp_ros.training.pose2seg import Pose2SegTask
from bmp_ros.training.pose_loss import location_loss
from bmp_ros.training.pose_samples import BACKGROUND_FACTOR, PoseSamples, pose_samples
from bmp_ros.training.samples import Task
from bmp_ros.training.segmenter_loss import segmenter_loss
from bmp_ros.training.segmenter_samples import SegmenterSample, segmenter_sample
from bmp_ros.training.top_down import (
    HRNetTask,
    OmniPoseTask,
    PMPoseTask,
    TopDownTask,
    checked,
)

Size = tuple[int, int]
DetectorBatch = tuple[Tensor, ...]
"""Canvases (B, h, w, 3) uint8 BGR, then what a `Truth` has."""

DETECTOR_CANVAS = (512, 384)
SEGMENTER_CANVAS = (320, 256)


@dataclass(frozen=True)
class DetectorOptions:
    """What a recipe may say under ``options`` of a detector.

    variant: "packaged", a published size (tiny, s, m, l, x), or a mapping with ``widen`` and
    ``deepen``, factors of size l. painted_share: of the canvases with people whose mask is known,
    those on which some are painted out and no longer to be found. mosaic_share: of the canvases,
    those that show four images. zoom: smallest and largest factor of the other canvases, beside
    the scale that fits the image into the canvas.
    """

    variant: Any = "packaged"
    painted_share: float = PAINTED_SHARE
    mosaic_share: float = MOSAIC_SHARE
    zoom: Sequence[float] = VIEW.zoom

    def __post_init__(self) -> None:
        for name in ("painted_share", "mosaic_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"options: {name} is {getattr(self, name)}, allowed: 0 to 1")
        if len(self.zoom) != 2 or not 0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(
                f"options: zoom is {list(self.zoom)}, needs two factors above 0, the smaller first"
            )

    @property
    def network_size(self) -> RTMDetInsSize:
        if self.variant == "packaged":
            return PACKAGED_SIZE
        if isinstance(self.variant, Mapping):
            return RTMDetInsSize.scaled(**self.variant)
        if self.variant not in PUBLISHED_SIZES:
            known = ", ".join(("packaged", *PUBLISHED_SIZES))
            raise ValueError(f"options: variant is {self.variant!r}, allowed: {known}")
        return RTMDetInsSize.scaled(*PUBLISHED_SIZES[self.variant])


@dataclass
class DetectorTask:
    """RTMDet-Ins with one class, on canvases of ``size`` (width, height)."""

    images: Images
    size: Size = DETECTOR_CANVAS
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = "detector"
    role: str = "detector"

    def __post_init__(self) -> None:
        self.given = DetectorOptions(**checked(DetectorOptions, self.options, "options"))
        self.network: nn.Module = RTMDetIns(self.given.network_size, classes=1)
        self._priors = torch.from_numpy(grid_priors(self.size))
        self._mean = torch.tensor(BGR_MEAN).view(1, 3, 1, 1)
        self._std = torch.tensor(BGR_STD).view(1, 3, 1, 1)

    def sample(self, number: int, seed: int, *, validation: bool = False) -> DetectorSample:
        random, labelled = self.images.draw(number, seed, validation)
        if validation:
            return fitted_detector_sample(labelled, self.size)
        return detector_sample(
            random, labelled, self.size, partial(self.images.more, random),
            self.images.cut_outs, painted_share=self.given.painted_share,
            mosaic_share=self.given.mosaic_share, zoom=(self.given.zoom[0], self.given.zoom[1]),
        )  # fmt: skip

    def collate(self, samples: list[DetectorSample]) -> DetectorBatch:
        canvases = torch.from_numpy(np.stack([sample.canvas for sample in samples]))
        truth = Truth.of(
            *(
                [torch.from_numpy(getattr(sample, part)) for sample in samples]
                for part in ("boxes", "masks", "masked", "ignore")
            )
        )
        return canvases, *truth

    def losses(self, network: nn.Module, batch: DetectorBatch) -> dict[str, Tensor]:
        canvases, *truth = batch
        device = canvases.device
        images = canvases.permute(0, 3, 1, 2).float()
        images = (images - self._mean.to(device)) / self._std.to(device)
        output = RTMDetInsOutput(*(part.float() for part in network(images)))
        return detector_loss(output, self._priors.to(device), Truth(*truth))

    def section(self, weights: str) -> dict[str, Any]:
        """What a preset says under ``detector`` to run ``weights`` as they were trained."""
        return {"engine": "rtmdet_ins", "weights": weights, "input_size": list(self.size)}


@dataclass
class PoseTask:
    """ConvPose on crops of people."""

    images: Images
    size: Size = ConvPose.input_size
    name: str = "pose"
    role: str = "pose_estimator"

    def __post_init__(self) -> None:
        if self.size != ConvPose.input_size:
            raise ValueError(f"--size of pose is {ConvPose.input_size}, got {self.size}")
        self.network: nn.Module = ConvPose()

    def sample(self, number: int, seed: int, *, validation: bool = False) -> PoseSamples:
        random, labelled = self.images.draw(number, seed, validation)
        return pose_samples(
            random, labelled, ConvPose.input_size, ConvPose.heatmap_size, augment=not validation,
            cut_outs=self.images.cut_outs,
        )  # fmt: skip

    def collate(self, samples: list[PoseSamples]) -> tuple[Tensor, Tensor, Tensor]:
        parts = ([s.crops for s in samples], [s.heatmaps for s in samples],
                 [s.weights for s in samples])  # fmt: skip
        crops, heatmaps, weights = (torch.from_numpy(np.concatenate(part)) for part in parts)
        return crops, heatmaps, weights

    def losses(
        self, network: nn.Module, batch: tuple[Tensor, Tensor, Tensor]
    ) -> dict[str, Tensor]:
        assert isinstance(network, ConvPose)
        crops, heatmaps, weights = batch
        # Also where there is no one: the other processes wait for what is summed over all.
        return {"location": location_loss(network.logits(crops), heatmaps, weights)}

    def section(self, weights: str) -> dict[str, Any]:
        """What a preset says under ``pose_estimator`` to run ``weights`` as they were trained."""
        return {
            "engine": "conv_pose", "weights": weights, "background_factor": BACKGROUND_FACTOR,
            "flip_test": False,
        }  # fmt: skip


@dataclass
class SegmenterTask:
    """PointSegmenter on canvases of ``size`` (width, height)."""

    images: Images
    size: Size = SEGMENTER_CANVAS
    name: str = "segmenter"
    role: str = "segmenter"

    def __post_init__(self) -> None:
        self.network: nn.Module = PointSegmenter()

    def sample(self, number: int, seed: int, *, validation: bool = False) -> SegmenterSample:
        random, labelled = self.images.draw(number, seed, validation)
        return segmenter_sample(
            random, labelled, self.size, augment=not validation, cut_outs=self.images.cut_outs
        )

    def collate(self, samples: list[SegmenterSample]) -> tuple[Tensor, ...]:
        owners = np.repeat(np.arange(len(samples)), [len(s.points) for s in samples])
        return (
            torch.from_numpy(np.stack([s.canvas for s in samples])),
            torch.from_numpy(np.concatenate([s.points for s in samples])),
            torch.from_numpy(np.concatenate([s.labels for s in samples])),
            torch.from_numpy(np.concatenate([s.first for s in samples])),
            torch.from_numpy(np.concatenate([s.masks for s in samples])),
            torch.from_numpy(owners),
        )

    def losses(self, network: nn.Module, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        assert isinstance(network, PointSegmenter)
        canvases, points, labels, first, masks, owners = batch
        features = network.encode(canvases)
        # Also where there is no one: the other processes wait for what is summed over all.
        # index_select: adding up its gradient has one order, which part[owners] has not.
        each = tuple(part.index_select(0, owners) for part in features)
        logits, scores = network.decode(each, points, labels, first)
        return segmenter_loss(logits.float(), scores.float(), masks)

    def section(self, weights: str) -> dict[str, Any]:
        """What a preset says under ``segmenter`` to run ``weights`` as they were trained."""
        return {"engine": "point_segmenter", "weights": weights}


@dataclass(frozen=True)
class Kind:
    """A network that is trained here, its schedule and its options where a recipe says nothing."""

    task: Callable[..., Any]
    schedule: Schedule
    options: Mapping[str, Any] | None = None
    """None: the network has no options."""
    needs_joints: bool = False
    """Whether it learns from people with labelled joints only."""
    needs_masks: bool = False
    """Whether it learns from people whose mask is known only."""


# The published schedules: RTMDet-Ins for 300 epochs of COCO at 16 images, the others for 210 of
# their data sets.
_PUBLISHED_POSE = Schedule(
    903_018, 128, 1e-3, weight_decay=0.1, warmup=500, warmup_from=1e-3, shape="drops",
    drops=(170 / 210, 200 / 210), clip=1.0, layer_decay=0.75, save_every=5000,
)  # fmt: skip
_PUBLISHED_HRNET = replace(
    _PUBLISHED_POSE, steps=983_146, batch=32, layer_decay=1.0, optimizer="adam", clip=10.0
)
_PUBLISHED_DETECTOR = Schedule(
    2_199_600, 16, 2e-3, warmup=1000, shape="flat_cosine", final=0.05, averaging=0.9998,
    save_every=5000,
)  # fmt: skip

_PUBLISHED_SEGMENTER = Schedule(
    110_000, 16, 5e-6, weight_decay=0.1, layer_decay=0.6, clip=0.1, final=0.1, save_every=5000
)

KINDS: dict[str, Kind] = {
    "detector": Kind(DetectorTask, Schedule(6500, 8, 2e-3), {}),
    "pose": Kind(PoseTask, Schedule(20000, 4, 2e-3), needs_joints=True),
    "segmenter": Kind(SegmenterTask, Schedule(8000, 4, 1.5e-3), needs_masks=True),
    "rtmdet_ins": Kind(
        partial(DetectorTask, size=(640, 640)), _PUBLISHED_DETECTOR, {"variant": "l"}
    ),
    "vit_pose": Kind(TopDownTask, _PUBLISHED_POSE, {}, needs_joints=True),
    "pmpose": Kind(PMPoseTask, _PUBLISHED_POSE, {}, needs_joints=True),
    "hrnet": Kind(HRNetTask, _PUBLISHED_HRNET, {}, needs_joints=True),
    "omnipose": Kind(OmniPoseTask, _PUBLISHED_HRNET, {}, needs_joints=True),
    "pose2seg": Kind(Pose2SegTask, _PUBLISHED_SEGMENTER, {}, needs_masks=True),
}


def make_task(
    name: str,
    images: Images | Path,
    size: Size | None = None,
    options: Mapping[str, Any] | None = None,
) -> Task:
    """The training called ``name`` on ``images``, or on the rendered ones of a folder.

    size: (width, height) of canvases or crops, None for the usual one. options: the network's own.
    Raises ValueError for options that it does not have.
    """
    kind = KINDS[name]
    if kind.options is None and options:
        raise ValueError(f"{name} has no options, got {dict(options)}")
    if isinstance(images, Path):
        images = RenderedImages(images, with_detections=name != "detector")
    arguments: dict[str, Any] = {}
    if kind.options is not None:
        arguments["options"] = {**kind.options, **(options or {})}
    if size is not None:
        arguments["size"] = size
    try:
        task: Task = kind.task(images, **arguments)
    except TypeError as error:  # a text where a number is due, and the like
        raise ValueError(f"options of {name}: {error}") from error
    return task
