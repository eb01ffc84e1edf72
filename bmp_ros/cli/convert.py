# SPDX-License-Identifier: Apache-2.0
"""Write annotations of MPII, AIC or CrowdPose as a COCO file for bmp train."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bmp_ros.cli.arguments import refuse_input, result_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Reads the published annotations of a data set and writes a COCO file whose category "
        "names the data set's joints; recipes find their joint map by them. Images stay in place."
    )
    parser.add_argument("data_set", choices=("mpii", "aic", "crowdpose"))
    parser.add_argument(
        "annotations",
        type=Path,
        help="JSON: MPII's of MMPose or HRNet's authors (mpii_train.json), AIC's "
        "keypoint_train_annotations_*.json, CrowdPose's crowdpose_train.json",
    )
    parser.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="folder of the images"
    )
    parser.add_argument(
        "--output", type=result_file, required=True, metavar="FILE", help="COCO file"
    )


def run(args: argparse.Namespace) -> int:
    from bmp_ros.training.convert import convert

    if not args.images.is_dir():
        raise ValueError(f"--images is {args.images}, which is no folder")
    refuse_input(args.output, "--output", args.annotations)
    document = convert(args.data_set, args.annotations, args.images)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    part = args.output.with_name(args.output.name + ".part")
    part.write_text(json.dumps(document), encoding="utf-8")
    part.replace(args.output)
    people, images = len(document["annotations"]), len(document["images"])
    print(f"{people} people in {images} images: {args.output}")
    return 0
