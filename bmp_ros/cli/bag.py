# SPDX-License-Identifier: Apache-2.0
"""Find people in every image of a rosbag2 and write a bag with the results; no ROS needed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bmp_ros.cli.arguments import add_network_arguments, add_report_argument, check_report
from bmp_ros.cli.signals import ended_in_order

if TYPE_CHECKING:
    from bmp_ros.bags.depth_of_bag import DepthSelection
    from bmp_ros.bags.process import Outcome


MOST_SECONDS = 1e9
"""More than 30 years: log times are nanoseconds in 64 bits."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Copies a bag message by message and adds the people of every image, with ids, on "
        "/bmp/poses (bmp_msgs/PersonArray), with the image's header and log time; with --depth in "
        "metres, too, on /bmp/poses_3d. Exit code 1 when an image could not be read or processed, "
        "no image has depth, or the bag is damaged."
    )
    parser.add_argument("source", type=Path, metavar="IN", help="a bag's folder, .mcap or .db3")
    parser.add_argument(
        "target", type=Path, metavar="OUT", help="a new folder, or a new file with .mcap"
    )
    add_network_arguments(parser)
    parser.add_argument(
        "--image", metavar="TOPIC", help="images to process; default: the only topic with some"
    )
    parser.add_argument(
        "--start", type=float, default=0.0, metavar="S", help="leave out so many seconds before"
    )
    parser.add_argument(
        "--duration", type=float, metavar="S", help="leave out what is later than so many seconds"
    )
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="process one in N images (%(default)s)"
    )
    parser.add_argument(
        "--results-only", action="store_true", help="write the results alone, copy nothing"
    )
    parser.add_argument(
        "--prefix", default="/bmp", metavar="NS", help="namespace of the results (%(default)s)"
    )
    parser.add_argument(
        "--smooth",
        action="store_true",
        help="also write smoothed joints: poses_smooth, with --depth poses_3d_smooth",
    )
    _add_depth_arguments(parser)
    parser.add_argument(
        "--anonymise",
        choices=("bodies", "faces"),
        help="write the images with people pixelated, under their own topic, and leave out every "
        "other topic that shows pictures",
    )
    parser.add_argument(
        "--blur", action="store_true", help="of --anonymise: blur people instead of pixelating"
    )
    parser.add_argument(
        "--keep-pictures",
        action="append",
        default=[],
        metavar="TOPIC",
        help="of --anonymise: a topic of pictures that is copied as it is; may be given again",
    )
    add_report_argument(parser)
    parser.add_argument("--no-track", action="store_true", help="give people no ids")


def _add_depth_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--depth",
        metavar="TOPIC",
        help="depth images registered to the images: writes people in metres (poses_3d)",
    )
    parser.add_argument(
        "--camera-info", metavar="TOPIC", help="calibration of the images; default: beside them"
    )
    parser.add_argument(
        "--depth-camera-info",
        metavar="TOPIC",
        help="calibration of the depth images; default: beside them, if there",
    )
    for option, what in (("--rectified", "images"), ("--depth-rectified", "depth images")):
        parser.add_argument(
            option,
            choices=("auto", "true", "false"),
            default="auto",
            help=f"whether the {what} are rectified (auto: by the topic's name)",
        )


