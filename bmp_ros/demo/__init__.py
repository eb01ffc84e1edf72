# SPDX-License-Identifier: Apache-2.0
"""The node seen from outside: a camera without hardware, the demo, and measurements over ROS 2."""
