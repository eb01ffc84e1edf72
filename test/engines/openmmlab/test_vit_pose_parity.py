# SPDX-License-Identifier: Apache-2.0
"""The native pose network against its origin: MMPretrain's ViT and MMPose's HeatmapHead."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.openmmlab
pytest.importorskip("mmpose", reason="MMPose is not installed")
pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")
pytest.importorskip("mmcv.ops", reason="mmcv is installed without its operators")
torch = pytest.importorskip("torch", reason="torch is not installed")

from bmp_ros.engines.crops import crop_geometry, pose_inputs  # noqa: E402
from bmp_ros.engines.heatmaps import merge_flipped  # noqa: E402
from bmp_ros.engines.openmmlab.mmpose_estimator import MMPoseEstimator  # noqa: E402
from bmp_ros.engines.openmmlab.vit_configs import vit_config  # noqa: E402
from bmp_ros.engines.top_down_pose import TopDownPoseEstimator  # noqa: E402
from bmp_ros.loop.frame import Frame  # noqa: E402
from bmp_ros.loop.skeletons import COCO_17, skeleton_of_size  # noqa: E402
from bmp_ros.networks.vit_pose import VitPose  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1]))
from random_mmpose import randomize  # noqa: E402
from random_vit import GREY, colour_finder, draw_spot, joint_colours  # noqa: E402

WIDTHS = {"s": 384, "b": 768}
BOXES = np.array([[20, 15, 120, 190], [90.5, 40, 150, 210]], dtype=np.float32)


@pytest.fixture(
    scope="module", params=[("s", 17), ("s", 21), ("b", 23)], ids="{0[0]}-{0[1]}".format
)
def origin_and_native(request):
    size, joints = request.param
    config = vit_config(
        skeleton_of_size(joints),
        embed_dims=WIDTHS[size],
        num_layers=12,
        num_heads=12,
        feedforward_channels=4 * WIDTHS[size],
    )
    origin = MMPoseEstimator(config, None)
    randomize(origin.model)
    return origin, VitPose.from_state_dict(origin.model.state_dict(), head="heatmap")


def test_features_and_heatmaps_are_equal(origin_and_native):
    origin, native = origin_and_native
    crops = torch.randn(1, 3, 256, 192, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected_features = origin.model.backbone(crops)
        expected = origin.model.head(expected_features)
        features = native.backbone(crops)
        heatmaps = native(crops)
    assert expected.std() > 0.1 and expected_features[0].std() > 0.1
    torch.testing.assert_close(features, expected_features[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(heatmaps, expected, rtol=0, atol=1e-4)


def test_poses_in_a_frame_are_equal(origin_and_native):
    origin, native = origin_and_native
    noise = np.random.default_rng(11).integers(0, 256, (240, 180, 3), np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    frame = Frame(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX))
    expected = origin.estimate(frame, BOXES, None)
    estimator = TopDownPoseEstimator.from_network(
        native, background_factor=None, extra_keypoints=True
    )
    poses = estimator.estimate(frame, BOXES, None)

    assert estimator.skeleton.names == origin.skeleton.names
    np.testing.assert_allclose(poses.scores, expected.scores, rtol=0, atol=1e-4)
    # Where the sub-pixel step is longer than a heatmap pixel the joint is no peak, and the last
    # digits of the heatmap decide where it lies: left out.
    geometry = crop_geometry(BOXES)
    crops = torch.from_numpy(pose_inputs(frame.image, geometry))
    with torch.inference_mode():
        outputs = native(torch.cat([crops, crops.flip(3)]))
    heatmaps = merge_flipped(outputs.numpy(), estimator.skeleton.flip_indices)
    y, x = np.divmod(heatmaps.reshape(*heatmaps.shape[:2], -1).argmax(axis=2), 48)
    cells = (expected.keypoints - geometry.origin[:, None]) / geometry.extent[:, None] * (47, 63)
    peaks = np.abs(cells - np.stack([x, y], axis=2)).max(axis=2) <= 1
    assert peaks.sum() >= 8
    assert np.abs(poses.keypoints - expected.keypoints)[peaks].max() <= 0.02


def test_every_keypoint_is_equal_where_all_heatmaps_have_a_peak():
    """Both load the weights of a network that finds colours, and see a picture of them."""
    native = colour_finder()
    config = vit_config(
        COCO_17,
        embed_dims=100,
        num_layers=1,
        num_heads=4,
        feedforward_channels=96,
        deconv_channels=(24, 24),
    )
    # Colours know no left and right: without the flip test.
    origin = MMPoseEstimator(config, None, flip_test=False)
    origin.model.load_state_dict(native.state_dict(), strict=True)
    image = np.full((480, 640, 3), GREY)
    box = np.array([[220, 80, 420, 400]], dtype=np.float32)
    cells = [(x, y) for x in (240, 290, 340, 390) for y in (100, 170, 240, 310, 380)][:17]
    places = np.array(cells) + np.random.default_rng(0).uniform(-8, 8, (17, 2))
    for place, colour in zip(places, joint_colours(17), strict=True):
        draw_spot(image, place, colour, sigma=12)
    frame = Frame(image.round().astype(np.uint8))

    expected = origin.estimate(frame, box, None)
    estimator = TopDownPoseEstimator.from_network(native, background_factor=None, flip_test=False)
    poses = estimator.estimate(frame, box, None)
    assert np.abs(expected.keypoints[0] - places).max() < 5
    np.testing.assert_allclose(poses.keypoints, expected.keypoints, rtol=0, atol=0.02)
    np.testing.assert_allclose(poses.scores, expected.scores, rtol=0, atol=1e-4)
