# SPDX-License-Identifier: Apache-2.0
"""``python -m bmp_ros.training``: the same as ``bmp train``."""

import os
import sys

if __name__ == "__main__":
    if sys.path[0] in ("", os.getcwd()):
        # Python looks there first, and it may be somebody's data with a torch.py. Last: a checkout
        # that is not installed is found there.
        sys.path.append(sys.path.pop(0))
    from bmp_ros.training.command import main

    sys.exit(main())
