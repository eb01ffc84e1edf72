#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes this checkout runnable: virtual environment, pinned packages, ROS 2, workspace.

``make setup`` and ``make test`` call it; it needs nothing but Python. Layers are the parts of
``requirements/``. A step that was done before with the same files, Python and versions is left
out, one that was interrupted starts again. The output of pip and colcon goes to ``.venv/set_up/``
and is shown when a step fails.

Where a ROS 2 is sourced (``ROS_DISTRO``), it is used: the virtual environment sees the system's
packages and the layer ``ros`` (ROS 2 Jazzy from wheels) is not installed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
RECORDS = VENV / "set_up"
CMAKE = "cmake==3.31.10"  # for machines without one


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
    "torch": (
        Install("torch.txt", note="5 GB, minutes"),
        Install("sam2.txt", NO_ISOLATION, {"SAM2_BUILD_CUDA": "0"}),
    ),
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
NEEDS = {"torch": ("base",), "dev": ("base",), "openmmlab": ("base", "torch")}


class SetupError(Exception):
    """What is wrong and what to do about it, for the person at the terminal."""


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
    check_machine()
    make_venv(system_packages=distribution is not None)
    wanted = {need for layer in layers for need in NEEDS.get(layer, ())} | set(layers)
    if distribution is not None:
        say(f"ROS 2 {distribution} is sourced: using it, not the wheels")
        wanted.discard("ros")
    for layer in LAYERS:  # in the order of the table: later layers build on earlier ones
        if layer in wanted:
            for install in LAYERS[layer]:
                install_requirements(install)
    if "ros" in wanted:
        fix_cmake_paths()
    if build:
        build_workspace(distribution)


def sourced_ros() -> str | None:
    """Name of the ROS 2 distribution that is sourced, or None. This checkout's own does not count.

    Raises SetupError when rclpy of that ROS cannot be imported by the Python that runs this.
    """
    distribution = os.environ.get("ROS_DISTRO")
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    outside = [p for p in prefixes if ROOT not in p.parents and (p / "share" / "rclpy").is_dir()]
    if distribution is None or not outside:
        return None
    if importlib.util.find_spec("rclpy") is None:
        raise SetupError(
            f"ROS 2 {distribution} of {outside[0]} is sourced, but {sys.executable} (Python "
            f"{platform.python_version()}) does not find its rclpy; use the Python of that ROS: "
            "make PYTHON=/usr/bin/python3 setup"
        )
    return distribution


def check_machine() -> None:
    """Raise SetupError naming everything the machine lacks, and the line that installs it."""
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        raise SetupError(
            f"Python {platform.python_version()} at {sys.executable}: needs 3.10, 3.11 or 3.12, "
            "the ones that ROS 2 Jazzy's wheels and NumPy 1.26 exist for; choose another with "
            "make PYTHON=python3.12 setup"
        )
    version = f"python3.{sys.version_info.minor}"
    packages = []
    if importlib.util.find_spec("ensurepip") is None and not PYTHON.exists():
        packages.append(f"{version}-venv")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        packages.append(f"{version}-dev")
    if not all(shutil.which(tool) for tool in ("cc", "c++", "make")):
        packages.append("build-essential")
    if packages:
        raise SetupError(
            "this machine lacks what the messages are built with; install it and run this again:"
            f"\n  sudo apt-get install -y {' '.join(packages)}"
        )


def make_venv(*, system_packages: bool) -> None:
    config = VENV / "pyvenv.cfg"
    if config.is_file() and PYTHON.exists():
        settings = dict(re.findall(r"^\s*([\w-]+)\s*=\s*(.*?)\s*$", config.read_text(), re.M))
        version = settings.get("version", "").split(".")[:2]
        sees_system = settings.get("include-system-site-packages") == "true"
        if version != [str(part) for part in sys.version_info[:2]]:
            raise SetupError(
                f".venv was made with Python {settings.get('version')}, this is "
                f"{platform.python_version()}; remove it with make clean, or choose that Python "
                "with make PYTHON=…"
            )
        if sees_system != system_packages:
            raise SetupError(
                ".venv was made "
                + ("with" if sees_system else "without")
                + " a sourced ROS 2 and now there is "
                + ("one" if system_packages else "none")
                + "; remove it with make clean, or "
                + ("open a terminal without ROS" if system_packages else "source ROS first")
            )
        return

    def make() -> None:
        options = ["--system-site-packages"] if system_packages else []
        run([sys.executable, "-m", "venv", "--clear", *options, str(VENV)], "venv")

    step(f"virtual environment .venv, Python {platform.python_version()}", make)


def install_requirements(install: Install) -> None:
    file = ROOT / "requirements" / install.file
    key = digest([file.read_bytes(), python_identity(), repr(install.options).encode()])
    record = RECORDS / f"{file.stem}.key"
    if record.is_file() and record.read_text() == key and not missing_pins(file):
        say(f"requirements/{install.file}: up to date")
        return

    def pip() -> None:
        command = [str(PYTHON), "-m", "pip", "install", "--no-input", "--progress-bar", "off"]
        # What a later layer depends on must not replace the versions of the base (NumPy above all).
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
        "{d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}))"
    )
    installed = json.loads(output([str(PYTHON), "-c", query]))
    pins = re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==([^\s;]+)\s*(;.*)?", file.read_text(), re.M)
    return [
        f"{name}=={version}"
        for name, version, marker in pins
        if not marker and installed.get(name.lower().replace("_", "-")) != version
    ]


