# SPDX-License-Identifier: Apache-2.0
"""The node with boxes of another node in the place of its detector."""

from __future__ import annotations

import math
from array import array
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from node_harness import Lab, image, stamp_of, wait_for
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from bmp_ros.loop.people import People
from bmp_ros.ros import boxes_input
from bmp_ros.ros.boxes_input import (
    MAX_BYTES,
    BoxesError,
    BoxesInput,
    ReceivedBoxes,
    _of_detections,
    detections_of,
    why_nobody,
)
from bmp_ros.ros.interfaces import BoundingBox, Mask, Person, PersonArray
from bmp_ros.ros.person_messages import person_array
from bmp_ros.ros.settings import CameraSettings

BOXES = "/detector/people"
SECOND = 10**9


def boxes_of(*corners: tuple[float, ...], size: tuple[int, int] = (48, 64)) -> PersonArray:
    """A message with boxes xywh and their scores."""
    people = [
        Person(score=score, bbox=BoundingBox(x=x, y=y, width=width, height=height))
        for x, y, width, height, score in np.array(corners, float).reshape(-1, 5).tolist()
    ]
    return PersonArray(height=size[0], width=size[1], people=people)


class Rig:
    """A camera and a node that publishes boxes."""

    def __init__(self, lab: Lab, **parameters: Any) -> None:
        self.lab = lab
        lab.start_active(boxes_topic=BOXES, **parameters)
        self.poses = lab.listen("/bmp/poses")
        self.camera = lab.camera()
        self.camera.wait_for_subscriber()
        self.boxes = lab.camera(BOXES, kind=PersonArray)
        self.boxes.wait_for_subscriber()

    @property
    def detector_ran(self) -> bool:
        """On an image of the camera; the node warms up on larger ones."""
        return (48, 64, 3) in self.lab.networks.images

    def show(self, second: int) -> None:
        self.camera.send(image(), stamp_ns=second * SECOND)

    def tell(self, second: float, *corners: tuple[float, ...], **fields: Any) -> None:
        stamp = self.boxes.send(boxes_of(*corners, **fields), stamp_ns=round(second * SECOND))
        # An image that came with them could otherwise have waited long enough before they came.
        waiting = next(iter(self.lab.node._cameras.values())).inputs.boxes

        def are_there() -> bool:
            with waiting._lock:
                return waiting._pairing._boxes.nearest(stamp, 0) is not None

        wait_for(are_there, "the boxes")

    def result(self, second: int) -> PersonArray:
        return wait_for(
            lambda: next((m for m in self.poses if stamp_of(m) == second * SECOND), None),
            f"people of the image at {second} s",
        )


def lefts(message: PersonArray) -> list[float]:
    return [round(person.bbox.x, 3) for person in message.people]


def test_boxes_take_the_detectors_place_whichever_comes_first(lab: Lab) -> None:
    rig = Rig(lab, boxes_wait=60.0)
    rig.show(1)
    rig.tell(1, (5, 6, 20, 30, 0.5), (30, 6, 20, 30, 0.9))
    found = rig.result(1)
    assert lefts(found) == [30, 5], "best first"
    assert [round(person.score, 3) for person in found.people] == [0.9, 0.5]
    rig.tell(2, (7, 6, 20, 30, 0.8))
    rig.tell(3)
    rig.show(2)
    assert lefts(rig.result(2)) == [7]
    rig.show(3)
    assert lefts(rig.result(3)) == [], "an empty array is an answer, too"
    assert not rig.detector_ran


def test_images_without_boxes_are_for_the_detector_and_that_is_said_once(lab: Lab) -> None:
    rig = Rig(lab, boxes_wait=0.05)
    for number in (1, 2, 3):
        rig.show(number)
        assert len(rig.result(number).people) == 2
    assert rig.detector_ran
    text = f"no boxes: no boxes for an image on {BOXES} within 0.05 s (boxes_wait)"
    lab.wait_for_log(text, "stamp of their image", "boxes_slop", "the detector looks")
    assert lab.log().count(text) == 1
    # Late boxes change nothing; those of the next image count again.
    rig.tell(3, (5, 6, 20, 30, 0.5))
    rig.tell(4, (9, 6, 20, 30, 0.5))
    rig.show(4)
    assert lefts(rig.result(4)) == [9]


