# SPDX-License-Identifier: Apache-2.0
"""Look at people: of a running node, a bag or a folder of results, in a window or a browser."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from bmp_ros.cli.arguments import add_network_arguments, result_file, result_folder

if TYPE_CHECKING:
    from bmp_ros.viewing.moment import Moment
    from bmp_ros.viewing.rerun_log import RerunLog

_PORT = 9090


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Shows images with masks, skeletons and ids, people in space with the camera, and how "
        "many people, scores and times went, in the Rerun viewer: a window, --web in a browser, "
        "or --save FILE. Without a source it watches a running bmp_node until Ctrl-C."
    )
    parser.add_argument(
        "source",
        nargs="?",
        help="a bag with people in it (`bmp bag`, or a recording of the node), or a folder with "
        "results.json (`bmp infer --json`)",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--web", action="store_true", help="serve the viewer to browsers, which need nothing else"
    )
    where.add_argument(
        "--save", type=result_file, metavar="FILE", help="write a .rrd file instead"
    )
    parser.add_argument(
        "--port",
        type=int,
        default=_PORT,
        help="of the web page; what it shows comes from the port after it (%(default)s)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="of --web: this machine, as other machines' browsers name it (%(default)s)",
    )
    parser.add_argument(
        "--memory",
        default="1GB",
        help="how much of the past is kept; the oldest goes first (%(default)s)",
    )
    parser.add_argument("--node", default="/bmp/bmp_node", help="the node to watch (%(default)s)")
    parser.add_argument("--camera", default="", help="of a node with several cameras: its name")
    parser.add_argument(
        "--images",
        metavar="WHERE",
        help="of a node or a bag: the topic of the images; of results: where the images and "
        "videos are, as --source of `bmp infer`; default: as they say themselves",
    )
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="of a node: end after so many seconds"
    )
    parser.add_argument(
        "--demo", action="store_true", help="play the demo clip, with a node of its own"
    )
    add_network_arguments(parser, precision=False)
    parser.add_argument(
        "--output",
        type=result_folder,
        default=Path("out/view"),
        metavar="DIR",
        help="of --demo: folder for the log of the node (%(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    from bmp_ros.viewing import rerun_log

    if args.demo and args.source:
        raise ValueError("--demo shows the demo clip, and a source is given as well; drop one")
    if args.seconds is not None and (args.source or not args.seconds > 0):
        raise ValueError("--seconds is for a node that is watched, and must be above 0")
    if args.save is not None and args.save.suffix.lower() != ".rrd":  # such as the bag itself
        raise ValueError(f"--save is {str(args.save)!r}, needs a name that ends with .rrd")
    if not 1 <= args.port <= 65534:
        raise ValueError(f"--port is {args.port}, must be 1 to 65534")
    if not args.source:
        _require_ros()
    moments = _recorded(args) if args.source else None
    if not (args.web or args.save) and not (_has_display() or _viewer_listens()):
        raise RuntimeError(
            "there is no display for a window here, and no viewer that is open "
            f"listens on port {rerun_log.VIEWER_PORT}; give --web or --save FILE"
        )
    if moments is not None:  # what cannot be read is said before a viewer is opened
        moments = chain(list(islice(moments, 1)), moments)
    title = args.source or ("demo" if args.demo else args.node)
    log = rerun_log.RerunLog(title, args.memory, with_space=not _is_results(args.source))
    try:
        _open(log, args)
        if moments is not None:
            return _show_all(log, moments, args)
        return _watch(log, args)
    except KeyboardInterrupt:
        return 130
    finally:
        log.close()


def _open(log: RerunLog, args: argparse.Namespace) -> None:
    if args.save is not None:
        log.save(args.save)
    elif args.web:
        page = log.serve_web(args.port, args.port + 1, args.host).page
        print(f"open {page} in a browser; where it stays black, add &renderer=webgl", flush=True)
    else:
        log.spawn()


def _recorded(args: argparse.Namespace) -> Iterator[Moment]:
    from bmp_ros.image_files import IMAGE_SUFFIXES
    from bmp_ros.offline.infer_files import RESULTS_NAME
    from bmp_ros.offline.sources import VIDEO_SUFFIXES
    from bmp_ros.viewing.recorded import moments_of_bag, moments_of_results

    path = Path(args.source).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"{args.source!r} is not there; give a bag, or a folder with {RESULTS_NAME}"
        )
    if _is_results(args.source):
        return moments_of_results(path, args.images, _say)
    if (
        path.is_dir()
        and not (path / "metadata.yaml").exists()
        and not any(each.suffix.lower() in (".mcap", ".db3") for each in path.iterdir())
    ):
        # No deeper: the folder may be a home, or a disk.
        below = [*path.glob(f"*/{RESULTS_NAME}"), *path.glob(f"*/*/{RESULTS_NAME}")]
        hint = f"; there is {min(below)}" if below else "; `bmp infer --json` writes it"
        raise FileNotFoundError(f"{args.source!r} is no bag and has no {RESULTS_NAME}{hint}")
    if path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
        raise ValueError(
            f"{args.source!r} has images, and nothing says who is in them: first `bmp infer "
            "--json --output DIR` with it as --source, then `bmp view DIR`"
        )
    return moments_of_bag(path, args.images, _say)


def _has_display() -> bool:
    """Whether a window can open; where that is not told by the environment, it is tried."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET")
    return sys.platform != "linux" or any(os.environ.get(name) for name in names)


def _viewer_listens() -> bool:
    """Whether a viewer is open already: on another machine, with a port of ssh -R, or outside of
    a container."""
    import socket

    from bmp_ros.viewing import rerun_log

    try:
        with socket.create_connection(("127.0.0.1", rerun_log.VIEWER_PORT), timeout=2):
            return True
    except OSError:
        return False


def _is_results(source: str | None) -> bool:
    """Whether a source is a folder or file of results, which know nothing of metres."""
    from bmp_ros.offline.infer_files import RESULTS_NAME

    path = Path(source or "").expanduser()
    return source is not None and (path.suffix == ".json" or (path / RESULTS_NAME).is_file())


def _show_all(log: RerunLog, moments: Iterator[Moment], args: argparse.Namespace) -> int:
    count = 0
    for moment in moments:
        log.show(moment)
        count += 1
    print(f"{count} images: {args.save or args.source}")
    if args.web:
        _wait()
    return 0 if count else 1


def _wait() -> None:
    """The page is served while this process lives."""
    import threading

    print("Ctrl-C ends it", flush=True)
    threading.Event().wait()


def _watch(log: RerunLog, args: argparse.Namespace) -> int:
    from bmp_ros.demo.processes import ProcessError
    from bmp_ros.demo.view_node import Watched, watch, watch_demo

    try:
        if args.demo:
            shown = watch_demo(
                log, preset=args.preset, device=args.device, output=args.output,
                seconds=args.seconds,
            )  # fmt: skip
        else:
            watched = Watched(args.node, args.camera, args.images or "")
            shown = watch(watched, log, args.seconds)
    except ProcessError as error:  # several lines: the node's log belongs to it
        _say(str(error))
        return 1
    return 0 if shown else 1


def _require_ros() -> None:
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"watching a node needs ROS 2, which cannot be imported ({error}); run make view, "
            "source a workspace with bmp_ros, or give a bag or a folder of results"
        ) from error


def _say(line: str) -> None:
    print(f"bmp view: {line}", file=sys.stderr)
