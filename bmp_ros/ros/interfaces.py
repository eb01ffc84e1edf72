# SPDX-License-Identifier: Apache-2.0
"""The messages and services of ``bmp_msgs``; says how to build them when they are missing.

Everything in ``bmp_ros.ros`` imports them from here. They are a package of their own that a plain
``colcon build`` of a workspace does not find, because it lies inside of ``bmp_ros``.
"""

from __future__ import annotations

try:
    from bmp_msgs.msg import (
        BoundingBox,
        Keypoint,
        Keypoint3D,
        Mask,
        Person,
        Person3D,
        PersonArray,
        PersonArray3D,
        Skeleton,
        ZoneState,
        ZoneStates,
    )
    from bmp_msgs.srv import EstimatePeople, FollowPerson
except ImportError as error:
    raise ImportError(
        f"""the messages of bmp_ros cannot be imported ({error}).
In a workspace, bmp_msgs has to be linked beside bmp_ros, because colcon does not look for packages
inside of packages. With this repository at src/bmp_ros, run in the workspace:
  ln -s bmp_ros/bmp_msgs src/bmp_msgs
  colcon build --packages-up-to bmp_ros
  source install/setup.bash
In the repository itself, run:
  make setup
  source .venv/bin/activate
  source install/setup.bash""",
        name=error.name,
    ) from error

__all__ = [
    "BoundingBox",
    "EstimatePeople",
    "FollowPerson",
    "Keypoint",
    "Keypoint3D",
    "Mask",
    "Person",
    "Person3D",
    "PersonArray",
    "PersonArray3D",
    "Skeleton",
    "ZoneState",
    "ZoneStates",
]