def test_images_without_boxes_are_skipped_where_that_is_asked_for(lab: Lab) -> None:
    rig = Rig(lab, boxes_wait=0.05, boxes_missing="skip")
    rig.show(1)
    lab.wait_for_log(f"no boxes for an image on {BOXES} within 0.05 s", "skipped")
    rig.tell(2, (9, 6, 20, 30, 0.5))
    rig.show(2)
    assert lefts(rig.result(2)) == [9]
    # Of an image of another size: skipped as well.
    rig.tell(3, (9, 6, 20, 30, 0.5), size=(480, 640))
    rig.show(3)
    lab.wait_for_log("are of an image of 640x480 pixels, the image has 64x48")
    assert [message.header.stamp.sec for message in rig.poses] == [2]
    assert not rig.detector_ran
    rig.boxes.destroy()
    wait_for(lambda: lab.node.count_publishers(BOXES) == 0, "the end of the publisher")
    rig.show(4)
    words = "it has no publisher; set boxes_topic; skipped"
    lab.diagnosis(": camera", lambda status: words in status.message, words)


def test_messages_that_wait_push_out_those_before_them(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boxes_input, "MAX_WAITING_BYTES", 1)  # the newest is kept in any case
    pairs: list[tuple[int, ReceivedBoxes]] = []
    waiting = BoxesInput(
        lab.peer, CameraSettings(boxes_topic=BOXES, boxes_wait=60.0),
        lambda number, boxes, _: pairs.append((number, boxes)), lambda _: None,
    )  # fmt: skip
    said = {}
    for second in (1, 2):
        message = boxes_of((5, 6, 20, 30, 0.5))
        message.header.stamp.sec = second
        said[second] = serialize_message(message)
        waiting._keep(said[second])
    for second in (1, 2):
        shown = image()
        shown.header.stamp.sec = second
        waiting.image(serialize_message(shown), second)
    assert pairs == [(2, ReceivedBoxes(said[2], PersonArray, BOXES))]


def test_boxes_of_the_type_before_are_forgotten(lab: Lab) -> None:
    """Another detector takes the topic over: bytes of one type make no sense as another."""
    pairs: list[ReceivedBoxes] = []
    waiting = BoxesInput(
        lab.peer, CameraSettings(boxes_topic=BOXES, boxes_wait=0.0),
        lambda _, boxes, __: pairs.append(boxes), lambda _: None,
    )  # fmt: skip
    message = boxes_of((5, 6, 20, 30, 0.5))
    message.header.stamp.sec = 1
    waiting._keep(serialize_message(message))
    waiting._take(CompressedImage)  # stands for Detection2DArray, whose package has no wheel
    shown = image()
    shown.header.stamp.sec = 1
    waiting.image(serialize_message(shown), 1)
    waiting._look()
    assert pairs == [ReceivedBoxes(None, CompressedImage, BOXES)]


def test_another_detector_takes_over_and_calls_people_otherwise(lab: Lab) -> None:
    messages = pytest.importorskip(
        "vision_msgs.msg", reason="no vision_msgs: python3 scripts/build_other_messages builds it"
    )
    rig = Rig(lab, boxes_wait=60.0)
    rig.tell(1, (9, 6, 20, 30, 0.5))
    rig.show(1)
    assert lefts(rig.result(1)) == [9]
    rig.boxes.destroy()
    wait_for(lambda: not lab.node.count_publishers(BOXES), "the end of the first detector")
    other = lab.camera(BOXES, kind=messages.Detection2DArray, peer=lab.restart_peer())
    other.wait_for_subscriber()

    def detect(second: int, name: str) -> Any:
        array_ = messages.Detection2DArray(detections=[messages.Detection2D()])
        box, hypothesis = array_.detections[0].bbox, messages.ObjectHypothesisWithPose()
        box.center.position.x, box.center.position.y = 20.0, 21.0
        box.size_x, box.size_y = 10.0, 20.0
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = name, 0.75
        array_.detections[0].results = [hypothesis]
        other.send(array_, stamp_ns=second * SECOND)
        rig.show(second)
        return lefts(rig.result(second))

    assert detect(2, "0") == []
    words = ("no people: not one box on", BOXES, "'person' (boxes_class)", "of '0'")
    lab.wait_for_log(*words)
    lab.diagnosis(": camera", lambda s: all(word in s.message for word in words), "the classes")
    ours = lab.listen("/bmp/detections", messages.Detection2DArray)
    assert detect(3, "person") == [15]
    mine = wait_for(
        lambda: next((m for m in ours if stamp_of(m) == 3 * SECOND), None),
        "the same boxes as we publish them",
    )
    (sent_on,) = mine.detections
    assert (sent_on.results[0].hypothesis.class_id, sent_on.bbox.size_x) == ("person", 10.0)
    assert detect(4, "dog") == []  # nobody is there: people's class is known
    lab.diagnosis(": camera", lambda s: "no people" not in s.message, "no more of it")
    assert not rig.detector_ran


