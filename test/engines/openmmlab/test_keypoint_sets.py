# SPDX-License-Identifier: Apache-2.0
"""Channels of foreign networks in the order of our skeletons (needs nothing of OpenMMLab)."""

from __future__ import annotations

import numpy as np
import pytest

from bmp_ros.engines.openmmlab.keypoint_sets import keypoint_set
from bmp_ros.loop.skeletons import COCO_17, COCO_SIGMAS, MPII_16, MULTI_21, MULTI_23


def meta(names, pairs=(), links=(), dataset_name="some_set"):
    flips = list(range(len(names)))
    for left, right in pairs:
        flips[left], flips[right] = right, left
    return {
        "dataset_name": dataset_name,
        "keypoint_id2name": dict(enumerate(names)),
        "flip_indices": flips,
        "skeleton_links": list(links),
        "sigmas": np.linspace(0.1, 0.2, len(names)),
    }


def test_cocos_own_order_is_the_known_skeleton():
    known = keypoint_set(17, meta(COCO_17.names, COCO_17.flip_pairs), None)
    assert known.skeleton is COCO_17
    assert known.channels.tolist() == list(range(17))
    assert known.flip_indices == COCO_17.flip_indices.tolist()


def test_a_superset_in_another_order_puts_coco_first_and_appends_the_rest():
    names = ("head", "left_toe", "right_toe", *reversed(COCO_17.names))
    pairs = [(1, 2)] + [(19 - a, 19 - b) for a, b in COCO_17.flip_pairs]
    known = keypoint_set(20, meta(names, pairs, links=[(0, 19), (18, 19)]), None)
    assert known.skeleton.names == (*COCO_17.names, "head", "left_toe", "right_toe")
    assert [names[channel] for channel in known.channels] == list(known.skeleton.names)
    assert known.skeleton.edges == ((17, 0), (1, 0))
    assert (18, 19) in known.skeleton.flip_pairs
    assert set(COCO_17.flip_pairs) < set(known.skeleton.flip_pairs)
    assert known.skeleton.sigmas[:17] == COCO_SIGMAS
    assert known.skeleton.sigmas[17:] == pytest.approx([0.1, 0.1 + 0.1 / 19, 0.1 + 0.2 / 19])
    assert known.flip_indices[1] == 2 and known.flip_indices[0] == 0


def test_a_set_without_cocos_joints_keeps_its_own_order():
    names = [name for name in COCO_17.names if name not in ("nose", "left_ear")] + ["pelvis"]
    known = keypoint_set(16, meta(names, [(0, 1)]), None)
    assert known.skeleton.names == tuple(names)
    assert known.channels.tolist() == list(range(16))
    assert known.skeleton.sigmas == pytest.approx(np.linspace(0.1, 0.2, 16))
    assert known.skeleton.flip_pairs == ((0, 1),)
    mpii = keypoint_set(16, meta(MPII_16.names, MPII_16.flip_pairs), None)
    assert mpii.skeleton is MPII_16


@pytest.mark.parametrize("skeleton", [MULTI_21, MULTI_23], ids=lambda s: s.name)
def test_without_usable_names_21_and_23_channels_are_the_published_sets(skeleton):
    one_too_long = meta([f"joint_{i}" for i in range(22)])
    for config_meta in (None, {}, one_too_long):
        known = keypoint_set(len(skeleton), config_meta, None)
        assert known.skeleton is skeleton
        assert known.flip_indices == skeleton.flip_indices.tolist()


def test_unknown_number_of_channels_without_names_is_refused():
    with pytest.raises(ValueError, match="no skeleton with 19 joints"):
        keypoint_set(19, None, None)


def test_a_complete_checkpoint_has_the_last_word_on_flip_indices():
    config_meta = meta(MULTI_21.names, MULTI_21.flip_pairs, MULTI_21.edges)
    trained = meta(MULTI_21.names, (*MULTI_21.flip_pairs, (17, 18)))
    known = keypoint_set(21, config_meta, trained)
    assert known.skeleton is MULTI_21
    assert known.flip_indices[17:19] == [18, 17]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"flip_indices": [0, 1, 2]}, id="too few flip indices"),
        pytest.param({"flip_indices": [1, 2, 0, *range(3, 21)]}, id="mirror of mirror differs"),
        pytest.param({"keypoint_id2name": {0: "nose"}}, id="too few names"),
        pytest.param({"keypoint_id2name": dict.fromkeys(range(21), "nose")}, id="equal names"),
    ],
)
def test_an_incomplete_checkpoint_has_no_word(broken):
    config_meta = meta(MULTI_21.names, MULTI_21.flip_pairs, MULTI_21.edges)
    known = keypoint_set(21, config_meta, {**meta(MULTI_21.names), **broken})
    assert known.flip_indices == MULTI_21.flip_indices.tolist()
