# SPDX-License-Identifier: Apache-2.0
"""``ExecutorTasks``: what other threads want done on the executor's, such as making publishers."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable

from rclpy.node import Node


class ExecutorTasks:
    """Runs what it is given, in order, on the thread that spins the node.

    Publishers are made and destroyed there: the executor goes through a node's entities while it
    waits, and must not meet one that another thread is taking down.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._waiting: deque[Callable[[], None]] = deque()
        self._guard = node.create_guard_condition(self._run)

    def __call__(self, task: Callable[[], None]) -> None:
        """Have ``task`` run soon; from any thread. What it raises is logged."""
        self._waiting.append(task)
        self._guard.trigger()

    def _run(self) -> None:
        while self._waiting:
            task = self._waiting.popleft()
            try:
                task()
            except Exception:
                if not self._node.context.ok():  # ROS was closed meanwhile
                    return
                self._node.get_logger().error(traceback.format_exc())
