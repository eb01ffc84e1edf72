# SPDX-License-Identifier: Apache-2.0
"""The process of a node: from its arguments to an exit code, and the log of the library."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, Protocol

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions, install_signal_handlers

from bmp_ros.fields import SettingsError
from bmp_ros.ros.compatibility import PARAMETER_ERRORS

_LAST_FRAME_S = 3.0
_ENDINGS = (KeyboardInterrupt, ExternalShutdownException)
_PLACES = re.compile(r"\s*, at \S+:\d+")
"""Where in its sources rcl noticed an error."""


class ClosableNode(Protocol):
    """A node that can be told to end: ``close(timeout)`` is False when it could not in time."""

    def close(self, timeout: float | None = None) -> bool: ...

    def destroy_node(self) -> None: ...


def run_node(make: Callable[[], ClosableNode], arguments: list[str] | None = None) -> int:
    """Run a node until SIGINT, SIGTERM or a shutdown of ROS; return the exit code.

    0 for all of these, at any moment from here on and however often the signals come; 1 when the
    node's arguments or parameters are refused, which is logged.
    """
    interrupts = _Interrupts()
    node = None
    try:
        try:
            refusal = _init(arguments)
            if refusal and not interrupts.seen:
                rclpy.logging.get_logger("bmp_ros").fatal(f"ROS 2 does not start: {refusal}")
                return 1
            node = make()
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            # From here on rclpy's handlers end the spinning, and hand on to ours, which must not
            # raise any more: half-made objects of rclpy tell of it in their destructors.
            interrupts.raising = False
            install_signal_handlers(SignalHandlerOptions.ALL)
            _spin(executor, interrupts)
        except (SettingsError, *PARAMETER_ERRORS) as error:
            rclpy.logging.get_logger("bmp_ros").fatal(f"a parameter is refused: {error}")
            rclpy.try_shutdown()
            return 1
        except _ENDINGS:
            pass
        except Exception:
            if not interrupts.seen:
                raise
        interrupts.raising = False
    except KeyboardInterrupt:  # between the end and the line above; the first is the only one
        pass
    if node is not None:
        if not node.close(_LAST_FRAME_S):
            # The worker is inside of a network; ending the interpreter under it would crash.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        node.destroy_node()
    rclpy.try_shutdown()
    # Python at its end gives signals their defaults back, save those that are ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return 0


def _init(arguments: list[str] | None) -> str:
    """Initialise rclpy, without its handlers; return why its arguments are refused, if they are.

    The handlers shut its context down, which making a node would stumble over.
    """
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except UnicodeEncodeError as error:  # Python keeps such bytes as surrogates
        word = error.object.encode(errors="surrogateescape")
        return (
            f"the argument {word!r} is not UTF-8, which ROS 2 cannot read: give a file or a "
            "folder another name, or make a link to it"
        )
    except RuntimeError as error:  # rclpy has no public name for its errors of arguments
        reason = _PLACES.sub("", str(error)).removeprefix("failed to initialize rcl: ").strip()
        if type(error).__name__ == "UnknownROSArgsError":
            return f"there are no such arguments of ROS: {reason}"
        if "params file" in reason:
            reason += (
                "; a file of parameters has the node's name or /** first, ros__parameters below "
                "it, and below that names and values, as config/bmp.yaml does"
            )
        return reason
    return ""


class _Interrupts:
    """The first SIGINT or SIGTERM raises KeyboardInterrupt while ``raising``; all are remembered.

    A second one must not turn an orderly end into an error. Where the first strikes while rclpy
    makes a message, its C++ turns it into a RuntimeError; in a destructor Python drops it.
    """

    def __init__(self) -> None:
        self.seen = False
        self.raising = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, *_: object) -> None:
        first, self.seen = not self.seen, True
        if first and self.raising:
            raise KeyboardInterrupt


def _spin(executor: SingleThreadedExecutor, interrupts: _Interrupts) -> None:
    """Spin until ROS or a signal ends it; what escapes a callback is logged and costs no more."""
    while not interrupts.seen:
        try:
            executor.spin()
            return
        except _ENDINGS:
            return
        except Exception:
            if interrupts.seen or not rclpy.ok():  # rclpy stumbles over its own shutdown
                return
            rclpy.logging.get_logger("bmp_ros").error(traceback.format_exc())


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
