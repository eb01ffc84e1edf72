# SPDX-License-Identifier: Apache-2.0
"""Makes the random networks and golden vectors beside this file importable for the tests here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
