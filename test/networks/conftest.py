# SPDX-License-Identifier: Apache-2.0
"""Random networks and golden vectors are those of the engines' tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))
