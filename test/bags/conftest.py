# SPDX-License-Identifier: Apache-2.0
"""Tests here share the bags of `test_bag`, the people of `test_covering`, and scripted engines."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(TESTS), str(TESTS / "loop")]
