# SPDX-License-Identifier: Apache-2.0
"""Starts bmp_node on one camera, or on several that share one set of networks.

  ros2 launch bmp_ros bmp.launch.py image_topic:=/camera/color/image_raw
  ros2 launch bmp_ros bmp.launch.py preset:=bmp_v2 detection_threshold:=0.4 rviz:=true
  ros2 launch bmp_ros bmp.launch.py cameras:=front,rear

Every parameter of the node is an argument. What is not given is taken from params_file.
"""

import os
from pathlib import Path

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from bmp_ros.ros.launch_arguments import (
    NODE_ARGUMENTS,
    TOPICS,
    TRUTH,
    YES_NO,
    Argument,
    parameter_arguments,
    parameter_value,
    program,
    unknown_arguments,
)
from launch import LaunchContext, LaunchDescription

SHARE = Path(get_package_share_directory("bmp_ros"))

ARGUMENTS = (
    Argument(
        "params_file", str(SHARE / "config" / "bmp.yaml"),
        "Parameters of the node, see config/bmp.yaml.",
    ),
    *NODE_ARGUMENTS,
    Argument("node_name", "bmp_node", "Name of the node."),
    Argument("use_sim_time", "false", "Take the time from /clock, for bags, simulators.", YES_NO),
    Argument("rviz", "false", "Also start rviz2 with the debug image and the markers.", YES_NO),
    Argument("respawn", "false", "Start the node again when its process ends.", YES_NO),
)  # fmt: skip


def generate_launch_description() -> LaunchDescription:
    """Return all arguments, the node and, if wanted, rviz."""
    arguments = [
        DeclareLaunchArgument(
            each.name,
            default_value=each.default,
            description=each.description,
            choices=list(each.choices) or None,
        )
        for each in (*parameter_arguments(), *ARGUMENTS)
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[object]:
    """Make the node of resolved arguments: only those that are given become parameters."""

    def given(name: str) -> str:
        return str(context.perform_substitution(LaunchConfiguration(name))).strip()

    params_file = Path(given("params_file")).expanduser()
    if not params_file.is_file():
        raise FileNotFoundError(f"params_file:={params_file}: there is no such file")
    names = [each.name for each in parameter_arguments()]
    parameters = {name: parameter_value(name, given(name)) for name in names if given(name)}
    parameters["use_sim_time"] = TRUTH[given("use_sim_time")]
    cameras = parameters.get("cameras")
    for name in TOPICS:
        if cameras and name in parameters:
            raise ValueError(
                f"{name}:={parameters[name]} is of one camera; with cameras, params_file says "
                f"{cameras[0]}.{name}"
            )
    # launch would read a text such as true as what YAML makes of it.
    typed = {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in parameters.items()
    }
    declared = [*names, *(each.name for each in ARGUMENTS)]
    remarks = unknown_arguments(context.launch_configurations, declared)
    node = Node(
        package="bmp_ros",
        executable="bmp_node",
        name=given("node_name"),
        namespace=given("namespace"),
        # The file first: what follows it wins.
        parameters=[str(params_file), typed],
        arguments=["--ros-args", "--log-level", given("log_level")],
        prefix=program(given("python")),
        respawn=TRUTH[given("respawn")],
        respawn_delay=2.0,
        output="screen",
        emulate_tty=True,
    )
    notes = [LogInfo(msg=f"bmp.launch.py: {remark}") for remark in remarks]
    rviz = [start_rviz(parameters["use_sim_time"])] if TRUTH[given("rviz")] else []
    return [*notes, node, *rviz]


def start_rviz(use_sim_time: bool) -> object:
    """Make rviz2, or say that it is missing: launch would fail and leave the node running."""
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        distribution = os.environ.get("ROS_DISTRO", "<distro>")
        return LogInfo(
            msg="bmp.launch.py: rviz2 is not installed; going on without it "
            f"(sudo apt-get install ros-{distribution}-rviz2)"
        )
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(SHARE / "config" / "bmp.rviz")],
        parameters=[{"use_sim_time": use_sim_time}],
    )
