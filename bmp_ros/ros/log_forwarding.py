# SPDX-License-Identifier: Apache-2.0
"""What the library says through ``logging`` (device, weights, compilation) in the ROS log."""

from __future__ import annotations

import logging
from typing import Any


class RosLogHandler(logging.Handler):
    """Passes records of INFO and above on to a logger of rclpy."""

    def __init__(self, ros_logger: Any) -> None:
        super().__init__(logging.INFO)
        self._ros_logger = ros_logger

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno >= logging.ERROR:
            self._ros_logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._ros_logger.warning(text)
        else:
            self._ros_logger.info(text)


def forward_log(ros_logger: Any) -> RosLogHandler:
    """Send the log of ``bmp_ros`` to ROS until `stop_forwarding`."""
    handler = RosLogHandler(ros_logger)
    logger = logging.getLogger("bmp_ros")
    logger.addHandler(handler)
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    return handler


def stop_forwarding(handler: RosLogHandler) -> None:
    logging.getLogger("bmp_ros").removeHandler(handler)
