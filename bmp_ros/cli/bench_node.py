# SPDX-License-Identifier: Apache-2.0
"""``bmp bench node``: the node measured from a second process, over ROS 2."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from bmp_ros.cli.arguments import add_network_arguments, result_file

MOST_CAMERAS = 8
"""More processes than that say nothing about the node."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Shows the demo clip to bmp_node at 640x480 and 1920x1080, and prints how old "
        "results are when they arrive, their rate, how long services take meanwhile, which images "
        "the transport lost, and (with scripted networks) what the node adds to the loop; with "
        "the limits that it is meant to hold on a machine that does nothing else."
    )
    add_network_arguments(parser, precision=False)
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of each of the four runs (%(default)s)"
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=30.0,
        metavar="HZ",
        help="images per second of the camera (%(default)s); the clip is meant for 12",
    )
    parser.add_argument(
        "--cameras",
        type=int,
        default=1,
        metavar="N",
        help="measure each size once more with N cameras that show the clip at once",
    )
    parser.add_argument(
        "--detection-interval",
        type=int,
        default=1,
        metavar="N",
        help="measure 640x480 once more with this interval (docs/tracking.md)",
    )
    parser.add_argument(
        "--untuned", action="store_true", help="Fast DDS as it is, without config/fastdds.xml"
    )
    parser.add_argument(
        "--json", type=result_file, metavar="FILE", help="write everything as JSON"
    )


def run(args: argparse.Namespace) -> int:
    if not args.seconds >= 1:
        raise ValueError(f"--seconds is {args.seconds}, needs at least 1")
    if not 1 <= args.detection_interval <= 30:
        raise ValueError(f"--detection-interval is {args.detection_interval}, must be 1 to 30")
    if not 1 <= args.cameras <= MOST_CAMERAS:
        raise ValueError(f"--cameras is {args.cameras}, must be 1 to {MOST_CAMERAS}")
    if not 1 <= args.rate <= 1000:
        raise ValueError(f"--rate is {args.rate}, must be 1 to 1000")
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"the node runs on ROS 2, which cannot be imported ({error}); use "
            "scripts/with_ros python -m bmp_ros bench node, or source a workspace with bmp_ros"
        ) from error
    from bmp_ros.demo.node_benchmark import lines, measure_node
    from bmp_ros.demo.processes import ProcessError, ProgressLine
    from bmp_ros.machine import machine, machine_line

    if args.json:  # found out now rather than after the work
        args.json.parent.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, ProgressLine() as progress:
        try:
            figures = measure_node(
                args.preset, args.device, args.seconds, Path(folder), tuned=not args.untuned,
                interval=args.detection_interval, cameras=args.cameras, rate=args.rate,
                say=progress.show,
            )  # fmt: skip
        except ProcessError as error:
            progress.clear()
            print(f"bmp bench node: {error}", file=sys.stderr)
            return 1
    profile = "none" if args.untuned else "config/fastdds.xml"
    print(f"{machine_line()}, load {load:.1f} before the start; Fast DDS profile: {profile}")
    for line in ["", *lines(figures)]:
        print(line)
    if args.json:
        content = {
            "machine": machine(),
            "load_before": load,
            "preset": args.preset,
            "seconds": args.seconds,
            "fastdds_profile": profile,
            "figures": {
                heading: [figure.to_dict() for figure in group]
                for heading, group in figures.items()
            },
        }
        args.json.write_text(
            json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
    return 0
