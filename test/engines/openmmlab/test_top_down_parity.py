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

from bmp_ros.engines.crops import crop_geometry, pose_inputs  # noqa: E402
from bmp_ros.engines.heatmaps import LONGEST_STEP, decode_udp_combined  # noqa: E402
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
    "hrnet": (HRNET.format(""), {"engine": "hrnet", "decoding": "quarter_mmpose"}),
    "hrnet-dark": (HRNET.format("dark-"), {"engine": "hrnet", "decoding": "dark"}),
    "hrnet-udp": (
        HRNET.format("udp-"),
        {"engine": "hrnet", "decoding": "udp", "crop": "udp", "shift_flipped": False},
    ),
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
    frame = smooth_noise()
    if section["engine"] == "hrnet":
        standardise_maps(origin.model, frame, section.get("crop", "corners"), "regress" in case)
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

    wanted, poses = (each.estimate(frame, BOXES, None) for each in (origin, estimator))
    assert (wanted.scores > 0).all(), "a map without a positive value has no joint to compare"
    np.testing.assert_allclose(poses.scores, wanted.scores, rtol=1e-4, atol=1e-6)
    apart = np.linalg.norm(poses.keypoints - wanted.keypoints, axis=2)
    # A random map is no peak here and there. MMPose's DARK then steps any distance; ours stays.
    cell = crop_geometry(BOXES, convention="corners").extent[:, :1] / 48
    far = apart > (LONGEST_STEP * cell if case == "hrnet-dark" else np.inf)
    assert far.sum() <= 3
    assert apart[~far].max() <= 0.01, "pixels"
    spread = np.ptp(wanted.keypoints, axis=1)
    assert (spread > 40).all(), "the joints of a person are apart"


def smooth_noise() -> Frame:
    noise = np.random.default_rng(11).integers(0, 256, (240, 180, 3), np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return Frame(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX))


@torch.no_grad()
def standardise_maps(model: torch.nn.Module, frame: Frame, crop: str, combined: bool) -> None:
    """Scale the last layer of a heatmap network by what it answers to the frame.

    Without that, values of random networks are of the order of 1e10: offsets lie far outside of
    the image, where one float32 is a kilometre from the next, and half of the maps are negative
    throughout. Here maps are spread by 1 about 0, offsets by a third of their unit.
    """
    crops = torch.from_numpy(pose_inputs(frame.image, crop_geometry(BOXES, convention=crop)))
    deviation, mean = torch.std_mean(model.head(model.backbone(crops)), dim=(0, 2, 3))
    spread = torch.tensor([1.0, 0.3, 0.3] if combined else [1.0]).repeat(17)
    layer = model.head.final_layer
    layer.bias.copy_((layer.bias - mean) * spread / deviation)
    layer.weight.mul_((spread / deviation)[:, None, None, None])


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
