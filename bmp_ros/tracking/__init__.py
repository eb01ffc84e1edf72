# SPDX-License-Identifier: Apache-2.0
"""Who is who over time. Pure NumPy and SciPy; all times are seconds of the images' stamps."""

from bmp_ros.tracking.keyframes import Keyframes, KeyframeSettings
from bmp_ros.tracking.settings import TrackerSettings
from bmp_ros.tracking.smoothing import JointSmoother, SmoothingSettings
from bmp_ros.tracking.tracker import PersonTracker
from bmp_ros.tracking.tracks import IdCounter

__all__ = [
    "IdCounter",
    "JointSmoother",
    "KeyframeSettings",
    "Keyframes",
    "PersonTracker",
    "SmoothingSettings",
    "TrackerSettings",
]
