# SPDX-License-Identifier: Apache-2.0
"""``Throttle``: what is said once, or not more often than that."""

from __future__ import annotations

import time


class Throttle:
    """Remembers when something was said last, by topic.

    rclpy throttles by the line of code that logs: two cameras that complain on the same line would
    silence each other, and its default clock stands still with simulated time.
    """

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def due(self, topic: str, every_s: float) -> bool:
        """Whether ``topic`` may be said now; the answer True counts as said."""
        now = time.monotonic()
        if topic in self._said and now - self._said[topic] < every_s:
            return False
        self._said[topic] = now
        return True
