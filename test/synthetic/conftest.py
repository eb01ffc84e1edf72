# SPDX-License-Identifier: Apache-2.0
"""Skips what needs OpenGL, with the reason, on machines without it."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def renderer():
    """The process's renderer, or a skip that says what is missing."""
    from bmp_ros.synthetic.generator import shared_renderer

    try:
        return shared_renderer()
    except (ImportError, RuntimeError) as error:
        pytest.skip(str(error))
