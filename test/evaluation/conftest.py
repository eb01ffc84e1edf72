# SPDX-License-Identifier: Apache-2.0
"""Lets the tests of this folder import each other's parts and the actors of test/loop."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "loop"))


@pytest.fixture(scope="session")
def renderer():
    """The process's renderer, or a skip that says what is missing."""
    from bmp_ros.synthetic.generator import shared_renderer

    try:
        return shared_renderer()
    except (ImportError, RuntimeError) as error:
        pytest.skip(str(error))
