# SPDX-License-Identifier: Apache-2.0
"""The loop on a CUDA GPU: number formats, CUDA graphs, people; beside the published order of work.

    python benchmarks/gpu.py --pack out/packed       # in a checkout, where sam2 is installed
    cd packed; python benchmarks/gpu.py --output out # on the machine with the GPU

Needs PyTorch with CUDA, NumPy, OpenCV, SciPy and PyYAML, for the tiny networks also onnx and
onnxruntime; no network, no ROS, no weights: networks of the published sizes get random ones on the
spot, the tiny networks have their own. ``--pack`` makes a folder that runs by itself, of 30 MB:
this package, and sam2 with what it imports. Every variant is tried on its own: what fails is
written down with its traceback and the rest goes on. ``gpu.json`` and ``gpu.md`` are written anew
after each one, the most important ones come first, and nothing is begun after ``--limit-seconds``.

``--device cpu --small`` tries the same code in a minute without a GPU; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]
sys.path += [str(ROOT / "packages")]  # of a packed folder; what the machine has comes first

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from bmp_ros.benchmark.agreement import agreement, answers, compare_people  # noqa: E402
from bmp_ros.benchmark.device_time import (  # noqa: E402
    forget_captured,
    host_profile,
    matrix_rates,
    profiled,
    set_capture,
    set_tf32,
    timed_schedule,
)
from bmp_ros.benchmark.measure import competitors  # noqa: E402
from bmp_ros.benchmark.schedule import Schedule  # noqa: E402
from bmp_ros.benchmark.scripted import Scene, crowd, score_thresholds  # noqa: E402
from bmp_ros.engines.build import assemble, build_loop  # noqa: E402
from bmp_ros.engines.presets import load_preset  # noqa: E402
from bmp_ros.loop.bmp_loop import BMPLoop  # noqa: E402
from bmp_ros.machine import machine  # noqa: E402

PACKED = ("sam2", "hydra", "omegaconf", "antlr4", "iopath", "portalocker")
PARTS = ("benchmarks/gpu.py", "bmp_ros", "config", "models", "package.xml", "LICENSE")
LEFT_OUT = ("*.pyc", "__pycache__", "*.so", ".git*", "demo.gif")
"""Hydra's package has a .gitignore of its own: whoever sends a folder through git loses files."""
LATER = {1: 0, 2: 1, 3: 1, 5: 1, 20: 4}
"""Of so many people, how many are found in the second iteration."""
_LATER_LAYER = re.compile(r"backbone\.layers\.(?![01]\.)")
Results = dict[str, Any]


def pack(folder: Path) -> None:
    """Make a folder that runs this benchmark by itself. Raises SystemExit for one with content."""
    import importlib.util

    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty; name a new folder")
    wanted = {ROOT / part: folder / part for part in PARTS}
    for name in PACKED:
        found = importlib.util.find_spec(name)
        if found is None or not found.submodule_search_locations:
            raise SystemExit(f"{name} is not installed here: pip install -r requirements/sam2.txt")
        wanted[Path(found.submodule_search_locations[0])] = folder / "packages" / name
    for source, target in wanted.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
        else:
            shutil.copy(source, target)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 2**20:.1f} MiB")


# What runs -------------------------------------------------------------------------------------


