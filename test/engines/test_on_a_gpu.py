# SPDX-License-Identifier: Apache-2.0
"""What would break or wait on a GPU, found without one.

Tensors on the device ``meta`` have a shape and a place and no values: an operation that mixes them
with one on the CPU, or needs a value on the host, is seen at once. Half precision is tried on the
CPU, where it is slow and computes the same.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from random_tiny import random_conv_pose, random_point_segmenter  # noqa: E402
from random_vit import random_state_dict  # noqa: E402
from random_weights import SMALL, drawn_image, random_rtmdet_ins  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from bmp_ros.engines import torch_graph  # noqa: E402
from bmp_ros.engines.letterbox import Letterbox, mask_resampling  # noqa: E402
from bmp_ros.engines.point_segmenter import PointPromptSegmenter  # noqa: E402
from bmp_ros.engines.rtmdet_ins import FEATURES, RTMDetInsDetector  # noqa: E402
from bmp_ros.engines.top_down_pose import TopDownPoseEstimator  # noqa: E402
from bmp_ros.loop.frame import Frame  # noqa: E402
from bmp_ros.networks.conv_pose import ConvPose  # noqa: E402
from bmp_ros.networks.hrnet import PoseHRNet, RLEHRNet, SimDRHRNet, TrunkSize  # noqa: E402
from bmp_ros.networks.omnipose import OmniPose  # noqa: E402
from bmp_ros.networks.point_segmenter import PointSegmenter  # noqa: E402
from bmp_ros.networks.rtmdet_ins import RTMDetIns  # noqa: E402
from bmp_ros.networks.rtmpose import RTMPose  # noqa: E402
from bmp_ros.networks.vit_pose import VitPose  # noqa: E402

IMAGE = drawn_image(120, 160, seed=5)
BOXES = np.array([[20, 10, 70, 110], [80, 15, 150, 100]], np.float32)
MASKS = np.zeros((2, 120, 160), np.bool_)
MASKS[0, 20:100, 25:65] = MASKS[1, 20:90, 90:140] = True
POINTS = np.array([[[40, 40], [45, 80]], [[110, 50], [100, 80]]], np.float32)
LABELS = np.ones((2, 2), np.int32)
TRUNK = TrunkSize((8, 16, 24, 32), (1, 1, 1), 1)


class OneDevice(TorchDispatchMode):
    """Refuses whatever would fail on a GPU, or make it wait for the host.

    Numbers (tensors without a dimension) may come from the host: they travel with the launch.
    """

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        name = function.__name__
        places = {
            leaf.device.type
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, torch.Tensor) and leaf.dim()
        }
        assert places <= {"meta"}, f"{name} sees tensors on {sorted(places)}"
        assert not name.startswith(("_local_scalar", "nonzero", "masked_select")), f"{name} waits"
        answer = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(answer):
            if isinstance(leaf, torch.Tensor) and leaf.dim():
                assert leaf.device.type == "meta", f"{name} makes a tensor on {leaf.device}"
        return answer


def detector(**how: str) -> RTMDetInsDetector:
    weights = random_rtmdet_ins(SMALL, 1, seed=5, image=IMAGE, input_size=160)
    return RTMDetInsDetector.from_network(
        RTMDetIns.from_state_dict(weights), input_size=160, **how
    )


def poses() -> dict[str, Any]:
    torch.manual_seed(0)
    vit = {"num_heads": 4}
    return {
        "vit_pose": (VitPose.from_state_dict(random_state_dict(), head="heatmap", **vit), {}),
        "pmpose": (
            VitPose.from_state_dict(random_state_dict(head="pmpose"), head="pmpose", **vit), {},
        ),
        "conv_pose": (ConvPose.from_state_dict(random_conv_pose()), {}),
        "hrnet": (PoseHRNet(TRUNK), {"crop": "corners", "decoding": "dark"}),
        "simdr": (
            SimDRHRNet(TRUNK, 17, bins=(128, 192), input_size=(64, 96)),
            {"crop": "corners", "decoding": "simdr"},
        ),
        "rle": (RLEHRNet(TRUNK, 17), {"crop": "corners", "decoding": "rle"}),
        "omnipose": (OmniPose(17, size=TRUNK), {"crop": "width", "decoding": "dark"}),
        "rtmpose": (RTMPose.published("t"), {"crop": "corners", "decoding": "simcc"}),
    }  # fmt: skip


def estimator(name: str, **how: str) -> TopDownPoseEstimator:
    network, settings = poses()[name]
    return TopDownPoseEstimator.from_network(network, background_factor=0.75, **settings, **how)


def small_sam2(**how: str) -> Any:
    pytest.importorskip("sam2", reason="the sam2 package is not installed")
    from random_sam2 import SMALL as HIERA
    from random_sam2 import SMALL_IMAGE_SIZE, small_random_sam2

    from bmp_ros.engines.sam2 import Sam2Segmenter
    from bmp_ros.networks.sam2 import Sam2Network, image_tensors

    network = Sam2Network(HIERA, SMALL_IMAGE_SIZE)
    network.load_state_dict(image_tensors(small_random_sam2().state_dict()))
    return Sam2Segmenter.from_network(network, **how)


def tiny_segmenter(**how: str) -> PointPromptSegmenter:
    network = PointSegmenter.from_state_dict(random_point_segmenter())
    return PointPromptSegmenter.from_network(network, side=128, **how)


SEGMENTERS = {"sam2": small_sam2, "point_segmenter": tiny_segmenter}
POSES = ("vit_pose", "pmpose", "conv_pose", "hrnet", "simdr", "rle", "omnipose", "rtmpose")


def on_meta(graph: Any, inputs: dict[str, Any]) -> Any:
    """What the graph's function returns for inputs of these shapes, on ``meta`` alone."""
    places = {
        name: value if isinstance(value, torch.Tensor) else torch.from_numpy(value).to("meta")
        for name, value in inputs.items()
    }
    with OneDevice(), torch.inference_mode():
        return graph._function(**places)


