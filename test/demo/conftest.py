# SPDX-License-Identifier: Apache-2.0
"""Lends these tests the fixtures of test/ros: domains of their own, a peer, what needs ROS."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_ROS_TESTS = Path(__file__).parents[1] / "ros"
_spec = importlib.util.spec_from_file_location("ros_conftest", _ROS_TESTS / "conftest.py")
assert _spec is not None and _spec.loader is not None
_ros = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_ros)
sys.path.insert(0, str(Path(__file__).parent))

pytest_pycollect_makemodule = _ros.pytest_pycollect_makemodule


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user would take for hung may be slow on a busy machine."""
    from bmp_ros.demo import demo, processes  # only where there is ROS

    monkeypatch.setattr(demo, "_FIRST_IMAGE_S", 180.0)
    monkeypatch.setattr(processes, "_PATIENCE_S", 60.0)


lab, ros_context, ros_domain = _ros.lab, _ros.ros_context, _ros.ros_domain
