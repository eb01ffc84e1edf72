# SPDX-License-Identifier: Apache-2.0
"""Tests on a real ROS 2, each in a DDS domain of its own that does not leave this machine."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from node_harness import Lab
    from rclpy.context import Context

# The programs that tests start lie beside them, and tests import what both sides know.
sys.path.insert(0, str(Path(__file__).parent))

HOW_TO_RUN = "run the ROS tests with `make test` or `scripts/with_ros python -m pytest test/ros`"


def _missing_package() -> str | None:
    for name in ("rclpy", "bmp_msgs"):
        spec = importlib.util.find_spec(name)
        # No origin: the folder bmp_msgs/ of this repository, not the built package.
        if spec is None or spec.origin is None:
            return name
    return None


class _ModuleWithoutRos(pytest.Module):
    """A test module that is skipped before it is imported."""

    def collect(self) -> list[pytest.Item]:
        pytest.skip(f"{_missing_package()} is not there; {HOW_TO_RUN}", allow_module_level=True)


def pytest_pycollect_makemodule(
    module_path: object, parent: pytest.Collector
) -> pytest.Module | None:
    if _missing_package() is None:
        return None  # pytest's own module
    return _ModuleWithoutRos.from_parent(parent, path=module_path)


@pytest.fixture
def ros_domain(request: pytest.FixtureRequest) -> Iterator[int]:
    """Id of a DDS domain of this test alone, also set in the environment; see `claimed_domain`."""
    from ros_domains import claimed_domain

    with claimed_domain() as domain:
        yield domain
        request.node.funcargs.clear()  # they refer to nodes, and have been torn down


@pytest.fixture
def ros_context(ros_domain: int) -> Iterator[Context]:
    """An initialised rclpy context in `ros_domain`; whatever was created in it goes with it."""
    import rclpy
    from rclpy.context import Context

    context = Context()
    rclpy.init(context=context, domain_id=ros_domain)
    yield context
    context.try_shutdown()


@pytest.fixture
def lab(ros_domain: int, capfd: pytest.CaptureFixture[str]) -> Iterator[Lab]:
    """A node with scripted networks, and a peer to talk to it, in a domain of their own."""
    from node_harness import lab_in

    # Its file itself: readouterr() reads and then truncates, and what threads write in between is
    # lost.
    assert capfd._capture is not None
    descriptor = capfd._capture.err.tmpfile.fileno()

    def log() -> str:
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")

    with lab_in(ros_domain, log) as running:
        yield running
