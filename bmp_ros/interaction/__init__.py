# SPDX-License-Identifier: Apache-2.0
"""What the robot's other parts want of people: zones, whom to follow, body frames, ROS4HRI."""
