# SPDX-License-Identifier: Apache-2.0
"""Ground truth as ``PersonArray``, for cameras whose pictures are rendered.

In the message's own terms: ``track_id`` is the identity, all scores are 1, ``presence`` of a
keypoint is 1 inside of the image (COCO's visibility above 0) and ``visibility`` is 1 where it can
be seen (COCO's 2). Keypoints outside of the image have their true position, too.
"""

from __future__ import annotations

import numpy as np
from std_msgs.msg import Header

from bmp_ros.loop.people import People
from bmp_ros.received_people import people_from_message
from bmp_ros.ros.interfaces import PersonArray
from bmp_ros.ros.person_messages import person_array
from bmp_ros.synthetic.ground_truth import OCCLUDED, VISIBLE, PeopleTruth

PIXEL_CENTRE = 0.5
"""Ground truth has pixel i cover [i, i + 1); messages have its centre at i."""


def truth_message(header: Header, truth: PeopleTruth) -> PersonArray:
    """Make the message of what is true of an image; ``header`` is the image's."""
    ones = np.ones(len(truth), np.float32)
    inside = (truth.visibility >= OCCLUDED).astype(np.float32)
    people = People(
        boxes=truth.boxes,
        scores=ones,
        pose_scores=ones,
        mask_scores=ones,
        keypoints=(truth.keypoints - PIXEL_CENTRE).astype(np.float32),
        keypoint_scores=inside,
        visibility=(truth.visibility == VISIBLE).astype(np.float32),
        presence=inside,
        masks=truth.masks,
        raw_masks=truth.masks,
        has_mask=np.ones(len(truth), np.bool_),
        iterations=np.ones(len(truth), np.int32),
        track_ids=truth.identities.astype(np.int32),
    )
    return person_array(header, people)


def truth_from_message(message: PersonArray) -> PeopleTruth:
    """Read it back; ``amodal_boxes`` and ``joint_depths``, which it lacks, are NaN.

    Raises ValueError as `people_from_message` does.
    """
    people = people_from_message(message)
    return PeopleTruth(
        boxes=people.boxes,
        amodal_boxes=np.full((len(people), 4), np.nan, np.float32),
        masks=people.masks,
        keypoints=people.keypoints + np.float32(PIXEL_CENTRE),
        visibility=(people.presence + people.visibility).astype(np.int64),
        joint_depths=np.full(people.keypoint_scores.shape, np.nan, np.float32),
        identities=people.track_ids.astype(np.int64),
    )
