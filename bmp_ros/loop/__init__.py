# SPDX-License-Identifier: Apache-2.0
"""The BBoxMaskPose loop: the method, independent of ROS and of any network library."""

from bmp_ros.fields import SettingsError
from bmp_ros.loop.bmp_loop import BMPLoop
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.people import People
from bmp_ros.loop.settings import LoopSettings

__all__ = ["BMPLoop", "Frame", "LoopSettings", "People", "SettingsError"]