def test_foreign_boxes_cost_the_boxes_not_the_people(lab: Lab) -> None:
    rig = Rig(lab, boxes_wait=60.0)
    rig.tell(1, (9, 6, 20, 30, 0.5), size=(480, 640))
    rig.show(1)
    assert len(rig.result(1).people) == 2, "the detector's"
    lab.wait_for_log("they belong to another camera or are scaled")


def test_stamps_within_a_slop(lab: Lab) -> None:
    rig = Rig(lab, boxes_wait=60.0, boxes_slop=0.02)
    rig.show(1)
    rig.tell(1.015, (9, 6, 20, 30, 0.5))
    assert lefts(rig.result(1)) == [9]


# ---------------------------------------------------------------- messages


def received(message: PersonArray) -> ReceivedBoxes:
    return ReceivedBoxes(serialize_message(message), PersonArray, BOXES)


def test_our_own_people_can_be_sent_on() -> None:
    masks = np.zeros((2, 48, 64), np.bool_)
    masks[0, 5:20, 3:9], masks[1, 8:30, 40:60] = True, True
    boxes = np.array([[3, 5, 9, 20], [40, 8, 60, 30]], np.float32)
    scores = np.array([0.5, 0.75], np.float32)
    people = People.from_boxes(boxes, scores, 48, 64, masks=masks)
    found = detections_of(received(person_array(Header(), people)), 48, 64, "person")
    assert found is not None and found.masks is not None
    np.testing.assert_array_equal(found.boxes, boxes)
    np.testing.assert_array_equal(found.scores, scores)
    np.testing.assert_array_equal(found.masks(np.array([1, 0])), masks[[1, 0]])
    without = People.from_boxes(boxes, scores, 48, 64)
    found = detections_of(received(person_array(Header(), without)), 48, 64, "person")
    assert found is not None and found.masks is None


def test_messages_that_cannot_be_used() -> None:
    assert detections_of(ReceivedBoxes(None, PersonArray, BOXES), 48, 64, "") is None
    with pytest.raises(BoxesError, match="3 bytes on /detector/people are no PersonArray"):
        detections_of(ReceivedBoxes(b"abc", PersonArray, BOXES), 48, 64, "")
    message = boxes_of((1, 2, 3, 4, 0.5))
    message.people[0].mask = Mask(width=3, height=3, counts=array("I", [2, 3]))
    with pytest.raises(BoxesError, match="a mask on /detector/people is damaged"):
        detections_of(received(message), 48, 64, "")
    unknown = boxes_of((1, 2, 3, 4, 0.5), size=(0, 0))
    found = detections_of(received(unknown), 480, 640, "")
    assert found is not None and found.boxes.tolist() == [[1, 2, 4, 6]]


def detection(x: float, *classes: tuple[str, float]) -> SimpleNamespace:
    """A vision_msgs/Detection2D by its fields: that package has no wheel."""
    results = [
        SimpleNamespace(hypothesis=SimpleNamespace(class_id=name, score=score))
        for name, score in classes
    ]
    centre = SimpleNamespace(position=SimpleNamespace(x=x, y=20.0), theta=0.0)
    return SimpleNamespace(
        bbox=SimpleNamespace(center=centre, size_x=10.0, size_y=20.0), results=results
    )


