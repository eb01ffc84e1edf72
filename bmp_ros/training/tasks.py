# SPDX-License-Identifier: Apache-2.0
"""The three trainings: network, samples and loss of each, and how long and how fast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bmp_ros.engines.letterbox import BGR_MEAN, BGR_STD, grid_priors
from bmp_ros.networks.conv_pose import ConvPose
from bmp_ros.networks.point_segmenter import PointSegmenter
from bmp_ros.networks.rtmdet_ins import PACKAGED_SIZE, RTMDetIns, RTMDetInsOutput
from bmp_ros.training.detector_loss import Truth, detector_loss
from bmp_ros.training.detector_samples import (
    DetectorSample,
    detector_sample,
    fitted_detector_sample,
)
from bmp_ros.training.mixture import Pictures, RenderedPictures
from bmp_ros.training.pose_loss import location_loss
from bmp_ros.training.pose_samples import PoseSamples, pose_samples
from bmp_ros.training.segmenter_loss import segmenter_loss
from bmp_ros.training.segmenter_samples import SegmenterSample, segmenter_sample
from bmp_ros.training.trainer import Schedule, Task

Size = tuple[int, int]
DetectorBatch = tuple[Tensor, ...]
"""Canvases (B, h, w, 3) uint8 BGR, then what a `Truth` has."""

DETECTOR_CANVAS = (512, 384)
SEGMENTER_CANVAS = (320, 256)


@dataclass
class DetectorTask:
    """RTMDet-Ins with one class, on canvases of ``size`` (width, height)."""

    pictures: Pictures
    size: Size = DETECTOR_CANVAS
    name: str = "detector"

    def __post_init__(self) -> None:
        self.network: nn.Module = RTMDetIns(PACKAGED_SIZE, classes=1)
        self._priors = torch.from_numpy(grid_priors(self.size))
        self._mean = torch.tensor(BGR_MEAN).view(1, 3, 1, 1)
        self._std = torch.tensor(BGR_STD).view(1, 3, 1, 1)

    def sample(self, number: int, seed: int, *, validation: bool = False) -> DetectorSample:
        random, picture = self.pictures.draw(number, seed, validation)
        if validation:
            return fitted_detector_sample(picture, self.size)
        return detector_sample(
            random, picture, self.size, partial(self.pictures.more, random), self.pictures.cut_outs
        )

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


@dataclass
class PoseTask:
    """ConvPose on crops of people."""

    pictures: Pictures
    size: Size = ConvPose.input_size
    name: str = "pose"

    def __post_init__(self) -> None:
        if self.size != ConvPose.input_size:
            raise ValueError(f"--size of pose is {ConvPose.input_size}, got {self.size}")
        self.network: nn.Module = ConvPose()

    def sample(self, number: int, seed: int, *, validation: bool = False) -> PoseSamples:
        random, picture = self.pictures.draw(number, seed, validation)
        return pose_samples(
            random, picture, ConvPose.input_size, ConvPose.heatmap_size, augment=not validation,
            cut_outs=self.pictures.cut_outs,
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
        if not len(crops):  # only empty scenes
            return {"location": sum(p.sum() for p in network.parameters()) * torch.tensor(0.0)}
        return {"location": location_loss(network.logits(crops), heatmaps, weights)}


@dataclass
class SegmenterTask:
    """PointSegmenter on canvases of ``size`` (width, height)."""

    pictures: Pictures
    size: Size = SEGMENTER_CANVAS
    name: str = "segmenter"

    def __post_init__(self) -> None:
        self.network: nn.Module = PointSegmenter()

    def sample(self, number: int, seed: int, *, validation: bool = False) -> SegmenterSample:
        random, picture = self.pictures.draw(number, seed, validation)
        return segmenter_sample(
            random, picture, self.size, augment=not validation, cut_outs=self.pictures.cut_outs
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
        if not len(points):  # only empty scenes
            nothing = sum(part.sum() for part in features) * torch.tensor(0.0)
            return {"entropy": nothing, "dice": nothing, "score": nothing}
        # index_select: adding up its gradient has one order, which part[owners] has not.
        each = tuple(part.index_select(0, owners) for part in features)
        logits, scores = network.decode(each, points, labels, first)
        return segmenter_loss(logits.float(), scores.float(), masks)


@dataclass(frozen=True)
class Kind:
    """A network that is trained here, and the schedule that it has by default."""

    task: Callable[..., Any]
    schedule: Schedule


KINDS: dict[str, Kind] = {
    "detector": Kind(DetectorTask, Schedule(6500, 8, 2e-3)),
    "pose": Kind(PoseTask, Schedule(20000, 4, 2e-3)),
    "segmenter": Kind(SegmenterTask, Schedule(8000, 4, 1.5e-3)),
}


def make_task(name: str, pictures: Pictures | Path, size: Size | None = None) -> Task:
    """The training called ``name`` on ``pictures``, or on the rendered ones of a folder."""
    if isinstance(pictures, Path):
        pictures = RenderedPictures(pictures, with_detections=name != "detector")
    task: Task = KINDS[name].task(pictures, **({} if size is None else {"size": size}))
    return task
