# SPDX-License-Identifier: Apache-2.0
"""Find people in images, videos or a camera; write drawings, JSON and GIFs of every stage."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bmp_ros.cli.arguments import add_network_arguments, folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Runs the loop over files and writes drawn images and videos into a folder, on request "
        "also results.json (COCO's style) and GIFs of every stage of every iteration. Files that "
        "cannot be read are named and skipped, and the exit code is 1."
    )
    parser.add_argument(
        "--source",
        required=True,
        help="an image, a folder, a video file, the index of a camera or the address of a stream "
        "(rtsp://, http:// …; Ctrl-C ends both), or demo; what exists on disk comes first",
    )
    parser.add_argument(
        "--output",
        type=folder,
        default="out",
        metavar="DIR",
        help="folder to write into (default: %(default)s)",
    )
    add_network_arguments(parser, preset=None)
    parser.add_argument(
        "--detector",
        metavar="NAME",
        help="detector by its name in the weights zoo (`bmp models list`), tiny/detector, or an "
        ".onnx file of `bmp export`; replaces the preset's",
    )
    parser.add_argument(
        "--pose",
        metavar="NAME",
        help="pose estimator, likewise; with both and no --preset: one pass without a segmenter",
    )
    parser.add_argument(
        "--size", metavar="PIXELS", help="of the detector's input: a side, or WIDTHxHEIGHT"
    )
    parser.add_argument(
        "--boxes",
        type=Path,
        metavar="FILE",
        help="boxes of another program instead of the detector's: COCO results as JSON",
    )
    parser.add_argument(
        "--boxes-missing",
        choices=("detector", "skip"),
        default="detector",
        help="of --boxes: images that FILE says nothing of are for the detector, or nobody is "
        "looked for in them (%(default)s)",
    )
    parser.add_argument("--count", type=int, help="stop after so many images and frames")
    parser.add_argument("--json", action="store_true", help="write results.json")
    parser.add_argument(
        "--gif",
        action="store_true",
        help="write NAME.gif: all stages of an image, or of a video's frame with the most people",
    )
    parser.add_argument(
        "--track",
        action="store_true",
        help="give people ids that last over the frames of a video, or the images of a folder",
    )
    parser.add_argument(
        "--rate", type=float, metavar="HZ", help="of --track: images per second of a folder"
    )
    parser.add_argument(
        "--format",
        choices=("mot",),
        help="of --track: write tracks as MOTChallenge's text, NAME.txt per video, images.txt of "
        "all images",
    )
    parser.add_argument("--no-draw", action="store_true", help="write no drawn images or videos")
    for part in ("boxes", "masks", "keypoints"):
        parser.add_argument(f"--no-{part}", action="store_true", help=f"draw no {part}")


def run(args: argparse.Namespace) -> int:
    from bmp_ros import __version__
    from bmp_ros.engines import build_loop
    from bmp_ros.engines.pipeline import by_names, detector_size
    from bmp_ros.image_files import shown_name
    from bmp_ros.offline.box_file import BoxFile
    from bmp_ros.offline.infer_files import Wanted, infer
    from bmp_ros.offline.sources import open_source
    from bmp_ros.offline.video import without_password
    from bmp_ros.tracking import PersonTracker

    wanted = Wanted(
        draw=not args.no_draw,
        boxes=not args.no_boxes,
        masks=not args.no_masks,
        keypoints=not args.no_keypoints,
        json=args.json,
        gif=args.gif,
        mot=args.format == "mot",
    )
    if not (wanted.draw or wanted.json or wanted.gif or wanted.mot):
        raise ValueError("--no-draw without --json, --gif or --format would write nothing")
    for option in ("rate", "format"):
        if getattr(args, option) is not None and not args.track:
            raise ValueError(f"--{option} is for --track, which is missing")
    if args.rate is not None and not 0 < args.rate <= 1000:
        raise ValueError(f"--rate is {args.rate:g}, must be above 0 and at most 1000 hertz")
    if args.count is not None and args.count < 1:
        raise ValueError(f"--count is {args.count}, must be at least 1")
    sources = open_source(args.source, _say)
    boxes = None if args.boxes is None else BoxFile(args.boxes)
    preset: Any = args.preset or "tiny"
    changes: dict[str, Any] = {}
    if args.detector or args.pose:
        preset, changes = by_names(args.detector, args.pose, args.preset)
    if args.size is not None:
        size = {"input_size": detector_size(args.size)}
        changes["detector"] = {**changes.get("detector", {}), **size}
    loop = build_loop(preset, args.device, precision=args.precision, **changes)
    source = shown_name(without_password(args.source))
    names = {"detector": args.detector, "pose": args.pose}
    used = {part: value for part, value in names.items() if value}
    info = {
        "preset": preset if isinstance(preset, str) else None,
        **used,
        "source": source,
        "bmp_ros": __version__,
    }
    outcome = infer(
        loop, sources, args.output, wanted, count=args.count, info=info, progress=True,
        tracker=PersonTracker() if args.track else None, rate=args.rate, boxes=boxes,
        boxes_missing=args.boxes_missing,
    )  # fmt: skip
    for line in [*outcome.notes, *outcome.failures]:
        _say(line)
    print(
        f"{outcome.images} images and {outcome.frames} video frames, {outcome.people} people: "
        f"{shown_name(args.output)}"
    )
    return 1 if outcome.failures else 0


def _say(line: str) -> None:
    print(f"bmp infer: {line}", file=sys.stderr)
