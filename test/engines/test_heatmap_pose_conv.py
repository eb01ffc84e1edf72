# SPDX-License-Identifier: Apache-2.0
"""``ConvPose`` at work: the estimator of the larger networks runs it as it is."""

from __future__ import annotations

import numpy as np
import torch
from random_tiny import random_conv_pose
from random_weights import drawn_image

from bmp_ros.engines.crops import crop_geometry, pose_inputs
from bmp_ros.engines.heatmaps import decode_udp_dark
from bmp_ros.engines.top_down_pose import TopDownPoseEstimator
from bmp_ros.loop.frame import Frame
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.networks.conv_pose import ConvPose

BOXES = np.array([[20, 30, 120, 200], [100.5, 40, 260, 190.5]], np.float32)


def test_it_is_crop_network_decode() -> None:
    network = ConvPose.from_state_dict(random_conv_pose())
    frame = Frame(drawn_image(240, 320, seed=0))
    geometry = crop_geometry(BOXES, (144, 192))
    masks = np.zeros((2, 240, 320), bool)
    masks[:, 30:200, 20:260] = True
    with torch.inference_mode():
        heatmaps = network(torch.from_numpy(pose_inputs(frame.image, geometry, masks, 0.7)))
    points, peaks = decode_udp_dark(heatmaps.numpy())

    estimator = TopDownPoseEstimator.from_network(network, background_factor=0.7, flip_test=False)
    poses = estimator.estimate(frame, BOXES, masks)
    assert estimator.skeleton is COCO_17
    np.testing.assert_allclose(poses.scores, peaks, atol=1e-5)
    expected = geometry.points_to_image(points, (36, 48))
    assert (np.abs(expected - poses.keypoints).max(axis=2) <= 0.02).mean() > 0.9


def test_the_flip_test_averages() -> None:
    network = ConvPose.from_state_dict(random_conv_pose())
    frame = Frame(drawn_image(240, 320, seed=0))
    poses = TopDownPoseEstimator.from_network(network).estimate(frame, BOXES, None)
    mirrored = Frame(np.ascontiguousarray(frame.image[:, ::-1]))
    boxes = BOXES[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [319, 0, 319, 0]
    swapped = TopDownPoseEstimator.from_network(network).estimate(
        mirrored, boxes.astype(np.float32), None
    )
    np.testing.assert_allclose(swapped.scores[:, COCO_17.flip_indices], poses.scores, atol=0.01)
    assert np.abs(swapped.scores - poses.scores).max() > 0.1
