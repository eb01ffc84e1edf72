# SPDX-License-Identifier: Apache-2.0
"""Whatever the camera's publisher is and does, its images arrive, or the log says why not."""

from __future__ import annotations

import numpy as np
import pytest
from node_harness import CameraStandIn, Lab, stamp_of, wait_for
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from bmp_ros.ros import camera as camera_of_node
from bmp_ros.ros import image_subscription
from bmp_ros.ros.interfaces import PersonArray


def send_until_answered(camera: CameraStandIn, poses: list) -> None:
    """A volatile subscription misses what was sent before it matched: send until it has."""

    def answered() -> bool:
        camera.send()
        return any(stamp_of(message) in camera.sent for message in list(poses))

    wait_for(answered, "an answer")


def reliability_of_subscription(lab: Lab) -> str:
    """Empty while there is none."""
    found = lab.peer.get_subscriptions_info_by_topic("/camera/image_raw")
    return found[0].qos_profile.reliability.name if found else ""


@pytest.mark.parametrize("best_effort", [True, False], ids=["best_effort", "reliable"])
def test_publisher_best_effort_or_reliable(lab: Lab, best_effort: bool) -> None:
    camera = lab.camera(best_effort=best_effort)
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    send_until_answered(camera, poses)


def test_publisher_changes_qos(lab: Lab) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    for best_effort in (False, True, False):
        camera = lab.camera(best_effort=best_effort)
        send_until_answered(camera, poses)
        camera.destroy()
    wait_for(lambda: reliability_of_subscription(lab) == "RELIABLE", "a reliable subscription")
    assert "subscribing best effort" in lab.log()
    assert "No messages will be received" not in lab.log(), "rclpy's words before it subscribes"


@pytest.mark.parametrize("late", [False, True])
def test_an_image_that_was_published_once_is_received(lab: Lab, late: bool) -> None:
    """Latched: before the node listens, or by a publisher that it discovers later."""
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    if late:
        lab.start_active()
    camera = lab.camera()
    camera.destroy()
    camera.publisher = lab.peer.create_publisher(Image, "/camera/image_raw", latched)
    stamp = camera.send()
    if not late:
        lab.start_active()
    statistics = lab.node._cameras["camera"].statistics
    wait_for(lambda: statistics.processed, "the image")
    assert lab.node._cameras["camera"].last_stamp == stamp
    lab.diagnosis(": camera", lambda s: s.level == b"\0", "OK")
    wait_for(lambda: "transient local" in lab.node._cameras["camera"].source, "a latched one")


def test_a_subscription_that_failed_is_made_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    make = lab.node.create_subscription

    def fails_once(*arguments: object, **options: object) -> object:
        monkeypatch.undo()
        raise RuntimeError("the middleware has no room")

    assert lab.node.create_subscription == make
    monkeypatch.setattr(lab.node, "create_subscription", fails_once)
    camera = lab.camera(best_effort=True)  # which the node has to follow
    lab.wait_for_log("the middleware has no room")
    send_until_answered(camera, poses)


def test_publisher_appears_late(lab: Lab) -> None:
    lab.start_active(image_timeout=0.5)
    poses = lab.listen("/bmp/poses")
    lab.diagnosis(": camera", lambda s: s.level == b"\2" and "no image" in s.message, "ERROR")
    camera = lab.camera()
    send_until_answered(camera, poses)

    def sends_and_is_ok(status: object) -> bool:
        camera.send()
        return status.level == b"\0"

    lab.diagnosis(": camera", sends_and_is_ok, "OK by itself")
    lab.wait_for_log("/camera/image_raw: images arrive now")


def test_poses_of_another_node_are_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes of one name, after a launch that was thought to be over: ids seem to jump."""
    monkeypatch.setattr(camera_of_node, "_TWIN_S", 0.0)
    monkeypatch.setattr(camera_of_node, "_REMIND_S", 0.0)  # names of nodes come after their topics
    lab.start_active()
    lab.peer.create_publisher(PersonArray, "/bmp/poses", 1)
    lab.wait_for_log(
        "/bmp/poses has 2 publishers", "another namespace", "/bmp/bmp_node", lab.peer.get_name()
    )


def test_two_cameras_on_one_topic_are_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two drivers in one namespace: images of both are taken for those of one camera."""
    monkeypatch.setattr(camera_of_node, "_TWIN_S", 0.0)
    monkeypatch.setattr(camera_of_node, "_REMIND_S", 0.0)
    lab.start_active(depth_topic="/camera/depth")
    for topic, kind in (("image_raw", Image), ("camera_info", CameraInfo), ("depth", Image)):
        for _ in range(2):
            lab.peer.create_publisher(kind, f"/camera/{topic}", 1)
        lab.wait_for_log(
            f"/camera/{topic} has 2 publishers", "for that of one camera", lab.peer.get_name()
        )