@pytest.fixture
def on_meta_without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no autocast for ``meta``; half precision is tried on the CPU."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_detector_stays_on_its_device(precision: str) -> None:
    graphs = detector(device="meta", precision=precision).graphs
    letterbox = Letterbox.fit(120, 160, (160, 160))
    boxes, scores, *features = on_meta(graphs["boxes"], {"canvas": letterbox.apply(IMAGE)})
    assert boxes.shape == (525, 4) and scores.shape == (525,)
    assert boxes.dtype == scores.dtype == torch.float32
    rows, columns = (np.array(matrix) for matrix in mask_resampling(letterbox))
    kept = dict(zip(FEATURES, features, strict=True))
    given = {"locations": np.array([3, 500, 70]), "rows": rows, "columns": columns}
    masks = on_meta(graphs["masks"], {**kept, **given})
    assert masks.shape == (3, 120, 160) and masks.dtype == torch.bool


@pytest.mark.parametrize("name", POSES)
def test_pose_networks_stay_on_their_device(name: str) -> None:
    engine = estimator(name, device="meta")
    width, height = engine.input_size
    crops = np.zeros((2, height, width, 3), np.uint8)
    found = on_meta(engine.graph, {"crops": crops, "weights": np.ones((2, height, width), "f4")})
    first = found if isinstance(found, torch.Tensor) else found[0]
    assert len(first) == 4, "two crops and their mirror images"


@pytest.mark.parametrize("name", SEGMENTERS)
def test_segmenters_stay_on_their_device(name: str, on_meta_without_autocast: None) -> None:
    engine = SEGMENTERS[name](device="meta")
    frame = Frame(IMAGE)
    embedding = on_meta(engine.graphs["encoder"], engine.image_input(frame))
    kept = dict(zip(engine.kept, embedding, strict=True))
    prompts = {**engine.prompt_inputs(frame, POINTS, MASKS), "labels": LABELS.astype(np.int64)}
    logits, scores = on_meta(engine.graphs["decoder"], {**kept, **prompts})
    assert len(logits) == len(scores) == 2


