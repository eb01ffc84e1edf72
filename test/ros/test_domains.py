# SPDX-License-Identifier: Apache-2.0
"""Tests do not meet: their domains are their own, are not used twice, and are left empty."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import ros_domains
from node_harness import LIMIT_S, Lab, wait_for
from rclpy.context import Context
from rclpy.node import Node

from bmp_ros.demo.processes import private_domain
from bmp_ros.loop import BMPLoop


def test_no_domain_returns_before_all_others_were_used(ros_domain: int) -> None:
    import domain_coordinator

    with domain_coordinator.domain_id() as other:
        assert other != ros_domain, "it is reserved for this test"
    later = [ros_domains._next_domain() for _ in range(50)]
    assert len({ros_domain, *later}) == 51


def test_an_error_of_the_system_leaves_a_private_domain_as_it_is() -> None:
    """domain_coordinator catches each OSError, also those of what is done in the domain."""
    with pytest.raises(FileNotFoundError, match="gone"), private_domain() as domain:
        raise FileNotFoundError("gone")
    with private_domain(domain):
        pass


def test_who_lives_on_is_named_and_its_domain_avoided(
    ros_context: Context, ros_domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ros_domains.require_empty(ros_domain)
    node = Node("lives_on", context=ros_context)
    with monkeypatch.context() as at_once:
        at_once.setattr(ros_domains, "_LIMIT_S", 0.0)
        with pytest.raises(AssertionError, match=f"live on in domain {ros_domain}: this process"):
            ros_domains.require_empty(ros_domain)
    assert ros_domain not in [ros_domains._next_domain() for _ in range(100)]
    node.destroy_node()
    ros_domains.require_empty(ros_domain)


def test_a_lab_that_closes_amid_of_a_configuration_leaves_nothing(
    lab: Lab, ros_domain: int
) -> None:
    building = threading.Event()

    def build(preset: str, device: str, **options: Any) -> BMPLoop:
        building.set()
        assert lab.networks.gate.wait(LIMIT_S)
        return lab.networks.build_loop(preset, device)

    lab.networks.gate.clear()
    lab.start(build_loop=build)
    wait_for(building.is_set, "the configuration")
    lab.close()
    ros_domains.require_empty(ros_domain)
    assert "bmp_worker" not in [thread.name for thread in threading.enumerate()]
