# SPDX-License-Identifier: Apache-2.0
"""``MMDetDetector``: any MMDetection detector as the loop's detector."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bmp_ros.engines.openmmlab.configs import load_config
from bmp_ros.engines.openmmlab.installation import import_openmmlab
from bmp_ros.engines.openmmlab.models import build_model, build_pipeline
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.protocols import Detections
from bmp_ros.weights.checkpoint import load_checkpoint

_RTMDET_INS_CLASSES = "bbox_head.rtm_cls.0.weight"

_log = logging.getLogger(__name__)


class MMDetDetector:
    """People found by an MMDetection detector, with masks where the network has them.

    config: see ``load_config``, for example ``"rtmdet-ins_l_8xb32-300e_coco"``.
    checkpoint: path of the weights; None leaves them random (for tests). The number of classes of
    an RTMDet-Ins checkpoint is read from the weights, so those with 1 class fit too.
    device: anything torch understands.

    MMDetection decodes the masks of everything it found, in the size of the image; only their
    selection and their way to the CPU wait until the loop asks.
    """

    def __init__(
        self,
        config: str | Path | Mapping[str, Any] | Any,
        checkpoint: str | Path | None,
        *,
        device: str = "cpu",
    ) -> None:
        settings = load_config(config, "mmdet")
        weights = None if checkpoint is None else load_checkpoint(checkpoint)
        if weights is not None and _RTMDET_INS_CLASSES in weights.state_dict:
            settings.model.bbox_head.num_classes = len(weights.state_dict[_RTMDET_INS_CLASSES])
        self.model = build_model(settings, "mmdet", weights, device)
        self._pipeline = build_pipeline(_array_pipeline(settings), settings, "mmdet")
        self._person = _person_label(_class_names(settings, weights.meta if weights else {}))
        self._score_limits = _score_limits(self.model)

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        """Return people with score > ``score_threshold``, in the order of the network.

        The threshold also replaces the network's own, so what falls below it costs neither NMS
        nor mask decoding.
        """
        for limits in self._score_limits:
            limits["score_thr"] = float(score_threshold)
        data = self._pipeline({"img": frame.image, "img_id": 0})
        batch = {"inputs": [data["inputs"]], "data_samples": [data["data_samples"]]}
        with torch.no_grad():
            found = self.model.test_step(batch)[0].pred_instances
        # MMDetection lets boxes reach into the padding of the network's input.
        right_bottom = found.bboxes.new_tensor([frame.width, frame.height])
        boxes = found.bboxes.view(-1, 2, 2).clamp(min=0).minimum(right_bottom)
        inside = (boxes[:, 0] < boxes[:, 1]).all(dim=1)
        wanted = (found.labels == self._person) & (found.scores > score_threshold) & inside
        rows = torch.nonzero(wanted).flatten()
        boxes = boxes[rows].flatten(1).cpu().numpy().astype(np.float32)
        scores = found.scores[rows].cpu().numpy().astype(np.float32)
        if "masks" not in found:
            return Detections(boxes, scores)
        return Detections(boxes, scores, _MaskRows(found.masks, rows, frame))


class _MaskRows:
    """The masks of some rows of a network's output; called with indices into these rows."""

    def __init__(self, masks: torch.Tensor, rows: torch.Tensor, frame: Frame) -> None:
        self._masks = masks
        self._rows = rows
        self._height, self._width = frame.height, frame.width

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        """(n,) int -> (n, H, W) bool in the size of the frame."""
        chosen = self._rows[torch.as_tensor(indices, dtype=torch.long, device=self._rows.device)]
        masks = self._masks[chosen.to(self._masks.device)].bool().cpu().numpy()
        # RTMDet-Ins resizes masks with the x and y scales swapped, which are not quite equal
        # after rounding: the result may lack a row or a column. Repeat the last one.
        masks = masks[:, : self._height, : self._width]
        lacking = (self._height - masks.shape[1], self._width - masks.shape[2])
        if any(lacking):
            masks = np.pad(masks, ((0, 0), (0, lacking[0]), (0, lacking[1])), mode="edge")
        return masks


def _array_pipeline(settings: Any) -> list[Any]:
    """The config's test pipeline, taking the image from memory and reading no annotations."""
    steps = import_openmmlab("mmdet.utils").get_test_pipeline_cfg(settings)
    kept = [step for step in steps if "Annotations" not in str(step["type"])]
    return [{**kept[0], "type": "mmdet.LoadImageFromNDArray"}, *kept[1:]]


def _class_names(settings: Any, checkpoint_meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names from the checkpoint, else from the config's test data set, else none."""
    data_meta = checkpoint_meta.get("dataset_meta") or checkpoint_meta
    names = data_meta.get("classes") or data_meta.get("CLASSES")
    if names is None:
        dataset = settings.test_dataloader.dataset
        names = dataset.get("metainfo", {}).get("classes")
        if names is None:
            datasets = import_openmmlab("mmdet.registry").DATASETS
            names = getattr(datasets.get(dataset["type"]), "METAINFO", {}).get("classes", ())
    return (names,) if isinstance(names, str) else tuple(names)


def _person_label(class_names: tuple[str, ...]) -> int:
    if "person" in class_names:
        return class_names.index("person")
    _log.warning(
        "no class of this detector is named 'person'; class 0 (%s) is taken for people",
        class_names[0] if class_names else "without a name",
    )
    return 0


def _score_limits(model: torch.nn.Module) -> list[Any]:
    """All test settings with a ``score_thr`` inside ``model``: changing them changes the net."""
    limits: dict[int, Any] = {}
    pending = [module.test_cfg for module in model.modules() if hasattr(module, "test_cfg")]
    while pending:
        settings = pending.pop()
        if isinstance(settings, dict):
            pending.extend(settings.values())
            if "score_thr" in settings:
                limits[id(settings)] = settings
    return list(limits.values())
