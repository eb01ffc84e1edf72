# SPDX-License-Identifier: Apache-2.0
"""The node as a process of its own, with scripted networks; arguments are those of the node."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from scripted_networks import ScriptedNetworks  # noqa: E402

from bmp_ros.ros.bmp_node import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(build_loop=ScriptedNetworks().build_loop))
