# SPDX-License-Identifier: Apache-2.0
"""What would break or wait on a GPU, found without one.

Tensors on the device ``meta`` have a shape and a place and no values: an operation that mixes them
with one on the CPU, or needs a value on the host, is seen at once. Half precision is tried on the
CPU, where it is slow and computes the same.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import time
import weakref
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

from bmp_ros.engines import torch_graph, torch_networks  # noqa: E402
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
        torch_networks, "torch_dtype", lambda precision, _: torch_networks.PRECISIONS[precision]
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
    with pytest.raises(
        torch.cuda.OutOfMemoryError, match=f"not enough memory for {what}.*precision fp16"
    ):
        graph.run({"crops": np.ones((1, 2), np.float32)})


# CUDA graphs, with a recording that only counts -------------------------------------------------


class Recorded:
    """Stands in for a CUDA graph, of which there is none without a GPU: computes again."""

    made = 0
    trouble: Exception | None = None

    def __init__(self, call: Any, tensors: Any, earlier: Any = None) -> None:
        if Recorded.trouble is not None:
            raise Recorded.trouble
        Recorded.made += 1
        self.earlier = earlier
        self.call = call
        self.shapes = {name: value.shape for name, value in tensors.items()}

    def replay(self, tensors: Any) -> Any:
        assert {name: value.shape for name, value in tensors.items()} == self.shapes
        return self.call(tensors)


@pytest.fixture
def replaying(monkeypatch: pytest.MonkeyPatch) -> torch_graph.TorchGraph:
    monkeypatch.setattr(torch_graph, "_Captured", Recorded)
    monkeypatch.setattr(torch_graph, "_GRAPHS", weakref.WeakSet())  # without other tests' graphs
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


def test_recordings_of_one_graph_share_memory_until_all_are_gone(
    replaying: torch_graph.TorchGraph,
) -> None:
    def made() -> list[Any]:
        return [each for each in replaying._captured.values() if each is not None]

    for people in (1, 1, 2, 2, 4, 4):
        replaying.run(crops_of(people))
    first, second, third = made()
    assert first.earlier is None and second.earlier is first and third.earlier in (first, second)
    assert torch_graph.forget_recordings() == 3
    for people in (1, 1):
        replaying.run(crops_of(people))
    assert made()[0].earlier is None, "torch cannot use their pool again"


class SharedMemory(torch.nn.Module):
    """A network that has the memory for no image while another one holds recordings."""

    def __init__(self, other: torch_graph.TorchGraph, most: int = 99) -> None:
        super().__init__()
        self.other, self.most, self.seen = other, most, list[int]()

    def forward(self, crops: Any) -> Any:
        self.seen.append(len(crops))
        if len(crops) > self.most or any(self.other._captured.values()):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        return crops * 2


@pytest.mark.parametrize("names", [("crops",), ()])
def test_recordings_of_other_networks_go_before_people_are_split(
    names: tuple[str, ...], replaying: torch_graph.TorchGraph, caplog: pytest.LogCaptureFixture
) -> None:
    network = SharedMemory(replaying)
    graph = graph_of(network, *names)
    given = crops_of(1)

    def frame() -> None:
        for _ in range(2):
            replaying.run(given)
        np.testing.assert_array_equal(graph.run(given)["out"], given["crops"] * 2)

    frame()
    assert network.seen == [1, 1] and graph._most is None and replaying.capture
    assert "dropped 1 CUDA graphs" in caplog.text
    # Not with every frame: where it comes again, nothing is recorded any more.
    frame()
    assert not replaying.capture and not replaying._captured
    assert caplog.records[-1].message.endswith("from now on without CUDA graphs")
    network.seen.clear()
    frame()
    assert network.seen == [1]


def test_people_are_split_where_dropped_recordings_do_not_suffice(
    replaying: torch_graph.TorchGraph,
) -> None:
    network = SharedMemory(replaying, most=2)
    for _ in range(2):
        replaying.run(crops_of(1))
    graph = graph_of(network, "crops")
    given = crops_of(4)
    np.testing.assert_array_equal(graph.run(given)["out"], given["crops"] * 2)
    assert network.seen == [4, 4, 2, 2] and replaying.capture


def test_recordings_are_dropped_when_their_graph_has_run(
    replaying: torch_graph.TorchGraph,
) -> None:
    """A thread that runs short of memory must not take a recording away that another replays."""
    for _ in range(2):
        replaying.run(crops_of(1))
    with ThreadPoolExecutor(1) as pool:
        with replaying._turn:  # as in `_run`
            dropping = pool.submit(torch_graph.forget_recordings)
            time.sleep(0.05)  # a chance to do it wrong
            assert not dropping.done() and any(replaying._captured.values())
        assert dropping.result(timeout=60) == 1
    assert not replaying._captured


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


# The recording itself, with torch's own `torch.cuda.graph` on GPUs of paper ----------------------


class PaperStream:
    def __init__(self, device: Any) -> None:
        self.device = torch.device(device)

    def wait_stream(self, other: Any) -> None:
        """Nothing runs."""


class PaperGPUs:
    """Current device and streams, kept as CUDA keeps them, and which launches a graph recorded."""

    def __init__(self) -> None:
        self.device = 0
        self.streams = {index: PaperStream(f"cuda:{index}") for index in range(2)}
        self.defaults = dict(self.streams)
        self.capturing: list[PaperGraph] = []
        self.trouble: Exception | None = None
        self.pools = itertools.count(1)

    def current_stream(self, device: Any = None) -> PaperStream:
        return self.streams[self.device if device is None else torch.device(device).index]

    def set_stream(self, stream: PaperStream) -> None:
        self.device = stream.device.index
        self.streams[self.device] = stream

    def launch(self, inputs: Any) -> Any:
        """One kernel, on the current stream of the tensors' device."""
        stream = self.streams[inputs["x"].device.index]
        for graph in self.capturing:
            if graph.stream is stream:
                graph.launches += 1
        if self.trouble is not None and self.capturing:
            raise self.trouble
        return (inputs["x"],)


