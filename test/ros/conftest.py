# SPDX-License-Identifier: Apache-2.0
"""Tests on a real ROS 2, each in a DDS domain of its own that does not leave this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

HOW_TO_RUN = "run the ROS tests with `make test` or `scripts/with_ros python -m pytest test/ros`"


def _missing_package() -> str | None:
    for name in ("rclpy", "bmp_msgs"):
        if importlib.util.find_spec(name) is None:
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
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Id of a DDS domain that nobody else on this machine uses, also set in the environment.

    rclpy contexts and processes that a test starts are in that domain and see only this machine.
    """
    import domain_coordinator

    with domain_coordinator.domain_id() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        # Humble and earlier know the second variable, later ones the first.
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
        yield int(domain)
