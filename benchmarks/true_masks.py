# SPDX-License-Identifier: Apache-2.0
"""How much of a second iteration hangs on the masks: evaluate with the true ones painted out.

``python benchmarks/true_masks.py --preset tiny --dataset heavy`` runs one iteration and two with
the preset's own networks, then two with a segmenter that knows the truth: it answers with the mask
of the person whom the detector's mask fits best. Detector and pose estimator are the same, so the
last block is the most that better masks could give.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bmp_ros.engines import build_loop
from bmp_ros.evaluation.datasets import Dataset, LabelledImage, open_dataset
from bmp_ros.evaluation.evaluate_loop import evaluate
from bmp_ros.evaluation.report import report_lines
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.masks import mask_from_run_lengths
from bmp_ros.loop.protocols import Segments
from bmp_ros.machine import machine_line

LEAST_OVERLAP = 0.3
"""IoU below which a detection is nobody's, and keeps its mask."""


class TrueMasks:
    """A segmenter that has seen the answers, and the data set that shows them to it."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._truth = np.empty((0, 0, 0), np.bool_)

    @property
    def name(self) -> str:
        return f"{self._dataset.name}, true masks"

    @property
    def categories(self) -> Sequence[Mapping[str, Any]]:
        return self._dataset.categories

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[LabelledImage]:
        for picture in self._dataset:
            masks = [
                mask_from_run_lengths(person["segmentation"]) for person in picture.annotations
            ]
            self._truth = np.array(masks, np.bool_).reshape(-1, *picture.image.shape[:2])
            yield picture

    def segment(
        self,
        frame: Frame,
        points: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
    ) -> Segments:
        if masks is None:
            raise ValueError("the detector of this preset has no masks to compare with the truth")
        answers = masks.copy()
        if len(self._truth):
            truth, guess = (m.reshape(len(m), -1).astype(np.float32) for m in (self._truth, masks))
            shared = guess @ truth.T
            overlap = shared / np.maximum(guess.sum(1)[:, None] + truth.sum(1) - shared, 1)
            fits = overlap.max(axis=1) >= LEAST_OVERLAP
            answers[fits] = self._truth[overlap.argmax(axis=1)[fits]]
        return Segments(answers, np.ones(len(masks), np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--dataset", default="heavy", help="a split, or a folder of one")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--cache", type=Path, help="keep rendered images here, or use those")
    args = parser.parse_args()
    loop = build_loop(args.preset)
    dataset = open_dataset(args.dataset, count=args.count, cache=args.cache)
    print(f"preset {args.preset}; {machine_line()}")
    own = evaluate(loop, dataset, iterations=[1, 2], box_nms_iou=[0.3, 0.7], progress=True)
    print("\n".join(report_lines(own)) + "\n")
    loop.segmenter = truth = TrueMasks(dataset)
    best = evaluate(loop, truth, iterations=[2], box_nms_iou=[0.3, 0.7], progress=True)
    print("\n".join(report_lines(best)))


if __name__ == "__main__":
    main()