class PaperGraph:
    def __init__(self, gpus: PaperGPUs) -> None:
        self.gpus, self.launches, self.pool = gpus, 0, None
        self.stream: PaperStream | None = None
        self.replayed_on: list[int] = []

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "") -> None:
        assert not self.gpus.capturing, "torch: one recording at a time in a process"
        self.pool, self.stream = pool, self.gpus.current_stream()
        self.gpus.capturing.append(self)
        time.sleep(0.002)  # for other threads

    def capture_end(self) -> None:
        self.gpus.capturing.remove(self)
        if self.gpus.trouble is not None:
            raise RuntimeError("CUDA error: operation failed due to a previous error")

    def replay(self) -> None:
        self.replayed_on.append(self.gpus.device)


class OnPaper:
    """A tensor on a GPU of paper."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    def clone(self) -> OnPaper:
        return OnPaper(str(self.device))

    def copy_(self, other: OnPaper, non_blocking: bool) -> None:
        """There is nothing in it."""


class Entered:
    """A context that, as CUDA's, is left only by who leaves it."""

    def __init__(self, enter: Any, leave: Any) -> None:
        self.enter, self.leave = enter, leave

    def __enter__(self) -> None:
        self.before = self.enter()

    def __exit__(self, *_: Any) -> None:
        self.leave(self.before)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> PaperGPUs:
    paper = PaperGPUs()

    def on_device(device: Any) -> Entered:
        def switch(index: int) -> int:
            before, paper.device = paper.device, index
            return before

        return Entered(lambda: switch(torch.device(device).index), switch)

    def on_stream(stream: PaperStream) -> Entered:
        def enter() -> Any:
            before = paper.device, paper.current_stream(stream.device)
            paper.set_stream(stream)
            return before

        def leave(before: Any) -> None:
            paper.set_stream(before[1])
            paper.device = before[0]

        return Entered(enter, leave)

    for name, value in {
        "device": on_device, "stream": on_stream, "current_stream": paper.current_stream,
        "set_stream": paper.set_stream, "synchronize": lambda: None, "empty_cache": lambda: None,
        "Stream": lambda device=None: PaperStream(device or f"cuda:{paper.device}"),
        "CUDAGraph": lambda: PaperGraph(paper), "graph_pool_handle": lambda: next(paper.pools),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda.graph, "default_capture_stream", None)
    monkeypatch.setattr(gc, "collect", lambda: 0)  # it takes half a second
    return paper


def test_a_recording_is_made_and_replayed_on_the_device_of_its_tensors(gpus: PaperGPUs) -> None:
    given = {"x": OnPaper("cuda:1")}
    captured = torch_graph._Captured(gpus.launch, given)  # type: ignore[arg-type]
    graph: Any = captured._graph
    assert graph.launches == 1, "empty: it would answer every frame as the first"
    assert gpus.device == 0 and gpus.streams == gpus.defaults
    captured.replay(given)  # type: ignore[arg-type]
    assert graph.replayed_on == [1] and gpus.device == 0


def test_later_recordings_use_stream_and_pool_of_earlier_ones(gpus: PaperGPUs) -> None:
    given: Any = {"x": OnPaper("cuda:1")}
    one = torch_graph._Captured(gpus.launch, given)
    two = torch_graph._Captured(gpus.launch, given, one)
    apart = torch_graph._Captured(gpus.launch, given)
    graphs: list[Any] = [each._graph for each in (one, two, apart)]
    assert graphs[0].stream is graphs[1].stream is not graphs[2].stream
    assert [graph.pool for graph in graphs] == [1, 1, 2]
    assert [graph.launches for graph in graphs] == [1, 1, 1]


def test_a_failed_recording_leaves_the_thread_on_its_stream(gpus: PaperGPUs) -> None:
    gpus.trouble = RuntimeError("operation not permitted when stream is capturing")
    given: Any = {"x": OnPaper("cuda:1")}
    with pytest.raises(RuntimeError, match="failed due to a previous error"):
        torch_graph._Captured(gpus.launch, given)
    assert gpus.device == 0 and gpus.streams == gpus.defaults
    gpus.trouble = None
    again: Any = torch_graph._Captured(gpus.launch, given)
    assert again._graph.launches == 1, "the next one does not wait for the failed one"


def test_one_recording_at_a_time_in_a_process(gpus: PaperGPUs) -> None:
    def record(number: int) -> Any:
        given: Any = {"x": OnPaper("cuda:1")}
        return torch_graph._Captured(gpus.launch, given)._graph

    with ThreadPoolExecutor(4) as pool:
        graphs = list(pool.map(record, range(8)))
    assert [graph.launches for graph in graphs] == [1] * 8


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