@pytest.mark.parametrize(
    ("corners", "words"),
    [
        ([(0.1, 0.2, 0.3, 0.5, 0.9)], "such as .0.1, 0.2. to .0.4, 0.7., are shares"),
        ([(300, 200, 90, 200, 0.9), (9, 6, 20, 30, 0.9), (900, 9, 9, 9, 0.5)], "2 of 3 boxes on"),
        ([(5, -90, 20, 30, 0.5)], "lie outside of the image of 64x48 pixels"),
        ([(9, 6, 20, 30, 0.0), (30, 6, 20, 30, np.nan)], "not one of 2 boxes on .* has a score"),
        ([(9, 6, 20, 30, 87.5)], "has the score 87.5: scores are from 0 to 1"),
        ([(9, 6, 20, 30, 0.5), (30, 6, 20, 30, -1.5)], "has the score -1.5"),
    ],
)
def test_boxes_that_are_no_pixels_of_this_image_and_scores_that_are_none(
    corners: list[tuple[float, ...]], words: str
) -> None:
    """They would be published as an image without people, or as people who are too sure."""
    with pytest.raises(BoxesError, match=words):
        detections_of(received(boxes_of(*corners, size=(0, 0))), 48, 64, "person")


def test_boxes_that_reach_beyond_the_image_are_kept() -> None:
    corners = [(-9, 30, 30, 80, 1.0004), (np.nan, 6, 20, 30, 0.5), (90, 6, 20, 30, 0.5)]
    found = detections_of(received(boxes_of(*corners)), 48, 64, "person")
    assert found is not None and len(found.boxes) == 3


def test_classes_that_are_not_people_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    message = SimpleNamespace(detections=[detection(10, ("0", 0.9)), detection(20, ("17", 0.5))])
    monkeypatch.setattr(boxes_input, "deserialize_message", lambda *_: message)
    boxes = ReceivedBoxes(b"x", SimpleNamespace, BOXES)
    said = why_nobody(boxes, "person")
    assert BOXES in said and "'person' (boxes_class)" in said and "2, of '0', '17'" in said
    assert why_nobody(boxes._replace(serialised=None), "person") == ""
    message.detections = [detection(40)]
    assert "of none" in why_nobody(boxes, "person")
    message.detections = []
    assert why_nobody(boxes, "person") == ""


def test_messages_that_ask_for_too_much() -> None:
    """A few kilobytes that would be gigabytes of masks or boxes."""
    for count, box, words in (
        (1001, boxes_of(), "1001 boxes.*at most 1000 are read"),
        (1, boxes_of((1, 1, 5, 5, 0.9)), "x=0 y=0 of 4294967295x1 pixels lies outside"),
    ):
        box.people = (list(box.people) or [Person()]) * count
        mask = Mask(width=2**32 - 1, height=1, counts=array("I", [0, 2**32 - 1]))
        box.people[0].mask = mask
        with pytest.raises(BoxesError, match=words):
            detections_of(received(box), 48, 64, "")
    large = ReceivedBoxes(bytes(MAX_BYTES + 1), PersonArray, BOXES)
    with pytest.raises(BoxesError, match="16777217 bytes on /detector/people, at most 16777216"):
        detections_of(large, 48, 64, "")
    many = boxes_of(*[(1, 1, 5, 5, 0.9)] * 900, size=(8000, 8000))
    for person in many.people:
        person.mask = Mask(width=1, height=1, counts=array("I", [0, 1]))
    with pytest.raises(BoxesError, match="900 people in an image of 8000x8000 pixels"):
        detections_of(received(many), 8000, 8000, "")


def test_detection_2d_arrays_by_their_fields() -> None:
    message = SimpleNamespace(detections=[
        detection(10, ("dog", 0.3), ("Person", 0.6)), detection(20, ("dog", 0.9)),
        detection(30, ("person", 0.4)), detection(40),
    ])  # fmt: skip
    found = _of_detections(message, "person")
    assert found.boxes.tolist() == [[5, 10, 15, 30], [25, 10, 35, 30]]
    np.testing.assert_allclose(found.scores, [0.6, 0.4])
    everybody = _of_detections(message, "")
    assert everybody.boxes[:, 0].tolist() == [5, 15, 25, 35]
    np.testing.assert_allclose(everybody.scores, [0.6, 0.9, 0.4, 1.0])
    assert _of_detections(SimpleNamespace(detections=[]), "person").boxes.shape == (0, 4)
    message.detections = [detection(20, ("person", 0.9))]  # 10x20 pixels around 20, 20, lying
    message.detections[0].bbox.center.theta = -math.pi / 2
    assert np.allclose(_of_detections(message, "person").boxes, [[10, 15, 30, 25]], atol=1e-4)
    message.detections[0].bbox.center.theta = math.inf
    assert np.isnan(_of_detections(message, "person").boxes).all()  # left out by the loop
