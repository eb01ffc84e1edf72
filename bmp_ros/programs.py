# SPDX-License-Identifier: Apache-2.0
"""The programs ``bmp_node`` and ``bmp_camera``, whose modules take seconds to import.

SIGINT meanwhile (Ctrl-C at once, a launch file in which another program fails) ends them as it
does later, without Python's traceback.
"""

from __future__ import annotations

import os
import signal


def bmp_node() -> int:
    _end_silently()
    from bmp_ros.ros.bmp_node import main

    return main()


def bmp_camera() -> int:
    _end_silently()
    from bmp_ros.demo.camera_node import main

    return main()


def _end_silently() -> None:
    """Until the node has a handler of its own: nothing is there yet that would have to end."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
