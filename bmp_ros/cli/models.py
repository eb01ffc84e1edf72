# SPDX-License-Identifier: Apache-2.0
"""Weights files: list, show, download and verify them."""

from __future__ import annotations

import argparse
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bmp_ros.weights.errors import DownloadFailed, LicenceNotAccepted, WeightsError
from bmp_ros.weights.zoo import (
    LICENCES,
    PERMISSIVE,
    WeightsFile,
    Zoo,
    by_unaccepted_licence,
    installed_path,
    load_zoo,
    locate,
    models_dir,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bmp_ros.weights.remote import Progress

INTERRUPTED = 130  # what a shell reports after Ctrl-C

_CONSENT = (
    f"Weights under {', '.join(PERMISSIVE)} are downloaded at once. Any other licence has to be "
    "accepted: at the question in a terminal, or with --accept-licence."
)


_IMPORT = (
    "The file is read, never run, and has to be the network that its name says: family, size and "
    "every tensor. Then it is copied into the models folder and its hash is pinned. Licences are "
    "accepted as for a download."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions list, show, download, import, verify, path and their arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str, more: str = "") -> argparse.ArgumentParser:
        return actions.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}".strip()
        )

    listing = add("list", "list all weights files: role, licence, presets, installed or not")
    listing.add_argument("--here", action="store_true", help="only those on this machine")
    show = add("show", "show licence, origin, size and hash of weights")
    download = add("download", "download the weights of presets, or single files", _CONSENT)
    bring = add("import", "put a file that was fetched by hand in place", _IMPORT)
    bring.add_argument("file", type=Path, metavar="FILE", help="a checkpoint of the list")
    bring.add_argument(
        "--name", metavar="NAME", help="which of the list it is; default: found out by reading it"
    )
    for action in (download, bring):
        action.add_argument(
            "--accept-licence",
            action="append",
            default=[],
            metavar="LICENCE",
            choices=tuple(LICENCES),
            help="accept a licence by name, such as GPL-3.0; may be repeated",
        )
        action.add_argument(
            "-y",
            "--yes",
            action="store_true",
            help="never ask (this does not accept a licence: see --accept-licence)",
        )
        action.add_argument(
            "--repin",
            action="store_true",
            help="accept bytes other than those pinned here: the publisher has replaced the file",
        )
    verify = add("verify", "read installed weights and compare their hashes")
    for action, count, note in ((show, "+", ""), (download, "+", ""), (verify, "*", "; default: "
                                "all on this machine")):  # fmt: skip
        action.add_argument(
            "targets",
            nargs=count,
            metavar="PRESET_OR_NAME",
            help=f"a preset (name or path of its file) or a name that `list` shows{note}",
        )
    path = add("path", "print the models folder, or the path of one weights file")
    path.add_argument("target", nargs="?", metavar="NAME_OR_PATH", help="a name, or a path")


def run(args: argparse.Namespace) -> int:
    """Run the chosen action; 0 when all went well, 1 with a line on stderr if not."""
    actions = {
        "list": _list, "show": _show, "download": _download, "import": _import, "verify": _verify,
        "path": _path,
    }  # fmt: skip
    try:
        return actions[args.action](args)
    except WeightsError as error:
        print(f"bmp models {args.action}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\ninterrupted; partial files are kept, repeat the command to resume", file=sys.stderr
        )
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


def _show(args: argparse.Namespace) -> int:
    for weights in _resolve(load_zoo(), args.targets):
        licence = LICENCES[weights.licence]
        rows = {
            "role": weights.role,
            "network": weights.network,
            "licence": f"{weights.licence}: {licence.terms}",
            "licence text": licence.text,
            "from": str(weights.origin),
            "size": f"{weights.size / 1e6:.0f} MB" if weights.size else "not known in advance",
            "sha256": _hash(weights),
            "presets": ", ".join(weights.presets) or "-",
            "on this machine": str(installed_path(weights) or "no"),
        }
        print(weights.name)
        for key, value in rows.items():
            print(f"  {key:<15}  {value}")
    return 0


