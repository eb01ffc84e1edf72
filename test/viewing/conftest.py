# SPDX-License-Identifier: Apache-2.0
"""Lets the tests of this folder use the bags and the loops of their neighbours."""

import sys
from pathlib import Path

for folder in ("bags", "loop"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
