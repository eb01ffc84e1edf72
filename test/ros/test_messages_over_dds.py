# SPDX-License-Identifier: Apache-2.0
"""What one process publishes arrives unchanged in another, over DDS."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from twenty_people import TOPIC, masks_of_twenty_people, twenty_people

from bmp_ros.loop.masks import decode_runs
from bmp_ros.ros.interfaces import PersonArray


def plain(value: Any) -> Any:
    """A message as nested dicts, lists and numbers; NaN becomes a text that equals itself."""
    if hasattr(value, "get_fields_and_field_types"):
        return {name: plain(getattr(value, name)) for name in value.get_fields_and_field_types()}
    if isinstance(value, float) and np.isnan(value):
        return "NaN"
    if isinstance(value, (str, int, float)):
        return value
    return [plain(item) for item in value]


def test_twenty_people_arrive_unchanged(ros_context: Context) -> None:
    received: list[PersonArray] = []
    node = rclpy.create_node("subscriber", context=ros_context)
    node.create_subscription(PersonArray, TOPIC, received.append, 5)
    executor = SingleThreadedExecutor(context=ros_context)
    executor.add_node(node)
    script = Path(__file__).with_name("twenty_people.py")
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as publisher:
        deadline = time.monotonic() + 120
        while not received and publisher.poll() is None and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
        if not received:
            executor.spin_once(timeout_sec=5)
        output, _ = publisher.communicate(timeout=60)
    assert publisher.returncode == 0, output
    assert len(received) == 1, output

    masks = masks_of_twenty_people()
    assert plain(received[0]) == plain(twenty_people(masks))
    for person, mask in zip(received[0].people, masks, strict=True):
        m = person.mask
        window = np.s_[m.y_offset : m.y_offset + m.height, m.x_offset : m.x_offset + m.width]
        decoded = np.zeros_like(mask)
        decoded[window] = decode_runs(np.asarray(m.counts), m.width, m.height)
        np.testing.assert_array_equal(decoded, mask)
