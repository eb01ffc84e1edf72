# SPDX-License-Identifier: Apache-2.0
"""Several cameras on one set of networks."""

from __future__ import annotations

from node_harness import Lab, stamp_of, wait_for
from sensor_msgs.msg import CompressedImage, Image

CAMERAS = {"cameras": ["front", "rear"], "rear.image_topic": "/back/picture"}


def test_two_cameras_on_one_set_of_networks(lab: Lab) -> None:
    builds = []

    def build(*args: object, **options: object) -> object:
        builds.append(args)
        return lab.networks.build_loop(*args, **options)

    lab.start(build_loop=build, parameters=CAMERAS)
    lab.wait_for_state("active")
    front, rear = lab.listen("/bmp/front/poses"), lab.listen("/bmp/rear/poses")
    front_camera, rear_camera = lab.camera("/front/image_raw"), lab.camera("/back/picture")
    front_camera.wait_for_subscriber()
    rear_camera.wait_for_subscriber()
    for count in range(1, 4):
        front_camera.send(frame_id="front_optical")
        rear_camera.send(frame_id="rear_optical")
        wait_for(lambda count=count: len(front) == len(rear) == count, "two answers")
    assert {message.header.frame_id for message in front} == {"front_optical"}
    assert {message.header.frame_id for message in rear} == {"rear_optical"}
    assert [stamp_of(message) for message in front] == front_camera.sent
    assert [stamp_of(message) for message in rear] == rear_camera.sent
    assert len(builds) == 1


def test_two_cameras_one_stops_the_other_keeps_its_rate(lab: Lab) -> None:
    lab.start_active(parameters=CAMERAS | {"image_timeout": 0.5})
    front, rear = lab.listen("/bmp/front/poses"), lab.listen("/bmp/rear/poses")
    front_camera, rear_camera = lab.camera("/front/image_raw"), lab.camera("/back/picture")
    front_camera.wait_for_subscriber()
    rear_camera.wait_for_subscriber()
    front_camera.send()
    rear_camera.send()
    wait_for(lambda: front and rear, "two answers")
    rear_camera.destroy()
    for count in range(2, 12):
        front_camera.send()
        wait_for(lambda count=count: len(front) == count, "an answer to every frame")

    def rear_is_silent(status: object) -> bool:
        front_camera.send()
        return status.level == b"\2" and "no image" in status.message

    lab.diagnosis(": rear", rear_is_silent, "ERROR")
    lab.diagnosis(": front", lambda s: front_camera.send() and s.level == b"\0", "OK")
    assert len(rear) == 1
    # Before its first image it was silent as well, for another reason.
    words = "set rear.image_topic and rear.image_transport"  # as they are called here
    lab.wait_for_log("rear: no image", "/back/picture", words)


def test_an_input_that_cannot_be_followed_leaves_the_other_cameras_watched(lab: Lab) -> None:
    """The depth of one camera is sent as another type than the images of the other were."""
    shared = {"front.depth_topic": "/shared", "rear.image_topic": "/shared"}
    lab.start_active(parameters=CAMERAS | shared | {"image_timeout": 0.5})
    lab.wait_for_log("rear: no image", "no publisher")
    lab.peer.create_publisher(CompressedImage, "/shared", 1)
    lab.wait_for_log("front: /shared cannot be listened to as CompressedImage", "as Image already")
    peer = lab.restart_peer()
    poses = lab.listen("/bmp/rear/poses")
    camera = lab.camera("/shared", peer=peer, best_effort=True)  # rear has to follow

    def answered() -> bool:
        camera.send()
        return bool(poses)

    wait_for(answered, "people of the other camera")

    # The depth input still listens as before: its own type may come back beside the other.
    def kinds() -> list[type]:
        return [each.msg_type for each in lab.node.subscriptions if each.topic_name == "/shared"]

    wait_for(lambda: kinds() == [Image, Image], "both")


def test_cameras_take_turns_under_load(lab: Lab) -> None:
    """While a frame is in the networks both send twice: each gets one turn, its newest frame."""
    lab.start_active(parameters=CAMERAS)
    front, rear = lab.listen("/bmp/front/poses"), lab.listen("/bmp/rear/poses")
    cameras = [lab.camera("/front/image_raw"), lab.camera("/back/picture")]
    for camera in cameras:
        camera.wait_for_subscriber()
    lab.networks.in_work.clear()
    lab.networks.gate.clear()
    cameras[0].send()
    wait_for(lab.networks.in_work.is_set, "a frame in the networks")
    statistics = [lab.node._cameras[name].statistics for name in ("front", "rear")]
    for count in (1, 2):
        for camera, counts in zip(cameras, statistics, strict=True):
            camera.send()
            expected = len(camera.sent)
            wait_for(lambda c=counts, e=expected: c.received == e, f"arrival {count}")
    lab.networks.gate.set()
    wait_for(lambda: len(front) == 2 and len(rear) == 1, "the newest of each")
    assert [stamp_of(message) for message in front] == [cameras[0].sent[0], cameras[0].sent[2]]
    assert [stamp_of(message) for message in rear] == [cameras[1].sent[1]]


def test_names_that_cannot_be_part_of_a_topic_are_refused(lab: Lab) -> None:
    lab.start(autostart=False)
    for names in (["front camera"], ["1st"], ["a", "a"], ["zones"], ["use_sim_time"]):
        result = lab.set(cameras=names)[0]
        assert not result.successful and "cameras" in result.reason
