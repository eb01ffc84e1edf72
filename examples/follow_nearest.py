#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Follow the nearest person: /bmp/poses_3d in, /cmd_vel out; stand still when no one is seen.

Without a depth camera: subscribe to PersonArray on /bmp/poses, take who looks tallest
(`max(message.people, key=lambda person: person.bbox.height)`), turn by
`0.5 - (bbox.x + bbox.width / 2) / message.width` and drive while `bbox.height` is less than half
of `message.height`.
"""

import math
import signal

import rclpy
from geometry_msgs.msg import Twist
from rclpy.node import Node

from bmp_msgs.msg import PersonArray3D

KEEP_M, SPEED, PATIENCE_S = 1.2, 0.4, 1.0  # distance to keep, m/s at most, then stop


class FollowNearest(Node):
    def __init__(self) -> None:
        super().__init__("follow_nearest")
        self.followed = -1  # track id, to say who it is
        self.publisher = self.create_publisher(Twist, "/cmd_vel", 1)
        self.create_subscription(PersonArray3D, "/bmp/poses_3d", self.follow, 1)
        # Camera, depth or network may fail: no news stop the robot as nobody does.
        self.watchdog = self.create_timer(PATIENCE_S, lambda: self.publisher.publish(Twist()))

    def follow(self, message: PersonArray3D) -> None:
        self.watchdog.reset()
        command = Twist()  # all zero: stand still
        people = [person for person in message.people if math.isfinite(person.distance)]
        if people:  # in the camera's optical frame: x to the right, z ahead
            nearest = min(people, key=lambda person: person.distance)
            place = nearest.centroid
            if nearest.track_id not in (-1, self.followed):
                self.followed = nearest.track_id
                self.get_logger().info(f"following person {self.followed}")
            command.angular.z = -math.atan2(place.x, place.z)
            command.linear.x = min(max(0.5 * (place.z - KEEP_M), 0.0), SPEED)
        self.publisher.publish(command)


if __name__ == "__main__":
    # Ctrl-C ends spin() by way of rclpy's own handler; Python's would raise amid of its C++.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rclpy.init()
    try:
        rclpy.spin(FollowNearest())
    except Exception:
        if rclpy.ok():  # else Ctrl-C came, and rclpy stumbled over its own shutdown
            raise
