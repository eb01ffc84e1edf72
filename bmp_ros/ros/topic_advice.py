# SPDX-License-Identifier: Apache-2.0
"""Why no image comes, and what to do: said by looking at what other nodes publish."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import ReliabilityPolicy

from bmp_ros.depth.calibration import COMPRESSED_SUFFIX
from bmp_ros.resources import resource_root

IMAGE, COMPRESSED_IMAGE = "Image", "CompressedImage"
_PREFIX = "sensor_msgs/msg/"


@dataclass(frozen=True)
class Publisher:
    """A publisher of another node. kind: its type, without ``sensor_msgs/msg/``."""

    topic: str
    kind: str
    best_effort: bool = False


def publishers_of_others(
    node: LifecycleNode, topic: str = "", kinds: Iterable[str] = (IMAGE, COMPRESSED_IMAGE)
) -> list[Publisher]:
    """All publishers of ``kinds``, and of any type on ``topic``, but for those of ``node``.

    The node's own debug images are no camera, and a topic's list of types has that of the node's
    own subscription as well: only what publishers publish counts.
    """
    ours = node.get_fully_qualified_name()
    wanted = {_PREFIX + kind for kind in kinds}
    found = []
    for name, types in node.get_topic_names_and_types():
        if name != topic and wanted.isdisjoint(types):
            continue
        for info in node.get_publishers_info_by_topic(name):
            if f"{info.node_namespace.rstrip('/')}/{info.node_name}" != ours:
                best_effort = info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
                kind = info.topic_type.removeprefix(_PREFIX)
                found.append(Publisher(name, kind, best_effort))
    return found


def twins(node: LifecycleNode, topic: str, *, is_input: bool = False) -> str:
    """Say what it means that a topic has several publishers; empty if it has not.

    is_input: whether ``node`` listens to it; else it is one of those publishers.
    """
    if node.count_publishers(topic) < 2:
        return ""
    names = sorted(
        f"{info.node_namespace.rstrip('/')}/{info.node_name}"
        for info in node.get_publishers_info_by_topic(topic)
    )
    meaning = (
        "whoever listens gets the answers of all of them, and ids that do not agree"
        if not is_input
        else "this node takes what all of them send for that of one camera"
    )
    return (
        f"{topic} has {len(names)} publishers ({', '.join(names)}): {meaning}. End the others or "
        "give them another namespace (one that was killed counts for some seconds more)"
    )


def published_topics(node: LifecycleNode, kind: str, parameter: str) -> str:
    """The topics of a type of sensor_msgs that other nodes publish, and what to set to one."""
    publishers = publishers_of_others(node, kinds=[kind])
    if not any(each.kind == kind for each in publishers):
        return f"No node publishes {kind} messages: let the camera's driver do it"
    return f"{_named(publishers, kind)}; set {parameter}"


def silence_advice(
    topic: str, kind: str, *, best_effort: bool, publishers: Iterable[Publisher]
) -> str:
    """Say what is known about a subscription that receives nothing, and what would help.

    topic, kind, best_effort: of the subscription; ``kind`` is `IMAGE` or `COMPRESSED_IMAGE`.
    publishers: see `publishers_of_others`.
    """
    publishers = list(publishers)
    on_topic = [each for each in publishers if each.topic == topic]
    fitting = [each for each in on_topic if each.kind == kind]
    if fitting:
        return _of_fitting(fitting, best_effort)
    if on_topic:
        return _of_other_type(topic, kind, on_topic[0].kind)
    return f"it has no publisher. {_other_topics(topic, kind, publishers)}"


def profile_advice() -> str:
    """What gives Fast DDS room for large images."""
    file = resource_root() / "config" / "fastdds.xml"
    variable, other = _profile_variables(os.environ.get("ROS_DISTRO", ""))
    also = f" (with Fast DDS 3, Kilted and later: {other})" if other else ""
    return f"start the driver and this node with {variable}={file}{also}"


def _profile_variables(distribution: str) -> tuple[str, str]:
    """The variable that Fast DDS reads; and the one of Fast DDS 3 where it is not known which.

    Fast DDS 2 reads the first name only, Fast DDS 3 the second only.
    """
    before, since = "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"
    if distribution in ("humble", "iron", "jazzy"):
        return before, ""
    return (since, "") if distribution in ("kilted", "lyrical", "rolling") else (before, since)


def _of_fitting(fitting: list[Publisher], best_effort: bool) -> str:
    count = f"{len(fitting)} publisher{'s' * (len(fitting) != 1)}"
    if not best_effort and all(each.best_effort for each in fitting):
        return (
            f"it has {count}, best effort only: a reliable subscription gets nothing from them; "
            "set image_qos to auto"
        )
    if any(each.best_effort for each in fitting):
        return (
            f"it has {count}, best effort: they send nothing, or the middleware loses large "
            f"images (Fast DDS may: {profile_advice()})"
        )
    return f"it has {count}, reliable, which send nothing: look at the camera's driver"


def _of_other_type(topic: str, kind: str, published: str) -> str:
    text = f"it is published as {published}, the node listens for {kind}"
    if published == COMPRESSED_IMAGE:
        if topic.endswith(COMPRESSED_SUFFIX):
            return f"{text}; set image_transport to compressed"
        return (
            f"{text}; remap the publisher to a topic that ends in {COMPRESSED_SUFFIX}, and set "
            "image_transport to compressed"
        )
    if published == IMAGE:
        return f"{text}; set image_transport to raw and image_topic to {topic}"
    return f"{text}; this node takes sensor_msgs/msg/Image and CompressedImage"


def _other_topics(topic: str, kind: str, publishers: list[Publisher]) -> str:
    twin = (
        topic.removesuffix(COMPRESSED_SUFFIX)
        if kind == COMPRESSED_IMAGE
        else topic + COMPRESSED_SUFFIX
    )
    if any(each.topic == twin and each.kind in (IMAGE, COMPRESSED_IMAGE) for each in publishers):
        transport = "raw" if kind == COMPRESSED_IMAGE else "compressed"
        return f"{twin} has one: set image_transport to {transport}"
    images = [each for each in publishers if each.kind in (IMAGE, COMPRESSED_IMAGE)]
    if not images:
        return (
            "No node publishes images: is the camera's driver running, and in the same "
            "ROS_DOMAIN_ID?"
        )
    bases = {each.topic.removesuffix(COMPRESSED_SUFFIX): each for each in images}
    wanted = topic.removesuffix(COMPRESSED_SUFFIX)
    near = get_close_matches(wanted, bases, n=1, cutoff=0.7)
    hint = f"Did you mean {near[0]}? " if near else ""
    listed = "; ".join(_named(images, each) for each in (IMAGE, COMPRESSED_IMAGE))
    return f"{hint}{listed}; set image_topic and image_transport"


def _named(publishers: Iterable[Publisher], kind: str) -> str:
    names = sorted({each.topic for each in publishers if each.kind == kind})
    return f"{kind} topics there are: {', '.join(names) or 'none'}"
