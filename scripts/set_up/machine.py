# SPDX-License-Identifier: Apache-2.0
"""What the machine has to bring: Python, headers, a compiler; perhaps a ROS 2. Makes .venv."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from steps import PYTHON, ROOT, VENV, SetupError, run, step


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


# Newest Python that a layer can be installed for, with the reason. All begin at 3.10.
NEWEST = {
    "ros": ((3, 13), "there are no wheels of ROS 2 Jazzy for it; source a ROS 2 instead"),
    "ros-kilted": ((3, 13), "there are no wheels of ROS 2 Kilted for it; source a ROS 2 instead"),
    "openmmlab": ((3, 12), "mmcv 2.1 and xtcocotools need NumPy 1"),
}
NEWEST_OF_ALL = (3, 14)


def check_python(layers: Iterable[str], version: tuple[int, int] = sys.version_info[:2]) -> None:
    """Raise SetupError naming the layers that cannot be installed for this Python, and why."""
    name = f"Python {version[0]}.{version[1]}"
    if not (3, 10) <= version <= NEWEST_OF_ALL:
        raise SetupError(
            f"{name} at {sys.executable}: needs 3.10 to {NEWEST_OF_ALL[0]}.{NEWEST_OF_ALL[1]}; "
            "choose another with make PYTHON=python3.12 setup"
        )
    refused = [layer for layer in layers if version > NEWEST.get(layer, (version, ""))[0]]
    if refused:
        reasons = "\n".join(
            f"  {layer}: up to Python {NEWEST[layer][0][0]}.{NEWEST[layer][0][1]}; "
            f"{NEWEST[layer][1]}"
            for layer in refused
        )
        raise SetupError(
            f"{name} at {sys.executable} has no\n{reasons}\nThe library and its tests run without "
            "(make test-python); or choose another Python with make PYTHON=python3.12 setup"
        )


def check_machine() -> None:
    """Raise SetupError naming everything the machine lacks, and the line that installs it."""
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
    """Make the virtual environment where there is none.

    Raises SetupError when the one that is there belongs to another Python or another ROS.
    """
    config = VENV / "pyvenv.cfg"
    if config.is_file() and PYTHON.exists():
        settings = dict(re.findall(r"^\s*([\w-]+)\s*=\s*(.*?)\s*$", config.read_text(), re.M))
        version = settings.get("version", "").split(".")[:2]
        sees_system = settings.get("include-system-site-packages") == "true"
        if version != [str(part) for part in sys.version_info[:2]]:
            raise SetupError(
                f"{VENV.name} was made with Python {settings.get('version')}, this is "
                f"{platform.python_version()}; remove it with make clean, or choose that Python "
                "with make PYTHON=…"
            )
        if sees_system != system_packages:
            raise SetupError(
                f"{VENV.name} was made "
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

    step(f"virtual environment {VENV.name}, Python {platform.python_version()}", make)
