# SPDX-License-Identifier: Apache-2.0
"""Makes this checkout runnable: virtual environment, pinned packages, ROS 2, workspace.

``make setup`` and ``make test`` call it (``python3 scripts/set_up LAYER…``); it needs nothing but
Python. Layers are the parts of ``requirements/``. A step that was done before with the same files,
Python and versions is left out, one that was interrupted starts again. The output of pip and
colcon goes to ``.venv/set_up/`` and is shown when a step fails.

Where a ROS 2 is sourced (``ROS_DISTRO``), it is used: the virtual environment sees the system's
packages and the layer ``ros`` (ROS 2 Jazzy from wheels) is not installed. ``BMP_VENV`` names
another folder than ``.venv``, for another Python (``make test-python``) or another ROS.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from machine import check_machine, check_python, make_venv, sourced_ros
from steps import (
    PYTHON,
    RECORDS,
    ROOT,
    SetupError,
    digest,
    output,
    python_identity,
    run,
    say,
    step,
)
from workspace import build_workspace, fix_cmake_paths


@dataclass(frozen=True)
class Install:
    """One call of pip: a file of ``requirements/``, further options and environment."""

    file: str
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    note: str = ""


NO_ISOLATION = ("--no-deps", "--no-build-isolation")
LAYERS: dict[str, tuple[Install, ...]] = {
    "base": (Install("base.txt"),),
    "ros": (Install("ros.txt", note="300 MB"),),
    "ros-kilted": (Install("ros-kilted.txt", note="300 MB"),),
    "torch": (
        Install("torch.txt", note="5 GB, minutes"),
        Install("sam2.txt", NO_ISOLATION, {"SAM2_BUILD_CUDA": "0"}),
    ),
    "export": (Install("export.txt"),),
    "train": (Install("train.txt"),),
    "synthetic": (Install("synthetic.txt"),),
    "evaluate": (Install("evaluate.txt"),),
    "evaluate-tracking": (Install("evaluate-tracking.txt", ("--no-deps",)),),
    "view": (Install("view.txt", note="500 MB"),),
    "view-test": (Install("view-test.txt"),),
    "report": (Install("report.txt"),),
    "archives": (Install("archives.txt", note="100 MB"),),
    "dev": (Install("dev.txt"),),
    "openmmlab": (
        Install("openmmlab.txt"),
        Install(
            "mmcv.txt",
            NO_ISOLATION,
            # A CPU build everywhere: with a visible GPU the sources ask for CUDA's compiler.
            {"MMCV_WITH_OPS": "1", "FORCE_CUDA": "0", "CUDA_VISIBLE_DEVICES": ""},
            note="compiles for 15 to 25 minutes on two cores, once per machine",
        ),
        Install("openmmlab-no-deps.txt", ("--no-deps",)),
    ),
}
ROS_WHEELS = {"ros", "ros-kilted"}
NEEDS = {
    "ros-kilted": ("base",),
    "torch": ("base",),
    "export": ("base", "torch"),
    "train": ("base", "torch"),
    "synthetic": ("base",),
    "evaluate": ("base",),
    "evaluate-tracking": ("base", "evaluate"),
    "view": ("base",),
    "report": ("base",),
    "archives": ("base",),
    "dev": ("base",),
    "openmmlab": ("base", "torch"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("layers", nargs="*", metavar="LAYER", help=f"of {', '.join(LAYERS)}")
    parser.add_argument("--no-build", action="store_true", help="leave colcon build out")
    args = parser.parse_args()
    unknown = set(args.layers) - set(LAYERS)
    if unknown:
        parser.error(f"unknown layer {', '.join(sorted(unknown))}; known: {', '.join(LAYERS)}")
    start = time.monotonic()
    try:
        set_up(args.layers or ["base", "ros"], build=not args.no_build)
    except SetupError as error:
        print(f"\nset-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; run it again and it goes on where it was", file=sys.stderr)
        return 130
    say(f"ready in {time.monotonic() - start:.1f} s")
    return 0


def set_up(layers: list[str], *, build: bool) -> None:
    distribution = sourced_ros()
    wanted = {need for layer in layers for need in NEEDS.get(layer, ())} | set(layers)
    if distribution is not None:
        say(f"ROS 2 {distribution} is sourced: using it, not the wheels")
        wanted -= ROS_WHEELS
    if ROS_WHEELS <= wanted:
        raise SetupError("ros and ros-kilted are the same packages in other versions: name one")
    check_python(layer for layer in LAYERS if layer in wanted)
    check_machine()
    make_venv(system_packages=distribution is not None)
    for layer in LAYERS:  # in the order of the table: later layers build on earlier ones
        if layer in wanted:
            for install in LAYERS[layer]:
                install_requirements(install)
    if wanted & ROS_WHEELS:
        fix_cmake_paths()
    if build:
        build_workspace(distribution)


def install_requirements(install: Install) -> None:
    file = ROOT / "requirements" / install.file
    key = digest([file.read_bytes(), python_identity(), repr(install.options).encode()])
    record = RECORDS / f"{file.stem}.key"
    if record.is_file() and record.read_text() == key and not missing_pins(file):
        say(f"requirements/{install.file}: up to date")
        return

    def pip() -> None:
        command = [str(PYTHON), "-m", "pip", "install", "--no-input", "--progress-bar", "off"]
        # What a later layer needs must not replace the versions of the base, NumPy above all.
        keep = (
            [] if "--no-deps" in install.options else ["-c", str(ROOT / "requirements/base.txt")]
        )
        run([*command, *keep, *install.options, "-r", str(file)], file.stem, install.environment)
        record.write_text(key)

    note = f" ({install.note})" if install.note else ""
    step(f"requirements/{install.file}{note}", pip)


def missing_pins(file: Path) -> list[str]:
    """Exact pins of a requirements file that are not what the virtual environment holds.

    A later installation may have changed a version that an earlier one had pinned.
    """
    query = (
        "import importlib.metadata as m, json; print(json.dumps("
        # Of two versions on the path the first one counts: it has to be written last.
        "{d.metadata['Name'].lower().replace('_', '-'): d.version "
        "for d in reversed(list(m.distributions()))}))"
    )
    installed = json.loads(output([str(PYTHON), "-c", query]))
    return [
        f"{name}=={version}"
        for name, version in pins(file.read_text(encoding="utf-8"), sys.version_info[:2])
        if installed.get(name.lower().replace("_", "-")) != version
    ]


def pins(requirements: str, python: tuple[int, int]) -> list[tuple[str, str]]:
    """(name, version) of the exact pins that hold for a Python version.

    Markers are comparisons of python_version alone: whoever needs more finds a SetupError here.
    """
    found = []
    line = r"^([\w.-]+)(?:\[[\w,]+\])?==([^\s;]+)[ \t]*(?:;([^#\n]*))?"
    for name, version, marker in re.findall(line, requirements, re.M):
        terms = [each.strip() for each in marker.split(" and ")] if marker.strip() else []
        if all(_holds(term, python) for term in terms):
            found.append((name, version))
    return found


def _holds(term: str, python: tuple[int, int]) -> bool:
    match = re.fullmatch(r"python_version\s*(<|>=)\s*[\"']3\.(\d+)[\"']", term)
    if match is None:
        raise SetupError(f'marker {term!r}: only python_version < or >= "3.N" is understood')
    limit = (3, int(match[2]))
    return python < limit if match[1] == "<" else python >= limit


if __name__ == "__main__":
    sys.exit(main())
