# SPDX-License-Identifier: Apache-2.0
"""Average precision of a network in training, on images that are kept aside, and drawings.

The network runs as it will in a preset: its weights go to the engine that the preset will name.
Each network is scored by itself: the pose network in the true boxes with the true masks, the
segmenter with the true joints as prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from torch import Tensor, nn

from bmp_ros.loop.frame import Frame
from bmp_ros.loop.masks import coco_run_lengths
from bmp_ros.loop.prompts import select_prompts
from bmp_ros.loop.skeletons import COCO_17, Skeleton
from bmp_ros.offline.coco_format import run_length_string
from bmp_ros.training.images import TrainingImage

LEAST_SCORE = 0.05
DRAWN_SCORE = 0.3
DRAWN = 6
"""Images on one drawing."""
DRAWN_HEIGHT = 240
MOST_PROMPTS = 6
KINDS = {"detector": "boxes", "pose_estimator": "keypoints", "segmenter": "masks"}


class Scored(Protocol):
    """A task whose checkpoints run as presets."""

    role: str

    def section(self, weights: str) -> dict[str, Any]:
        """What a preset says to run ``weights``."""
        ...


@dataclass
class Answers:
    """What a network answered in one image, and COCO results of it.

    boxes: (N, 4) xyxy. masks: (N, H, W) bool. joints: (N, K, 3) x y score. Empty where none.
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    masks: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 1), bool))
    joints: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 3)))


def preset_section(task: Scored) -> tuple[Any, Any]:
    """The engine that a preset will name for the task, and its settings.

    Raises SettingsError (a ValueError) for what no preset may say, such as a size out of range.
    """
    from bmp_ros.engines.registry import find_engine
    from bmp_ros.fields import settings_from_mapping

    section = task.section("in training")
    declared = find_engine(task.role, section.pop("engine"))
    return declared, settings_from_mapping(declared.options, section, task.role)


def make_engine(task: Scored, state: Mapping[str, Tensor], device: str) -> Any:
    """The engine of the task's role around the tensors of its network."""
    from bmp_ros.engines.registry import Runtime

    declared, settings = preset_section(task)
    return declared.build(settings, dict(state), Runtime(device))


def score_network(
    task: Scored, network: nn.Module, images: Iterable[TrainingImage], device: str, drawing: Path
) -> dict[str, float]:
    """``{"AP": …}`` of images that are kept aside; draw the first answers into a file.

    Images with people are drawn first. Joints that COCO does not have are drawn and not scored.
    """
    from bmp_ros.evaluation.scores import score_results

    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    engine = make_engine(task, state, device)
    results: list[dict[str, Any]] = []
    drawn: list[np.ndarray] = []
    without_people: list[np.ndarray] = []
    truth: dict[str, Any] = {
        "images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}],
    }  # fmt: skip
    for number, labelled in enumerate(images):
        height, width = labelled.image.shape[:2]
        truth["images"].append(
            {"id": number, "height": height, "width": width, "file_name": str(number)}
        )
        for person in _truth_of(labelled):
            truth["annotations"].append({**person, "image_id": number, "category_id": 1})
        answers = _ASK[task.role](engine, labelled)
        for result in answers.results:
            results.append({**result, "image_id": number, "category_id": 1})
        shown = drawn if len(labelled) else without_people
        if len(shown) < DRAWN:
            shown.append(_drawn(labelled, answers))
    drawing.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(drawing), np.hstack((drawn + without_people)[:DRAWN]))
    kind = KINDS[task.role]
    given: dict[str, Any] = {kind: results}
    found = getattr(score_results(truth, **given), kind)
    return {"AP": 0.0 if found.ap is None else float(found.ap)}


def _truth_of(labelled: TrainingImage) -> Iterator[dict[str, Any]]:
    """COCO annotations of an image, in its own pixels."""
    boxes = labelled.boxes if labelled.given_boxes is None else labelled.given_boxes
    for row, box in enumerate(boxes.astype(float)):
        mask = coco_run_lengths(labelled.masks[row]) if labelled.masked[row] else []
        joints = _coco_joints(labelled, row)
        yield {"iscrowd": 0, "bbox": _xywh(box), "keypoints": joints, "segmentation": mask}
    for region in labelled.ignore.astype(float):
        yield {"iscrowd": 1, "bbox": _xywh(region)}