def _depth_of(args: argparse.Namespace) -> DepthSelection | None:
    from bmp_ros.bags.depth_of_bag import DepthSelection

    if args.depth is None:
        if args.camera_info or args.depth_camera_info:
            raise ValueError("--camera-info and --depth-camera-info are for --depth")
        return None
    return DepthSelection(
        args.depth, args.camera_info, args.depth_camera_info, args.rectified, args.depth_rectified
    )


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from bmp_ros.bags.messages import import_rosbags
    from bmp_ros.bags.process import Selection, process_bag
    from bmp_ros.engines import build_loop
    from bmp_ros.reporting.people_log import PeopleLog

    if args.every < 1:
        raise ValueError(f"--every is {args.every}, must be at least 1")
    if not 0 <= args.start <= MOST_SECONDS:
        raise ValueError(f"--start is {args.start:g}, must be 0 to {MOST_SECONDS:g} seconds")
    if args.duration is not None and not 0 < args.duration <= MOST_SECONDS:
        raise ValueError(
            f"--duration is {args.duration:g}, must be above 0 and at most {MOST_SECONDS:g} "
            "seconds"
        )
    if args.keep_pictures and not args.anonymise:
        raise ValueError("--keep-pictures is for --anonymise; without it everything is copied")
    if args.blur and not args.anonymise:
        raise ValueError("--blur is for --anonymise")
    if args.anonymise and (args.every != 1 or args.results_only):
        raise ValueError("--anonymise goes without --every and --results-only")
    check_report(args.report)
    import_rosbags("rosbag2")  # found out now rather than after the networks are loaded
    loop = build_loop(args.preset, args.device, precision=args.precision)
    selection = Selection(
        args.image, args.start, args.duration, args.every, not args.results_only, args.anonymise,
        tuple(args.keep_pictures), args.blur, _depth_of(args), args.smooth, args.prefix,
    )  # fmt: skip
    log = None
    if args.report is not None:  # no faces in it where they are covered in the bag
        pictures = 0 if args.anonymise else PeopleLog.pictures
        log = PeopleLog(pictures, tracked=not args.no_track)
    with ended_in_order(), tqdm(unit=" messages", disable=not sys.stderr.isatty()) as bar:
        outcome = process_bag(
            loop, args.source, args.target, selection, track=not args.no_track,
            advance=bar.update, expect=bar.reset, watch=None if log is None else log.add,
        )  # fmt: skip
    if log is not None:
        from bmp_ros.reporting.page import people_sections, write_page

        facts = [("bag", str(args.source)), ("images", str(outcome.image_topic)),
                 ("preset", str(args.preset))]  # fmt: skip
        write_page(args.report, f"People in {args.source.name}", facts, people_sections(log))
    _print(outcome, args.target)
    reasons = [*outcome.without_depth.values(), *outcome.silent_depth.values()]
    no_depth = args.depth is not None and outcome.images == sum(reasons)
    return 1 if outcome.failures or outcome.notes or (no_depth and outcome.images) else 0


def _print(outcome: Outcome, target: Path) -> None:
    for note in outcome.notes:
        print(f"bmp bag: {note}", file=sys.stderr)
    for reason, count in outcome.failures.items():
        print(f"bmp bag: {count} images have no result: {reason}", file=sys.stderr)
    for reason, count in outcome.without_depth.items():
        print(f"bmp bag: {count} images have no poses_3d: {reason}", file=sys.stderr)
    for reason, count in outcome.silent_depth.items():
        print(f"bmp bag: {count} images have poses_3d of NaN: {reason}", file=sys.stderr)
    for reason, count in outcome.doubtful_depth.items():
        print(f"bmp bag: {count} images have poses_3d in doubt: {reason}", file=sys.stderr)
    topics = [topic for topic, _ in [*outcome.copied, *outcome.added]]
    width = max([*map(len, topics), 12])
    print(f"{'topic':<{width}}  {'messages':>9}  type")
    for (topic, kind), count in sorted(outcome.copied.items()):
        print(f"{topic:<{width}}  {count:>9}  {kind}")
    if outcome.left_out:
        print(f"left out, pictures: {', '.join(outcome.left_out)} (--keep-pictures TOPIC)")
    if outcome.covered:
        print(f"{outcome.image_topic:<{width}}  {outcome.covered:>9}  people covered")
    if outcome.image_topic is None:
        print("\nno topic with images: nothing was processed")
    else:
        for (topic, kind), count in outcome.added.items():
            print(f"{topic:<{width}}  {count:>9}  {kind} (new)")
        speed = outcome.bag_seconds / outcome.seconds if outcome.seconds else 0.0
        print(
            f"\n{outcome.images} images of {outcome.image_topic}, {outcome.people} people, "
            f"{outcome.seconds:.1f} s for {outcome.bag_seconds:.1f} s of the bag "
            f"({speed:.2f} x real time)"
        )
    print(f"written: {target}")
