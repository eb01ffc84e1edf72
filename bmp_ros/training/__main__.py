# SPDX-License-Identifier: Apache-2.0
"""``python -m bmp_ros.training``: the same as ``bmp train``."""

import sys

from bmp_ros.training.command import main

if __name__ == "__main__":
    sys.exit(main())
