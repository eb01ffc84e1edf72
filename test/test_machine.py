# SPDX-License-Identifier: Apache-2.0
"""The facts that go with figures of speed."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2

from bmp_ros import __version__
from bmp_ros.machine import machine, machine_line


def test_facts_are_plain_and_name_what_runs() -> None:
    facts = json.loads(json.dumps(machine()))
    assert facts["processor"] and facts["cores"] >= 1
    assert (facts["opencv"], facts["bmp_ros"]) == (cv2.__version__, __version__)
    assert facts["processor"] in machine_line() and "\n" not in machine_line()


def test_networks_libraries_are_not_imported_for_it() -> None:
    code = (
        "import sys; from bmp_ros.machine import machine, machine_line;"
        "machine_line(); sys.exit('torch' in sys.modules or 'torch' in machine())"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
