# SPDX-License-Identifier: Apache-2.0
"""Parameters of the node: declared with ranges, checked with reasons, read as plain settings.

A check only accepts or refuses; nothing is applied in it, since another check may still refuse.
What was accepted is read before each frame (`NodeParameters.loop`, `NodeParameters.run`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import Field
from itertools import product
from typing import Any, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from bmp_ros.fields import SettingsError, check_value, near_names, shown
from bmp_ros.loop.settings import LoopSettings
from bmp_ros.resources import is_preset_path
from bmp_ros.ros.compatibility import given_parameters
from bmp_ros.ros.settings import (
    CAMERA,
    CAMERA_NAME,
    CAMERAS,
    CAMERAS_TEXT,
    ENGINE,
    GROUPS,
    INTERACTION,
    KEYFRAMES,
    LOOP,
    MAX_CAMERAS,
    NULL,
    PER_CAMERA,
    RUN,
    SMOOTHING,
    START,
    TRACKER,
    CameraSettings,
    EngineSettings,
    Group,
    InteractionSettings,
    RunSettings,
    StartSettings,
    allowed_parameter_values,
    default_of,
    from_parameter,
    text_of,
    to_parameter,
)
from bmp_ros.tracking import KeyframeSettings, SmoothingSettings, TrackerSettings

Settings = TypeVar("Settings")

_NAMES = frozenset([CAMERAS, "use_sim_time", *(name for g in GROUPS for name, _ in g.rows())])
_QOS = "qos_overrides."
_TOPICS_OF_ROS = ("/clock", "/parameter_events", "/rosout", "/tf", "/tf_static")
_OF_ROS = (
    "use_sim_time",
    "start_type_description_service",
    *(f"{_QOS}{topic}." for topic in _TOPICS_OF_ROS),
)


class NodeParameters:
    """The parameters of one node.

    frozen: groups that may not change now; the node's transitions assign it.
    Declaring raises SettingsError for values of the command line or of a file that are refused.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._started = False
        self._rows: dict[str, tuple[Group, Field[Any]]] = {}
        self.frozen: tuple[Group, ...] = ()
        self._given = given_parameters(node)
        node.add_on_set_parameters_callback(self._check)
        self._refuse_given(CAMERAS)
        node.declare_parameter(
            CAMERAS, [""], ParameterDescriptor(description=CAMERAS_TEXT, dynamic_typing=True)
        )
        for group in GROUPS:
            for name, item in group.rows():
                self._declare(name, group, item, default_of(item))
        self.declare_cameras()
        self._preset_loop = LoopSettings()
        self._started = True

    def declare_cameras(self) -> None:
        """Declare the parameters of each camera in ``cameras`` that has none yet.

        What is no topic is, by default, as without the camera's name.
        """
        for camera, group in product(self.cameras(), PER_CAMERA):
            for of_all, item in group.rows():
                name = f"{camera}.{of_all}"
                if not self._node.has_parameter(name):
                    default = default_of(item)
                    if of_all == "image_topic":
                        default = f"/{camera}/image_raw"
                    elif not of_all.endswith("_topic"):
                        value = self._node.get_parameter(of_all).value
                        default = from_parameter(item, value)
                    self._declare(name, group, item, default)

    def unknown(self) -> list[str]:
        """Parameters that were given and are none of this node's, each with what is near to it."""
        known = [*self._rows, CAMERAS]
        return [
            _unknown(name, known)
            for name in sorted(self._given)
            if name not in known and not name.startswith(_OF_ROS)
        ]

    def remapped(self, arguments: Sequence[str]) -> list[str]:
        """Arguments of a command line that remap a topic with the name of a parameter.

        ROS takes ``NAME:=VALUE`` for that unless it stands behind ``-p``.
        """
        pairs = zip(["", *arguments], arguments, strict=False)
        return [
            word
            for before, word in pairs
            if before not in ("-p", "--param")
            and word.partition(":=")[0] in self._rows
            and ":=" in word
        ]

    def not_taken_over(self) -> list[str]:
        """Topics given without a camera's name while there are several; no camera has them."""
        cameras, found = self.cameras(), []
        for name, item in CAMERA.rows() if cameras else ():
            value = self._node.get_parameter(name).value
            if name.endswith("_topic") and value != default_of(item):
                found.append(f"{name} ({value}; did you mean {cameras[0]}.{name}?)")
        return found

    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras; empty for the one without a name."""
        return _camera_names(self._node.get_parameter(CAMERAS).value)

    def start(self) -> StartSettings:
        return self._read(StartSettings, START)

    def engine(self) -> EngineSettings:
        return self._read(EngineSettings, ENGINE)

    def camera(self, name: str | None = None) -> CameraSettings:
        """Settings of a camera by name, or of the only one."""
        return self._read(CameraSettings, CAMERA, f"{name}." if name else "")

    def interaction(self, name: str | None = None) -> InteractionSettings:
        """Zones and following of a camera by name, or of the only one."""
        return self._read(InteractionSettings, INTERACTION, f"{name}." if name else "")

    def run(self) -> RunSettings:
        return self._read(RunSettings, RUN)

    def tracker(self) -> TrackerSettings:
        return self._read(TrackerSettings, TRACKER)

    def smoothing(self) -> SmoothingSettings:
        return self._read(SmoothingSettings, SMOOTHING)

    def keyframes(self) -> KeyframeSettings:
        return self._read(KeyframeSettings, KEYFRAMES)

    def loop(self) -> LoopSettings:
        return self._read(LoopSettings, LOOP)

    def take_preset(self, preset: LoopSettings) -> None:
        """Let the loop's parameters follow a preset, but for those that were set.

        A parameter that still has the value of the preset before was not set; what
        the command line or a file of parameters gives was set.
        """
        now, before, given = self.loop(), self._preset_loop, self._given
        changes = []
        for name, item in LOOP.rows():
            value = getattr(preset, item.name)
            untouched = getattr(now, item.name) == getattr(before, item.name)
            if untouched and name not in given and value != getattr(now, item.name):
                changes.append(Parameter(name, value=to_parameter(item, value)))
        if changes:
            self._node.set_parameters_atomically(changes)
        self._preset_loop = preset

    def _declare(self, name: str, group: Group, item: Field[Any], default: Any) -> None:
        self._rows[name] = (group, item)
        self._refuse_given(name)
        self._node.declare_parameter(name, to_parameter(item, default), descriptor(group, item))

    def _refuse_given(self, name: str) -> None:
        """Before rclpy does, which says less of what is allowed."""
        given = self._given.get(name)
        reason = self._refusal(given) if given is not None else ""
        if reason:
            raise SettingsError(reason)

    def _read(self, settings: type[Settings], group: Group, prefix: str = "") -> Settings:
        values = {}
        for row, item in group.rows():
            name = prefix + row
            value = self._node.get_parameter(name).value
            values[item.name] = check_value(item, from_parameter(item, value), name)
        return settings(**values)

    def _check(self, parameters: Iterable[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            reason = self._refusal(parameter)
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _refusal(self, parameter: Parameter) -> str:
        """Why a new value cannot be taken; empty when it can, or is not one of ours."""
        known = parameter.name in self._rows or parameter.name == CAMERAS
        if known and parameter.type_ == Parameter.Type.NOT_SET:
            # To rclpy that is the end of a parameter that exists; it comes with [] as well, when
            # one is declared.
            if self._node.has_parameter(parameter.name):
                return (
                    f"{parameter.name} cannot be deleted: set it to a value, its default for one"
                )
        if parameter.name == CAMERAS:
            try:
                _camera_names(parameter.value)
            except SettingsError as error:
                return str(error)
            return self._when(parameter, ENGINE)
        if parameter.name not in self._rows:
            return ""
        group, item = self._rows[parameter.name]
        try:
            check_value(item, from_parameter(item, parameter.value), parameter.name)
        except SettingsError as error:
            if "check" in item.metadata:
                return str(error)
            return _not_allowed(parameter, item)
        if parameter.name == "preset" and self._started and is_preset_path(parameter.value):
            if parameter.value != self._node.get_parameter("preset").value:
                return _only_at_start(str(parameter.value))
        return self._when(parameter, group)

    def _when(self, parameter: Parameter, group: Group) -> str:
        """Why a parameter cannot change now; ``ros2 param load`` also sets what stays as it is."""
        name = parameter.name
        if group not in self.frozen or parameter.value == self._node.get_parameter(name).value:
            return ""
        remedy = group.remedy.replace("NODE", self._node.get_fully_qualified_name())
        return f"{name} may change while the node is {group.when}: {remedy}"


def _not_allowed(parameter: Parameter, item: Field[Any]) -> str:
    value = shown(parameter.value)
    text = f"{parameter.name} is {value}, allowed: {allowed_parameter_values(item)}"
    if item.metadata["kind"] is str and type(parameter.value) in (bool, int, float):
        return f"{text} (to give it as text, quote it twice: \"'{value}'\")"
    return text


def _only_at_start(path: str) -> str:
    """Whoever may call a node's services may set parameters; a preset may name Python files."""
    return (
        f"preset is {path!r}: the path of a file can be given only when the node starts, because "
        "a preset may name programs to run; restart the node with it, or give the name of a "
        "preset that comes with the package"
    )


