# SPDX-License-Identifier: Apache-2.0
"""People as Foxglove's annotations, by classes made of the messages' definitions.

foxglove_msgs has no wheel; rosbags makes classes of the same fields, and serialises them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed (requirements/bags.txt)")
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from bmp_ros.drawing import person_color
from bmp_ros.loop.people import People
from bmp_ros.ros.foxglove import image_annotations, outlines

CONFIG = Path(__file__).parents[2] / "config" / "foxglove_layout.json"
COLOR, POINT = "foxglove_msgs/Color", "foxglove_msgs/Point2"
STAMP = "builtin_interfaces/Time timestamp\n"
DEFINITIONS = {
    "Color": "float64 r\nfloat64 g\nfloat64 b\nfloat64 a\n",
    "Point2": "float64 x\nfloat64 y\n",
    "CircleAnnotation": STAMP
    + f"{POINT} position\nfloat64 diameter\nfloat64 thickness\n{COLOR} fill_color\n"
    f"{COLOR} outline_color\n",
    "PointsAnnotation": STAMP
    + f"uint8 type\n{POINT}[] points\n{COLOR} outline_color\n{COLOR}[] outline_colors\n"
    f"{COLOR} fill_color\nfloat64 thickness\n",
    "TextAnnotation": STAMP
    + f"{POINT} position\nstring text\nfloat64 font_size\n{COLOR} text_color\n"
    f"{COLOR} background_color\n",
    "ImageAnnotations": "foxglove_msgs/CircleAnnotation[] circles\n"
    "foxglove_msgs/PointsAnnotation[] points\nfoxglove_msgs/TextAnnotation[] texts\n",
}


@pytest.fixture(scope="module")
def store() -> Any:
    made = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for name, text in DEFINITIONS.items():
        types |= get_types_from_msg(text, f"foxglove_msgs/msg/{name}")
    made.register(types)
    return made


def classes(store: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{name: store.types[f"foxglove_msgs/msg/{name}"] for name in DEFINITIONS}
    )


def two_people() -> People:
    masks = np.zeros((2, 48, 64), np.bool_)
    masks[0, 10:40, 5:20] = True
    masks[0, 2, 60] = True  # a speck: no outline has two corners
    boxes = np.array([[4, 9, 20, 41], [30, 6, 50, 40]], np.float32)
    made = People.from_boxes(boxes, np.array([0.9, 0.5], np.float32), 48, 64, masks=masks)
    scores = np.full((2, 17), 0.9, np.float32)
    scores[1, 5:] = 0.1
    return replace(
        made,
        keypoints=np.random.default_rng(0).uniform(0, 40, (2, 17, 2)).astype(np.float32),
        keypoint_scores=scores,
        track_ids=np.array([3, -1], np.int32),
    )


def test_every_person_is_drawn(store: Any) -> None:
    people = two_people()
    stamp = store.types["builtin_interfaces/msg/Time"](sec=12, nanosec=34)
    made = image_annotations(stamp, people, 0.3, classes(store))
    kind = "foxglove_msgs/msg/ImageAnnotations"
    read = store.deserialize_cdr(store.serialize_cdr(made, kind), kind)
    assert [text.text for text in read.texts] == ["3: 0.90", "0.50"]
    assert all(each.timestamp.sec == 12 for each in [*read.points, *read.texts])
    loops, lists, points = ([p for p in read.points if p.type == kind] for kind in (2, 4, 1))
    filled = [each for each in loops if each.fill_color.a > 0]
    assert len(filled) == 1, "the mask of the first; the second has none"
    corners = {(point.x, point.y) for point in filled[0].points}
    assert corners == {(5.5, 10.5), (19.5, 10.5), (19.5, 39.5), (5.5, 39.5)}
    boxes = [each for each in loops if each.fill_color.a == 0]
    assert (boxes[0].points[0].x, boxes[0].points[2].y) == (4.5, 41.5)
    edges = people.skeleton.edges
    heads = [each for each in edges if max(each) < 5]
    assert [len(each.points) for each in lists] == [2 * len(edges), 2 * len(heads)]
    assert [len(each.points) for each in points] == [17, 5]
    first = people.keypoints[0, edges[0][0]] + 0.5
    assert (lists[0].points[0].x, lists[0].points[0].y) == pytest.approx(tuple(first))
    blue, green, red = person_color(3)
    color = boxes[0].outline_color
    assert (color.r, color.g, color.b, color.a) == (red / 255, green / 255, blue / 255, 1.0)


def test_nobody_is_an_empty_message(store: Any) -> None:
    made = image_annotations(None, People.empty(48, 64), 0.3, classes(store))
    assert made.points == [] and made.texts == []


def test_outlines_follow_the_mask() -> None:
    mask = np.zeros((200, 200), np.bool_)
    rows, columns = np.ogrid[:200, :200]
    mask[(rows - 90) ** 2 + (columns - 110) ** 2 < 60**2] = True
    (outline,) = outlines(mask, (50, 30, 120, 120))
    distance = np.hypot(*(np.array(outline) - (110, 90)).T)
    assert 8 < len(outline) < 60 and np.abs(distance - 60).max() < 2.5


def test_the_layout_shows_topics_that_the_node_has() -> None:
    layout = json.loads(CONFIG.read_text(encoding="utf-8"))
    source = (CONFIG.parents[1] / "bmp_ros" / "ros" / "publishers.py").read_text(encoding="utf-8")
    text = json.dumps(layout)
    for topic in ("annotations", "debug_image", "markers", "poses"):
        assert f'"/bmp/{topic}' in text and f'"{topic}"' in source
    panels = set(layout["configById"])

    def places(node: Any) -> set[str]:
        return {node} if isinstance(node, str) else places(node["first"]) | places(node["second"])

    assert places(layout["layout"]) == panels
    for config in layout["configById"].values():
        assert all(path["enabled"] for path in config.get("paths", ()))
