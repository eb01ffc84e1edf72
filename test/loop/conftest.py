# SPDX-License-Identifier: Apache-2.0
"""Lets the tests of this folder import its scripted engines, whatever pytest's import mode.

Hypothesis gets no clock: how busy a machine is must not decide whether a property holds.
"""

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile(
    "untimed", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")
