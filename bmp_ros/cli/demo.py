# SPDX-License-Identifier: Apache-2.0
"""See the node at work on the demo clip, over ROS 2, and score what it says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bmp_ros.cli.arguments import add_network_arguments, result_folder

_LAST_DOMAIN = 232
"""The last one whose UDP ports (7400 + 250 per domain) are below 65536."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Starts a camera that shows a clip and bmp_node, as two processes in a DDS domain of "
        "their own, matches results to the clip's ground truth by stamp, and writes "
        "summary.json, drawn images and a GIF."
    )
    add_network_arguments(parser, precision=False)
    parser.add_argument(
        "--source",
        default="clip",
        help="clip (the demo clip), scenes (rendered live), or the path of a video, an image or "
        "a folder of images (%(default)s)",
    )
    parser.add_argument("--images", type=int, help="show so many; without it the whole source")
    parser.add_argument(
        "--rate",
        type=float,
        default=0.0,
        help="images a second; 0: that of the source (%(default)g)",
    )
    parser.add_argument(
        "--output",
        type=result_folder,
        default=Path("out/demo"),
        metavar="DIR",
        help="folder to write into (%(default)s)",
    )
    parser.add_argument(
        "--domain",
        type=int,
        help="ROS domain, to watch it with rviz2 or ros2 topic; without it one of its own",
    )


def run(args: argparse.Namespace) -> int:
    if args.images is not None and args.images < 1:
        raise ValueError(f"--images is {args.images}, needs at least 1")
    if not 0 <= args.rate <= 1000:
        raise ValueError(f"--rate is {args.rate:g}, needs 0 to 1000 images a second")
    if args.domain is not None and not 0 <= args.domain <= _LAST_DOMAIN:
        raise ValueError(f"--domain is {args.domain}, needs 0 to {_LAST_DOMAIN}")
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"the demo runs on ROS 2, which cannot be imported ({error}); run make demo, or "
            "source a workspace with bmp_ros"
        ) from error
    from bmp_ros.demo.demo import DemoSettings, run_demo
    from bmp_ros.demo.processes import ProcessError

    settings = DemoSettings(
        preset=args.preset, device=args.device, source=args.source, images=args.images,
        rate=args.rate, output=args.output, domain=args.domain,
    )  # fmt: skip
    try:
        run_demo(settings)
    except ProcessError as error:  # several lines: the node's log belongs to it
        print(f"bmp demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the camera and the node have ended", file=sys.stderr)
        return 130
    return 0
