# SPDX-License-Identifier: Apache-2.0
"""Command line of the trainings: ``python -m bmp_ros.training detector --data DIR --output DIR``.

An interrupted training goes on where it was when called again in the same way.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import torch

from bmp_ros.training.tasks import RECIPES, make_task
from bmp_ros.training.trainer import train


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bmp_ros.training", description=__doc__.split("\n")[0]
    )
    parser.add_argument("network", choices=sorted(RECIPES))
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of bmp_ros.synthetic.dataset"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of this training")
    parser.add_argument("--steps", type=int, help="batches in all")
    parser.add_argument("--batch", type=int, help="pictures per step")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--size", type=_size, help="canvas, WIDTHxHEIGHT, multiples of 32")
    parser.add_argument("--start-from", type=Path, help="weights (.pth) to begin with")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32",
        help="of the computation; bf16 is twice as fast on processors with AVX512-BF16 or AMX",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare samples")
    parser.add_argument("--threads", type=int, help="of the computation (default: all cores)")
    args = parser.parse_args(arguments)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    given = {
        name: value
        for name, value in (
            ("steps", args.steps), ("batch", args.batch), ("learning_rate", args.learning_rate)
        )
        if value is not None
    }  # fmt: skip
    try:
        torch.manual_seed(RECIPES[args.network].schedule.seed)
        task = make_task(args.network, args.data, args.size)
        if args.start_from is not None:
            weights = torch.load(args.start_from, map_location="cpu", weights_only=True)
            task.network.load_state_dict(weights)
        schedule = replace(RECIPES[args.network].schedule, **given)
        weights_file = train(
            task, schedule, args.output, device=args.device, precision=args.precision,
            workers=args.workers,
        )  # fmt: skip
    except (FileNotFoundError, ValueError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(weights_file)
    return 0


def _size(text: str) -> tuple[int, int]:
    width, separator, height = text.partition("x")
    if separator and width.isdigit() and height.isdigit():
        size = int(width), int(height)
        if min(size) >= 32 and not any(side % 32 for side in size):
            return size
    raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT in multiples of 32")


if __name__ == "__main__":
    sys.exit(main())
