# SPDX-License-Identifier: Apache-2.0
"""Write a preset's networks as ONNX files, checked against torch, and a preset that uses them."""

from __future__ import annotations

import argparse

from bmp_ros.cli.arguments import folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", metavar="PRESET", help="name of a preset, or path of its YAML")
    parser.add_argument(
        "--output", type=folder, required=True, metavar="DIR", help="folder for the files"
    )
    parser.add_argument(
        "--precision",
        choices=("fp16-weights", "fp32"),
        default="fp16-weights",
        help="how weights are stored; the graphs compute in fp32 either way (%(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    from bmp_ros.engines.export.preset import export_preset
    from bmp_ros.engines.presets import load_preset

    preset = load_preset(args.preset)
    files = export_preset(
        preset, args.output, precision=args.precision, tell=lambda line: print(line, flush=True)
    )
    print(f"\n{'file':<28}{'MB':>8}  smallest cosine similarity to torch")
    for file in files:
        size = file.path.stat().st_size / 1e6
        cosines = ", ".join(f"{name} {value:.6f}" for name, value in file.cosines.items())
        print(f"{file.path.name:<28}{size:>8.2f}  {cosines}")
    print(f"\nuse it: bmp infer --preset {args.output / f'{preset.name}.yaml'} …")
    return 0
