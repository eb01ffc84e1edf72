# SPDX-License-Identifier: Apache-2.0
"""The native RTMDet-Ins gives the numbers of MMDetection, from the same weights and image.

The image sizes are such that MMDetection's rounding of the mask size (see ``mask_resampling``)
changes nothing. Its boxes may reach into the padding of the canvas; ours end at the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.openmmlab
pytest.importorskip("mmdet", reason="MMDetection is not installed")
pytest.importorskip("mmcv.ops", reason="mmcv is installed without its operators")
torch = pytest.importorskip("torch", reason="torch is not installed")

from mmdet.apis import inference_detector  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402
from mmengine.model import revert_sync_batchnorm  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402
from random_weights import drawn_image, random_rtmdet_ins  # noqa: E402

from bmp_ros.engines.openmmlab.configs import load_config  # noqa: E402
from bmp_ros.engines.rtmdet_ins import RTMDetInsDetector  # noqa: E402
from bmp_ros.loop.frame import Frame  # noqa: E402
from bmp_ros.networks.rtmdet_ins import RTMDetIns  # noqa: E402

THRESHOLD = 0.3
BOX_TOLERANCE = 0.01  # px
SCORE_TOLERANCE = 1e-5
BORDER_TOLERANCE = 0.001  # share of the border pixels that may differ

CASES = [
    pytest.param("tiny", 80, (720, 1280), id="tiny"),
    pytest.param("s", 1, (640, 480), id="s-one-class"),
    pytest.param("l", 80, (480, 640), id="l", marks=pytest.mark.slow),
]


def mmdet_model(size: str, classes: int, weights: dict[str, Any]) -> Any:
    """The published config with ``weights``; its caps, which run over all classes, raised."""
    config = load_config(f"rtmdet-ins_{size}_8xb32-300e_coco", "mmdet")
    config.model.bbox_head.num_classes = classes
    config.model.backbone.pop("init_cfg", None)
    config.model.test_cfg.update(nms_pre=100_000, max_per_img=300)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = revert_sync_batchnorm(MODELS.build(config.model)).eval()
    model.load_state_dict(weights, strict=True)
    model.cfg = config
    return model


@pytest.mark.parametrize(("size", "classes", "shape"), CASES)
def test_boxes_scores_and_masks(size: str, classes: int, shape: tuple[int, int]) -> None:
    image = drawn_image(*shape, seed=13)
    weights = random_rtmdet_ins(size, classes, seed=13, image=image)
    model = mmdet_model(size, classes, weights)
    with DefaultScope.overwrite_default_scope("mmdet"):
        theirs = inference_detector(model, image).pred_instances.numpy()
    assert theirs.scores.min() < THRESHOLD, "MMDetection's cap cut people off: raise it"

    height, width = shape
    boxes = theirs.bboxes.clip(0, [width, height, width, height])
    on_image = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    people = np.flatnonzero((theirs.labels == 0) & (theirs.scores > THRESHOLD) & on_image)
    scores = theirs.scores[people]
    assert (scores < 0.95).all() and len(np.unique(scores)) >= 20, "the weights find too little"
    assert theirs.masks[people].any(axis=(1, 2)).sum() >= 10, "the weights draw too few masks"

    detector = RTMDetInsDetector.from_network(RTMDetIns.from_state_dict(model.state_dict()))
    detector.max_people = 300
    ours = detector.detect(Frame(image), score_threshold=THRESHOLD)
    assert len(ours.scores) == len(people)
    distances = np.abs(ours.boxes[:, None] - boxes[people][None]).max(axis=2)
    match = distances.argmin(axis=1)
    assert sorted(match) == list(range(len(people)))
    box_error = distances.min(axis=1).max()
    score_error = np.abs(ours.scores - scores[match]).max()

    masks = ours.masks(np.arange(len(people)))
    expected = theirs.masks[people[match]]
    differing = (masks != expected).sum()
    border = sum(map(border_pixels, expected))
    print(
        f"{size}: {len(people)} people, boxes {box_error:.2g} px, scores {score_error:.2g}, "
        f"masks {differing} of {border} border pixels"
    )
    assert box_error <= BOX_TOLERANCE
    assert score_error <= SCORE_TOLERANCE
    assert border > 1000 and differing <= BORDER_TOLERANCE * border


def border_pixels(mask: np.ndarray) -> int:
    """Number of pixels of (H, W) that have a neighbour, up, down, left or right, unlike them."""
    border = np.zeros_like(mask)
    vertical = mask[1:] != mask[:-1]
    horizontal = mask[:, 1:] != mask[:, :-1]
    border[1:] |= vertical
    border[:-1] |= vertical
    border[:, 1:] |= horizontal
    border[:, :-1] |= horizontal
    return int(border.sum())


def test_every_output_at_every_location() -> None:
    weights = random_rtmdet_ins("tiny", 80, seed=13, input_size=320)
    model = mmdet_model("tiny", 80, weights)
    network = RTMDetIns.from_state_dict(model.state_dict())
    assert list(network.state_dict()) == list(model.state_dict())
    canvas = torch.randn(2, 3, 320, 320, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = network(canvas)
        *levels, prototypes = model(canvas, mode="tensor")
    for mine, per_level in zip(ours[:3], levels, strict=True):
        theirs = torch.cat([x.flatten(2).transpose(1, 2) for x in per_level], dim=1)
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(ours.prototypes, prototypes, rtol=1e-3, atol=2e-3)
