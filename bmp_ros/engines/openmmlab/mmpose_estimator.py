# SPDX-License-Identifier: Apache-2.0
"""``MMPoseEstimator``: any MMPose top-down network as the loop's pose estimator."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bmp_ros.engines.openmmlab.background_dimming import (
    BackgroundDimming,
    with_background_dimming,
)
from bmp_ros.engines.openmmlab.configs import load_config
from bmp_ros.engines.openmmlab.installation import import_openmmlab
from bmp_ros.engines.openmmlab.keypoint_sets import keypoint_set
from bmp_ros.engines.openmmlab.models import build_model, build_pipeline
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.protocols import Poses
from bmp_ros.loop.skeletons import COCO_17, Skeleton
from bmp_ros.weights.checkpoint import load_checkpoint

_MINIMUM_SIDE = 1.0  # pixels; a box without area would make the crop's scale infinite


class MMPoseEstimator:
    """Poses by an MMPose top-down network: heatmaps, SimCC, regression with or without RLE.

    config: see ``load_config``, for example ``"td-hm_hrnet-w48_8xb32-210e_coco-256x192"`` or
    ``"vit_b_21"``. checkpoint: path of the weights; None leaves them random (for tests).
    device: anything torch understands.
    background_factor: brightness of the pixels outside of a person's mask in what the network
    sees (MaskPose 1.0.0: 0.8, 1.1.0: 0.75); None for networks that were not trained on masks.
    flip_test: average with the mirrored crop, twice the work.
    extra_keypoints: return the network's other joints after COCO's 17.
    """

    def __init__(
        self,
        config: str | Path | Mapping[str, Any] | Any,
        checkpoint: str | Path | None,
        *,
        device: str = "cpu",
        background_factor: float | None = None,
        flip_test: bool = True,
        extra_keypoints: bool = True,
    ) -> None:
        settings = load_config(config, "mmpose")
        weights = None if checkpoint is None else load_checkpoint(checkpoint)
        # All channels are read and put into our order here, so no selection by the network.
        test_cfg = dict(settings.model.get("test_cfg") or {}, flip_test=flip_test)
        test_cfg.pop("output_keypoint_indices", None)
        settings.model.test_cfg = test_cfg
        self.model = build_model(settings, "mmpose", weights, device)
        _check_top_down(self.model, config)
        trained_on = None if weights is None else weights.meta.get("dataset_meta")
        known = keypoint_set(_channel_count(self.model), _config_meta(settings), trained_on)
        only_coco = known.skeleton.begins_with_coco and not extra_keypoints
        self._skeleton = COCO_17 if only_coco else known.skeleton
        self._channels = known.channels[: len(self._skeleton)]
        self._flip_indices = known.flip_indices
        steps = list(settings.test_dataloader.dataset.pipeline)
        if background_factor is not None:
            steps = with_background_dimming(steps, background_factor)
        self._pipeline = build_pipeline(steps, settings, "mmpose")

    @property
    def skeleton(self) -> Skeleton:
        """The joints that ``estimate`` returns, COCO's 17 first where the network has them."""
        return self._skeleton

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        """Estimate all people in one batch; scores are what the network says.

        boxes: (N, 4) float32 xyxy, N >= 1. masks: (N, H, W) bool or None, read only with a
        ``background_factor``. ``visibility`` is None unless the head predicts one.
        """
        people = [
            self._preprocess(frame, box, None if masks is None else masks[person])
            for person, box in enumerate(_with_area(boxes))
        ]
        batch = import_openmmlab("mmengine.dataset").pseudo_collate(people)
        with torch.no_grad():
            samples = self.model.test_step(batch)
        found = [sample.pred_instances for sample in samples]
        visibility = None
        # MMPose puts the scores themselves where a head predicts no visibility.
        if not any(person.keypoints_visible is person.keypoint_scores for person in found):
            visibility = self._rows([person.keypoints_visible for person in found])
        return Poses(
            self._rows([person.keypoints[..., :2] for person in found]),
            self._rows([person.keypoint_scores for person in found]),
            visibility,
        )

    def _preprocess(self, frame: Frame, box: np.ndarray, mask: np.ndarray | None) -> Any:
        return self._pipeline(
            {
                "img": frame.image,
                "bbox": box[None],
                "bbox_score": np.ones(1, dtype=np.float32),
                "flip_indices": self._flip_indices,
                BackgroundDimming.PERSON_MASK: mask,
            }
        )

    def _rows(self, values: list[Any]) -> np.ndarray:
        """N arrays or tensors (1, channels, ...) -> (N, K, ...) float32 in our joint order."""
        rows = np.concatenate([np.asarray(torch.as_tensor(value).cpu()) for value in values])
        return rows[:, self._channels].astype(np.float32)


def _with_area(boxes: np.ndarray) -> np.ndarray:
    """Grow sides shorter than one pixel to one pixel, about their centre."""
    boxes = np.asarray(boxes, dtype=np.float32)
    grow = np.maximum(_MINIMUM_SIDE - (boxes[:, 2:] - boxes[:, :2]), 0) / 2
    return np.concatenate([boxes[:, :2] - grow, boxes[:, 2:] + grow], axis=1)


def _check_top_down(model: torch.nn.Module, config: Any) -> None:
    top_down = import_openmmlab("mmpose.models").TopdownPoseEstimator
    if not isinstance(model, top_down):
        name = config if isinstance(config, str | Path) else "this config"
        raise ValueError(
            f"{name} describes a {type(model).__name__}; the loop gives boxes and needs a "
            "TopdownPoseEstimator (configs named td-*, simcc_*, rtmpose-* or vit_*)"
        )


def _channel_count(model: torch.nn.Module) -> int:
    """Number of keypoints that the head of ``model`` puts out."""
    head = model.head
    for attribute in ("out_channels", "num_joints"):
        count = getattr(head, attribute, None)
        if isinstance(count, int):
            # UDP's combined targets: a map and two offsets per keypoint.
            combined = getattr(getattr(head, "decoder", None), "heatmap_type", "") == "combined"
            return count // 3 if combined else count
    raise ValueError(
        f"cannot tell how many keypoints MMPose's {type(head).__name__} predicts: it has neither "
        "out_channels nor num_joints; use a top-down network with another head"
    )


def _config_meta(settings: Any) -> dict[str, Any] | None:
    """Parsed keypoint names of the data set that the config trains (or tests) on, if any."""
    parse = import_openmmlab("mmpose.datasets.datasets.utils").parse_pose_metainfo
    datasets = import_openmmlab("mmpose.registry").DATASETS
    for loader in ("train_dataloader", "test_dataloader"):
        dataset = settings.get(loader, {}).get("dataset", {})
        metainfo = dataset.get("metainfo")
        if metainfo is None and "type" in dataset:
            metainfo = getattr(datasets.get(dataset["type"]), "METAINFO", None)
        if metainfo:
            with warnings.catch_warnings():
                # It says that the file of names is taken from the installed package: intended.
                warnings.filterwarnings("ignore", "The metainfo config file")
                parsed: dict[str, Any] = parse(dict(metainfo))
            return parsed
    return None
