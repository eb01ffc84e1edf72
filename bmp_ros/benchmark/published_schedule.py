# SPDX-License-Identifier: Apache-2.0
"""The order of work of the published BBoxMaskPose, with our engines: the baseline of `bmp bench`.

The networks are the very same objects; what differs is how often and in which portions they are
asked, and the work on the host around them, restated from what the published code does:

* the image is embedded again in every iteration, and every person's prompt decoded on its own;
* all instances that the detector kept (up to 40) get a full-size mask;
* every person's background is dimmed in a copy of the whole image, from a mask that went through
  polygons, and the mirrored crops pass the network on their own, all channels decoded one person
  after the other;
* masks are made exclusive by an argmax over scores times masks of all people.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch

from bmp_ros.engines.crops import crop_geometry, pose_inputs
from bmp_ros.engines.heatmaps import decode_udp_dark
from bmp_ros.engines.protocols import Detections, Detector, Poses, Segmenter, Segments
from bmp_ros.engines.torch.heatmaps import merge_flipped
from bmp_ros.engines.torch.vit_pose_estimator import VitPoseEstimator
from bmp_ros.loop.bmp_loop import BMPLoop, Record
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import Skeleton, skeleton_of_size
from bmp_ros.loop.trace import StageTimer

_MAX_PER_IMAGE = 40
_DEFAULT_FACTOR = 0.8


class PublishedLoop(BMPLoop):
    """The loop with a fresh embedding per iteration and float products for exclusive masks."""

    def _segment(
        self, frame: Frame, found: People, others: People, timer: StageTimer, record: Record
    ) -> People:
        return super()._segment(Frame(frame.image.copy()), found, others, timer, record)

    def _accept(self, people: People, found: People, timer: StageTimer) -> People:
        everyone = super()._accept(people, found, timer)
        with timer("exclusive_masks"):
            weighted = everyone.raw_masks * everyone.mask_scores[:, None, None].astype(np.float64)
            owner = weighted.argmax(axis=0)
            covered = everyone.raw_masks.any(axis=0)
            masks = np.stack([covered & (owner == row) for row in range(len(everyone))])
            return replace(everyone, masks=masks)

    def _share_pixels(self, people: People, timer: StageTimer) -> People:
        return people


class FullSizeMasksDetector:
    """Decodes all instances to full size, whoever is asked for."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        found = self._detector.detect(frame, score_threshold=score_threshold)
        if found.masks is None:
            return found
        decoded = found.masks(np.arange(min(len(found.scores), _MAX_PER_IMAGE)))
        return Detections(found.boxes, found.scores, lambda indices: decoded[indices])


class OneByOneSegmenter:
    """One decoder call per person."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    def segment(self, frame: Frame, points: np.ndarray, labels: np.ndarray) -> Segments:
        answers = [
            self._segmenter.segment(frame, points[row : row + 1], labels[row : row + 1])
            for row in range(len(points))
        ]
        return Segments(
            np.concatenate([answer.masks for answer in answers]),
            np.concatenate([answer.scores for answer in answers]),
        )


class FullImageDimmingEstimator:
    """Dims whole images, flips in a second pass, decodes all channels person by person."""

    def __init__(self, estimator: VitPoseEstimator) -> None:
        self._estimator = estimator
        self._network = estimator.network
        self._channels = skeleton_of_size(self._network.num_keypoints)

    @property
    def skeleton(self) -> Skeleton:
        return self._estimator.skeleton

    @torch.inference_mode()
    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        geometry = crop_geometry(boxes, self._network.input_size)
        crops = []
        for row in range(len(boxes)):
            image = frame.image if masks is None else self._dimmed(frame.image, masks[row])
            crops.append(pose_inputs(image, geometry[row : row + 1]))
        inputs = torch.from_numpy(np.concatenate(crops)).to(self._estimator.device)
        straight, mirrored = (_as_tuple(self._network(half)) for half in (inputs, inputs.flip(3)))
        flip_indices = torch.from_numpy(self._channels.flip_indices).to(inputs.device)
        outputs = [
            merge_flipped(torch.cat(pair), flip_indices).float().cpu().numpy()
            for pair in zip(straight, mirrored, strict=True)
        ]
        decoded = [decode_udp_dark(heatmaps[None]) for heatmaps in outputs[0]]
        points = np.concatenate([points for points, _ in decoded])
        peaks = np.concatenate([peaks for _, peaks in decoded])
        joints = len(self.skeleton)
        presence, visibility, scores = outputs[1:] if len(outputs) > 1 else (None, None, peaks)
        return Poses(
            geometry.points_to_image(points, self._network.heatmap_size)[:, :joints],
            scores[:, :joints],
            None if visibility is None else visibility[:, :joints],
            None if presence is None else presence[:, :joints],
        )

    def _dimmed(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The whole image with the background darker, by way of the mask's outer polygons."""
        outlines, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        polygons = np.zeros(mask.shape, np.uint8)
        cv2.fillPoly(polygons, [line for line in outlines if len(line) > 3], 1)
        masked = image.copy() * polygons[:, :, None]
        factor = self._estimator.background_factor
        keep = _DEFAULT_FACTOR if factor is None else factor
        return cv2.addWeighted(image, keep, masked, 1 - keep, 0)


def _as_tuple(output: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Heatmaps alone, or PMPose's heatmaps, presence, visibility and OKS."""
    return (output,) if isinstance(output, torch.Tensor) else output