def _hash(weights: WeightsFile) -> str:
    if weights.sha256:
        return weights.sha256
    known = f"{weights.sha256_prefix}…" if weights.sha256_prefix else "not known in advance"
    return f"{known}; pinned at the first download"


def _download(args: argparse.Namespace) -> int:
    from bmp_ros.weights.downloads import download

    zoo = load_zoo()
    files = _resolve(zoo, args.targets)
    _require_consent(
        [
            weights
            for weights in files
            if weights.by_program and (args.repin or installed_path(weights) is None)
        ],
        {*PERMISSIVE, *args.accept_licence},
        ask=sys.stdin.isatty() and not args.yes,
    )
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
        except DownloadFailed as error:  # the others may still succeed
            print(f"bmp models download: {error}", file=sys.stderr)
            failures += 1
        else:
            print(f"{weights.name}: {path}", flush=True)
    return 1 if failures else 0


def _import(args: argparse.Namespace) -> int:
    from bmp_ros.engines.recognise import check_contents, find_name
    from bmp_ros.weights.downloads import install_file

    zoo = load_zoo()
    if not args.file.is_file():
        raise WeightsError(f"there is no file {args.file}: check the path")
    weights = zoo[args.name] if args.name else find_name(args.file, zoo)
    contents = check_contents(args.file, weights)
    print(f"{args.file}: {weights.name} ({contents})", flush=True)
    if contents.odd:
        print(f"of other shapes than the published network: {contents.odd}", file=sys.stderr)
    _require_consent(
        [weights],
        {*PERMISSIVE, *args.accept_licence},
        ask=sys.stdin.isatty() and not args.yes,
        verb="import",
    )
    print(weights.licence_notice)
    path = install_file(weights, args.file, repin=args.repin)
    print(f"{weights.name}: {path}")
    return 0


def _require_consent(
    files: list[WeightsFile], accepted: set[str], ask: bool, verb: str = "download"
) -> None:
    """Raise LicenceNotAccepted, before the first byte, unless every licence is accepted."""
    for licence, of_licence in by_unaccepted_licence(files, accepted).items():
        if ask:
            for weights in of_licence:
                print(weights.licence_notice)
            print(f"Text of {licence}: {LICENCES[licence].text}")
        if not (ask and _answer_is_yes(f"Accept {licence} and {verb}? [y/N] ")):
            names = ", ".join(weights.name for weights in of_licence)
            raise LicenceNotAccepted(
                f"{licence}, the licence of {names}, was not accepted; nothing was {verb}ed. "
                f"`bmp models show {of_licence[0].name}` shows it, "
                f"--accept-licence {licence} accepts it"
            )


def _answer_is_yes(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _verify(args: argparse.Namespace) -> int:
    from bmp_ros.weights.downloads import verify

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
            verdict = f"right, by {verified.against}" if verified.against else "no hash to compare"
            print(f"{weights.name}: {verdict}: sha256 {verified.sha256} {verified.path}")
    return 1 if failures else 0


def _path(args: argparse.Namespace) -> int:
    print(models_dir() if args.target is None else locate(args.target))
    return 0


def _resolve(zoo: Zoo, targets: list[str]) -> list[WeightsFile]:
    """Return the files of presets and names, each once; none for presets that need none."""
    from bmp_ros.resources import preset_names

    files: dict[str, WeightsFile] = {}
    for target in targets:
        if target.lower().endswith((".yaml", ".yml")):
            files.update({name: zoo[name] for name in _named_in(target) if name in zoo})
        elif target in preset_names() and target not in zoo.presets:
            print(f"{target}: comes with bmp_ros, nothing to download")
        else:
            files.update({weights.name: weights for weights in zoo.resolve(target)})
    return list(files.values())


def _named_in(preset_file: str) -> list[str]:
    """Return the weights that a preset file names: names of the zoo, or paths."""
    from bmp_ros.engines.presets import load_preset

    names = [choice.weights for choice in load_preset(preset_file).engines.values()]
    return [name for name in names if name is not None]


@contextmanager
def _progress_bar(name: str) -> Iterator[Progress | None]:
    """Draw a bar on stderr once bytes arrive; none where tqdm is not installed."""
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
