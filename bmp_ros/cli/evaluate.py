# SPDX-License-Identifier: Apache-2.0
"""Score boxes, masks and keypoints against ground truth (COCO's average precision)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bmp_ros.cli.arguments import add_network_arguments, folder

Number = TypeVar("Number", int, float)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Runs the loop on pictures with ground truth and prints COCO's average precision and "
        "recall of boxes, masks and keypoints, false positives and milliseconds per frame, for "
        "every combination of --iterations and --box-nms."
    )
    parser.add_argument(
        "--dataset",
        required=True,
        help="easy, crowded, heavy, train (rendered people), demo (the demo clip), or a folder "
        "with images and annotations.json in COCO's format",
    )
    add_network_arguments(parser)
    parser.add_argument("--count", type=int, help="pictures; without it 300 of a split, else all")
    parser.add_argument(
        "--iterations", metavar="N", help="values to try, for instance 1,2; default: the preset's"
    )
    parser.add_argument("--box-nms", metavar="IOU", help="likewise, for instance 0.3,0.6")
    parser.add_argument(
        "--detection-threshold",
        type=float,
        metavar="T",
        help="of the detector, instead of the preset's; false positives are counted above the "
        "preset's all the same",
    )
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="a folder's COCO file")
    parser.add_argument(
        "--cache", type=folder, metavar="DIR", help="keep rendered pictures here, or use those"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")


def run(args: argparse.Namespace) -> int:
    from bmp_ros.engines import build_loop
    from bmp_ros.evaluation.datasets import open_dataset
    from bmp_ros.evaluation.evaluate_loop import evaluate
    from bmp_ros.evaluation.report import report_lines
    from bmp_ros.evaluation.scores import import_pycocotools
    from bmp_ros.machine import machine_line

    iterations = _numbers(args.iterations, "--iterations", int)
    box_nms = _numbers(args.box_nms, "--box-nms", float)
    import_pycocotools()
    if args.json:  # found out now rather than after the work
        args.json.parent.mkdir(parents=True, exist_ok=True)
    # The loop first: it is built in seconds, and pictures may take minutes to render.
    loop = build_loop(args.preset, args.device, precision=args.precision)
    dataset = open_dataset(
        args.dataset, count=args.count, annotations=args.annotations, cache=args.cache
    )
    evaluation = evaluate(
        loop, dataset, iterations=iterations, box_nms_iou=box_nms,
        detection_threshold=args.detection_threshold, progress=True,
    )  # fmt: skip
    print(f"preset {args.preset}, device {args.device}, {args.precision}; {machine_line()}")
    print("\n".join(report_lines(evaluation)))
    if args.json:
        document = {
            "preset": args.preset,
            "device": args.device,
            "precision": args.precision,
            **evaluation.to_dict(),
        }
        args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def _numbers(text: str | None, option: str, kind: Callable[[str], Number]) -> list[Number] | None:
    """The numbers of a list such as ``0.3,0.6``."""
    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        what = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"{option} is {text!r}, needs {what} with commas between") from error
