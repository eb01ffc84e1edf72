# SPDX-License-Identifier: Apache-2.0
"""Results of many images as one JSON file in COCO's style, written as they come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import Skeleton
from bmp_ros.offline.coco_format import PERSON, coco_keypoints, run_length_string, xywh
from bmp_ros.writing import open_part, part_of

_PIXEL_DIGITS, _SCORE_DIGITS = 3, 5


class ResultsFile:
    """A COCO document with scores: ``annotations``, ``images``, ``categories`` and ``info``.

    Every annotation is a COCO result (``pycocotools`` loads the list with ``loadRes``), see
    `annotation`. Only the list of images is kept in memory. The file appears when the ``with``
    block ends, also through an exception: with what there was until then.
    Raises BeingWrittenError while another run writes it.
    """

    def __init__(self, path: Path, skeleton: Skeleton, info: dict[str, Any]) -> None:
        self._path = path
        # What is no text (a name of other bytes than UTF-8) must not cost the file.
        self._stream = open_part(path)
        self._stream.write('{"annotations": [')
        self._images: list[dict[str, Any]] = []
        self._people = 0
        self._rest = {
            "categories": [
                {
                    "id": PERSON,
                    "name": "person",
                    "keypoints": list(skeleton.names),
                    # COCO counts joints from 1.
                    "skeleton": [[a + 1, b + 1] for a, b in skeleton.edges],
                }
            ],
            "info": info,
        }

    def add(self, people: People, file_name: str, **facts: Any) -> None:
        """Append the people found in one image, if any; ``facts`` go to the image's entry."""
        height, width = people.image_size
        image_id = len(self._images) + 1
        entry = {"id": image_id, "file_name": file_name, "width": width, "height": height}
        self._images.append({**entry, **facts})
        for row in range(len(people)):
            self._people += 1
            line = json.dumps(annotation(people, row, image_id, self._people), allow_nan=False)
            self._stream.write(("\n" if self._people == 1 else ",\n") + line)

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(self, *_: object) -> None:
        with self._stream as stream:
            stream.write("\n]")
            for name, value in {"images": self._images, **self._rest}.items():
                stream.write(f",\n{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
            stream.write("}\n")
            stream.flush()
            part_of(self._path).replace(self._path)


def annotation(people: People, row: int, image_id: int, number: int) -> dict[str, Any]:
    """One person as a COCO result.

    bbox: x y width height, continuous pixels. keypoints: x y score of all K joints, flat, pixel
    centres at whole numbers. segmentation: compressed run lengths of the exclusive mask, area its
    pixels. score, pose_score, mask_score, iteration: as in `People`. visibility, presence: (K,),
    absent when the network has none. track_id: absent without an id. Pixels are rounded to 0.001,
    scores to 0.00001.
    """
    joints = len(people.skeleton)
    keypoints = np.reshape(coco_keypoints(people, row, joints), (joints, 3))
    keypoints[:, :2] = keypoints[:, :2].round(_PIXEL_DIGITS)
    keypoints[:, 2] = keypoints[:, 2].round(_SCORE_DIGITS)
    result: dict[str, Any] = {
        "id": number,
        "image_id": image_id,
        "category_id": PERSON,
        "iscrowd": 0,
        "bbox": [round(value, _PIXEL_DIGITS) for value in xywh(people.boxes[row])],
        "area": int(np.count_nonzero(people.masks[row])),
        "segmentation": run_length_string(people.masks[row]),
        "keypoints": keypoints.ravel().tolist(),
        "iteration": int(people.iterations[row]),
    }
    if people.track_ids[row] >= 0:
        result["track_id"] = int(people.track_ids[row])
    for name, values in (
        ("score", people.scores),
        ("pose_score", people.pose_scores),
        ("mask_score", people.mask_scores),
    ):
        result[name] = round(float(values[row]), _SCORE_DIGITS)
    for name, per_joint in (("visibility", people.visibility), ("presence", people.presence)):
        if np.isfinite(per_joint[row]).all():
            result[name] = per_joint[row].astype(float).round(_SCORE_DIGITS).tolist()
    return result
