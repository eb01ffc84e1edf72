# SPDX-License-Identifier: Apache-2.0
"""What the node says about an image: the message contract, and nothing for nobody."""

from __future__ import annotations

from array import array
from typing import Any

import cv2
import numpy as np
import pytest
from node_harness import Lab, image, stamp_of, wait_for
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float64
from visualization_msgs.msg import Marker, MarkerArray

from bmp_ros.loop import BMPLoop
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.received_people import people_from_message
from bmp_ros.ros import publishers
from bmp_ros.ros.compatibility import array_of_bytes


def test_header_equals_input_every_keypoint_present_skeleton_matches(lab: Lab) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    stamp = camera.send(image(64, 48), frame_id="left_optical")
    wait_for(lambda: poses, "people")
    message = poses[0]
    assert stamp_of(message) == stamp
    assert message.header.frame_id == "left_optical"
    assert (message.height, message.width) == (48, 64)
    assert message.skeleton.name == "coco_17"
    assert tuple(message.skeleton.keypoint_names) == COCO_17.names
    assert list(message.skeleton.edges) == [index for edge in COCO_17.edges for index in edge]
    assert [len(person.keypoints) for person in message.people] == [17, 17]
    assert [person.track_id for person in message.people] == [1, 2]


def test_node_output_equals_library_output(lab: Lab) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    pixels = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    message = image(160, 120)
    message.data = array_of_bytes(pixels)
    camera.send(message)
    wait_for(lambda: poses, "people")
    expected = BMPLoop(lab.networks, lab.networks, lab.networks)(pixels)
    received = people_from_message(poses[0])
    assert len(expected) == 2 and expected.masks.any(axis=(1, 2)).all()
    for name in ("scores", "pose_scores", "mask_scores", "keypoints", "keypoint_scores", "masks"):
        np.testing.assert_array_equal(getattr(received, name), getattr(expected, name), name)
    np.testing.assert_allclose(received.boxes, expected.boxes, rtol=1e-6)
    assert np.isnan(received.visibility).all()  # these networks have no such output


def test_empty_frame_gives_an_empty_array(lab: Lab) -> None:
    lab.networks.people = 0
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    stamp = camera.send()
    wait_for(lambda: poses, "an array")
    assert stamp_of(poses[0]) == stamp
    assert list(poses[0].people) == []
    assert poses[0].skeleton.name == "coco_17"


def wait_for_end(lab: Lab) -> None:
    """Wait until all of a frame is published: a subscriber who comes then gets none of it."""
    assert lab.node is not None
    cameras = lab.node._cameras.values()
    wait_for(lambda: not any(each.publishing.locked() for each in cameras), "the frame's end")


