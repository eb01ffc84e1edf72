# SPDX-License-Identifier: Apache-2.0
"""The HRNet family and RTMPose at work: engines, exports, foreign files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from random_weights import drawn_image  # noqa: E402

from bmp_ros.engines.pose_decoding import DECODINGS  # noqa: E402
from bmp_ros.engines.registry import Runtime, find_engine  # noqa: E402
from bmp_ros.fields import settings_from_mapping  # noqa: E402
from bmp_ros.loop.frame import Frame  # noqa: E402
from bmp_ros.loop.skeletons import COCO_17, MPII_16  # noqa: E402
from bmp_ros.networks.hrnet import PoseHRNet, RLEHRNet, SimDRHRNet, TrunkSize  # noqa: E402
from bmp_ros.networks.omnipose import OmniPose  # noqa: E402
from bmp_ros.networks.rtmpose import RTMPose  # noqa: E402
from bmp_ros.weights.errors import BadCheckpoint, UnsafeCheckpoint  # noqa: E402

TINY = TrunkSize((8, 16, 24, 32), (1, 1, 1), 1)
SIZE = (64, 96)
BOXES = np.array([[20, 30, 120, 200], [100.5, 40, 260, 190.5]], np.float32)


def weights_of(kind: str) -> dict:
    torch.manual_seed(0)
    networks = {
        "heatmaps": lambda: PoseHRNet(TINY),
        "combined": lambda: PoseHRNet(TINY, 51),
        "simcc": lambda: SimDRHRNet(TINY, 17, bins=(128, 192), input_size=SIZE),
        "rle": lambda: RLEHRNet(TINY, 17),
        "mpii": lambda: OmniPose(16, size=TINY),
        "lite": lambda: OmniPose(17, lite=True, size=TINY),
        "rtmpose": lambda: RTMPose.published("t"),
    }
    return networks[kind]().state_dict()


KINDS = {
    "heatmaps": {"engine": "hrnet", "decoding": "quarter"},
    "combined": {"engine": "hrnet", "decoding": "udp_combined", "crop": "udp",
                 "shift_flipped": False},
    "simcc": {"engine": "hrnet", "decoding": "simdr"},
    "rle": {"engine": "hrnet", "decoding": "rle"},
    "mpii": {"engine": "omnipose"},
    "lite": {"engine": "omnipose"},
    "rtmpose": {"engine": "rtmpose"},
}  # fmt: skip


def engine_and_settings(kind: str, **more):
    section = {**KINDS[kind], "weights": "file.pth", **more}
    if kind != "rtmpose":
        section["input_size"] = SIZE
    engine = find_engine("pose_estimator", section.pop("engine"))
    return engine, settings_from_mapping(engine.options, section, "test")


@pytest.fixture(scope="module")
def frame() -> Frame:
    return Frame(drawn_image(240, 320, 0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flip_test", [False, True])
def test_estimates_are_of_the_frame_and_of_the_networks_skeleton(kind, flip_test, frame):
    engine, settings = engine_and_settings(kind, flip_test=flip_test)
    estimator = engine.build(settings, weights_of(kind), Runtime("cpu"))
    assert estimator.skeleton is (MPII_16 if kind == "mpii" else COCO_17)
    poses = estimator.estimate(frame, BOXES, None)
    joints = len(estimator.skeleton)
    assert poses.keypoints.shape == (2, joints, 2) and poses.scores.shape == (2, joints)
    assert poses.keypoints.dtype == poses.scores.dtype == np.float32
    alone = estimator.estimate(frame, BOXES[1:], None)
    np.testing.assert_allclose(alone.scores[0], poses.scores[1], rtol=1e-3, atol=1e-5)
    found = poses.scores[1] > 0
    np.testing.assert_allclose(
        alone.keypoints[0, found], poses.keypoints[1, found], rtol=1e-3, atol=0.1
    )


@pytest.mark.parametrize("kind", KINDS)
def test_exports_answer_as_the_network(kind, frame, tmp_path):
    pytest.importorskip("onnx", reason="writing ONNX files needs onnx")
    from bmp_ros.engines.export.check import compare
    from bmp_ros.engines.export.write import write_graph
    from bmp_ros.engines.onnx.card import Card

    engine, settings = engine_and_settings(kind)
    state_dict = weights_of(kind)
    source = engine.export(settings, state_dict)
    (graph,) = source.graphs
    path = tmp_path / "pose.onnx"
    write_graph(graph, Card(source.kind, graph.part, source.weights, source.facts), path,
                half_weights=False)  # fmt: skip
    compare(graph, path)
    onnx = find_engine("pose_estimator", "onnx")
    own = settings_from_mapping(onnx.options, {"weights": str(path), **source.options}, "test")
    exported = onnx.build(own, path, Runtime("cpu")).estimate(frame, BOXES, None)
    wanted = engine.build(settings, state_dict, Runtime("cpu")).estimate(frame, BOXES, None)
    np.testing.assert_allclose(exported.scores, wanted.scores, rtol=1e-3, atol=1e-4)
    assert (exported.keypoints.shape, len(onnx.name)) == (wanted.keypoints.shape, 4)


def test_a_head_and_a_decoding_that_do_not_fit_are_refused(frame):
    for kind, more, message in (
        ("heatmaps", {"decoding": "simdr"}, "simdr reads simcc, the network returns heatmaps"),
        ("simcc", {"decoding": "quarter"}, "quarter reads heatmaps, the network returns simcc"),
        ("heatmaps", KINDS["combined"], "reads 3 channels per keypoint, the network has 17"),
        ("combined", {"decoding": "quarter"}, "no skeleton with 51 joints"),
    ):
        engine, settings = engine_and_settings("heatmaps", **{**more, "engine": "hrnet"})
        with pytest.raises(ValueError, match=message):
            engine.build(settings, weights_of(kind), Runtime("cpu"))


def test_a_point_in_the_middle_of_the_crop_comes_back_to_the_middle_of_the_box():
    """Through crop, network, decoding and back, for every way to lie and to read."""

    class Middle(torch.nn.Module):
        input_size = SIZE

        def __init__(self, returns: str, channels: int) -> None:
            super().__init__()
            self.returns, self.num_keypoints = returns, channels

        def forward(self, crops):
            people = len(crops)
            if self.returns == "coordinates":
                points = torch.zeros(people, 17, 4)
                points[..., :2] = 0.5
                return points
            if self.returns == "simcc":
                bins = [torch.full((people, 17, n), -9.0) for n in (128, 192)]
                for along, middle in zip(bins, (64, 96), strict=True):
                    along[..., middle] = 9
                return tuple(bins)
            y, x = torch.meshgrid(torch.arange(24.0), torch.arange(16.0), indexing="ij")
            spot = torch.exp(-((x - 8) ** 2 + (y - 12) ** 2) / 8)
            maps = spot.expand(people, self.num_keypoints, 24, 16).clone()
            if self.num_keypoints == 51:
                maps[:, 1::3] = maps[:, 2::3] = 0
            return maps

    from bmp_ros.engines.top_down_pose import TopDownPoseEstimator

    frame = Frame(np.zeros((240, 320, 3), np.uint8))
    middles = (BOXES[:, :2] + BOXES[:, 2:]) / 2
    pixel = 1.25 * 170 / 24
    for name, decoding in DECODINGS.items():
        for crop in decoding.conventions:
            estimator = TopDownPoseEstimator.from_network(
                Middle(decoding.returns, 17 * decoding.channels),
                decoding=name, crop=crop, background_factor=None, flip_test=False,
            )  # fmt: skip
            poses = estimator.estimate(frame, BOXES, None)
            off = np.abs(poses.keypoints - middles[:, None]).max()
            assert off <= (1e-3 if crop == "corners" and name != "quarter" else pixel), (
                name,
                crop,
            )


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("kind", ["heatmaps", "mpii", "rtmpose"])
@pytest.mark.parametrize("fault", ["damaged", "foreign", "hostile"])
def test_a_bad_file_is_one_clear_error_and_runs_nothing(kind, fault, tmp_path):
    path = tmp_path / "file.pth"
    ran = tmp_path / "ran"
    if fault == "damaged":
        torch.save(weights_of("heatmaps"), path)
        path.write_bytes(path.read_bytes()[:-2000])
        error, message = BadCheckpoint, "cut short"
    elif fault == "foreign":
        torch.save({"state_dict": {"fc.weight": torch.zeros(3, 4)}}, path)
        error, message = ValueError, "is missing"
    else:
        torch.save({"state_dict": Hostile(str(ran))}, path)
        error, message = UnsafeCheckpoint, "was refused"
    engine, settings = engine_and_settings(kind)
    with pytest.raises(error, match=message):
        engine.build(settings, path, Runtime("cpu"))
    assert not ran.exists()


class Hostile:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)