def _unknown(name: str, known: list[str]) -> str:
    if name.startswith(_QOS):
        return f"{name} (the node follows its publishers; image_qos sets it for images)"
    near = near_names(name, known)
    camera, dot, rest = name.partition(".")
    if (
        dot
        and any(rest == row for group in PER_CAMERA for row, _ in group.rows())
        and not any(each.endswith(f".{rest}") for each in near)
    ):
        return f"{name} ({CAMERAS} has no {camera!r})"
    return f"{name} (did you mean {near[0]}?)" if near else name


def descriptor(group: Group, item: Field[Any]) -> ParameterDescriptor:
    """Description, range and type of one parameter, as ``ros2 param describe`` shows them."""
    spec = item.metadata
    described = ParameterDescriptor(
        description=text_of(item),
        additional_constraints=f"{allowed_parameter_values(item)}; may change: {group.when}",
        read_only=group is START,
        # 1 means 1.0, true a choice of that name, and [] has no type; our own check is strict
        # about everything else.
        dynamic_typing=spec["kind"] in (float, list) or "true" in spec.get("choices", ()),
    )
    if "low" in spec:
        low = NULL if spec["optional"] else spec["low"]
        if spec["kind"] is int:
            described.integer_range = [IntegerRange(from_value=int(low), to_value=spec["high"])]
        else:
            described.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(spec["high"]))
            ]
    return described


def _camera_names(value: Any) -> tuple[str, ...]:
    names = [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
    names = [name for name in names if name != ""]
    for name in names:
        if not isinstance(name, str) or not CAMERA_NAME.match(name):
            raise SettingsError(
                f"{CAMERAS} has {name!r}, allowed: names of letters, digits and _ that begin with "
                "a letter, such as [front, rear]"
            )
        if name in _NAMES:  # a file of parameters cannot hold a value and others below its name
            raise SettingsError(
                f"{CAMERAS} has {name!r}, which is the name of a parameter: call the camera "
                f"{name}_camera, for example"
            )
    if len(set(names)) != len(names):
        raise SettingsError(f"{CAMERAS} is {names}: every name may be there once")
    if len(names) > MAX_CAMERAS:
        raise SettingsError(
            f"{CAMERAS} has {len(names)} names, at most {MAX_CAMERAS} are taken: start "
            "another node for the rest"
        )
    return tuple(names)