def test_no_subscriber_no_debug_image_is_drawn(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = publishers.draw_people

    def counted(*args: object) -> np.ndarray:
        drawn.append(1)
        return draw(*args)

    monkeypatch.setattr(publishers, "draw_people", counted)
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    stamp = camera.send()
    wait_for(lambda: poses, "people")
    # A second frame is begun only after everything of the first one is published.
    camera.send()
    wait_for(lambda: len(poses) == 2, "people again")
    wait_for_end(lab)
    assert drawn == []

    debug = lab.listen("/bmp/debug_image", Image)
    jpeg = lab.listen("/bmp/debug_image/compressed", CompressedImage)
    stamp = camera.send()
    wait_for(lambda: debug and jpeg, "debug images")
    assert drawn == [1]  # once for both
    assert stamp_of(debug[0]) == stamp_of(jpeg[0]) == stamp
    assert (debug[0].height, debug[0].width, debug[0].encoding) == (48, 64, "bgr8")
    assert len(set(debug[0].data)) > 1  # somebody is drawn on the grey picture
    decoded = cv2.imdecode(np.frombuffer(jpeg[0].data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (48, 64, 3)


def test_anonymised_image_covers_people_and_who_was_there_just_before(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    covered = []
    cover = publishers.cover

    def counted(*args: Any) -> np.ndarray:
        covered.append(1)
        return cover(*args)

    monkeypatch.setattr(publishers, "cover", counted)
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)

    def send(at: int) -> None:
        before = len(poses)
        camera.send(image(data=array("B", noise.tobytes())), stamp_ns=at)
        wait_for(lambda: len(poses) > before, "people")
        wait_for_end(lab)

    start = lab.peer.get_clock().now().nanoseconds
    send(start)
    send(start + 10**7)
    assert not covered, "no work without a subscriber"
    shown = lab.listen("/bmp/anonymised_image", Image)
    jpeg = lab.listen("/bmp/anonymised_image/compressed", CompressedImage)

    def changed(message: Image) -> np.ndarray:
        result: np.ndarray = (np.array(message.data).reshape(48, 64, 3) != noise).any(axis=2)
        return result

    send(start + 2 * 10**8)
    wait_for(lambda: shown and jpeg, "images")
    assert stamp_of(shown[0]) == stamp_of(jpeg[0]) == start + 2 * 10**8
    masks = people_from_message(poses[-1]).masks.any(axis=0)
    assert changed(shown[0])[masks].mean() > 0.99 and len(covered) == 1
    lab.networks.people = 0
    send(start + 4 * 10**8)
    wait_for(lambda: len(shown) == 2, "an image")
    assert changed(shown[1])[masks].mean() > 0.99, "missed once"
    send(start + 10**9)
    wait_for(lambda: len(shown) == 3, "an image")
    assert not changed(shown[2]).any()
    lab.networks.people = 2
    assert all(each.successful for each in lab.set(anonymise="faces", anonymise_with="blur"))
    send(start + 2 * 10**9)
    wait_for(lambda: len(shown) == 4, "an image")
    assert 0 < changed(shown[3]).sum() < changed(shown[0]).sum()


def test_label_image_numbers_the_people(lab: Lab) -> None:
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    labels = lab.listen("/bmp/label_image", Image)
    camera = lab.camera()
    camera.wait_for_subscriber()
    camera.send()
    wait_for(lambda: poses and labels, "people and labels")
    assert labels[0].encoding == "mono8"
    numbers = np.array(labels[0].data).reshape(48, 64)
    people = people_from_message(poses[0])
    assert people.masks.any(axis=(1, 2)).all()
    for index, mask in enumerate(people.masks):
        np.testing.assert_array_equal(numbers == index + 1, mask)


def test_markers_lie_on_the_rays_of_the_keypoints(lab: Lab) -> None:
    lab.start_active(marker_distance=4.0)
    poses = lab.listen("/bmp/poses")
    markers = lab.listen("/bmp/markers", MarkerArray)
    camera = lab.camera()
    camera.wait_for_subscriber()
    camera.send()
    wait_for(lambda: poses, "people")
    lab.wait_for_log("no markers", "No node publishes CameraInfo messages: let the camera")
    assert markers == []

    info = CameraInfo(height=48, width=64, k=[50.0, 0, 32, 0, 50, 24, 0, 0, 1])
    info_publisher = lab.peer.create_publisher(CameraInfo, "/camera/camera_info", 1)

    def send_until_drawn() -> bool:
        info_publisher.publish(info)
        camera.send()
        return bool(markers)

    wait_for(send_until_drawn, "markers")
    array = markers[0].markers
    assert array[0].action == Marker.DELETEALL
    first = array[1]
    drawn = wait_for(
        lambda: next((p for p in poses if stamp_of(p) == stamp_of(first)), None), "its people"
    )
    assert [(marker.ns, marker.id) for marker in array[1:]] == [
        (kind, each.track_id) for each in drawn.people for kind in ("tracks", "ids")
    ]
    ids = [each.track_id for each in drawn.people]
    assert len(set(ids)) == 2 and min(ids) > 0
    person = drawn.people[0]
    a, b = COCO_17.edges[0]
    for point, keypoint in zip(
        first.points[:2], (person.keypoints[a], person.keypoints[b]), strict=True
    ):
        assert point.z == 4.0
        assert point.x == pytest.approx((keypoint.x - 32) / 50 * 4.0, abs=1e-5)
        assert point.y == pytest.approx((keypoint.y - 24) / 50 * 4.0, abs=1e-5)


def test_times_are_published_for_every_frame(lab: Lab) -> None:
    lab.start_active()
    processing = lab.listen("/bmp/debug/processing_time_ms", Float64)
    latency = lab.listen("/bmp/debug/pipeline_latency_ms", Float64)
    camera = lab.camera()
    camera.wait_for_subscriber()
    camera.send()
    wait_for(lambda: processing and latency, "times")
    # The image was stamped before it was sent, so it is older than what it took to process.
    assert 0 < processing[0].data < latency[0].data


@pytest.mark.parametrize("topic", ["/camera/image_raw", "/camera/image_raw/compressed"])
def test_compressed_images(lab: Lab, topic: str) -> None:
    lab.start_active(image_transport="compressed", image_topic=topic)
    poses = lab.listen("/bmp/poses")
    camera = lab.camera("/camera/image_raw/compressed", kind=CompressedImage)
    camera.wait_for_subscriber()
    _, png = cv2.imencode(".png", np.full((30, 40, 3), 99, np.uint8))
    stamp = camera.send(CompressedImage(format="png", data=array_of_bytes(png)))
    wait_for(lambda: poses, "people")
    assert stamp_of(poses[0]) == stamp
    assert (poses[0].height, poses[0].width) == (30, 40)
