# SPDX-License-Identifier: Apache-2.0
"""Write a COCO file of what a preset sees in a folder, or the masks that labels lack."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bmp_ros.cli.arguments import add_network_arguments, result_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Runs a preset over the images of a folder and writes boxes, joints and masks in COCO's "
        "format, for bmp train. With --annotations, people keep their labels and get the masks "
        "that they lack. An interrupted run goes on when the same command is given again."
    )
    parser.add_argument("folder", type=Path, help="folder of the images, or with images/ in it")
    parser.add_argument(
        "--output", type=result_file, required=True, metavar="FILE", help="COCO file"
    )
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE", help="a COCO file whose people need masks"
    )
    add_network_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from bmp_ros.engines import build_loop
    from bmp_ros.training.annotate import annotate

    if not args.folder.is_dir():
        raise ValueError(f"{args.folder} is no folder")
    loop = build_loop(args.preset, args.device, precision=args.precision)
    done = annotate(loop, args.folder, args.output, args.preset, args.annotations)
    for line in done.failed:
        print(f"left out: {line}", file=sys.stderr)
    before = f", {done.before} of them by an earlier run" if done.before else ""
    print(f"{done.people} people in {done.images} images{before}: {args.output}")
    return 1 if done.failed else 0
