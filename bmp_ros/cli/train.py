# SPDX-License-Identifier: Apache-2.0
"""Train a network on images in COCO's format, as a recipe says."""

from __future__ import annotations

import argparse

from bmp_ros.training import command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Trains the network of a recipe (config/training/*.yaml, docs/training.md). A training "
        "that was interrupted goes on when the same command is given again."
    )
    command.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    return command.run(args)
