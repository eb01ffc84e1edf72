# SPDX-License-Identifier: Apache-2.0
"""Recordings: people found in every image of a rosbag2, without ROS (library ``rosbags``)."""
