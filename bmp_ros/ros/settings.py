# SPDX-License-Identifier: Apache-2.0
"""What the node can be told, by when it can be told: one table for everything that needs it.

The declarations of the parameters, their checks, config/bmp.yaml and the table of docs/node.md all
come from the fields below and from those of loop, tracker and smoothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any

from bmp_ros.covering import KINDS
from bmp_ros.fields import (
    allowed_values,
    bool_field,
    choice_field,
    number_field,
    str_field,
    strings_field,
)
from bmp_ros.interaction.zones import parse_zones
from bmp_ros.loop.settings import LoopSettings
from bmp_ros.tracking import KeyframeSettings, SmoothingSettings, TrackerSettings
from bmp_ros.weights.zoo import LICENCES, PERMISSIVE


@dataclass(frozen=True)
class StartSettings:
    """Read once, when the node starts."""

    autostart: bool = bool_field(
        True, text="configure and activate at start; false: a lifecycle manager does both"
    )


@dataclass(frozen=True)
class EngineSettings:
    """Which networks, and where: may change while the node is unconfigured."""

    preset: str = str_field(
        "auto", text="networks and loop, by name or as the path of a YAML file; auto: bmp_d3 if "
        "its weights and a CUDA GPU are on this machine, else tiny",
    )  # fmt: skip
    device: str = str_field("auto", text="auto (a GPU if there is one), cpu, cuda or cuda:N")
    precision: str = choice_field(
        "fp32", choices=("fp32", "fp16", "bf16"), text="number format of the networks"
    )
    compile: bool = bool_field(
        False, text="use torch.compile: faster inference, minutes to configure"
    )
    auto_download: bool = bool_field(
        True, text="download missing weights in configure, if accepted_licences has their licences"
    )
    accepted_licences: tuple[str, ...] = strings_field(
        PERMISSIVE, choices=tuple(LICENCES),
        text="licences of weights that auto_download may download",
    )  # fmt: skip


@dataclass(frozen=True)
class CameraSettings:
    """Where images come from, per camera: may change while the node is not active."""

    image_topic: str = str_field("/camera/image_raw", text="topic of the images")
    image_transport: str = choice_field(
        "raw", choices=("raw", "compressed"),
        text="raw: image_topic itself; compressed: image_topic + /compressed",
    )  # fmt: skip
    image_qos: str = choice_field(
        "auto", choices=("auto", "reliable", "best_effort"),
        text="reliability of the subscription; auto: as the publishers offer",
    )  # fmt: skip
    camera_info_topic: str = str_field(
        "", text="calibration, for markers and depth; empty: camera_info beside image_topic"
    )
    rectified: str = choice_field(
        "auto", choices=("auto", "true", "false"),
        text="whether the images are rectified, so that P of camera_info counts and not K and D; "
        "auto: if the last part of the topic's name contains rect",
    )  # fmt: skip
    boxes_topic: str = str_field(
        "", text="boxes of people in the place of the detector's, by stamp "
        "(bmp_msgs/PersonArray or vision_msgs/Detection2DArray); empty: the detector's",
    )  # fmt: skip
    boxes_slop: float = number_field(
        0.0, low=0.0, high=10.0, text="maximum seconds between the stamps of an image and of its "
        "boxes; 0: the very same stamp",
    )  # fmt: skip
    boxes_wait: float = number_field(
        0.5, low=0.0, high=60.0, text="seconds that an image waits for its boxes"
    )
    boxes_missing: str = choice_field(
        "detector", choices=("detector", "skip"), text="images without boxes, or with boxes of "
        "another image: detector: it looks for people; skip: nothing is published",
    )  # fmt: skip
    boxes_class: str = str_field(
        "person", text="class_id of people in a Detection2DArray; empty: every box is a person"
    )
    depth_topic: str = str_field(
        "", text="depth images registered to those of image_topic (sensor_msgs/Image, or "
        "CompressedImage as compressed_depth_image_transport publishes it); empty: no depth",
    )  # fmt: skip
    depth_camera_info_topic: str = str_field(
        "", text="calibration of the depth images; empty: camera_info beside depth_topic"
    )
    depth_rectified: str = choice_field(
        "auto", choices=("auto", "true", "false"),
        text="the same as rectified, for the depth images",
    )  # fmt: skip
    target_frame: str = str_field(
        "", text="frame of poses_3d, through tf; empty: the camera's optical frame"
    )
    ego_frame: str = str_field(
        "odom", text="fixed frame of tf in which the camera's rotation is looked up, to track "
        "people while it turns; needs tf2_ros and a calibration; empty or none: off",
    )  # fmt: skip


_CAMERA_PARAMETERS = re.compile(
    # "rectified" is a word of sentences, too.
    rf"(?<![\w/.])({'|'.join(item.name for item in fields(CameraSettings) if '_' in item.name)})\b"
)


def named_for(camera: str, text: str) -> str:
    """``text`` with the parameters of one of several cameras by their names: front.image_qos."""
    return _CAMERA_PARAMETERS.sub(rf"{camera}.\1", text)


@dataclass(frozen=True)
class RunSettings:
    """How the node behaves: may change at any time, applied to the next frame."""

    max_rate: float = number_field(
        0.0, low=0.0, high=1000.0, text="maximum rate per camera in Hz; 0: unlimited"
    )
    image_timeout: float = number_field(
        5.0, low=0.1, high=3600.0, text="seconds without an image before a warning"
    )
    latency_budget_ms: float = number_field(
        500.0, low=0.0, high=1e6, text="maximum age of an image when its result is published "
        "(95th percentile); above it the diagnostics warn; 0: never",
    )  # fmt: skip
    marker_distance: float = number_field(
        2.0,
        low=0.1,
        high=100.0,
        text="distance in metres at which markers are drawn",
    )
    depth_max_age: float = number_field(
        0.05,
        low=0.0,
        high=10.0,
        text="maximum seconds between image and depth image",
    )
    tracking: bool = bool_field(
        True, text="track people: give them ids that last from image to image"
    )
    joint_inset: bool = bool_field(
        False, text="move the keypoints of poses_3d from the surface of the body into it"
    )
    body_frames_rate: float = number_field(
        0.0, low=0.0, high=1000.0, text="maximum rate in Hz of tf frames body_<id> of tracked "
        "people and of their joints; needs depth and tf2_msgs; 0: none",
    )  # fmt: skip
    hri: bool = bool_field(
        False, text="publish tracked people as ROS4HRI bodies below /humans/bodies; needs hri_msgs"
    )
    hri_remove_background: bool = bool_field(
        False, text="make what is not the person black in /humans/bodies/<id>/cropped"
    )
    people_margin: int = number_field(
        8, low=0, high=200, integer=True, text="margin in pixels around people when they are "
        "removed from depth_without_people",
    )  # fmt: skip
    jpeg_quality: int = number_field(
        80, low=1, high=100, integer=True, text="JPEG quality of debug_image/compressed and "
        "anonymised_image/compressed",
    )  # fmt: skip
    anonymise: str = choice_field(
        "bodies", choices=KINDS, text="what of people anonymised_image covers"
    )
    anonymise_with: str = choice_field(
        "pixels", choices=("pixels", "blur"),
        text="what anonymised_image covers people with: large pixels, or smooth colours",
    )  # fmt: skip


@dataclass(frozen=True)
class InteractionSettings:
    """Zones and following, per camera: may change at any time, applied to the next frame."""

    zones: tuple[str, ...] = strings_field(
        (), check=parse_zones, text="zones, each written as NAME: X Y; X Y; X Y in shares of the "
        "image's width and height, or as NAME in FRAME: X Y; X Y; X Y in metres on the ground "
        "(z = 0) of a tf frame",
    )  # fmt: skip
    zone_anchor: str = choice_field(
        "feet", choices=("feet", "box_centre"), text="point of a person that is in a zone of the "
        "image: the feet (ankles, else the box's lower side) or the middle of the box",
    )  # fmt: skip
    zone_leave: float = number_field(
        1.0, low=0.0, high=60.0, text="seconds without being seen in a zone after which a person "
        "has left it",
    )  # fmt: skip
    follow_settle: float = number_field(
        0.5, low=0.0, high=60.0, text="seconds for which a followed person must be seen without "
        "doubt before followed_person names them again",
    )  # fmt: skip
    follow_timeout: float = number_field(
        1.0, low=0.1, high=60.0, text="seconds without a result after which followed_person is "
        "published empty",
    )  # fmt: skip


CAMERAS = "cameras"
CAMERAS_TEXT = (
    "names of several cameras, which share one set of networks; each has the parameters of a "
    "camera under its name, such as front.image_topic, and topics below it, such as front/poses"
)
MAX_CAMERAS = 16
"""Each has some twenty topics."""
CAMERA_NAME = re.compile(r"[a-zA-Z]\w*$", re.ASCII)  # what may be a level of a topic's name


@dataclass(frozen=True)
class Group:
    """Parameters that may change at the same times. settings: a dataclass of checked fields.

    remedy: what the user has to do before a change, NODE being the node's name; empty where it is
    always possible. prefix: of the parameters' names. It must not be a parameter itself: ``ros2
    param dump`` cannot write one that is a value and has others below it.
    """

    settings: type
    when: str
    remedy: str = ""
    prefix: str = ""

    def rows(self) -> Iterator[tuple[str, Field[Any]]]:
        """Name and field of each parameter."""
        for item in fields(self.settings):
            yield self.prefix + item.name, item


_CLEANUP = (
    "run `ros2 lifecycle set NODE deactivate` and `cleanup`, set it, then `configure` and "
    "`activate`"
)
_DEACTIVATE = "run `ros2 lifecycle set NODE deactivate`, set it, then `activate`"
START = Group(StartSettings, "start", "restart the node with it")
ENGINE = Group(EngineSettings, "unconfigured", _CLEANUP)
CAMERA = Group(CameraSettings, "not active", _DEACTIVATE)
RUN = Group(RunSettings, "always")
INTERACTION = Group(InteractionSettings, "always")
TRACKER = Group(TrackerSettings, "always", prefix="tracker.")
SMOOTHING = Group(SmoothingSettings, "always", prefix="smoothing.")
KEYFRAMES = Group(KeyframeSettings, "always")
LOOP = Group(LoopSettings, "always")
GROUPS = (START, ENGINE, CAMERA, RUN, INTERACTION, TRACKER, SMOOTHING, KEYFRAMES, LOOP)
PER_CAMERA = (CAMERA, INTERACTION)
"""Groups that every one of several cameras has, under its name."""


def default_of(item: Field[Any]) -> Any:
    """Default of a field; every parameter has one."""
    assert item.default is not MISSING, item.name
    return item.default


# ROS parameters have no null: the optional ones are numbers >= 0, and -1 stands for it.
NULL = -1.0


def to_parameter(item: Field[Any], value: Any) -> Any:
    """A setting as a ROS parameter value."""
    if item.metadata["kind"] is list:
        return list(value) or [""]  # an empty list has no type in ROS
    return NULL if value is None else value


def from_parameter(item: Field[Any], value: Any) -> Any:
    """A ROS parameter value as a setting, not yet checked."""
    if item.metadata["kind"] is list:
        # rclpy gives None for [] without a type, and [""] stands for it.
        return [] if value is None or value in ([""], ("",)) else value
    # What looks like a boolean is made one on the command line and in files.
    if type(value) is bool and "true" in item.metadata.get("choices", ()):
        return str(value).lower()
    optional = item.metadata["optional"]
    return None if optional and type(value) in (int, float) and value == NULL else value


def allowed_parameter_values(item: Field[Any]) -> str:
    """Say in words what a parameter takes."""
    return allowed_values(item).replace(", or null", ", or -1")


def text_of(item: Field[Any]) -> str:
    """Description of a parameter, one line."""
    text: str = item.metadata["text"]
    return text.replace("null:", "-1:")
