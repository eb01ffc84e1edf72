# SPDX-License-Identifier: Apache-2.0
"""Makes the random networks of the native modules' tests importable for the comparisons here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "torch"))
