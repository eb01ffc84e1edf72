# SPDX-License-Identifier: Apache-2.0
"""Arguments that several verbs share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

PRECISIONS = ("fp32", "fp16", "bf16")


def add_network_arguments(
    parser: argparse.ArgumentParser,
    *,
    preset: str | None = "tiny",
    otherwise: str = "tiny",
    precision: bool = True,
) -> None:
    """Add ``--preset``, ``--device`` and ``--precision``, what `build_loop` takes.

    preset: the default; None where the verb has to know whether one was given. otherwise: what
    it takes then.
    """
    parser.add_argument(
        "--preset",
        default=preset,
        help="a preset's name, the path of one, or auto: bmp_d3 if its weights and a CUDA GPU are "
        f"here, else tiny (default: {preset or otherwise})",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    if precision:
        parser.add_argument(
            "--precision", default="fp32", choices=PRECISIONS, help="of the networks (%(default)s)"
        )


def add_report_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--report``."""
    parser.add_argument(
        "--report",
        type=result_file,
        metavar="FILE",
        help="write a report as one HTML file, which opens offline (docs/viewing.md)",
    )


def check_report(path: Path | None) -> None:
    """Find out before the work whether a report can be written. Raises ValueError or OSError."""
    if path is None:
        return
    from bmp_ros.reporting.figures import import_plotly

    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--report is {str(path)!r}, needs a name that ends with .html")
    import_plotly()
    path.parent.mkdir(parents=True, exist_ok=True)


def _path(text: str) -> Path:
    if not text:  # an empty variable of a shell; as a path it would be the current folder
        raise argparse.ArgumentTypeError("the path is empty")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error} Write the path out") from error


def folder(text: str) -> Path:
    """The path of a folder, which may be there already or be made; no file may have its name."""
    path = _path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a file, needs the path of a folder")
    return path


def result_folder(text: str) -> Path:
    """As `folder`, of one that will be written into."""
    path = folder(text)
    _refuse_read_only(path, text)
    return path


def result_file(text: str) -> Path:
    """The path of a file that will be written after the work: what keeps it from being written is
    found out before. Missing folders are made when it is written."""
    path = _path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder, needs the path of a file")
    _refuse_read_only(path, text)
    return path


def refuse_input(output: Path | None, option: str, *inputs: Path | None) -> None:
    """Raise ValueError where the file of an option, such as ``--json``, is one that is read."""
    for each in inputs:
        if output and each and output.exists() and each.exists() and output.samefile(each):
            raise ValueError(
                f"{option} is {str(output)!r}, which is read and would be overwritten; choose "
                "another"
            )


def _refuse_read_only(path: Path, text: str) -> None:
    """Raises ArgumentTypeError where this process can neither write nor make what is named."""
    there = (
        path if path.exists() else next(each for each in path.absolute().parents if each.exists())
    )
    if not path.exists() and not there.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: {there} is no folder")
    if not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r}: {there} cannot be written; choose another")
