# SPDX-License-Identifier: Apache-2.0
"""What differs between ROS 2 Humble, Jazzy, Kilted and Lyrical, and what the node does about it.

Read in the sources of rclpy 3.3.21, 7.1.11, 9.1.5 and 10.0.10 and of rosidl_generator_py 0.14.6,
0.22.2, 0.24.2 and 0.27.2.

* Humble has no ``add_post_set_parameters_callback``: accepted values are read before each frame
  (`bmp_ros.ros.parameters`) instead of being pushed into the loop.
* Humble has no matched events and no way to ask a subscription for its publishers: the graph is
  looked at twice a second (`bmp_ros.ros.image_subscription`).
* Humble checks every element of what is assigned to a message field unless it is an
  ``array.array``: arrays are assigned as such (`array_of_bytes`).
* Asked for a transition that the present state does not have, ``change_state`` of Humble and Jazzy
  raises out of the executor and ends the process, Kilted and Lyrical log an error: `ManagedNode`
  asks first, and answers that it failed.
* Awaiting a future in a service callback: the executor of Humble and of Jazzy before 7.1.9 looks
  at a waiting callback again only when something wakes it; a guard condition does, and costs
  nothing in the others, where the future wakes it (`bmp_ros.ros.bmp_node`).
* Lyrical can hand over ``uint8[]`` in other memory than the CPU's (``rosidl_buffer``) to who asks
  for that when subscribing: the node does not, and gets an ``array.array`` as before.
* Humble has the events of a subscription in ``rclpy.qos_event`` (`no_event_messages`).
* DDS on this machine only: ``ROS_AUTOMATIC_DISCOVERY_RANGE``, in Humble ``ROS_LOCALHOST_ONLY``
  (`local_discovery`).
"""

from __future__ import annotations

import array
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import (
    InvalidParameterException,
    InvalidParameterTypeException,
    InvalidParameterValueException,
)
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.lifecycle.node import LifecycleNodeMixin
from rclpy.node import Node
from rclpy.parameter import Parameter

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

RCLError = rclpy_implementation.RCLError


class ManagedNode(LifecycleNode):
    """A lifecycle node that refuses a transition instead of dying of it."""

    # What the service and the trigger_ methods both call; no distribution has a public name.
    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> Any:  # noqa: N802
        machine = self._state_machine
        possible = {number: label for number, label, *_ in machine.available_transitions}
        if transition_id not in possible:
            self.get_logger().warning(
                f"transition {transition_id} refused in {machine.current_state[1]}: there are "
                + (
                    ", ".join(f"{label} ({number})" for number, label in possible.items())
                    or "none, start the node again"
                )
            )
            return TransitionCallbackReturn.FAILURE
        try:
            return LifecycleNodeMixin._LifecycleNodeMixin__change_state(self, transition_id)
        except RCLError as error:  # its notification cannot be published
            self.get_logger().warning(f"transition {transition_id}: {error}")
            return TransitionCallbackReturn.FAILURE


PARAMETER_ERRORS = (
    InvalidParameterException,
    InvalidParameterTypeException,
    InvalidParameterValueException,
)
"""What ``declare_parameter`` raises for refused values of the command line or of a file."""


def no_event_messages() -> SubscriptionEventCallbacks:
    """For subscriptions that follow their publishers.

    rclpy would warn that no messages will be received, half a second before they are: what stays
    incompatible the node says itself, with the remedy.
    """
    return SubscriptionEventCallbacks(use_default_callbacks=False)


def steady_clock() -> Clock:
    """Return a clock that goes on where simulated time stands still or jumps."""
    return Clock(clock_type=ClockType.STEADY_TIME)


def given_parameters(node: Node) -> Mapping[str, Parameter]:
    """The parameters that the command line or a file of parameters gives a value, by name.

    No distribution has a public name for them. ``automatically_declare_parameters_from_overrides``
    would do, if it did not refuse to start a node that is given an empty list.
    """
    given: Mapping[str, Parameter] = node._parameter_overrides
    return given


def array_of_bytes(values: np.ndarray) -> array.array[int]:
    """Copy a uint8 array into what a ``uint8[]`` field takes without looking at each element.

    Assigning a NumPy array or a memoryview instead costs hundreds of milliseconds per image.
    """
    filled = array.array("B")
    filled.frombytes(np.ascontiguousarray(values).data.cast("B"))
    return filled


def local_discovery() -> dict[str, str]:
    """Environment variables that keep DDS of a process on this machine."""
    local = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    if os.environ.get("ROS_DISTRO") == "humble":
        local["ROS_LOCALHOST_ONLY"] = "1"
    return local


NOT_RELEASED = {("kilted", "hri_msgs")}
"""(distribution, package) of what no apt repository has; package.xml has conditions for them."""


def how_to_install(package: str) -> str:
    """Say what brings a ROS package, for example ``tf2_ros_py``: a command, where there is one."""
    distribution = os.environ.get("ROS_DISTRO", "<distro>")
    if (distribution, package) in NOT_RELEASED:
        return f"{package} is not released for {distribution}: build it from source"
    return f"sudo apt-get install ros-{distribution}-{package.replace('_', '-')}"
