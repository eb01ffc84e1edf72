# SPDX-License-Identifier: Apache-2.0
"""The ROS workspace of this checkout: ``colcon build`` of bmp_msgs and bmp_ros."""

from __future__ import annotations

import os
import re
import shutil

from steps import (
    PYTHON,
    ROOT,
    VENV,
    WORKSPACE,
    SetupError,
    digest,
    output,
    python_identity,
    run,
    say,
    step,
)

CMAKE = "cmake==3.31.10"  # for machines without one


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
    record = WORKSPACE / "install" / ".set_up.key"
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
        places = ["--build-base", str(WORKSPACE / "build")]
        places += ["--install-base", str(WORKSPACE / "install")]
        colcon_build = [colcon, "--log-base", str(WORKSPACE / "log"), "build", *places]
        run([*colcon_build, "--cmake-args", *options, python], "colcon", environment)
        record.write_text(key)

    folder = (WORKSPACE / "install").relative_to(ROOT)
    step(f"colcon build of bmp_msgs and bmp_ros into {folder}/ (minutes at first)", build)


def workspace_inputs() -> list[bytes]:
    """Return what a build depends on.

    Python modules and the contents of data files are not in it: they are installed as links.
    """
    copied = [
        "package.xml",
        "setup.py",
        "setup.cfg",
        "colcon_defaults.yaml",
        "requirements/ros.txt",
    ]
    files = [ROOT / name for name in copied]
    files += [path for path in sorted((ROOT / "bmp_msgs").rglob("*")) if path.is_file()]
    folders = (ROOT / "config", ROOT / "launch", ROOT / "models")
    links = sorted(str(path) for folder in folders for path in folder.rglob("*.*"))
    parts = [str(ROOT).encode(), "\n".join(links).encode()]
    return parts + [part for path in files for part in (path.name.encode(), path.read_bytes())]