def test_a_tensor_in_the_wrong_place_is_noticed() -> None:
    graph = torch_graph.TorchGraph(torch.nn.Identity(), lambda x: x + torch.ones(3), ("y",))
    with pytest.raises(AssertionError, match="makes a tensor on cpu"):
        on_meta(graph, {"x": np.ones(3, np.float32)})
    graph = torch_graph.TorchGraph(torch.nn.Identity(), lambda x: x[x > 0], ("y",))
    with pytest.raises((AssertionError, NotImplementedError), match="waits|nonzero"):
        on_meta(graph, {"x": np.ones(3, np.float32)})


# Half precision, on the CPU ---------------------------------------------------------------------


@pytest.fixture
def half_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines refuse fp16 on a CPU, because it is slow there."""
    monkeypatch.setattr(
        torch_graph, "torch_dtype", lambda precision, _: torch_graph.PRECISIONS[precision]
    )


@pytest.mark.usefixtures("half_on_the_cpu")
def test_detections_in_half_precision() -> None:
    frame = Frame(IMAGE)
    exact = detector().detect(frame, score_threshold=0.35)
    half = detector(precision="fp16").detect(frame, score_threshold=0.35)
    people = min(len(exact.boxes), len(half.boxes), 5)
    assert people >= 3 and abs(len(exact.boxes) - len(half.boxes)) <= 2
    assert not np.array_equal(exact.scores[:people], half.scores[:people])
    np.testing.assert_allclose(half.scores[:people], exact.scores[:people], atol=0.01)
    assert exact.masks is not None and half.masks is not None
    rows = np.arange(1)
    assert (exact.masks(rows) == half.masks(rows)).mean() > 0.97


@pytest.mark.usefixtures("half_on_the_cpu")
@pytest.mark.parametrize("name", POSES)
def test_poses_in_half_precision(name: str) -> None:
    def outputs(engine: TopDownPoseEstimator) -> dict[str, np.ndarray]:
        geometry = top_down_geometry(engine)
        return engine.graph.run(engine._inputs(Frame(IMAGE), geometry, MASKS))

    exact, half = outputs(estimator(name)), outputs(estimator(name, precision="fp16"))
    assert exact.keys() == half.keys()
    differs = False
    for key, value in half.items():
        assert value.dtype == np.float32 and np.isfinite(value).all()
        differs |= not np.array_equal(value, exact[key])
        one, other = (array.ravel().astype(np.float64) for array in (value, exact[key]))
        assert one @ other >= 0.999 * np.linalg.norm(one) * np.linalg.norm(other), key
    assert differs, "fp16 was not used"


def top_down_geometry(engine: TopDownPoseEstimator) -> Any:
    from bmp_ros.engines.crops import crop_geometry

    return crop_geometry(BOXES, engine.input_size, engine._crop)


@pytest.mark.usefixtures("half_on_the_cpu")
@pytest.mark.parametrize("name", SEGMENTERS)
def test_masks_in_half_precision(name: str) -> None:
    frame = Frame(IMAGE)
    exact, half = (
        SEGMENTERS[name](precision=precision).decode(frame, POINTS, LABELS, MASKS)
        for precision in ("fp32", "fp16")
    )
    assert half[0].dtype == half[1].dtype == np.float32
    assert not np.array_equal(exact[0], half[0]), "fp16 was not used"
    np.testing.assert_allclose(half[1], exact[1], atol=0.01)
    assert ((half[0] > 0) == (exact[0] > 0)).mean() > 0.99


# Memory -----------------------------------------------------------------------------------------


class SmallMemory(torch.nn.Module):
    """A network that runs out of memory with more than ``most`` people."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.seen = most, list[int]()

    def forward(self, crops: Any) -> Any:
        self.seen.append(len(crops))
        if len(crops) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        return torch.cat([crops * 2, -crops])


def graph_of(network: Any, *names: str) -> torch_graph.TorchGraph:
    return torch_graph.TorchGraph(network, lambda crops: network(crops), ("out",), people=names)


