# SPDX-License-Identifier: Apache-2.0
"""Native RTMPose and PoseHRNet against MMPose: same weights, same image, same numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.openmmlab
pytest.importorskip("mmpose", reason="MMPose is not installed")
pytest.importorskip("mmcv.ops", reason="mmcv is installed without its operators")
torch = pytest.importorskip("torch", reason="torch is not installed")

from bmp_ros.engines.heatmaps import decode_udp_combined  # noqa: E402
from bmp_ros.engines.openmmlab.configs import load_config  # noqa: E402
from bmp_ros.engines.openmmlab.mmpose_estimator import MMPoseEstimator  # noqa: E402
from bmp_ros.engines.registry import Runtime, find_engine  # noqa: E402
from bmp_ros.fields import settings_from_mapping  # noqa: E402
from bmp_ros.loop.frame import Frame  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1]))
from random_mmpose import randomize  # noqa: E402

BOXES = np.array([[20, 15, 120, 190], [90.5, 40, 150, 210]], dtype=np.float32)
HRNET = "td-hm_hrnet-w32_{}8xb64-210e_coco-256x192"
CASES = {
    "rtmpose-t": ("rtmpose-t_8xb256-420e_coco-256x192", {"engine": "rtmpose"}),
    "rtmpose-s": ("rtmpose-s_8xb256-420e_aic-coco-256x192", {"engine": "rtmpose"}),
    "rtmpose-m": ("rtmpose-m_8xb256-420e_aic-coco-256x192", {"engine": "rtmpose"}),
    "rtmpose-l": ("rtmpose-l_8xb256-420e_aic-coco-256x192", {"engine": "rtmpose"}),
    "hrnet": (HRNET.format(""), {"engine": "hrnet"}),
    "hrnet-udp-regress": (
        HRNET.format("udp-regress-"),
        {"engine": "hrnet", "decoding": "udp_combined", "crop": "udp", "shift_flipped": False},
    ),
}


@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_poses_in_a_frame_are_equal(case: str, flip_test: bool) -> None:
    config, section = CASES[case]
    origin = MMPoseEstimator(load_config(config, "mmpose"), None, flip_test=flip_test)
    randomize(origin.model)
    engine = find_engine("pose_estimator", section["engine"])
    options = {key: value for key, value in section.items() if key != "engine"}
    settings = settings_from_mapping(
        engine.options, {**options, "weights": "x.pth", "flip_test": flip_test}, case
    )
    estimator = engine.build(settings, origin.model.state_dict(), Runtime("cpu"))

    crops = torch.randn(1, 3, 256, 192, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = origin.model.head(origin.model.backbone(crops))
        found = estimator.graph.network(crops)
    for ours, theirs in zip(_parts(found), _parts(expected), strict=True):
        assert theirs.std() > 1e-3
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))

    noise = np.random.default_rng(11).integers(0, 256, (240, 180, 3), np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    frame = Frame(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX))
    wanted, poses = (each.estimate(frame, BOXES, None) for each in (origin, estimator))
    np.testing.assert_allclose(poses.scores, wanted.scores, rtol=1e-3, atol=1e-4)
    # On random maps two cells may be level within rounding: almost all joints, not all. Combined
    # maps are smoothed: their maxima are flat, and random offsets differ from cell to cell.
    same = np.abs(poses.keypoints - wanted.keypoints).max(axis=2) <= 0.05
    assert same.mean() >= (0.2 if "regress" in case else 0.9)


def test_combined_maps_are_decoded_alike() -> None:
    from mmpose.codecs import UDPHeatmap

    codec = UDPHeatmap((192, 256), (48, 64), sigma=2, heatmap_type="combined")
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(1, 51, 64, 48)).astype(np.float32)
    expected, scores = codec.decode(maps[0].copy())
    points, peaks = decode_udp_combined(maps)
    found = points / (47, 63) * (192, 256)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    np.testing.assert_allclose(peaks, scores, rtol=1e-4)


def _parts(output):
    return output if isinstance(output, tuple) else (output,)
