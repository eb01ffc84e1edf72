# SPDX-License-Identifier: Apache-2.0
"""All people in one decoder call give what sam2's own predictor gives one by one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from random_sam2 import SMALL, SMALL_IMAGE_SIZE, patchwork, random_sam2, small_random_sam2

from bmp_ros.engines.sam2 import Sam2Segmenter
from bmp_ros.loop.frame import Frame
from bmp_ros.networks.sam2 import Sam2Network, image_tensors

pytest.importorskip("sam2", reason="needs the sam2 package")

LOGIT_TOLERANCE = 1e-4
SCORE_TOLERANCE = 1e-5
NEAR_THE_BORDER = 1e-3  # full-size logits closer to 0 than this may fall on either side
PEOPLE = 4
IMAGE_SIZES = {"t": 1024, "b+": 512}
"""Published networks, one of them on the published canvas, which is four times the work."""


@dataclass
class Pair:
    """The same weights and the same image in sam2's predictor and in our segmenter."""

    reference: Any
    segmenters: dict[bool, Sam2Segmenter]  # by dynamic_multimask
    segmenter: Sam2Segmenter
    frame: Frame

    def choose(self, dynamic_multimask: bool) -> None:
        decoder = self.reference.model.sam_mask_decoder
        decoder.dynamic_multimask_via_stability = dynamic_multimask
        self.segmenter = self.segmenters[dynamic_multimask]
        if dynamic_multimask and self.frame.width > 2 * SMALL_IMAGE_SIZE:
            # Encoders of published sizes take long, and these two are the same network.
            first = self.segmenters[False]
            first.decode(self.frame, *prompts(self.frame, 1))
            kept = self.frame.cached((first, "embedding"), lambda: pytest.fail("not kept"))
            self.frame.cached((self.segmenter, "embedding"), lambda: kept)


@cache
def pair(name: str) -> Pair:
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    if name == "small":
        model = small_random_sam2()
        network = Sam2Network(SMALL, SMALL_IMAGE_SIZE)
        network.load_state_dict(image_tensors(model.state_dict()), strict=True)
    else:
        side = IMAGE_SIZES[name]
        model = random_sam2(name, image_size=side)
        network = Sam2Network.from_state_dict(model.state_dict(), side)
    reference = SAM2ImagePredictor(model, max_hole_area=0, max_sprinkle_area=0)
    side = network.image_size
    reference._bb_feat_sizes = [(side // stride, side // stride) for stride in (4, 8, 16)]
    # One axis shrinks and one grows on the way to the square input.
    frame = Frame(patchwork(width=side * 5 // 4, height=side * 3 // 4))
    reference.set_image(cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB))
    segmenters = {
        dynamic: Sam2Segmenter.from_network(
            network, dynamic_multimask=dynamic, max_hole_area=0, max_sprinkle_area=0
        )
        for dynamic in (False, True)
    }
    return Pair(reference, segmenters, segmenters[False], frame)


def prompts(frame: Frame, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Random points of ``PEOPLE`` people, a few outside of the image, some of them negative."""
    rng = np.random.default_rng(points)
    xy = rng.uniform(-0.1, 1.1, (PEOPLE, points, 2)) * [frame.width, frame.height]
    labels = (rng.uniform(size=(PEOPLE, points)) < 0.8).astype(np.int32)
    return xy.astype(np.float32), labels


SLOW = pytest.mark.slow


@pytest.mark.parametrize("name", ["small", "t", pytest.param("b+", marks=SLOW)])
def test_the_embedding_equals_the_predictors(name):
    both = pair(name)
    both.segmenter.decode(both.frame, *prompts(both.frame, 1))
    kept = both.frame.cached((both.segmenter, "embedding"), lambda: pytest.fail("not kept"))
    features = both.reference._features
    ours = [kept["fine_4"], kept["fine_8"], kept["embedding"]]
    theirs = [*features["high_res_feats"], features["image_embed"]]
    for got, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)


GROUPS = [
    ("small", 1),
    ("small", 3),
    ("small", 6),
    ("t", 3),
    pytest.param("t", 1, marks=SLOW),
    pytest.param("t", 6, marks=SLOW),
    pytest.param("b+", 1, marks=SLOW),
    pytest.param("b+", 4, marks=SLOW),
]


@pytest.mark.parametrize("dynamic_multimask", [False, True])
@pytest.mark.parametrize(("name", "points"), GROUPS)
def test_people_together_equal_people_one_by_one(name, points, dynamic_multimask):
    both = pair(name)
    both.choose(dynamic_multimask)
    xy, labels = prompts(both.frame, points)

    logits, scores = both.segmenter.decode(both.frame, xy, labels)
    segments = both.segmenter.segment(both.frame, xy, labels)

    assert segments.masks.shape == (PEOPLE, both.frame.height, both.frame.width)
    assert segments.masks.dtype == np.bool_
    assert segments.scores.dtype == np.float32
    for person in range(PEOPLE):
        full, score, low = both.reference.predict(
            xy[person], labels[person], multimask_output=False, return_logits=True
        )
        np.testing.assert_allclose(
            logits[person].clip(-32, 32), low[0], rtol=0, atol=LOGIT_TOLERANCE
        )
        np.testing.assert_allclose(scores[person], score[0], rtol=0, atol=SCORE_TOLERANCE)
        np.testing.assert_allclose(segments.scores[person], score[0], rtol=0, atol=SCORE_TOLERANCE)
        clear = np.abs(full[0]) > NEAR_THE_BORDER
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(segments.masks[person][clear], full[0][clear] > 0)
        # Random weights must not make this comparison one of empty masks.
        assert 0.02 < segments.masks[person].mean() < 0.98
    for one, other in zip(segments.masks, np.roll(segments.masks, 1, axis=0), strict=True):
        assert (one != other).mean() > 1e-3, "the masks do not depend on the prompts"


def test_dynamic_multimask_replaces_the_unstable_masks_only():
    both = pair("small")
    rng = np.random.default_rng(3)
    xy = (rng.uniform(0, 1, (24, 2, 2)) * [both.frame.width, both.frame.height]).astype("f4")
    labels = np.ones((24, 2), np.int32)
    both.choose(False)
    single, _ = both.segmenter.decode(both.frame, xy, labels)
    both.choose(True)
    chosen, _ = both.segmenter.decode(both.frame, xy, labels)
    stability = both.reference.model.sam_mask_decoder._get_stability_scores(
        torch.from_numpy(single)
    )
    changed = (single != chosen).any(axis=(1, 2))
    assert 0 < changed.sum() < len(changed), "the prompts exercise one branch only"
    np.testing.assert_array_equal(changed, (stability < 0.98).numpy())
