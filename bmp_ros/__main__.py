# SPDX-License-Identifier: Apache-2.0
"""``python -m bmp_ros VERB``: the command line of a checkout or an installed package."""

import sys

from bmp_ros.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
