#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Print who is seen, by track id: the smallest subscriber of /bmp/poses."""

import signal

import rclpy

from bmp_msgs.msg import PersonArray


def show(message: PersonArray) -> None:
    stamp = message.header.stamp
    print(f"{stamp.sec}.{stamp.nanosec:09}: {len(message.people)} people", flush=True)
    names = message.skeleton.keypoint_names
    for person in message.people:
        box, area = person.bbox, sum(person.mask.counts[1::2])
        seen = [name for name, k in zip(names, person.keypoints, strict=True) if k.score > 0.5]
        who = f"id {person.track_id}" if person.track_id >= 0 else "no id yet"
        print(
            f"  {who}: {person.score:.2f} at {box.x:.0f} {box.y:.0f}, {area} px:",
            *seen,
            flush=True,
        )


if __name__ == "__main__":
    # Ctrl-C ends spin() by way of rclpy's own handler; Python's would raise amid of its C++.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rclpy.init()
    node = rclpy.create_node("print_people")
    node.create_subscription(PersonArray, "/bmp/poses", show, 5)
    try:
        rclpy.spin(node)
    except Exception:
        if rclpy.ok():  # else Ctrl-C came, and rclpy stumbled over its own shutdown
            raise
