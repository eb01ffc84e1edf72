# SPDX-License-Identifier: Apache-2.0
"""Score boxes, masks, keypoints (COCO's average precision) and ids (HOTA) against ground truth."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from bmp_ros.cli.arguments import (
    add_network_arguments,
    add_report_argument,
    check_report,
    folder,
    refuse_input,
    result_file,
)

Number = TypeVar("Number", int, float)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Runs the loop on images with ground truth and prints COCO's average precision and "
        "recall of boxes, masks and keypoints, false positives and milliseconds per frame, for "
        "every combination of --iterations and --box-nms. With --tracks: runs loop and tracker on "
        "sequences and prints HOTA, DetA, AssA, IDF1, MOTA and identity switches."
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--tracks",
        type=Path,
        metavar="FOLDER",
        help="sequences with identities: MOTChallenge folders, or rendered clips (python -m "
        "bmp_ros.synthetic.tracking_clips)",
    )
    source.add_argument(
        "--dataset",
        help="easy, crowded, heavy, train (rendered people), demo (the demo clip), or a folder "
        "with images and annotations.json in COCO's format",
    )
    source.add_argument(
        "--mpii",
        type=Path,
        metavar="FOLDER",
        help="images of MPII Human Pose: PCKh@0.5 of the pose estimator in the annotated crops",
    )
    add_network_arguments(parser)
    parser.add_argument("--count", type=int, help="images; without it 300 of a split, else all")
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
    parser.add_argument(
        "--annotations",
        type=Path,
        metavar="FILE",
        help="a folder's COCO file; of --mpii its JSON file (default: annotations.json)",
    )
    parser.add_argument(
        "--head-boxes",
        type=Path,
        metavar="FILE",
        help="of --mpii: mpii_gt_val.mat, where the annotations have no head_box",
    )
    parser.add_argument(
        "--cache", type=folder, metavar="DIR", help="keep rendered images here, or use those"
    )
    parser.add_argument(
        "--rates",
        metavar="HZ",
        help="of --tracks: images per second to use, for instance 30,15,7.5,5; default: all",
    )
    parser.add_argument(
        "--drop",
        type=float,
        metavar="SHARE",
        help="of --tracks: each rate once more with this share of images dropped at random, at "
        "most 0.9",
    )
    parser.add_argument(
        "--from-truth",
        action="store_true",
        help="of --tracks: take people from the ground truth of rendered clips, not from the loop",
    )
    parser.add_argument(
        "--no-ego-motion",
        action="store_true",
        help="of --tracks: do not tell the tracker how the camera of rendered clips turned",
    )
    parser.add_argument(
        "--json", type=result_file, metavar="FILE", help="write everything as JSON"
    )
    add_report_argument(parser)


def run(args: argparse.Namespace) -> int:
    if args.report is not None and args.mpii is not None:
        raise ValueError("--report is for --dataset and --tracks, not for --mpii")
    check_report(args.report)
    read = [Path(args.preset), args.annotations, args.head_boxes]
    if args.dataset or args.mpii:
        read.append(Path(args.dataset or args.mpii).expanduser() / "annotations.json")
    refuse_input(args.json, "--json", *read)
    if args.mpii is not None:
        return _run_mpii(args)
    if args.head_boxes is not None:
        raise ValueError("--head-boxes is for --mpii")
    return _run_dataset(args) if args.tracks is None else _run_tracks(args)


def _run_mpii(args: argparse.Namespace) -> int:
    from bmp_ros.engines import build_loop
    from bmp_ros.evaluation.pckh import (
        evaluate_pckh,
        mpii_joints,
        progress_bar,
        read_mpii,
        report_lines,
    )
    from bmp_ros.machine import machine_line

    for option in ("iterations", "box_nms", "detection_threshold", "cache", "rates", "drop"):
        if getattr(args, option) is not None:
            raise ValueError(f"--{option.replace('_', '-')} is not for --mpii")
    if args.count is not None and args.count < 1:
        raise ValueError(f"--count is {args.count}, must be at least 1")
    folder = args.mpii.expanduser()
    people = read_mpii(args.annotations or folder / "annotations.json", args.head_boxes)
    if args.json:  # found out now rather than after the work
        args.json.parent.mkdir(parents=True, exist_ok=True)
    estimator = build_loop(args.preset, args.device, precision=args.precision).pose_estimator
    mpii_joints(estimator.skeleton)
    scores = evaluate_pckh(estimator, folder, people[: args.count], progress_bar)
    print(f"preset {args.preset}, device {args.device}, {args.precision}; {machine_line()}")
    print("\n".join(report_lines(scores)))
    if args.json:
        document = {"preset": args.preset, "device": args.device, "precision": args.precision}
        text = json.dumps({**document, **asdict(scores)}, indent=2)
        args.json.write_text(text + "\n", encoding="utf-8")
    return 0


def _run_tracks(args: argparse.Namespace) -> int:
    from bmp_ros.engines import build_loop
    from bmp_ros.evaluation.evaluate_tracks import (
        Timing,
        evaluate_tracks,
        report_lines,
        true_people,
    )
    from bmp_ros.evaluation.sequences import open_sequences
    from bmp_ros.evaluation.tracking_scores import import_trackeval
    from bmp_ros.machine import machine_line
    from bmp_ros.reporting.tracks_page import TracksLog, timed_loop, write_tracks_page

    for option in (
        "count",
        "iterations",
        "box_nms",
        "detection_threshold",
        "annotations",
        "cache",
    ):
        if getattr(args, option) is not None:
            raise ValueError(f"--{option.replace('_', '-')} is for --dataset, not for --tracks")
    import_trackeval()
    rates: list[float | None] = [None]
    if (given := _numbers(args.rates, "--rates", float)) is not None:
        rates = [*given]
    timings = [Timing(rate) for rate in rates]
    if args.drop is not None:
        timings += [Timing(rate, args.drop) for rate in rates]
    sequences = open_sequences(args.tracks.expanduser(), _say)
    for timing, sequence in itertools.product(timings, sequences):  # found out before the work
        timing.choose_of(sequence)
        if too_fast := timing.too_fast_for(sequence):
            _say(too_fast)
    ego_motion = not args.no_ego_motion
    if args.json:  # found out now rather than after the work
        args.json.parent.mkdir(parents=True, exist_ok=True)
    log = TracksLog(len(timings))
    if args.from_truth:
        find = log.watched(lambda frame: (true_people(frame), {}))
        used = "people from the ground truth"
    else:
        loop = build_loop(args.preset, args.device, precision=args.precision)
        find = log.watched(timed_loop(loop))
        used = f"preset {args.preset}, device {args.device}, {args.precision}"
    make_tracker = None if args.report is None else log.make_tracker
    results = evaluate_tracks(find, sequences, timings, make_tracker, ego_motion=ego_motion)
    print(f"{used}; {machine_line()}")
    names = ", ".join(sequence.name for sequence in sequences)
    print(f"{sum(map(len, sequences))} images of {len(sequences)} sequences: {names}")
    print("\n".join(report_lines(results)))
    if args.report is not None:
        facts = [("people", used), ("sequences", names)]
        write_tracks_page(args.report, f"Tracks in {args.tracks.name}", facts, results, log)
    if args.json:
        document = {
            "preset": None if args.from_truth else args.preset,
            "ego_motion": ego_motion,
            "timings": [result.to_dict() for result in results],
        }
        args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def _run_dataset(args: argparse.Namespace) -> int:
    from bmp_ros.engines import build_loop
    from bmp_ros.evaluation.datasets import open_dataset
    from bmp_ros.evaluation.evaluate_loop import evaluate
    from bmp_ros.evaluation.report import report_lines
    from bmp_ros.evaluation.scores import ScoreDetails, import_pycocotools
    from bmp_ros.machine import machine_line
    from bmp_ros.reporting.evaluation_page import EvaluationLog, write_evaluation_page

    iterations = _numbers(args.iterations, "--iterations", int)
    box_nms = _numbers(args.box_nms, "--box-nms", float)
    import_pycocotools()
    for option in ("rates", "drop"):
        if getattr(args, option) is not None:
            raise ValueError(f"--{option} is for --tracks, not for --dataset")
    for option in ("from_truth", "no_ego_motion"):
        if getattr(args, option):
            raise ValueError(f"--{option.replace('_', '-')} is for --tracks, not for --dataset")
    if args.json:  # found out now rather than after the work
        args.json.parent.mkdir(parents=True, exist_ok=True)
    # The loop first: it is built in seconds, and images may take minutes to render.
    loop = build_loop(args.preset, args.device, precision=args.precision)
    dataset = open_dataset(
        args.dataset, count=args.count, annotations=args.annotations, cache=args.cache,
        leave_out=seen_by_preset(args.preset),
    )  # fmt: skip
    if left_out := getattr(dataset, "left_out", 0):
        print(f"{left_out} images left out: the networks were trained on them")
    details: list[ScoreDetails] = []
    log = None
    if args.report is not None:
        own = loop.settings.detection_threshold
        log = EvaluationLog(max(own, args.detection_threshold or 0.0))
    evaluation = evaluate(
        loop, dataset, iterations=iterations, box_nms_iou=box_nms,
        detection_threshold=args.detection_threshold, progress=True, details=details,
        watch=None if log is None else log.add,
    )  # fmt: skip
    if log is not None:
        facts = [("preset", args.preset), ("device", args.device), ("precision", args.precision),
                 ("images", str(evaluation.images))]  # fmt: skip
        title = f"{evaluation.dataset}, preset {args.preset}"
        write_evaluation_page(args.report, title, facts, evaluation, details, log)
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


def seen_by_preset(preset: str) -> frozenset[int]:
    """The COCO ids that the network files of a preset name, by its name or path."""
    from bmp_ros.engines.build import locate_weights
    from bmp_ros.engines.presets import load_preset
    from bmp_ros.evaluation.seen_images import seen_coco_ids

    return seen_coco_ids(locate_weights(load_preset(preset)).values())


def _numbers(text: str | None, option: str, kind: Callable[[str], Number]) -> list[Number] | None:
    """The numbers of a list such as ``0.3,0.6``."""
    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        what = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"{option} is {text!r}, needs {what} with commas between") from error


def _say(line: str) -> None:
    print(f"bmp evaluate: {line}", file=sys.stderr)