def fix_cmake_paths() -> None:
    """Point the wheels' CMake files at this machine's Python and NumPy headers.

    They were exported on the machine that built the wheels and carry its folders.
    """
    query = "import sysconfig, numpy; print(sysconfig.get_path('include')); "
    python, numpy = output([str(PYTHON), "-c", query + "print(numpy.get_include())"]).split("\n")
    patterns = {
        r"/opt/python/[^/;\"]+/include/python3\.\d+": python,
        r"/opt/python/[^/;\"]+/lib/python3\.\d+/site-packages/numpy/_?core/include": numpy,
    }
    changed = 0
    for file in (VENV / "share").rglob("*.cmake"):
        text = fixed = file.read_text(encoding="utf-8", errors="surrogateescape")
        for pattern, folder in patterns.items():
            fixed = re.sub(pattern, lambda _, folder=folder: folder, fixed)
        if fixed != text:
            file.write_text(fixed, encoding="utf-8", errors="surrogateescape")
            changed += 1
    if changed:
        say(f"header folders corrected in {changed} CMake files of the wheels")


def build_workspace(distribution: str | None) -> None:
    """``colcon build`` of both packages into ``install/``."""
    key = digest([*workspace_inputs(), python_identity(), str(distribution).encode()])
    record = ROOT / "install" / ".set_up.key"
    if record.is_file() and record.read_text() == key:
        say("workspace: up to date")
        return
    environment = {
        "COLCON_DEFAULTS_FILE": str(ROOT / "colcon_defaults.yaml"),
        "VIRTUAL_ENV": str(VENV),
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    if distribution is None:
        environment |= {"AMENT_PREFIX_PATH": str(VENV), "CMAKE_PREFIX_PATH": str(VENV)}
    if shutil.which("cmake", path=environment["PATH"]) is None:
        step(
            f"{CMAKE}, since the machine has none",
            lambda: run([str(PYTHON), "-m", "pip", "install", "--no-input", CMAKE], "cmake"),
        )
    colcon = shutil.which("colcon", path=environment["PATH"])
    if colcon is None:
        raise SetupError(
            "colcon is missing; install it and run this again:\n"
            "  sudo apt-get install -y python3-colcon-common-extensions"
        )

    def build() -> None:
        options = ["-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Release"]
        python = f"-DPython3_EXECUTABLE={PYTHON}"
        run([colcon, "build", "--cmake-args", *options, python], "colcon", environment)
        record.write_text(key)

    step("colcon build of bmp_msgs and bmp_ros into install/", build)


def workspace_inputs() -> list[bytes]:
    """What a build depends on; Python modules are not in it, since they are installed as links."""
    copied = ["package.xml", "setup.py", "setup.cfg", "colcon_defaults.yaml"]
    contents = [ROOT / name for name in copied]
    contents += [p for p in sorted((ROOT / "bmp_msgs").rglob("*")) if p.is_file()]
    linked = [
        p
        for folder in ("bmp_ros", "config", "launch", "models")
        for p in (ROOT / folder).rglob("*")
    ]
    names = sorted(str(p.relative_to(ROOT)) for p in linked if "__pycache__" not in p.parts)
    versions = [str(ROOT).encode(), "\n".join(names).encode()]
    return versions + [part for p in contents for part in (p.name.encode(), p.read_bytes())]


def python_identity() -> bytes:
    return f"{VENV} {platform.python_version()} {platform.machine()}".encode()


def digest(parts: list[bytes]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()


def step(title: str, action: Callable[[], None]) -> None:
    say(f"{title} …")
    start = time.monotonic()
    action()
    say(f"{title}: done in {time.monotonic() - start:.1f} s")


def say(text: str) -> None:
    print(f"set-up: {text}", flush=True)


def run(command: list[str], name: str, environment: dict[str, str] | None = None) -> None:
    """Run a command, its output in ``.venv/set_up/<name>.log``; raise SetupError if it fails."""
    logs = RECORDS if PYTHON.exists() else ROOT / "log"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{name}.log"
    variables = {**os.environ, **(environment or {})}
    # The wheels' start-up must run in every Python of ours, whatever called this script.
    variables.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
    with log.open("w", encoding="utf-8") as sink:
        done = subprocess.run(
            command, cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
        )
    if done.returncode != 0:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:]
        raise SetupError(
            "\n".join(tail)
            + f"\n\nfailed with exit status {done.returncode}: {' '.join(command)}"
            + f"\nThe whole output is in {log}."
        )


def output(command: list[str]) -> str:
    variables = dict(os.environ)
    variables.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
    return subprocess.run(
        command, env=variables, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
