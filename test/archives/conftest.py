# SPDX-License-Identifier: Apache-2.0
"""Lets these tests, and the workers that they start, import what lies beside them."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "bags")]
