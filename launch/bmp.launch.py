# SPDX-License-Identifier: Apache-2.0
"""Starts bmp_node on one camera, or on several that share one set of networks.

  ros2 launch bmp_ros bmp.launch.py image_topic:=/camera/color/image_raw
  ros2 launch bmp_ros bmp.launch.py preset:=bmp_v2 rviz:=true
  ros2 launch bmp_ros bmp.launch.py cameras:=front,rear

What is not given here is taken from params_file.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription

SHARE = Path(get_package_share_directory("bmp_ros"))
YES_NO = ["true", "false"]

# Passed on to the node when they are given; empty leaves them to params_file.
PARAMETERS = (
    "preset", "device", "precision", "image_transport", "depth_topic", "target_frame", "autostart",
    "auto_download",
)  # fmt: skip


def generate_launch_description() -> LaunchDescription:
    """Return all arguments, the node and, if wanted, rviz."""
    arguments = [
        DeclareLaunchArgument(
            "image_topic",
            default_value="/camera/image_raw",
            description="Topic of the camera's images; not used with cameras.",
        ),
        DeclareLaunchArgument(
            "image_transport",
            default_value="",
            choices=["", "raw", "compressed"],
            description="raw: image_topic itself; compressed: image_topic + /compressed.",
        ),
        DeclareLaunchArgument(
            "depth_topic",
            default_value="",
            description="Depth images registered to image_topic: people in metres on poses_3d; "
            "not with cameras.",
        ),
        DeclareLaunchArgument(
            "target_frame",
            default_value="",
            description="Frame of poses_3d, through tf; empty: the camera's optical frame.",
        ),
        DeclareLaunchArgument(
            "cameras",
            default_value="",
            description="Names of several cameras, such as front,rear: images from "
            "/front/image_raw and /rear/image_raw unless params_file says front.image_topic.",
        ),
        DeclareLaunchArgument(
            "preset",
            default_value="",
            description="Networks and loop: auto (the default: bmp_d3 if its weights and a CUDA "
            "GPU are on this machine, else tiny), a name such as bmp_v2, or the path of a YAML "
            "file.",
        ),
        DeclareLaunchArgument(
            "device",
            default_value="",
            description="auto (the default: a GPU if there is one), cpu, cuda or cuda:N.",
        ),
        DeclareLaunchArgument(
            "precision",
            default_value="",
            choices=["", "fp32", "fp16", "bf16"],
            description="Number format of the networks; fp16 needs a GPU (the default: fp32).",
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=str(SHARE / "config" / "bmp.yaml"),
            description="Parameters of the node, see config/bmp.yaml.",
        ),
        DeclareLaunchArgument(
            "namespace", default_value="bmp", description="Of the node and its topics."
        ),
        DeclareLaunchArgument(
            "node_name", default_value="bmp_node", description="Name of the node."
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Least severe messages of the node that are logged.",
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            choices=YES_NO,
            description="Take the time from /clock: for bags and simulators.",
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="",
            choices=["", *YES_NO],
            description="Configure and activate the node; false: a lifecycle manager does.",
        ),
        DeclareLaunchArgument(
            "auto_download",
            default_value="",
            choices=["", *YES_NO],
            description="Download missing weights in configure (the default), if "
            "accepted_licences has their licences.",
        ),
        DeclareLaunchArgument(
            "accepted_licences",
            default_value="",
            description="Licences of weights that auto_download may download, such as "
            "Apache-2.0,GPL-3.0 (the default: Apache-2.0,MIT,BSD-2-Clause,BSD-3-Clause).",
        ),
        DeclareLaunchArgument(
            "rviz",
            default_value="false",
            choices=YES_NO,
            description="Also start rviz2 with the debug image and the markers.",
        ),
        DeclareLaunchArgument(
            "python",
            default_value="",
            description="Python that has the networks' packages, such as /path/venv/bin/python; "
            "empty: python3 of this terminal (of a build with --symlink-install: the builder's).",
        ),
        DeclareLaunchArgument(
            "respawn",
            default_value="false",
            choices=YES_NO,
            description="Start the node again when its process ends.",
        ),
    ]
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(SHARE / "config" / "bmp.rviz")],
        parameters=[{"use_sim_time": LaunchConfiguration("use_sim_time")}],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription([*arguments, OpaqueFunction(function=start_node), rviz])


def start_node(context: LaunchContext) -> list[Node]:
    """Make the node of resolved arguments: only those that are given become parameters."""

    def given(name: str) -> str:
        return str(context.perform_substitution(LaunchConfiguration(name))).strip()

    params_file = Path(given("params_file")).expanduser()
    if not params_file.is_file():
        raise FileNotFoundError(f"params_file:={params_file}: there is no such file")
    truth = {"true": True, "false": False}
    parameters = {name: truth.get(given(name), given(name)) for name in PARAMETERS if given(name)}
    parameters["use_sim_time"] = truth[given("use_sim_time")]
    cameras = split(given("cameras"))
    if given("accepted_licences"):
        parameters["accepted_licences"] = split(given("accepted_licences"))
    if cameras and "depth_topic" in parameters:
        raise ValueError(
            f"depth_topic:={parameters['depth_topic']} is of one camera; with cameras, "
            f"params_file says {cameras[0]}.depth_topic"
        )
    if cameras:
        parameters["cameras"] = cameras
    else:
        parameters["image_topic"] = given("image_topic")
    return [
        Node(
            package="bmp_ros",
            executable="bmp_node",
            name=given("node_name"),
            namespace=given("namespace"),
            # The file first: what follows it wins.
            parameters=[str(params_file), parameters],
            arguments=["--ros-args", "--log-level", given("log_level")],
            prefix=given("python") or None,
            respawn=truth[given("respawn")],
            respawn_delay=2.0,
            output="screen",
            emulate_tty=True,
        )
    ]


def split(names: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in names.split(",") if name.strip()]
