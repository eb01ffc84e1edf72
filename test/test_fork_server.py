# SPDX-License-Identifier: Apache-2.0
"""Workers run in the current folder, and nothing of what lies in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bmp_ros

START_WORKER = """
import multiprocessing, os, sys
def write(): open("folder", "w").write(os.getcwd())
if __name__ == "__main__":
    from bmp_ros.fork_server import start_fork_server
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["numpy"])
    os.chdir(sys.argv[1])
    start_fork_server()
    worker = context.Process(target=write)
    worker.start(), worker.join()
"""


def test_nothing_of_the_current_folder_is_run(tmp_path: Path) -> None:
    """Nor anything of Python's own that a stranger's folder has under the same name."""
    given, program = tmp_path / "given", tmp_path / "program.py"
    given.mkdir()
    for module in ("numpy", "socket"):
        (given / f"{module}.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w').close()\n")
    program.write_text(START_WORKER)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, str(program), str(given)], env=environment, check=True)
    assert (given / "folder").read_text() == str(given), "relative paths mean the same"
    assert not (tmp_path / "was_run").exists()


HANGUP = """
import multiprocessing, os, signal, sys
def name_handler(): open(sys.argv[1], "w").write(signal.getsignal(signal.SIGHUP).name)
if __name__ == "__main__":
    from bmp_ros.fork_server import fork_server_context
    context = fork_server_context(outlives_terminal=sys.argv[2] == "True")
    worker = context.Process(target=name_handler)
    worker.start(), worker.join()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL, "restored here"
"""


@pytest.mark.parametrize("outlives", [True, False])
def test_workers_outlive_their_terminal_where_that_is_asked_for(
    tmp_path: Path, outlives: bool
) -> None:
    program, written = tmp_path / "program.py", tmp_path / "handler"
    program.write_text(HANGUP)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    order = [sys.executable, str(program), str(written), str(outlives)]
    subprocess.run(order, env=environment, check=True, start_new_session=True)
    assert written.read_text().endswith("SIG_IGN" if outlives else "SIG_DFL")


def test_it_is_imported_where_there_is_no_fork_server() -> None:
    """Windows, whose trainings prepare samples in their own process."""
    code = (
        "import multiprocessing.context as context, signal, sys\n"
        "del context.ForkServerContext, signal.SIGHUP\n"
        "sys.modules['multiprocessing.forkserver'] = None\n"
        "import bmp_ros.fork_server\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_all_workers_are_forked_from_it() -> None:
    """Processes of the start method spawn run what the current folder has of Python's names."""
    makers = r"\b(ProcessPoolExecutor|DataLoader|get_context)\("
    other = r"""["'](spawn|fork)["']|set_start_method|multiprocessing\.(Process|Pool)\b"""
    found = []
    for file in sorted(Path(bmp_ros.__file__).parent.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        assert not re.search(other, text), file
        if re.search(makers, text):
            found.append(file.name)
            assert "fork_server" in text, file
    assert found == ["pools.py", "fork_server.py", "dataset.py", "samples.py"]
