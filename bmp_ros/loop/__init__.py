# SPDX-License-Identifier: Apache-2.0
"""The BBoxMaskPose loop: the method, independent of ROS and of any network library."""
