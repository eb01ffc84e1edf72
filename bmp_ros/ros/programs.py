# SPDX-License-Identifier: Apache-2.0
"""The programs ``bmp_node`` and ``bmp_camera``, whose modules take seconds to import.

SIGINT meanwhile (Ctrl-C at once, a launch file in which another program fails) ends them as it
does later, without Python's traceback.
"""

from __future__ import annotations

import os
import signal
from importlib import import_module


def bmp_node() -> int:
    return _main_of("bmp_ros.ros.bmp_node")


def bmp_camera() -> int:
    return _main_of("bmp_ros.demo.camera_node")


def _main_of(module: str) -> int:
    # Until the node has a handler of its own: nothing is there yet that would have to end.
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    code: int = import_module(module).main()
    return code
