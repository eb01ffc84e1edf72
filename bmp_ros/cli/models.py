# SPDX-License-Identifier: Apache-2.0
"""Weights files: list them, fetch them, check them."""

from __future__ import annotations

import argparse
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bmp_ros.weights.errors import DownloadFailed, WeightsError
from bmp_ros.weights.zoo import WeightsFile, Zoo, installed_path, load_zoo, locate, models_dir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bmp_ros.weights.transfer import Progress

INTERRUPTED = 130  # what a shell reports after Ctrl-C


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions list, download, verify, path and their arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=text, description=text)

    listing = add("list", "show every weights file, licence, and what is here")
    listing.add_argument("--here", action="store_true", help="only those on this machine")
    download = add("download", "bring the weights of a preset, a preset file or a network here")
    download.add_argument(
        "targets",
        nargs="+",
        metavar="PRESET_OR_NAME",
        help="a preset's name or file, or a name that `bmp models list` shows",
    )
    download.add_argument(
        "-y", "--yes", action="store_true", help="do not ask, also when run by hand"
    )
    download.add_argument(
        "--repin",
        action="store_true",
        help="accept other bytes than the ones pinned here: the publisher has replaced the file",
    )
    verify = add("verify", "read installed weights and compare their hashes")
    verify.add_argument(
        "targets", nargs="*", metavar="PRESET_OR_NAME", help="default: everything that is here"
    )
    path = add("path", "print the models folder, or where weights lie")
    path.add_argument(
        "target", nargs="?", metavar="NAME_OR_PATH", help="weights; without it, the models folder"
    )


def run(args: argparse.Namespace) -> int:
    """Run the action that was asked for; 0 when all went well, 1 with a line on stderr if not."""
    action = {"list": _list, "download": _download, "verify": _verify, "path": _path}[args.action]
    try:
        return action(args)
    except WeightsError as error:
        print(f"bmp models {args.action}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; what has come is kept, repeat the command to go on", file=sys.stderr)
        return INTERRUPTED


def _list(args: argparse.Namespace) -> int:
    rows = [("NAME", "ROLE", "LICENCE", "HERE", "PRESETS", "NETWORK")]
    for weights in load_zoo():
        here = installed_path(weights) is not None
        if here or not args.here:
            presets = ", ".join(weights.presets) or "-"
            mark = "yes" if here else "-"
            rows.append(
                (weights.name, weights.role, weights.licence, mark, presets, weights.network)
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    print(f"\nmodels folder: {models_dir()}")
    return 0


def _download(args: argparse.Namespace) -> int:
    from bmp_ros.weights.downloads import download

    zoo = load_zoo()
    files = _resolve(zoo, args.targets)
    if not args.yes and sys.stdin.isatty() and not _agreed(files):
        return 1
    failures = 0
    for weights in files:
        try:
            with _progress_bar(weights.name) as progress:
                path = download(
                    weights.name,
                    zoo=zoo,
                    progress=progress,
                    on_licence=lambda line: print(line, flush=True),
                    repin=args.repin,
                )
        except DownloadFailed as error:  # the others may still come
            print(f"bmp models download: {error}", file=sys.stderr)
            failures += 1
        else:
            print(f"{weights.name}: {path}", flush=True)
    return 1 if failures else 0


def _agreed(files: list[WeightsFile]) -> bool:
    for weights in files:
        print(weights.licence_notice)
    try:
        return input("Download? [Y/n] ").strip().lower() in ("", "y", "yes")
    except EOFError:
        return False


def _verify(args: argparse.Namespace) -> int:
    from bmp_ros.weights.pins import verify

    zoo = load_zoo()
    files = _resolve(zoo, args.targets) if args.targets else [f for f in zoo if installed_path(f)]
    if not files:
        print(f"no weights in {models_dir()}")
    failures = 0
    for weights in files:
        try:
            verified = verify(weights.name, zoo)
        except WeightsError as error:
            print(f"{weights.name}: FAILED: {error}")
            failures += 1
        else:
            verdict = f"right, by {verified.against}" if verified.against else "nobody vouches"
            print(f"{weights.name}: {verdict}: sha256 {verified.sha256} {verified.path}")
    return 1 if failures else 0


def _path(args: argparse.Namespace) -> int:
    print(models_dir() if args.target is None else locate(args.target))
    return 0


def _resolve(zoo: Zoo, targets: list[str]) -> list[WeightsFile]:
    """Return the files of presets and names, each once; nothing for presets that need none."""
    from bmp_ros.resources import preset_names

    files: dict[str, WeightsFile] = {}
    for target in targets:
        if target.endswith((".yaml", ".yml")):
            files.update({name: zoo[name] for name in _named_in(target) if name in zoo})
            continue
        if target in preset_names() and target not in zoo.presets:
            print(f"{target}: comes with bmp_ros, nothing to download")
            continue
        files.update({weights.name: weights for weights in zoo.resolve(target)})
    return list(files.values())


def _named_in(preset_file: str) -> list[str]:
    """Return the weights that a preset of one's own names: names of the zoo, or paths."""
    from bmp_ros.engines.presets import load_preset

    preset = load_preset(preset_file)
    choices = (preset.detector, preset.pose_estimator, preset.segmenter)
    return [str(choice.settings.weights) for choice in choices if choice is not None]


@contextmanager
def _progress_bar(name: str) -> Iterator[Progress | None]:
    """Draw a bar on stderr once bytes arrive; none without tqdm, which is a convenience."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield None
        return
    bar: tqdm | None = None

    def progress(here: int, total: int | None) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(desc=name, total=total, initial=here, unit="B", unit_scale=True)
        bar.update(here - bar.n)

    try:
        yield progress
    finally:
        if bar is not None:
            bar.close()
