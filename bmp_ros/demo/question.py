# SPDX-License-Identifier: Apache-2.0
"""A question to a service that is asked until it is answered."""

from __future__ import annotations

import time
from typing import Any

from rclpy.node import Node

_WAIT_S = 3.0


class Question:
    """A request that may be answered more than once: of whom it is asked, nothing must change.

    DDS drops an answer whose reader the server has not discovered, and some it never does, so
    that a client that once got no answer may get none at all (ros2/rmw_fastrtps, issue 842). So
    each time a new client asks; the older ones listen on, for who is only slow. The waits double.

    node: asks; it is spun by the caller. kind: of the service, e.g. ``GetState``. name: of the
    service. request: of ``kind``.
    """

    def __init__(self, node: Node, kind: type, name: str, request: Any) -> None:
        self._node, self._kind, self._name, self._request = node, kind, name, request
        self._clients: list[Any] = []
        self._answers: list[Any] = []
        self._next, self._wait_s = 0.0, _WAIT_S

    @property
    def times_asked(self) -> int:
        return len(self._answers)

    def answer(self) -> Any | None:
        """The response, or None as long as there is none: to be called again and again."""
        for future in self._answers:
            if future.done():
                return future.result()
        if time.monotonic() >= self._next:
            if len(self._clients) == len(self._answers):
                self._clients.append(self._node.create_client(self._kind, self._name))
            if self._clients[-1].service_is_ready():
                self._answers.append(self._clients[-1].call_async(self._request))
                self._next = time.monotonic() + self._wait_s
                self._wait_s *= 2
        return None

    def close(self) -> None:
        """Listen to no answer any more; `answer` would begin anew."""
        while self._clients:
            self._node.destroy_client(self._clients.pop())
        self._answers.clear()
        self._next, self._wait_s = 0.0, _WAIT_S