def test_out_of_memory_takes_fewer_people_at_once_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = SmallMemory(3)
    graph = graph_of(network, "crops")
    crops = np.arange(22, dtype=np.float32).reshape(11, 2)
    found = graph.run({"crops": crops})["out"]
    np.testing.assert_array_equal(found, np.concatenate([crops * 2, -crops]))
    assert network.seen == [11, 3, 4, 1, 2, 2, 2, 2, 2]
    said = [record.message for record in caplog.records]
    assert len(said) == 2 and "with 5 people at once (CUDA out of memory" in said[1]
    assert "from now on at most 2 at once" in said[1]
    network.seen.clear()
    graph.run({"crops": crops})
    assert max(network.seen) <= 2 and sum(network.seen) == 11, "it is not tried again"


@pytest.mark.parametrize(("names", "what"), [(("crops",), "one person"), ((), "the image")])
def test_too_little_memory_for_anything_is_an_error(names: tuple[str, ...], what: str) -> None:
    graph = graph_of(SmallMemory(0), *names)
    with pytest.raises(torch.cuda.OutOfMemoryError, match=f"suffice for {what}.*precision fp16"):
        graph.run({"crops": np.ones((1, 2), np.float32)})


# CUDA graphs, with a recording that only counts -------------------------------------------------


class Recorded:
    """Stands in for a CUDA graph, of which there is none without a GPU: computes again."""

    made = 0
    trouble: Exception | None = None

    def __init__(self, call: Any, tensors: Any) -> None:
        if Recorded.trouble is not None:
            raise Recorded.trouble
        Recorded.made += 1
        self.call = call
        self.shapes = {name: value.shape for name, value in tensors.items()}

    def replay(self, tensors: Any) -> Any:
        assert {name: value.shape for name, value in tensors.items()} == self.shapes
        return self.call(tensors)


@pytest.fixture
def replaying(monkeypatch: pytest.MonkeyPatch) -> torch_graph.TorchGraph:
    monkeypatch.setattr(torch_graph, "_Captured", Recorded)
    monkeypatch.setattr(torch_graph.TorchGraph, "_replays", property(lambda self: self.capture))
    monkeypatch.setattr(Recorded, "made", 0)
    monkeypatch.setattr(Recorded, "trouble", None)
    graph = graph_of(torch.nn.ReLU(), "crops")
    graph.capture = True
    return graph


def crops_of(people: int) -> dict[str, np.ndarray]:
    return {"crops": np.random.default_rng(people).normal(size=(people, 2)).astype(np.float32)}


def test_people_pass_recorded_graphs_in_few_sizes(replaying: torch_graph.TorchGraph) -> None:
    for people in (3, 4, 3, 7, 8, 1, 1, 5):
        given = crops_of(people)
        found = replaying.run(given)["out"]
        np.testing.assert_array_equal(found, np.maximum(given["crops"], 0))
    assert Recorded.made == 3, "of 4, 8 and 1 people, each when it came again"


def test_the_least_recently_used_recording_goes(
    replaying: torch_graph.TorchGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_graph, "MOST_CAPTURED", 2)
    for people in (1, 1, 2, 2, 1, 4, 4, 1, 2, 2):
        replaying.run(crops_of(people))
    assert Recorded.made == 4 and len(replaying._captured) == 2


def test_where_nothing_can_be_recorded_it_goes_on_without(
    replaying: torch_graph.TorchGraph,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Recorded, "trouble", RuntimeError("CUDA error: not permitted\nmore"))
    for _ in range(3):
        given = crops_of(2)
        np.testing.assert_array_equal(replaying.run(given)["out"], np.maximum(given["crops"], 0))
    assert not replaying.capture
    assert [r.message for r in caplog.records] == [
        "CUDA graphs cannot be recorded here, going on without: CUDA error: not permitted"
    ]


def test_the_default_is_to_record_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(device: str) -> bool:
        return torch_graph.TorchGraph(torch.nn.ReLU(), abs, ("y",), device).capture

    assert of("cuda") and of("cuda:1") and not of("cpu")
    assert not torch_graph.TorchGraph(torch.nn.ReLU(), abs, ("y",), "cuda", compile=True).capture
    monkeypatch.setenv("BMP_CUDA_GRAPHS", "0")
    assert not of("cuda")