def _coco_joints(labelled: TrainingImage, row: int) -> list[float]:
    if not labelled.skeleton.begins_with_coco:
        return [0.0] * (3 * len(COCO_17))
    joints = np.column_stack([labelled.keypoints[row], labelled.visibility[row]])
    return [float(value) for value in joints[: len(COCO_17)].ravel()]


def _xywh(box: np.ndarray) -> list[float]:
    return [float(value) for value in (box[0], box[1], box[2] - box[0], box[3] - box[1])]


def _detect(engine: Any, labelled: TrainingImage) -> Answers:
    found = engine.detect(Frame(labelled.image), score_threshold=LEAST_SCORE)
    boxes = zip(found.boxes, found.scores, strict=True)
    results = [{"bbox": _xywh(box), "score": float(score)} for box, score in boxes]
    good = np.flatnonzero(found.scores > DRAWN_SCORE)
    masks = Answers().masks
    if found.masks is not None and len(good):
        masks = found.masks(good)
    return Answers(results, found.boxes[good], masks)


def _estimate(engine: Any, labelled: TrainingImage) -> Answers:
    boxes = labelled.boxes if labelled.given_boxes is None else labelled.given_boxes
    if not len(boxes):
        return Answers()
    poses = engine.estimate(Frame(labelled.image), boxes, labelled.masks)
    joints = np.concatenate([poses.keypoints, poses.scores[..., None]], axis=2)
    results = [
        {
            "keypoints": [float(value) for value in row[: len(COCO_17)].ravel()],
            "score": float(row[: len(COCO_17), 2].mean()),
        }
        for row in joints
        if np.isfinite(row).all()
    ]
    return Answers(results if len(joints[0]) >= len(COCO_17) else [], boxes, joints=joints)


def _segment(engine: Any, labelled: TrainingImage) -> Answers:
    frame = Frame(labelled.image)
    results, masks = [], []
    for row in np.flatnonzero(labelled.masked):
        points = true_prompts(labelled, int(row))
        labels = np.ones((1, len(points)), np.int32)
        found = engine.segment(frame, points[None], labels)
        masks.append(found.masks[0])
        segmentation = run_length_string(found.masks[0])
        results.append({"segmentation": segmentation, "score": float(found.scores[0])})
    return Answers(results, masks=np.array(masks, bool)) if masks else Answers()


def true_prompts(labelled: TrainingImage, row: int) -> np.ndarray:
    """(P, 2) float32, P >= 1: labelled joints of a person as the loop would choose them; without
    any, the middle of the mask."""
    seen = (labelled.visibility[row] == 2).astype(np.float32)
    if not seen.any():
        y, x = np.nonzero(labelled.masks[row])
        middle = int(np.argmin((x - x.mean()) ** 2 + (y - y.mean()) ** 2))
        return np.array([[x[middle], y[middle]]], np.float32)
    order = select_prompts(
        labelled.keypoints[row][: len(COCO_17)], seen[: len(COCO_17)], seen[: len(COCO_17)],
        method="distance+confidence", visibility_threshold=0.5, box=labelled.boxes[row],
        limit=MOST_PROMPTS,
    )  # fmt: skip
    return np.asarray(labelled.keypoints[row][order], np.float32)


_ASK = {"detector": _detect, "pose_estimator": _estimate, "segmenter": _segment}


def _drawn(labelled: TrainingImage, answers: Answers) -> np.ndarray:
    """The image with boxes, masks and joints, scaled to a common height."""
    image = labelled.image.copy()
    for mask in answers.masks:
        image[mask] = image[mask] // 2 + np.array([0, 96, 0], np.uint8)
    for box in answers.boxes:
        left, top, right, bottom = (int(value) for value in np.round(box))
        cv2.rectangle(image, (left, top), (right, bottom), (0, 200, 255), 1)
    for edge, row in _edges(answers.joints, labelled.skeleton):
        ends = [tuple(int(value) for value in row[joint, :2].round()) for joint in edge]
        cv2.line(image, ends[0], ends[1], (255, 120, 0), 1)
    scale = DRAWN_HEIGHT / image.shape[0]
    width = max(1, round(image.shape[1] * scale))
    return cv2.resize(image, (width, DRAWN_HEIGHT), interpolation=cv2.INTER_AREA)


def _edges(joints: np.ndarray, skeleton: Skeleton) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    for row in joints:
        for edge in skeleton.edges:
            if max(edge) < len(row) and np.isfinite(row[list(edge)]).all():
                yield edge, row
