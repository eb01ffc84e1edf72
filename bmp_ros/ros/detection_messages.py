# SPDX-License-Identifier: Apache-2.0
"""``People`` as ``vision_msgs/Detection2DArray``, where that package is installed."""

from __future__ import annotations

import importlib.util
from typing import Any

from std_msgs.msg import Header

from bmp_ros.loop.people import People


def detections_available() -> bool:
    """Whether vision_msgs can be imported."""
    return importlib.util.find_spec("vision_msgs") is not None


def detection_array(header: Header, people: People) -> Any:
    """Boxes only, class ``person``; ``id`` is the track's number, empty without one."""
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

    array = Detection2DArray(header=header)
    rows = zip(
        people.boxes.tolist(), people.scores.tolist(), people.track_ids.tolist(), strict=True
    )
    for (x1, y1, x2, y2), score, track_id in rows:
        detection = Detection2D(header=header, id=str(track_id) if track_id >= 0 else "")
        detection.bbox.center.position.x = (x1 + x2) / 2
        detection.bbox.center.position.y = (y1 + y2) / 2
        detection.bbox.size_x = x2 - x1
        detection.bbox.size_y = y2 - y1
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = "person"
        hypothesis.hypothesis.score = score
        detection.results = [hypothesis]
        array.detections.append(detection)
    return array