class Bench:
    """Loops with random weights on one device, built when they are first asked for."""

    def __init__(self, device: str, small: bool, frames: int, warm_up: int) -> None:
        self.device, self.small = device, small
        self.frames, self.warm_up = frames, warm_up
        self.width, self.height = (320, 240) if small else (1280, 720)
        names = {"segmenter": {"weights": "sam2.1-hiera-tiny", "image_size": 256}}
        names |= {"detector": {"weights": "rtmdet-ins-tiny", "input_size": 128}}
        names |= {"pose_estimator": {"weights": "maskpose-s"}}
        self.preset = load_preset("bmp_d3", names if small else {})
        self.cuda = device.startswith("cuda")
        self._loops: dict[tuple[str, bool], BMPLoop] = {}

    def loop(self, precision: str, compile: bool = False) -> BMPLoop:
        """The full-size networks in one number format. A loop of before goes, for its memory."""
        key = (precision, compile)
        if key not in self._loops:
            self._loops = {k: v for k, v in self._loops.items() if k == ("fp32", False)}
            torch.manual_seed(0)
            self._loops[key] = assemble(
                self.preset, self._weights, self.device, precision, compile
            )
        return self._loops[key]

    @lru_cache(maxsize=8)  # noqa: B019  (one bench lives as long as the process)
    def _random_weights(self, role: str) -> Any:
        choice = self.preset.engines[role]
        assert choice.declaration.random_weights is not None
        weights = choice.declaration.random_weights(choice.settings)
        if self.small and role == "pose_estimator":  # two of its twelve layers
            return {k: v for k, v in weights.items() if not _LATER_LAYER.match(k)}
        return weights

    def _weights(self, choice: Any) -> Any:
        return self._random_weights(choice.declaration.role)

    def scene(self, people: int) -> Scene:
        return crowd(people, self.width, self.height, later=LATER.get(people, 0))


# Tiny networks ----------------------------------------------------------------------------------


def tiny_loop(device: str, precision: str, capture: bool = False) -> BMPLoop:
    """The tiny networks with their trained weights, in PyTorch."""
    from bmp_ros.engines.onnx.graph import Graph
    from bmp_ros.engines.onnx.target import Target
    from bmp_ros.engines.point_segmenter import PointPromptSegmenter
    from bmp_ros.engines.rtmdet_ins import RTMDetInsDetector
    from bmp_ros.engines.top_down_pose import TopDownPoseEstimator
    from bmp_ros.networks.conv_pose import ConvPose
    from bmp_ros.networks.point_segmenter import PointSegmenter
    from bmp_ros.networks.rtmdet_ins import PACKAGED_SIZE, RTMDetIns
    from bmp_ros.training.read_back import read_back_tiny

    networks = {
        "detector": RTMDetIns(PACKAGED_SIZE, classes=1), "pose": ConvPose(),
        "segmenter": PointSegmenter(),
    }  # fmt: skip
    folder = ROOT / "models" / "tiny"
    for name, network in networks.items():
        read_back_tiny(name, network, folder)
    canvas = Graph(folder / "detector.onnx", Target()).card.facts.input_size
    factor = Graph(folder / "pose_estimator.onnx", Target()).card.facts.background_factor
    how = {"device": device, "precision": precision}
    detector = RTMDetInsDetector.from_network(
        networks["detector"], input_size=canvas, nms_iou=0.5, **how
    )
    pose = TopDownPoseEstimator.from_network(
        networks["pose"], background_factor=factor, flip_test=False, **how
    )
    side = Graph(folder / "segmenter.onnx", Target()).card.facts.side
    segmenter = PointPromptSegmenter.from_network(networks["segmenter"], side=side, **how)
    loop = BMPLoop(detector, pose, segmenter, load_preset("tiny").loop)
    set_capture(loop, capture)
    return loop


