# SPDX-License-Identifier: Apache-2.0
"""The native pose network against its origin: MMPretrain's ViT and MMPose's HeatmapHead."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.openmmlab
pytest.importorskip("mmpose", reason="MMPose is not installed")
pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")
pytest.importorskip("mmcv.ops", reason="mmcv is installed without its operators")
torch = pytest.importorskip("torch", reason="torch is not installed")

from bmp_ros.engines.crops import crop_geometry  # noqa: E402
from bmp_ros.engines.openmmlab.mmpose_estimator import MMPoseEstimator  # noqa: E402
from bmp_ros.engines.openmmlab.vit_configs import vit_config  # noqa: E402
from bmp_ros.engines.torch.vit_pose import VitPose  # noqa: E402
from bmp_ros.engines.torch.vit_pose_estimator import VitPoseEstimator  # noqa: E402
from bmp_ros.loop.frame import Frame  # noqa: E402
from bmp_ros.loop.skeletons import skeleton_of_size  # noqa: E402

WIDTHS = {"s": 384, "b": 768}
BOXES = np.array([[20, 15, 120, 190], [90.5, 40, 150, 210]], dtype=np.float32)


def randomize(model: torch.nn.Module) -> None:
    """Give every tensor of an MMPose network random values that keep its outputs of order one.

    Attention is sharp, biases and batch statistics are not the neutral ones of a new network: a
    swapped axis or a missing bias shows.
    """
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.copy_(1 + 0.2 * noise.clamp(-2, 2))
            elif tensor.ndim == 1:
                tensor.copy_(0.1 * noise)
            elif name.endswith("pos_embed"):
                tensor.copy_(0.5 * noise)
            else:
                tensor.copy_(1.5 * noise / tensor[0].numel() ** 0.5)


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
    estimator = VitPoseEstimator(native, background_factor=None, extra_keypoints=True)
    poses = estimator.estimate(frame, BOXES, None)

    assert estimator.skeleton.names == origin.skeleton.names
    np.testing.assert_allclose(poses.scores, expected.scores, rtol=0, atol=1e-4)
    # On random heatmaps many sub-pixel steps are long and ill-conditioned; those are left out.
    geometry = crop_geometry(BOXES)
    cells = (expected.keypoints - geometry.origin[:, None]) / geometry.extent[:, None] * (47, 63)
    steady = np.abs(poses.keypoints - expected.keypoints).max(axis=2) <= 0.02
    assert np.isfinite(cells).all()
    print(estimator.skeleton.name, steady.mean())
