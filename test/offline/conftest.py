# SPDX-License-Identifier: Apache-2.0
"""Lets the tests of this folder import the numbered pictures and actors of their neighbours."""

import sys
from pathlib import Path

for folder in ("evaluation", "loop"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