@pytest.mark.parametrize(
    "topics",
    [
        {"image_topic": "/bmp/debug_image"},
        {"depth_topic": "/bmp/depth_without_people"},
        {"boxes_topic": "/bmp/poses"},
    ],
)
def test_what_the_node_publishes_itself_is_no_input(lab: Lab, topics: dict[str, str]) -> None:
    lab.start(**topics)
    (topic,) = topics.values()
    lab.wait_for_log("cannot activate", f"{topic} cannot be listened to", "publishes it itself")
    lab.wait_for_state("inactive")


def test_publisher_restarts(lab: Lab) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    for _ in range(3):
        camera = lab.camera(peer=lab.restart_peer())  # another process to DDS
        send_until_answered(camera, poses)
        camera.destroy()


@pytest.mark.parametrize("qos", ["reliable", "best_effort"])
def test_qos_by_hand(lab: Lab, qos: str) -> None:
    lab.start_active(image_qos=qos)
    assert wait_for(lambda: reliability_of_subscription(lab), "a subscription") == qos.upper()


def test_no_image_warns_and_names_the_topics_that_exist(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.peer.create_publisher(Image, "/front/picture", 1)
    lab.peer.create_publisher(CompressedImage, "/rear/picture/compressed", 1)
    monkeypatch.setattr(image_subscription, "_REMIND_S", 0.5)
    lab.start_active(image_timeout=0.5)
    line = lab.wait_for_log(
        "no image for", "/camera/image_raw", "no publisher", "image_topic",
        "Image topics there are: /front/picture;",
        "CompressedImage topics there are: /rear/picture/compressed;",
    )  # fmt: skip
    assert "/bmp/debug_image" not in line  # its own


def test_topic_of_the_other_type_is_named_and_our_own_subscription_is_not_listed(
    lab: Lab,
) -> None:
    topic = "/cam/image_raw/compressed"
    lab.peer.create_publisher(CompressedImage, topic, 1)
    lab.start_active(image_topic=topic, image_timeout=0.5)
    line = lab.wait_for_log("no image for", topic, "published as CompressedImage")
    assert "set image_transport to compressed" in line
    assert "Image topics there are" not in line


def test_misspelt_topic_is_answered_with_did_you_mean(lab: Lab) -> None:
    lab.peer.create_publisher(Image, "/camera/color/image_raw", 1)
    lab.start_active(image_topic="/camera/colour/image_raw", image_timeout=0.5)
    lab.wait_for_log("no image for", "Did you mean /camera/color/image_raw?")


def test_reliable_by_hand_on_a_best_effort_camera_names_the_remedy(lab: Lab) -> None:
    lab.camera(best_effort=True)
    lab.start_active(image_qos="reliable", image_timeout=0.5)
    lab.wait_for_log("no image for", "best effort only", "set image_qos to auto")


def test_max_rate_leaves_frames_out_and_takes_the_newest(lab: Lab) -> None:
    lab.start_active(max_rate=0.001)
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    statistics = lab.node._cameras["camera"].statistics
    stamps = []
    for count in range(1, 7):
        stamps.append(camera.send())
        wait_for(lambda count=count: statistics.received == count, "the image")
        wait_for(lambda: poses, "the first answer")
    assert len(poses) == 1
    assert lab.set(max_rate=0.25)[0].successful  # or the next one would come in 1000 seconds
    wait_for(lambda: len(poses) == 2, "the second answer")
    assert stamp_of(poses[1]) == stamps[-1]  # the newest of those that waited
    received = np.array([stamp_of(message) for message in poses])
    assert (np.diff(received) > 0).all()


def test_image_topic(lab: Lab) -> None:
    lab.start_active(image_topic="/somewhere/else")
    poses = lab.listen("/bmp/poses")
    send_until_answered(lab.camera("/somewhere/else"), poses)
