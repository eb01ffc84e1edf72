# SPDX-License-Identifier: Apache-2.0
"""``Worker``: the one thread that computes, and what waits for it.

A queue in front of a network that is slower than the camera makes every answer as old as the queue
is long. Here only the newest message of each camera waits: a newer one takes its place, and is
counted. The executor's thread stays free for services and parameters.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any

MAX_REQUESTS = 8
"""Requests that wait: each holds an image, and at a second per image the last of them waits
longer than most callers do."""


class Worker:
    """A slot per camera and a line of requests, worked on in turns from `start` to `close`.

    on_frame(camera, message), on_request(job): called on the thread of the worker. Exceptions go
    to on_bug; the worker continues. Cameras are told apart by equality.
    All methods may be called from any thread. None blocks, except `take` and `join`.
    """

    def __init__(
        self,
        on_frame: Callable[[Any, Any], None],
        on_request: Callable[[Any], None],
        on_bug: Callable[[Exception], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_frame = on_frame
        self._on_request = on_request
        self._on_bug = on_bug
        self._clock = clock
        self._changed = threading.Condition()
        self._frames: dict[Hashable, Any] = {}
        self._requests: deque[Any] = deque()
        self._served: dict[Hashable, int] = {}  # when a source had its last turn, in turns
        self._not_before: dict[Hashable, float] = {}
        self._turn = 0
        self._closed = False
        # A daemon: a frame may take long, and the process must be able to end.
        self._thread = threading.Thread(target=self._run, name="bmp_worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, camera: Hashable, message: Any) -> bool:
        """Make ``message`` the next one of ``camera``; return whether it replaced one."""
        with self._changed:
            replaced = camera in self._frames
            self._frames[camera] = message
            self._changed.notify()
            return replaced

    def request(self, job: Any) -> bool:
        """Add a job that is never replaced; False, and nothing is kept, where too many wait."""
        with self._changed:
            if len(self._requests) >= MAX_REQUESTS:
                return False
            self._requests.append(job)
            self._changed.notify()
            return True

    def hold(self, camera: Hashable, until: float) -> None:
        """Hand out nothing of ``camera`` before ``until`` on the clock (`max_rate`)."""
        with self._changed:
            self._not_before[camera] = until
            self._changed.notify()  # it may wait for a later time

    def clear(self, cameras: Iterable[Hashable]) -> int:
        """Drop the waiting messages and the holds of these cameras; return how many waited."""
        with self._changed:
            waiting = 0
            for camera in cameras:
                waiting += self._frames.pop(camera, None) is not None
                self._not_before.pop(camera, None)
            return waiting

    def take(self) -> tuple[Hashable | None, Any] | None:
        """Wait for work: (camera, message), (None, job), or None after `close`.

        The source that waited for the most turns is next, so that no camera starves another.
        """
        with self._changed:
            while not self._closed:
                now = self._clock()
                ready = [c for c in self._frames if self._not_before.get(c, now) <= now]
                sources = [*ready, None] if self._requests else ready
                if sources:
                    source = min(sources, key=lambda each: self._served.get(each, 0))
                    self._turn += 1
                    self._served[source] = self._turn
                    if source is None:
                        return None, self._requests.popleft()
                    return source, self._frames.pop(source)
                held = [self._not_before.get(camera, now) for camera in self._frames]
                self._changed.wait(max(0.0, min(held) - now) if held else None)
            return None

    def close(self) -> list[Any]:
        """End `take` for good and return the jobs that were never taken."""
        with self._changed:
            self._closed = True
            left = list(self._requests)
            self._requests.clear()
            self._frames.clear()
            self._changed.notify_all()
            return left

    def join(self, timeout: float | None = None) -> bool:
        """Wait after `close` until the thread has ended; False when ``timeout`` (s) came first."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (taken := self.take()) is not None:
            camera, item = taken
            try:
                if camera is None:
                    self._on_request(item)
                else:
                    self._on_frame(camera, item)
            except Exception as error:
                self._on_bug(error)
            # Neither the message nor what was made of it may stay alive while waiting.
            del taken, item
