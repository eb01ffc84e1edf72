# SPDX-License-Identifier: Apache-2.0
"""``LatestFrames``: of every camera the newest message only, handed out in turns.

A queue in front of a network that is slower than the camera makes every answer as old as the queue
is long. Here a newer message takes the place of the one that waits, and is counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any


class LatestFrames:
    """Slots of the cameras and a line of requests, for one thread that works on them.

    All methods may be called from any thread and return at once, but `take`, which waits.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._frames: dict[str, Any] = {}
        self._requests: deque[Any] = deque()
        self._served: dict[str, int] = {}  # when a source had its last turn, counted in turns
        self._not_before: dict[str, float] = {}
        self._turn = 0
        self._closed = False

    def put(self, camera: str, message: Any) -> bool:
        """Let ``message`` be what is worked on next for ``camera``.

        Returns whether it took the place of one that nobody had taken.
        """
        with self._changed:
            replaced = camera in self._frames
            self._frames[camera] = message
            self._changed.notify()
            return replaced

    def request(self, job: Any) -> None:
        """Add something that must be worked on and is never replaced."""
        with self._changed:
            self._requests.append(job)
            self._changed.notify()

    def hold(self, camera: str, until: float) -> None:
        """Hand out nothing of ``camera`` before ``until`` on the clock (`max_rate`)."""
        with self._changed:
            self._not_before[camera] = until

    def take(self) -> tuple[str | None, Any] | None:
        """Wait for something to do: (camera, message), (None, request), or None after `close`.

        Who waited for the most turns is next, so that no camera starves another.
        """
        with self._changed:
            while not self._closed:
                now = self._clock()
                source = self._next(now)
                if source is not None:
                    self._turn += 1
                    self._served[source] = self._turn
                    if source == _REQUESTS:
                        return None, self._requests.popleft()
                    return source, self._frames.pop(source)
                held = [self._not_before.get(camera, now) for camera in self._frames]
                self._changed.wait(max(0.0, min(held) - now) if held else None)
            return None

    def clear(self, cameras: Iterable[str]) -> int:
        """Forget what waits of these cameras and when they had their turn; return how many did."""
        with self._changed:
            waiting = 0
            for camera in cameras:
                waiting += self._frames.pop(camera, None) is not None
                self._not_before.pop(camera, None)
            return waiting

    def close(self) -> list[Any]:
        """End `take` for good and return the requests that nobody took."""
        with self._changed:
            self._closed = True
            left = list(self._requests)
            self._requests.clear()
            self._frames.clear()
            self._changed.notify_all()
            return left

    def _next(self, now: float) -> str | None:
        ready = [c for c in self._frames if self._not_before.get(c, now) <= now]
        if self._requests:
            ready.append(_REQUESTS)
        return min(ready, key=lambda source: self._served.get(source, 0), default=None)


_REQUESTS = ""  # a source like the cameras, none of which has an empty name