def test_threads_that_share_a_graph_take_turns(
    replaying: torch_graph.TorchGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnePlace(Recorded):
        """Like a CUDA graph it reads and writes where it did when it was recorded."""

        place = np.zeros((1, 2), np.float32)

        def replay(self, tensors: Any) -> Any:
            self.place[:] = tensors["crops"].numpy()
            time.sleep(0.002)  # for the other threads
            return (torch.from_numpy(self.place),)

    monkeypatch.setattr(torch_graph, "_Captured", OnePlace)
    download = replaying._downloaded

    def slow_download(values: Any) -> Any:
        time.sleep(0.002)
        return {name: value.copy() for name, value in download(values).items()}

    replaying._downloaded = slow_download  # type: ignore[method-assign]
    inputs = [np.full((1, 2), number, np.float32) for number in range(12)]
    for _ in range(2):  # recorded before the threads begin
        replaying.run({"crops": inputs[0]})
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda crops: replaying.run({"crops": crops})["out"], inputs))
    np.testing.assert_array_equal(found, inputs)


# Copies between host and device -----------------------------------------------------------------


def test_a_frame_is_copied_as_pixels_and_waited_for_once_per_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counted where the copies are made; on the CPU they cost nothing and are the same."""
    from bmp_ros.loop.bmp_loop import BMPLoop
    from bmp_ros.loop.settings import LoopSettings

    up: list[tuple[Any, tuple[int, ...]]] = []
    down: list[list[tuple[Any, tuple[int, ...]]]] = []
    upload, download = torch_graph.TorchGraph._uploaded, torch_graph.TorchGraph._downloaded

    def uploaded(self: Any, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            up.append((value.dtype, value.shape))
        return upload(self, value)

    def downloaded(self: Any, values: Any) -> Any:
        found = download(self, values)
        if found:
            down.append([(value.dtype, value.shape) for value in found.values()])
        return found

    monkeypatch.setattr(torch_graph.TorchGraph, "_uploaded", uploaded)
    monkeypatch.setattr(torch_graph.TorchGraph, "_downloaded", downloaded)
    loop = BMPLoop(
        detector(), estimator("vit_pose"), tiny_segmenter(),
        LoopSettings(iterations=1, max_people=2, detection_threshold=0.3, box_nms_iou=0.9,
                     oks_threshold=1.0, confidence_threshold=0.0),
    )  # fmt: skip
    people = loop(IMAGE)
    assert len(people) == 2
    assert len(down) == 4, "boxes; masks; poses; the decoder: the encoder's answer stays there"
    images = [shape for dtype, shape in up if dtype == np.uint8]
    assert sorted(images) == [(2, 256, 192, 3), (96, 128, 3), (160, 160, 3)]
    floats = sum(int(np.prod(shape)) for dtype, shape in up if dtype == np.float32)
    assert floats < 4 * sum(int(np.prod(shape)) for shape in images), "no image in float32"
    masks = [part for parts in down for part in parts if part[0] == np.bool_]
    assert masks == [(np.bool_, (2, 120, 160))], "masks of those who are kept, one byte a pixel"


def test_weights_are_converted_once_and_the_given_network_stays() -> None:
    """Under autocast a weight in float32 would be converted again at every call."""
    network = PointSegmenter.from_state_dict(random_point_segmenter())
    engine = PointPromptSegmenter.from_network(network, side=128, precision="bf16")
    held = engine.graphs["encoder"].network
    assert held is engine.graphs["decoder"].network and held is not network
    for module in held.modules():
        for parameter in module.parameters(recurse=False):
            half = isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
            assert parameter.dtype == (torch.bfloat16 if half else torch.float32)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}

    converted: list[int] = []

    class Counter(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ):
            weights = {parameter.data_ptr() for parameter in held.parameters()}
            named = function.__name__.startswith(("to.", "_to_copy."))
            if named and args[0].data_ptr() in weights:
                converted.append(1)
            return function(*args, **(kwargs or {}))

    with Counter():
        engine.segment(Frame(IMAGE), POINTS, LABELS, MASKS)
    assert not converted
