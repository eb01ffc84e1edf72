# SPDX-License-Identifier: Apache-2.0
"""Write a preset's networks as ONNX files, checked against torch, and a preset that uses them."""

from __future__ import annotations

import argparse

from bmp_ros.cli.arguments import folder, result_folder

ROLES = ("detector", "pose_estimator", "segmenter")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", metavar="PRESET", help="name of a preset, or path of its YAML")
    parser.add_argument(
        "--output", type=result_folder, required=True, metavar="DIR", help="folder for the files"
    )
    parser.add_argument(
        "--precision",
        choices=("fp16-weights", "fp32", "fp16", "int8"),
        default="fp16-weights",
        help="fp16-weights, fp32: how weights are stored, the graphs compute in fp32; fp16: they "
        "compute in fp16, for GPUs; int8: they are quantised, for CPUs, and compared with those "
        "in fp32 (%(default)s)",
    )
    parser.add_argument(
        "--calibrate",
        type=folder,
        metavar="FOLDER",
        help="for int8: images with people, like those of the camera, at least 4, better 50",
    )
    parser.add_argument(
        "--least-agreement",
        type=float,
        metavar="SHARE",
        help="for int8: agreement with fp32, 0 to 1, below which nothing is written (0.85)",
    )
    parser.add_argument(
        "--keep-fp32",
        action="append",
        choices=ROLES,
        metavar="ROLE",
        help="for int8: a network that stays in fp32 (detector, pose_estimator or segmenter); may "
        "be given again",
    )


def run(args: argparse.Namespace) -> int:
    from bmp_ros.engines.export.int8 import LEAST_AGREEMENT, Calibration
    from bmp_ros.engines.export.preset import export_preset
    from bmp_ros.engines.presets import load_preset

    least = LEAST_AGREEMENT if args.least_agreement is None else args.least_agreement
    if not 0 <= least <= 1:
        raise ValueError(f"--least-agreement is {least:g}, must be between 0 and 1")
    if args.precision != "int8" and (args.least_agreement is not None or args.keep_fp32):
        raise ValueError("--least-agreement and --keep-fp32 are for --precision int8")
    calibration = None
    if args.calibrate is not None:
        calibration = Calibration(args.calibrate, least, tuple(args.keep_fp32 or ()))
    preset = load_preset(args.preset)
    files = export_preset(
        preset,
        args.output,
        precision=args.precision,
        calibration=calibration,
        tell=lambda line: print(line, flush=True),
    )
    before = ", before int8" if calibration else ""
    print(f"\n{'file':<28}{'MB':>8}  smallest cosine similarity to torch{before}")
    for file in files:
        size = file.path.stat().st_size / 1e6
        cosines = ", ".join(f"{name} {value:.6f}" for name, value in file.cosines.items())
        print(f"{file.path.name:<28}{size:>8.2f}  {cosines or '-'}")
    print(f"\nuse it: bmp infer --preset {args.output / f'{preset.name}.yaml'} …")
    return 0
