# SPDX-License-Identifier: Apache-2.0
"""The one thread that computes: the executor's thread stays free for services and parameters."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from bmp_ros.ros.latest_frame import LatestFrames


class Worker:
    """Takes from `LatestFrames` and calls ``on_frame(camera, message)`` or ``on_request(job)``.

    Both must not raise; what they raise all the same is given to ``on_bug`` and ends nothing.
    """

    def __init__(
        self,
        frames: LatestFrames,
        on_frame: Callable[[str, Any], None],
        on_request: Callable[[Any], None],
        on_bug: Callable[[Exception], None],
    ) -> None:
        self._frames = frames
        self._on_frame = on_frame
        self._on_request = on_request
        self._on_bug = on_bug
        # A daemon: a frame may take long, and the process must be able to end.
        self._thread = threading.Thread(target=self._run, name="bmp_worker", daemon=True)
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Wait until the frame in work is done and the thread has ended; False when it has not.

        `LatestFrames.close` must have been called.
        """
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (taken := self._frames.take()) is not None:
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
