# SPDX-License-Identifier: Apache-2.0
"""The SROS2 policies of config/sros2 against a running node with everything switched on."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from node_harness import Lab, wait_for
from rclpy.node import NodeNameNonExistentError

CONFIG = Path(__file__).resolve().parents[2] / "config" / "sros2"
BODY = "/humans/bodies/*"
"""The only wildcard: ROS4HRI has topics of each person."""
OF_PACKAGES = {
    "vision_msgs": {("publish", "detections")},
    "foxglove_msgs": {("publish", "annotations")},
    "hri_msgs": {("publish", "tracked"), ("publish", "*")},
    "tf2_msgs": {("publish", "tf")},
    "tf2_ros": {("subscribe", "tf"), ("subscribe", "tf_static")},
    "rclpy.type_description_service": {("reply", "get_type_description")},  # not in Humble
}
"""What the node has only where these can be imported, by the last part of the name."""
KINDS = {
    ("topics", "publish"): "publish", ("topics", "subscribe"): "subscribe",
    ("services", "reply"): "reply", ("services", "request"): "request",
}  # fmt: skip

Rules = set[tuple[str, str]]
"""What is done (publish, subscribe, reply, request), and the full name of the topic or service."""


def allowed(file: str) -> Rules:
    """The rules of a policy, names as ros2/sros2's permissions.xsl resolves them."""
    found: Rules = set()
    root = ElementTree.parse(CONFIG / file).getroot()
    profiles = root.findall("./enclaves/enclave/profiles/profile")
    assert root.attrib == {"version": "0.2.0"} and len(profiles) == 1
    ns, node = profiles[0].attrib["ns"], profiles[0].attrib["node"]
    for rules in profiles[0]:
        assert set(rules.attrib.values()) == {"ALLOW"}
        for qualifier in rules.attrib:
            for name in (str(each.text) for each in rules):
                full = {"/": name, "~": f"{ns}/{node}{name[1:]}"}.get(name[0], f"{ns}/{name}")
                rule = (KINDS[rules.tag, qualifier], full)
                assert rule not in found, f"{rule} is there twice"
                found.add(rule)
    return found


def installed(rules: Rules) -> Rules:
    """Those rules whose packages and modules are there."""
    missing: Rules = set()
    for package, of_it in OF_PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            missing |= of_it
    return {(what, name) for what, name in rules if (what, name.split("/")[-1]) not in missing}


def test_humble_describes_no_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "." in name else name)
    for file in ("policy.xml", "policy_two_cameras.xml"):
        rules = allowed(file)
        assert rules - installed(rules) == {("reply", "/bmp/bmp_node/get_type_description")}


def used(lab: Lab) -> Rules:
    """What the node has in the graph, as another node sees it."""
    asked = ("bmp_node", "/bmp")
    peer = lab.peer
    found = {
        "publish": peer.get_publisher_names_and_types_by_node(*asked),
        "subscribe": peer.get_subscriber_names_and_types_by_node(*asked),
        "reply": peer.get_service_names_and_types_by_node(*asked),
        "request": peer.get_client_names_and_types_by_node(*asked),
    }
    return {
        (what, BODY if name.startswith("/humans/bodies/") and name.count("/") == 4 else name)
        for what, names in found.items()
        for name, _ in names
    }


EVERYTHING: dict[str, Any] = {
    "hri": True, "body_frames_rate": 30.0, "ego_frame": "odom", "boxes_slop": 10.0,
    "boxes_wait": 0.0,
}  # fmt: skip
ONE = EVERYTHING | {
    "depth_topic": "/camera/depth/image_raw", "boxes_topic": "/boxes",
    "zones": ["door: 0 0; 1 0; 1 1"], "target_frame": "base_link",
}  # fmt: skip
SEVERAL = EVERYTHING | {"cameras": ["front", "rear"]} | {
    f"{camera}.{name}": value
    for camera in ("front", "rear") for name, value in (
        ("depth_topic", f"/{camera}/depth/image_raw"), ("boxes_topic", f"/{camera}/boxes"),
        ("zones", ["door: 0 0; 1 0; 1 1"]), ("target_frame", "base_link"),
    )
}  # fmt: skip


@pytest.mark.parametrize(
    ("file", "parameters", "topics"),
    [
        ("policy.xml", ONE, ["/camera/image_raw"]),
        ("policy_two_cameras.xml", SEVERAL, ["/front/image_raw", "/rear/image_raw"]),
    ],
)
def test_policy_names_what_the_node_has(
    lab: Lab, file: str, parameters: dict[str, Any], topics: list[str]
) -> None:
    if importlib.util.find_spec("tf2_ros") is None:  # depth would be refused for want of it
        parameters = {k: v for k, v in parameters.items() if not k.endswith("target_frame")}
    lab.start_active(parameters=parameters)
    assert lab.set(use_sim_time=True)[0].successful
    rules = allowed(file)
    assert [name for _, name in rules if "*" in name] == [BODY]
    wanted = installed(rules)
    cameras = [lab.camera(topic) for topic in topics]
    for camera in cameras:
        camera.wait_for_subscriber()

    def agrees() -> bool:
        for camera in cameras:  # people get topics when they are tracked
            camera.send()
        try:
            return used(lab) == wanted
        except NodeNameNonExistentError:  # known later than what it has
            return False

    try:
        wait_for(agrees, "the graph")
    except AssertionError:
        found = used(lab)
        raise AssertionError(
            f"{file}: not in it {sorted(found - wanted)}; too much in it {sorted(wanted - found)}"
        ) from None
