# SPDX-License-Identifier: Apache-2.0
"""Tests here share the bags of `test_bag`, and the loop's scripted engines."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "loop")]
