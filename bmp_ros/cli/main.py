# SPDX-License-Identifier: Apache-2.0
"""The dispatcher behind ``python -m bmp_ros VERB`` and ``bmp VERB``.

A verb is a module ``bmp_ros/cli/<verb>.py``: the first line of its docstring is its help, it has
``add_arguments(parser)`` and ``run(args) -> int`` (the exit code). Only the chosen verb's module
is imported, so help is fast and what one verb needs never keeps another from working.

Exit codes: 0 done, 1 failed (stderr says why), 2 the command line was wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from bmp_ros import __version__
from bmp_ros.cli.signals import ignore_interrupts, interrupts, note_interrupts

VERBS = (
    "infer",
    "models",
    "export",
    "bench",
    "evaluate",
    "train",
    "convert",
    "annotate",
    "demo",
    "bag",
    "view",
)
TRACEBACK = "--traceback"
INTERRUPTED = 130
REQUIREMENTS = {
    "hydra": "torch", "iopath": "torch", "safetensors": "torch", "torch": "torch",
    "torchvision": "torch", "PIL": "evaluate", "pycocotools": "evaluate", "moderngl": "synthetic",
    "onnx": "export", "onnxruntime": "base", "huggingface_hub": "base", "simplejpeg": "base",
    "tqdm": "base",
}  # fmt: skip
"""Packages that not every verb needs: the file of requirements/ that brings each."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code; ``arguments`` are those of the process by default."""
    if arguments is None:
        _open_streams()
        note_interrupts()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no name of a file may end a verb
    given = list(sys.argv[1:] if arguments is None else arguments)
    verb = next((word for word in given if not word.startswith("-")), None)
    try:
        try:
            code = _run(given, verb)
        except SystemExit:  # help, the version, or wrong usage
            _flush()
            raise
        if arguments is None and code == INTERRUPTED:
            ignore_interrupts()
        _flush()  # here, since at the end of Python nobody would hear of a full disk
        return code
    except KeyboardInterrupt:
        if arguments is None:  # the process's own
            ignore_interrupts()
        print(f"bmp{f' {verb}' if verb else ''}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone (`bmp models | head`).
        _drop_output()
        return 1
    except (
        ArithmeticError, ImportError, MemoryError, OSError, RuntimeError, ValueError
    ) as error:  # fmt: skip
        if isinstance(error, ImportError) and interrupts:  # as modules in C tell of it
            ignore_interrupts()
            print(f"bmp{f' {verb}' if verb else ''}: interrupted", file=sys.stderr)
            return INTERRUPTED
        if TRACEBACK in given:
            traceback.print_exc()
        # Lines stay lines: they may be commands to copy.
        message = _in_words(error)
        print(f"bmp{f' {verb}' if verb else ''}: {message}", file=sys.stderr)
        try:
            _flush()
        except OSError:
            pass  # that was it, or it comes on top
        return 1


def _open_streams() -> None:
    """Open the standard streams that were closed (``2>&-``), as nothing: else the next file that
    is opened, such as results, would get what libraries print."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))


def _run(given: Sequence[str], verb: str | None) -> int:
    parser, module = _build_parser(verb)
    # Taken out, so that it may also stand behind the action of a verb.
    args = parser.parse_args([word for word in given if word != TRACEBACK])
    if module is None:
        parser.print_help()
        return 0
    if getattr(args, "preset", None) == "auto":
        args.preset = _choose_preset(getattr(args, "device", "auto"))
    return int(module.run(args))


def _flush() -> None:
    """Write what was printed. Raises OSError where it cannot be."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _drop_output()
        raise OSError(error.errno, error.strerror, "what was printed") from error


def _drop_output() -> None:
    """What is still to be written to stdout is not: Python would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _in_words(error: Exception) -> str:
    """What is wrong and what to do, also of errors whose own text is for programmers."""
    if isinstance(error, ImportError) and "pip install" not in str(error):
        package = (error.name or "").partition(".")[0]
        if package in REQUIREMENTS:
            file = f"requirements/{REQUIREMENTS[package]}.txt"
            return f"this needs {package}: `pip install -r {file}` ({error})"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
        return f"{name}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"there is not enough memory ({error})" if str(error) else "there is no memory left"
    return str(error).strip() or type(error).__name__


def _choose_preset(device: str) -> str:
    """Resolve preset ``auto`` for any verb, so that results name the preset that was used."""
    from bmp_ros.engines.auto_preset import choose_preset

    choice = choose_preset(device)
    print(choice, file=sys.stderr)
    return choice.preset


def verbs() -> dict[str, str]:
    """Verbs there are, in the order of `VERBS`, each with its line of help."""
    found = {}
    for verb in VERBS:
        path = Path(__file__).with_name(f"{verb}.py")
        if path.is_file():
            # Read, not imported: a verb may import torch.
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            found[verb] = docstring.partition("\n")[0]
    return found


def _build_parser(chosen: str | None) -> tuple[argparse.ArgumentParser, ModuleType | None]:
    """Build the parser of all verbs, with the arguments of the chosen one, and import that one."""
    parser = argparse.ArgumentParser(
        prog="bmp",
        description="Boxes, keypoints and masks of every person in images (BBoxMaskPose loop).",
        epilog="`bmp VERB --help` explains a verb. Exit codes: 0 done, 1 failed, 2 wrong usage.",
    )
    parser.add_argument("--version", action="version", version=f"bmp_ros {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        TRACEBACK, action="store_true", help="on failure, show where in the code it happened"
    )
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    module = None
    for verb, line in verbs().items():
        subparser = subparsers.add_parser(verb, help=line, description=line, parents=[common])
        if verb == chosen:
            module = importlib.import_module(f"bmp_ros.cli.{verb}")
            module.add_arguments(subparser)
    return parser, module
