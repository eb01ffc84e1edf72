# SPDX-License-Identifier: Apache-2.0
"""The places of the set-up, and how it runs a step and tells about it."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / os.environ.get("BMP_VENV", ".venv")
"""The virtual environment; another Python or another ROS is tried in one of its own."""
PYTHON = VENV / "bin" / "python"
RECORDS = VENV / "set_up"
WORKSPACE = ROOT if VENV == ROOT / ".venv" else VENV / "workspace"
"""Where ``build/`` and ``install/`` of the packages lie."""


class SetupError(Exception):
    """What is wrong and what to do about it, for the person at the terminal."""


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
    """Run a command and return what it prints."""
    variables = dict(os.environ)
    variables.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
    return subprocess.run(
        command, env=variables, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def digest(parts: list[bytes]) -> str:
    """Return a SHA-256 of the parts, which differs when any of them or their number does."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()


def python_identity() -> bytes:
    """Return what an installation depends on besides its requirements."""
    return f"{VENV} {platform.python_version()} {platform.machine()}".encode()