def clip_frames(count: int) -> list[np.ndarray]:
    """Images (H, W, 3) of the demo's clip, evenly spread."""
    video = cv2.VideoCapture(str(ROOT / "models" / "demo" / "people.mp4"))
    images = []
    while (read := video.read())[0]:
        images.append(read[1])
    if not images:
        raise RuntimeError("this OpenCV cannot read models/demo/people.mp4")
    return images[:: max(1, len(images) // count)][:count]


# Variants --------------------------------------------------------------------------------------


def variants(bench: Bench) -> Iterator[tuple[str, Callable[[], Results]]]:
    """Names and work, most important first."""
    exact: dict[int, tuple[tuple[float, float], Results]] = {}
    few, more, most = (1, 2, 3) if bench.small else (1, 5, 20)
    half = "bf16"  # on a CPU, where fp16 is refused

    def timed(loop: BMPLoop, schedule: Schedule, scene: Scene) -> Results:
        return timed_schedule(
            loop, schedule, scene.image, bench.frames, bench.warm_up, cuda=bench.cuda
        )

    def ours(
        precision: str, people: int, *, tf32: bool = False, capture: bool = False,
        compile: bool = False, published: bool = False,
    ) -> Results:  # fmt: skip
        set_tf32(tf32)
        loop, scene = bench.loop(precision, compile), bench.scene(people)
        set_capture(loop, capture)
        try:
            own, other = competitors(loop, scene)
            found = {"people": people, "ours": timed(loop, own, scene)}
            if published:
                found["published"] = timed(loop, other, scene)
            if precision == "fp32" and not tf32 and people not in exact:
                thresholds = score_thresholds(loop.detector, scene)
                exact[people] = thresholds, answers(loop, scene, thresholds)
            elif people in exact:
                thresholds, wanted = exact[people]
                found["agreement"] = agreement(wanted, answers(loop, scene, thresholds))
            return found
        finally:
            set_capture(loop, False)
            set_tf32(False)

    def profile_of(precision: str, people: int, *, published: bool, capture: bool) -> Results:
        loop, scene = bench.loop(precision), bench.scene(people)
        set_capture(loop, capture)
        try:
            own, other = competitors(loop, scene)
            chosen = other if published else own
            found = profiled(chosen, scene.image, bench.warm_up, cuda=bench.cuda)
            return found | {"host": host_profile(chosen, scene.image)}
        finally:
            set_capture(loop, False)

    def contiguous(precision: str, people: int) -> Results:
        """The detector without channels_last, which cuDNN may do worse in fp32."""
        detector: Any = bench.loop(precision).detector
        network = detector.graphs["boxes"].network
        forget_captured(bench.loop(precision))
        network.to(memory_format=torch.contiguous_format)
        try:
            return ours(precision, people, capture=True)
        finally:
            network.to(memory_format=torch.channels_last)
            forget_captured(bench.loop(precision))

    def measured_convolutions(precision: str, people: int) -> Results:
        forget_captured(bench.loop(precision))
        torch.backends.cudnn.benchmark = True
        try:
            return ours(precision, people, capture=True)
        finally:
            torch.backends.cudnn.benchmark = False
            forget_captured(bench.loop(precision))

    def gflop() -> Results:
        from torch.utils.flop_counter import FlopCounterMode

        found = {}
        for people in (few, most) if bench.small else (few, more, most):
            scene = bench.scene(people)
            both = competitors(bench.loop("fp32"), scene)
            for schedule in both:
                with FlopCounterMode(display=False) as counter:
                    schedule.run(scene.image)
                count = counter.get_total_flops() / 1e9
                found[f"{schedule.name} {people}"] = round(count, 1)
        return found

    def tiny(precision: str, capture: bool) -> Results:
        images = clip_frames(3 if bench.small else 16)
        exact, other = tiny_loop("cpu", "fp32"), tiny_loop(bench.device, precision, capture)
        return compare_people(images, exact, other)

    def tiny_onnx(tensorrt: bool) -> Results:
        through: dict[str, Any] = {
            role: {"tensorrt": tensorrt} for role in ("detector", "pose_estimator", "segmenter")
        }
        images = clip_frames(3 if bench.small else 16)
        return compare_people(
            images, build_loop("tiny", "cpu"), build_loop("tiny", bench.device, **through)
        )

    def profile_by(precision: str, people: int, capture: bool = False) -> tuple[str, Any]:
        graphs = ", CUDA graphs" if capture else ""
        work = partial(profile_of, precision, people, published=False, capture=capture)
        return f"{precision}, {people} people{graphs}, profile", work

    yield f"fp32, {more} people", partial(ours, "fp32", more, published=True)
    if not bench.cuda:
        yield f"{half}, {more} people", partial(ours, half, more)
        yield profile_by(half, more)
        for people in (most, few):  # fp32 first: the other format is compared with it
            yield f"fp32, {people} people", partial(ours, "fp32", people, published=True)
            yield f"{half}, {people} people", partial(ours, half, people)
        yield f"tiny, trained, {half}", partial(tiny, half, False)
        yield "tiny, trained, fp32", partial(tiny, "fp32", False)
        yield "GFLOP per frame", gflop
        return
    yield f"fp16, {more} people, CUDA graphs", partial(ours, "fp16", more, capture=True)
    yield profile_by("fp16", more, capture=True)
    yield profile_by("fp32", more)
    yield f"fp16, {more} people", partial(ours, "fp16", more)
    yield profile_by("fp16", more)
    for people in (most, few):  # fp32 first: fp16 is compared with it
        yield f"fp32, {people} people", partial(ours, "fp32", people, published=True)
        yield f"fp16, {people} people, CUDA graphs", partial(ours, "fp16", people, capture=True)
    yield profile_by("fp16", most, capture=True)
    yield f"fp32, {more} people, CUDA graphs", partial(ours, "fp32", more, capture=True)
    yield f"TF32, {more} people", partial(ours, "fp32", more, tf32=True, published=True)
    yield "tiny, trained, fp16, CUDA graphs", partial(tiny, "fp16", True)
    yield "tiny, trained, fp16", partial(tiny, "fp16", False)
    yield "tiny, trained, fp32", partial(tiny, "fp32", False)
    for precision in ("fp32", "fp16"):
        yield (
            f"{precision}, {more} people, CUDA graphs, detector not channels_last",
            partial(contiguous, precision, more),
        )
        yield (
            f"{precision}, {more} people, CUDA graphs, cuDNN measures",
            partial(measured_convolutions, precision, more),
        )
    yield (
        f"fp32, {more} people, published, profile",
        partial(profile_of, "fp32", more, published=True, capture=False),
    )
    yield f"bf16, {more} people, CUDA graphs", partial(ours, "bf16", more, capture=True)
    yield "matrix rates, TFLOP/s", partial(matrix_rates, 1024 if bench.small else 8192)
    yield "GFLOP per frame", gflop
    available = onnx_providers()
    if "CUDAExecutionProvider" in available:
        yield "tiny, onnxruntime, CUDA", partial(tiny_onnx, False)
    if "TensorrtExecutionProvider" in available:
        yield "tiny, onnxruntime, TensorRT", partial(tiny_onnx, True)
    yield f"fp16, {more} people, torch.compile", partial(ours, "fp16", more, compile=True)


def onnx_providers() -> list[str]:
    try:
        import onnxruntime
    except ImportError:
        return []
    found: list[str] = onnxruntime.get_available_providers()
    return found


# The report ------------------------------------------------------------------------------------


class Overtime(Exception):  # noqa: N818  (says what happened)
    """The time limit was reached in the middle of a variant."""


class Report:
    """Results by variant, in two files that are whole after each one."""

    def __init__(self, output: Path, limit: float, device: str) -> None:
        output.mkdir(parents=True, exist_ok=True)
        self._output, self._limit, self._start = output, limit, time.monotonic()
        self.results: Results = {
            "machine": machine(), "device": device, "driver": nvidia_smi(), "variants": {},
        }  # fmt: skip

    def attempt(self, name: str, work: Callable[[], Results]) -> None:
        """Run one variant and write everything again, whatever comes of it."""
        begun = time.monotonic()
        left = self._limit - (begun - self._start)
        if left < 2:
            found: Results = {"skipped": f"the limit of {self._limit:g} s was reached"}
        else:
            try:
                with alarm(left):
                    found = work()
            except (Exception, Overtime) as error:
                found = {"error": f"{type(error).__name__}: {error}"[:2000],
                         "traceback": traceback.format_exc()[-6000:]}  # fmt: skip
        found["seconds"] = round(time.monotonic() - begun, 2)
        self.results["variants"][name] = found
        self.results["seconds"] = round(time.monotonic() - self._start, 2)
        self.write()
        outcome = found.get("error") or found.get("skipped") or "done"
        print(f"{self.results['seconds']:7.1f} s  {name}: {outcome}", flush=True)

    def write(self) -> None:
        for file, text in (("gpu.json", json.dumps(self.results, indent=1, default=str)),
                           ("gpu.md", markdown(self.results))):  # fmt: skip
            fresh = self._output / f".{file}"
            fresh.write_text(text + "\n", encoding="utf-8")
            os.replace(fresh, self._output / file)


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise `Overtime` in the block after so many seconds; end the process if it hangs in C."""

    def ring(_: int, __: FrameType | None) -> None:
        raise Overtime(f"stopped after {seconds:.0f} s")

    hard = threading.Timer(seconds + 10, lambda: os._exit(3))
    hard.daemon = True
    hard.start()
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        hard.cancel()


def nvidia_smi() -> str | None:
    query = "name,driver_version,power.limit,clocks.max.sm,memory.total"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def markdown(results: Results) -> str:
    """The results as tables."""
    card = results["driver"] or results["machine"]["processor"]
    found = results["variants"]
    lines = [f"# {card}", "", "```", json.dumps(results["machine"]), "```", ""]
    baseline = {
        run["people"]: run["published"]["median_ms"]["total"]
        for name, run in found.items() if "published" in run and name.startswith("fp32")
    }  # fmt: skip
    lines += ["| variant | frame, ms | detect | pose | segment | published fp32, ms | ratio "
              "| peak MB | kp px p99 | mask IoU mean |", "|" + "---|" * 10]  # fmt: skip
    for name, run in found.items():
        for side in ("ours", "published"):
            if side not in run:
                continue
            stages = run[side]["median_ms"]
            published = baseline.get(run["people"])
            agreed = run.get("agreement", {}) if side == "ours" else {}
            cells = [
                f"{name}, {side}",
                *(
                    f"{stages.get(stage, 0):.1f}"
                    for stage in ("total", "detect", "pose", "segment")
                ),
                "-" if published is None else f"{published:.1f}",
                "-" if published is None else f"{published / stages['total']:.2f}",
                str(run[side]["peak_memory_mb"]),
                str(agreed.get("keypoint_px", {}).get("p99", "-")),
                str(agreed.get("mask_iou", {}).get("mean", "-")),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    for name, run in found.items():
        if "ours" in run:
            continue
        lines += ["", f"## {name}", ""]
        if "error" in run:
            lines += ["```", run["traceback"], "```"]
            continue
        lines += ["```", *(f"{key}: {json.dumps(value)}" for key, value in run.items()), "```"]
    failed = [f"* {name}: {run['error']}" for name, run in found.items() if "error" in run]
    skipped = [f"* {name}" for name, run in found.items() if "skipped" in run]
    lines += ["", "## Failed", "", *(failed or ["nothing"])]
    lines += ["", "## Not begun", "", *(skipped or ["nothing"])]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "gpu")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--limit-seconds", type=float, default=140)
    parser.add_argument("--frames", type=int, default=8, help="timed frames (%(default)s)")
    parser.add_argument("--warm-up", type=int, default=3, help="frames before (%(default)s)")
    parser.add_argument("--small", action="store_true", help="small networks and images")
    parser.add_argument("--pack", type=Path, metavar="DIR", help="copy packages and stop")
    args = parser.parse_args()
    if args.pack:
        pack(args.pack)
        return 0
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            f"torch {torch.__version__} sees no CUDA device; --device cpu --small tries the code"
        )
        return 2
    if args.frames < 1 or args.warm_up < 1:
        print(f"--frames {args.frames} --warm-up {args.warm_up}: both need at least 1")
        return 2
    set_tf32(False)
    report = Report(args.output, args.limit_seconds, args.device)
    bench = Bench(args.device, args.small, args.frames, args.warm_up)
    for name, work in variants(bench):
        report.attempt(name, work)
    report.write()
    failed = [name for name, run in report.results["variants"].items() if "error" in run]
    print(f"{args.output / 'gpu.md'}; failed: {', '.join(failed) or 'nothing'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
