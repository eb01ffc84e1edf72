# SPDX-License-Identifier: Apache-2.0
"""A node that is interrupted before it is there ends without a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

# SIGINT as soon as the named module is looked for: while the program is being imported.
INTERRUPTED = """
import os, signal, sys
from bmp_ros.ros import programs

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
getattr(programs, sys.argv[1])()
"""


@pytest.mark.parametrize(
    ("program", "module"),
    [("bmp_node", "bmp_ros.ros.bmp_node"), ("bmp_camera", "bmp_ros.demo.camera_node")],
)
def test_interrupt_during_the_imports(program: str, module: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED, program, module]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
