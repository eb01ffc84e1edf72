# SPDX-License-Identifier: Apache-2.0
"""Find people in images, videos or a camera; write drawings, JSON and GIFs of every stage."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmp_ros.cli.arguments import (
    add_network_arguments,
    add_report_argument,
    check_report,
    result_folder,
)
from bmp_ros.cli.signals import ended_in_order

if TYPE_CHECKING:
    from bmp_ros.offline.infer_files import Outcome, Wanted
    from bmp_ros.offline.sources import Source

MOST_AT_ONCE = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Runs the loop over files and writes drawn images and videos into a folder, on request "
        "also results.json (COCO's style) and GIFs of every stage of every iteration. Files that "
        "cannot be read, or on which the networks fail, are named and skipped; the exit code is "
        "1 then."
    )
    parser.add_argument(
        "--source",
        required=True,
        help="an image, a folder, a video file, the index of a camera or the address of a stream "
        "(rtsp://, http:// …; Ctrl-C ends both), or demo; what exists on disk comes first",
    )
    parser.add_argument(
        "--output",
        type=result_folder,
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
        help="of --boxes: in images that FILE does not mention, run the detector or look for no "
        "one (default: %(default)s)",
    )
    parser.add_argument(
        "--at-once",
        type=int,
        metavar="N",
        help="images in the networks at a time (default: on a CPU one per core for small ONNX "
        "networks such as those of tiny, else 1)",
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
        "--rate",
        type=float,
        metavar="HZ",
        help="of --track: images per second of a folder; below 0.5 no id lasts",
    )
    parser.add_argument(
        "--format",
        choices=("mot",),
        help="of --track: write tracks as MOTChallenge's text, NAME.txt per video, images.txt of "
        "all images",
    )
    add_report_argument(parser)
    archive = parser.add_argument_group(
        "archives", "a folder and all below it, bags included, file by file (docs/archives.md)"
    )
    archive.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="so many processes, each with networks of its own; what is done is skipped on the "
        "next start. With --ray so many actors (default: one per processor, or GPU)",
    )
    archive.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="workers on a Ray cluster instead: its address, or local for one on this machine",
    )
    archive.add_argument("--image", metavar="TOPIC", help="of bags: images to process")
    archive.add_argument(
        "--copy-bags", action="store_true", help="copy all of a bag, not the results alone"
    )
    archive.add_argument(
        "--retry-failed",
        action="store_true",
        help="try again what failed, or could not be read to its end, before",
    )
    parser.add_argument(
        "--detection-interval",
        type=int,
        metavar="N",
        help="of --track: run the detector on every Nth image only, and where a person may be "
        "new, lost or mistaken for another (docs/tracking.md)",
    )
    parser.add_argument("--no-draw", action="store_true", help="write no drawn images or videos")
    for part in ("boxes", "masks", "keypoints"):
        parser.add_argument(f"--no-{part}", action="store_true", help=f"draw no {part}")


def run(args: argparse.Namespace) -> int:
    from bmp_ros import __version__
    from bmp_ros.engines import build_loop
    from bmp_ros.engines.at_once import share_cores
    from bmp_ros.engines.auto_preset import resolve_preset
    from bmp_ros.engines.presets import load_preset
    from bmp_ros.engines.registry import ROLES
    from bmp_ros.fields import settings_from_mapping
    from bmp_ros.image_files import shown_name
    from bmp_ros.offline.box_file import BoxFile
    from bmp_ros.offline.infer_files import Outcome, Wanted, infer
    from bmp_ros.offline.sources import open_source
    from bmp_ros.offline.video import without_password
    from bmp_ros.reporting.people_log import PeopleLog
    from bmp_ros.tracking import Keyframes, KeyframeSettings, PersonTracker

    wanted = Wanted(
        draw=not args.no_draw,
        boxes=not args.no_boxes,
        masks=not args.no_masks,
        keypoints=not args.no_keypoints,
        json=args.json,
        gif=args.gif,
        mot=args.format == "mot",
    )
    _refuse_wrong(args, wanted)
    keyframes = None
    if args.detection_interval is not None:
        chosen = {"detection_interval": args.detection_interval}
        keyframes = Keyframes(settings_from_mapping(KeyframeSettings, chosen, "--track"))
    preset, changes = _preset_of(args)
    options = {"preset": preset, "precision": args.precision, **changes}
    names = {"detector": args.detector, "pose": args.pose}
    used = {part: value for part, value in names.items() if value}
    info = {
        "preset": preset if isinstance(preset, str) else None,
        **used,
        "source": shown_name(without_password(args.source)),
        "bmp_ros": __version__,
    }
    if args.workers is not None or args.ray is not None:
        return _run_archive(args, wanted, options, info)
    for option in ("image", "copy_bags", "retry_failed"):
        if getattr(args, option):
            raise ValueError(
                f"--{option.replace('_', '-')} is for archives: give --workers or --ray as well"
            )
    sources = open_source(args.source, _say)
    if args.rate is not None:
        _check_rate(args.rate, sources, args.count)
    boxes = None if args.boxes is None else BoxFile(args.boxes)
    at_once = 1
    if keyframes is None:
        sections = {role: changes[role] for role in ROLES if role in changes}
        known = preset if isinstance(preset, dict) else resolve_preset(preset, args.device)
        at_once, threads = share_cores(load_preset(known, sections), args.device, args.at_once)
        for role, how in threads.items():
            options[role] = {**changes.get(role, {}), **how}
    loop = build_loop(device=args.device, **options)
    log = None if args.report is None else PeopleLog(tracked=args.track, axis=_axis(args, sources))
    outcome = Outcome()
    try:
        with ended_in_order():
            infer(
                loop, sources, args.output, wanted, count=args.count, info=info, progress=True,
                tracker=PersonTracker() if args.track else None, keyframes=keyframes,
                rate=args.rate, boxes=boxes, boxes_missing=args.boxes_missing,
                watch=None if log is None else log.add, at_once=at_once, outcome=outcome,
            )  # fmt: skip
    except (KeyboardInterrupt, SystemExit) as end:
        for line in [*outcome.notes, *outcome.failures, _interrupted(args, wanted, outcome)]:
            _say(line)
        if isinstance(end, SystemExit):
            raise
        return 130
    if log is not None:
        from bmp_ros.reporting.page import people_sections, write_page

        facts = [(name, str(info[name])) for name in ("preset", *used, "source") if info[name]]
        write_page(args.report, f"People in {info['source']}", facts, people_sections(log))
    for line in [*outcome.notes, *outcome.failures]:
        _say(line)
    counts = _counts(outcome.images, outcome.frames, outcome.people)
    print(f"{counts}: {shown_name(args.output)}")
    return 1 if outcome.failures else 0


def _refuse_wrong(args: argparse.Namespace, wanted: Wanted) -> None:
    """Raise ValueError for options that do not go together or are out of range."""
    if not (wanted.draw or wanted.json or wanted.gif or wanted.mot or args.report):
        raise ValueError(
            "--no-draw without --json, --gif, --format or --report would write nothing"
        )
    check_report(args.report)
    for option in ("rate", "format", "detection_interval"):
        if getattr(args, option) is not None and not args.track:
            raise ValueError(f"--{option.replace('_', '-')} is for --track, which is missing")
    if args.detection_interval is not None and (args.gif or args.boxes):
        raise ValueError(
            "--detection-interval goes neither with --gif, which shows the detector's work on one "
            "frame, nor with --boxes, which take the detector's place"
        )
    if args.rate is not None and not 0 < args.rate <= 1000:
        raise ValueError(f"--rate is {args.rate:g}, must be above 0 and at most 1000 hertz")
    if args.count is not None and args.count < 1:
        raise ValueError(f"--count is {args.count}, must be at least 1")
    if args.at_once is not None and not 1 <= args.at_once <= MOST_AT_ONCE:
        raise ValueError(f"--at-once is {args.at_once}, must be 1 to {MOST_AT_ONCE} images")
    if args.detection_interval is not None and args.at_once is not None:
        raise ValueError(
            "--at-once does not go with --detection-interval, where each image needs what was "
            "found in the one before"
        )


def _check_rate(rate: float, sources: Sequence[Source], count: int | None) -> None:
    """Raise ValueError for a rate without images; tell of one at which no id can last."""
    from bmp_ros.offline.sources import ImageSource
    from bmp_ros.tracking.continuity import LONG_GAP

    images = sum(isinstance(source, ImageSource) for source in sources)
    if not images:
        raise ValueError(
            f"--rate is {rate:g}, and is for images; the source has none, and videos have times "
            "of their own: leave it out"
        )
    if 1 / rate > LONG_GAP and min(images, images if count is None else count) > 1:
        _say(
            f"--rate is {rate:g}: the images are {1 / rate:g} s apart, and ids last over at most "
            f"{LONG_GAP:g} s without an image: everybody gets a new id in every image; ids need "
            f"at least {1 / LONG_GAP:g} images per second (docs/tracking.md)"
        )


def _preset_of(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The preset that is asked for, by name, file or networks, and what is changed in it."""
    from bmp_ros.engines.pipeline import by_names, detector_size
    from bmp_ros.engines.presets import load_preset
    from bmp_ros.engines.registry import ROLES

    preset: Any = args.preset or "tiny"
    changes: dict[str, Any] = {}
    if args.detector or args.pose:
        preset, changes = by_names(args.detector, args.pose, args.preset)
    if args.size is not None:
        size = {"input_size": detector_size(args.size)}
        named = {role: changes[role] for role in ROLES if role in changes}
        if load_preset(preset, named).engines["detector"].engine == "onnx":
            raise ValueError(
                "--size goes with networks in PyTorch: this detector is an ONNX file, whose size "
                "is built in (docs/offline.md)"
            )
        changes["detector"] = {**changes.get("detector", {}), **size}
    return preset, changes


