#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Follow the person on /bmp/followed_person, by velocities or by goals for Nav2.

    python3 examples/follow_person/follow_person.py
    python3 examples/follow_person/follow_person.py --ros-args -p output:=nav2 -p axes:=base
    ros2 service call /bmp/bmp_node/follow bmp_msgs/srv/FollowPerson "{mode: 2}"

The robot stands still until someone was chosen, whenever followed_person is empty, when its image
is older than `max_age`, when no message comes for `patience` seconds, and when this program ends.
"""

from __future__ import annotations

import math
import signal
import sys
import time

import rclpy
from control import Command, Limits, accelerate, drive, goal, on_the_ground
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time

from bmp_msgs.msg import PersonArray3D

RATE_HZ, GOAL_S = 20.0, 0.5
STILL = Command()
NAMES = {float: "a number", str: "a text", bool: "true or false"}


class FollowPerson(Node):
    """place: (ahead, left) metres of the person in the last message, None: nobody to go to."""

    def __init__(self) -> None:
        super().__init__("follow_person")
        limits = Limits()

        def parameter(name: str, default: float | str | bool) -> float | str | bool:
            any_type = ParameterDescriptor(dynamic_typing=True)  # 2 is as good as 2.0
            value = self.declare_parameter(name, default, any_type).value
            if isinstance(default, float) and type(value) is int:
                return float(value)
            if type(value) is not type(default):
                raise ValueError(f"{name} is {value!r}, allowed: {NAMES[type(default)]}")
            return value

        self.output = parameter("output", "cmd_vel")
        self.axes = parameter("axes", "optical")
        self.stamped = parameter("stamped", False)
        self.patience, self.max_age = parameter("patience", 0.5), parameter("max_age", 1.0)
        self.limits = Limits(
            parameter("keep", limits.keep),
            parameter("speed", limits.speed),
            parameter("turn", limits.turn),
            parameter("acceleration", limits.acceleration),
        )
        self._check()
        self.place: tuple[float, float] | None = None
        self.header = PersonArray3D().header
        self.came = -math.inf
        self.followed = -1
        self.command = STILL
        self.create_subscription(PersonArray3D, "/bmp/followed_person", self.receive, 1)
        # On a clock that runs whatever happens to simulated time: it is the watchdog, too.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        if self.output == "nav2":
            self.publisher = self.create_publisher(PoseStamped, "/goal_pose", 1)
            self.create_timer(GOAL_S, self.send_goal, clock=steady)
        else:
            kind = TwistStamped if self.stamped else Twist
            self.publisher = self.create_publisher(kind, "/cmd_vel", 1)
            self.create_timer(1 / RATE_HZ, self.send_command, clock=steady)

    def _check(self) -> None:
        if self.output not in ("cmd_vel", "nav2"):
            raise ValueError(f"output is {self.output!r}, allowed: cmd_vel, nav2")
        if self.axes not in ("optical", "base"):
            raise ValueError(f"axes is {self.axes!r}, allowed: optical, base")
        for name, limit in [*vars(self.limits).items(), ("patience", self.patience),
                            ("max_age", self.max_age)]:  # fmt: skip
            if not 0 < limit < math.inf:
                raise ValueError(f"{name} is {limit}, allowed: a number above 0")
        if self.output == "nav2" and self.axes != "base":
            raise ValueError(
                "output nav2 needs axes base: set target_frame of bmp_node to the robot's base "
                "frame, such as base_link, and axes to base"
            )

    def receive(self, message: PersonArray3D) -> None:
        self.came, self.header = time.monotonic(), message.header
        self.place = None
        age = (self.get_clock().now() - Time.from_msg(message.header.stamp)).nanoseconds / 1e9
        if not message.people or age > self.max_age:
            self._say(-1)
            return
        person = message.people[0]
        spot = person.centroid
        self.place = on_the_ground(spot.x, spot.y, spot.z, self.axes)
        self._say(person.track_id if self.place is not None else -1)

    def _say(self, number: int) -> None:
        if number != self.followed:
            self.followed = number
            whom = f"following person {number}" if number >= 0 else "nobody to follow: standing"
            self.get_logger().info(whom)

    def target(self) -> tuple[float, float] | None:
        """Where the person is, None when that is not known now."""
        if time.monotonic() - self.came > self.patience:
            self._say(-1)
            self.place = None
        return self.place

    def send_command(self) -> None:
        place = self.target()
        wanted = STILL if place is None else drive(*place, self.limits)
        self.command = accelerate(self.command, wanted, 1 / RATE_HZ, self.limits)
        self._publish(self.command)

    def _publish(self, command: Command) -> None:
        twist = Twist()
        twist.linear.x, twist.angular.z = command.forward, command.turn
        if not self.stamped:
            self.publisher.publish(twist)
            return
        message = TwistStamped(twist=twist)
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = "base_link"
        self.publisher.publish(message)

    def send_goal(self) -> None:
        """A goal at the person's distance; without one, once, where the robot is: it stops."""
        place = self.target()
        if place is None and self.command == STILL:
            return
        ahead, left, yaw = (0.0, 0.0, 0.0) if place is None else goal(*place, self.limits)
        self.command = STILL if place is None else Command(1.0)  # whether Nav2 has a goal
        message = PoseStamped(header=self.header)
        if place is None:  # at the base as it is then, not as it was at that image
            message.header.stamp = Time().to_msg()
        message.pose.position.x, message.pose.position.y = ahead, left
        message.pose.orientation.z = math.sin(yaw / 2)
        message.pose.orientation.w = math.cos(yaw / 2)
        self.publisher.publish(message)

    def stop(self) -> None:
        """Stand still, as the last thing said."""
        self.place, self.came = None, -math.inf
        if self.output == "nav2":
            self.send_goal()
        else:
            self._publish(STILL)


def main() -> None:
    # rclpy's own handler would take the publishers away before the last command.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = FollowPerson()
    except ValueError as error:
        sys.exit(f"follow_person: {error}")
    ended: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _: ended.append(got))
    while not ended:
        rclpy.spin_once(node, timeout_sec=0.1)
    node.stop()
    time.sleep(0.2)  # until the last message has left
    rclpy.shutdown()


if __name__ == "__main__":
    main()
