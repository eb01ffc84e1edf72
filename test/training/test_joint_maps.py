# SPDX-License-Identifier: Apache-2.0
"""Joint maps: the published ones, there and back, and wrong ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bmp_ros.loop.skeletons import COCO_17, MPII_16, MULTI_21, MULTI_23, Skeleton
from bmp_ros.training.joint_maps import DATA_SETS, joint_map

# Index in the network of each joint of the data set, as published; None: the network lacks it.
PUBLISHED: dict[tuple[str, str], list[int]] = {
    ("mpii", "multi_21"): [16, 14, 12, 11, 13, 15, 20, 17, 18, 19, 10, 8, 6, 5, 7, 9],
    ("mpii", "multi_23"): [16, 14, 12, 11, 13, 15, 18, 17, 19, 20, 10, 8, 6, 5, 7, 9],
    ("aic", "multi_21"): [6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 19, 17],
    ("aic", "multi_23"): [6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 22, 21],
    ("crowdpose", "multi_23"): [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 22, 21],
    ("coco", "multi_21"): list(range(17)),
}
SKELETONS = {"multi_21": MULTI_21, "multi_23": MULTI_23}


@pytest.mark.parametrize(("data_set", "skeleton"), sorted(PUBLISHED))
def test_published_maps_there_and_back(data_set: str, skeleton: str) -> None:
    mapping = joint_map(data_set, None, SKELETONS[skeleton])
    assert [target for _, target in mapping.pairs] == PUBLISHED[data_set, skeleton]
    given = np.arange(3.0 * mapping.source).reshape(-1, 3) + 1
    mapped = mapping(given)
    assert (mapped[PUBLISHED[data_set, skeleton]] == given).all()
    assert (mapped[~mapping.labelled] == 0).all(), "joints that nobody labelled"
    assert (mapping.back(mapped) == given).all()


def test_a_map_is_found_by_the_joints_that_the_file_names() -> None:
    assert joint_map(None, DATA_SETS["aic"], MULTI_23) == joint_map("aic", None, MULTI_23)
    assert joint_map(None, None, COCO_17) == joint_map("coco", None, COCO_17)
    own = joint_map(None, MULTI_21.names, MULTI_21)
    assert own.pairs == tuple((joint, joint) for joint in range(21))


def test_joints_that_a_network_lacks_are_left_out() -> None:
    mapping = joint_map("mpii", None, COCO_17)
    assert mapping.source == 16 and len(mapping.pairs) == 12
    given = np.ones((16, 3))
    assert mapping(given)[:, 2].sum() == 12 and mapping.back(mapping(given))[6].sum() == 0


def test_a_map_of_ones_own() -> None:
    mapping = joint_map({"nose": 3, "left_ankle": 0}, None, COCO_17)
    given = np.arange(12.0).reshape(4, 3)
    assert (mapping(given)[0] == given[3]).all() and (mapping(given)[15] == given[0]).all()


@pytest.mark.parametrize(
    ("given", "names", "target", "words"),
    [
        ("lsp", None, COCO_17, "lsp.*coco, mpii"),
        ("mpii", COCO_17.names, MULTI_21, "16 joints.*names 17"),
        ({"tail": 0}, None, COCO_17, "tail"),
        ({"nose": -1}, None, COCO_17, "nose is -1"),
        ({"nose": True}, None, COCO_17, "nose is True"),
        ({"nose": 1, "left_eye": 1}, None, COCO_17, "joint 1 of the file twice"),
        ({"nose": 20}, COCO_17.names, COCO_17, "joint 20.*names 17"),
        ({}, None, COCO_17, "empty"),
        (7, None, COCO_17, "joint_map is 7"),
        (None, ("paw", "tail"), COCO_17, "known data set"),
    ],
)
def test_wrong_maps_are_named(given: Any, names: Any, target: Skeleton, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        joint_map(given, names, target)


def test_mpii_is_the_order_of_the_skeleton() -> None:
    assert joint_map("mpii", None, MPII_16).pairs == tuple((j, j) for j in range(16))
