# SPDX-License-Identifier: Apache-2.0
"""People for robots: the BBoxMaskPose detect-pose-segment loop as a library and a ROS 2 node."""

__version__ = "0.2.0"