def _interrupted(args: argparse.Namespace, wanted: Wanted, outcome: Outcome) -> str:
    """What there is after an interruption: results always, a GIF of a video only at its end."""
    from bmp_ros.image_files import shown_name

    done = outcome.images + outcome.frames
    written = wanted.json or (
        done > 0 and (wanted.draw or wanted.mot or (wanted.gif and outcome.images > 0))
    )
    kept = (
        f"what was done until then is in {shown_name(args.output)}"
        if written
        else "nothing was written"
    )
    if args.report is not None and written:
        kept += f", but no report in {shown_name(args.report)}"
    return f"interrupted; {kept}"


def _counts(images: int, frames: int, people: int) -> str:
    """In words, such as ``2 images and 1 video frame, 1 person``."""
    parts = [
        f"{number} {name}{'' if number == 1 else 's'}"
        for number, name in ((images, "image"), (frames, "video frame"))
        if number
    ]
    return f"{' and '.join(parts) or 'no image'}, {people} {'person' if people == 1 else 'people'}"


def _axis(args: argparse.Namespace, sources: Sequence[Source]) -> str:
    """What a report's axis of time is: images without a rate have their number only."""
    from bmp_ros.offline.sources import ImageSource
    from bmp_ros.reporting.people_log import NUMBERS

    kinds = {isinstance(source, ImageSource) for source in sources}
    if kinds == {False} or args.rate is not None:
        return "seconds"
    return NUMBERS if kinds == {True} else "seconds; of images their number"


