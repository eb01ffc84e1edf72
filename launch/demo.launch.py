# SPDX-License-Identifier: Apache-2.0
"""Starts a camera without hardware, bmp_node and rviz: everything to see, nothing to plug in.

ros2 launch bmp_ros demo.launch.py
ros2 launch bmp_ros demo.launch.py source:=scenes preset:=bmp_d3 rviz:=false
ros2 launch bmp_ros demo.launch.py source:=/path/video.mp4
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from bmp_ros.ros.launch_arguments import NODE_ARGUMENTS, YES_NO, program
from launch import LaunchContext, LaunchDescription

SHARE = Path(get_package_share_directory("bmp_ros"))
CAMERA_NAMESPACE = "camera"


def generate_launch_description() -> LaunchDescription:
    """Return all arguments, the camera, the node and rviz."""
    arguments = [
        DeclareLaunchArgument(
            "preset",
            default_value="auto",
            description="Networks and loop: auto (bmp_d3 if its weights and a CUDA GPU are on "
            "this machine, else tiny, which comes with the package), a name such as bmp_v2, or "
            "the path of a YAML file.",
        ),
        DeclareLaunchArgument(
            "device",
            default_value="auto",
            description="auto (a GPU if there is one), cpu, cuda or cuda:N.",
        ),
        DeclareLaunchArgument(
            "source",
            default_value="clip",
            description="What the camera shows, again and again: clip (people who do not exist), "
            "scenes (the same, rendered live), or the path of a video, an image or a folder.",
        ),
        DeclareLaunchArgument(
            "rate",
            default_value="0.0",
            description="Images per second; 0.0: as the source is meant.",
        ),
        DeclareLaunchArgument(
            "qos",
            default_value="reliable",
            choices=["reliable", "sensor"],
            description="Of the camera; sensor: best effort, as drivers publish.",
        ),
        DeclareLaunchArgument(
            "rviz",
            default_value="true",
            choices=list(YES_NO),
            description="Also start rviz2, where it is installed.",
        ),
        *(
            DeclareLaunchArgument(
                each.name,
                default_value=each.default,
                description=each.description,
                choices=list(each.choices) or None,
            )
            for each in NODE_ARGUMENTS
        ),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[object]:
    """Make camera and node of resolved arguments."""

    def given(name: str) -> str:
        return str(context.perform_substitution(LaunchConfiguration(name))).strip()

    camera = Node(
        package="bmp_ros",
        executable="bmp_camera",
        name="camera",
        namespace=CAMERA_NAMESPACE,
        parameters=[
            {"source": given("source"), "rate": number(given("rate")), "qos": given("qos")}
        ],
        prefix=program(given("python")),
        output="screen",
        emulate_tty=True,
        # It plays without end: without it there is nothing to see.
        on_exit=[Shutdown(reason="the camera has ended")],
    )
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / "launch" / "bmp.launch.py")),
        launch_arguments={
            "image_topic": f"/{CAMERA_NAMESPACE}/image_raw",
            "preset": given("preset"),
            "device": given("device"),
            "namespace": given("namespace"),
            "log_level": given("log_level"),
            "python": given("python"),
            "rviz": given("rviz"),
        }.items(),
    )
    return [camera, node]


def number(rate: str) -> float:
    """The argument ``rate``. Raises ValueError, in words, for what is no number."""
    try:
        return float(rate)
    except ValueError:
        raise ValueError(f"rate:={rate}: images per second are a number, such as 15") from None