def _run_archive(
    args: argparse.Namespace, wanted: Wanted, options: dict[str, Any], info: dict[str, Any]
) -> int:
    from bmp_ros.archives.files import find_files
    from bmp_ros.archives.pools import Pool, ProcessPool, RayPool, import_ray
    from bmp_ros.archives.run import run_archive
    from bmp_ros.archives.work import Orders
    from bmp_ros.bags.messages import import_rosbags
    from bmp_ros.image_files import shown_name

    source = Path(args.source).expanduser()
    if not source.is_dir():
        raise ValueError(
            f"--workers and --ray are for folders, and {args.source!r} is none; without them one "
            "file is processed"
        )
    for option in ("count", "boxes", "rate", "detection_interval", "report"):
        if getattr(args, option) is not None:
            raise ValueError(f"--{option.replace('_', '-')} goes without --workers and --ray")
    if args.workers is not None and not 1 <= args.workers <= 1000:
        raise ValueError(f"--workers is {args.workers}, must be 1 to 1000")
    if args.ray is not None:
        import_ray()
    files, left_out = find_files(source.resolve(), args.output)
    if left_out:
        _say(f"{shown_name(source)}: left out {left_out}")
    if not files:
        raise FileNotFoundError(f"no bag, video or image in {shown_name(source)} or below it")
    if any(file.kind == "bag" for file in files):
        import_rosbags("rosbag2")
    # Each result names its own file; how the folder was spelled is no option.
    info = {name: value for name, value in info.items() if name != "source"}
    orders = Orders(options, args.device, wanted, args.track, args.image, args.copy_bags, info)
    output = args.output.resolve()

    def make_pool(most: int) -> Pool:
        size = None if args.workers is None else min(args.workers, most)
        if args.ray is not None:
            return RayPool(orders, output, size, args.ray)
        return ProcessPool(orders, output, size or 1)

    with ended_in_order():
        outcome = run_archive(
            files, orders, output, make_pool, progress=True, retry_failed=args.retry_failed
        )
    for report in outcome.reports:
        for line in [*report.failures, *report.notes]:
            _say(f"{report.name}: {line}")
    for name, reason in outcome.failed.items():
        _say(f"{name} failed: {reason}")
    images, people = (
        sum(getattr(report, each) for report in outcome.reports) for each in ("images", "people")
    )
    print(
        f"{len(outcome.reports)} of {len(files)} files ({outcome.skipped} were done before, "
        f"{len(outcome.failed)} failed), {images} images, {people} people, "
        f"{outcome.seconds:.1f} s: {shown_name(args.output)}"
    )
    return 1 if outcome.failed or any(report.failures for report in outcome.reports) else 0


def _say(line: str) -> None:
    print(f"bmp infer: {line}", file=sys.stderr)
