#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Soak: the node under three cameras at 30 Hz and random faults; exit code 0 when it took all.

  scripts/with_ros python benchmarks/soak.py --minutes 60
  scripts/with_ros python benchmarks/soak.py --minutes 1 --size 160x120

The node is a process of its own with networks that are scripted: the image says whom they find and
how they fail. One camera sends raw images and depth, one raw images and boxes of another node, one
JPEGs. Everything that the node publishes has a subscriber, also the topics of each ROS4HRI body.
Faults are drawn at random, see `FAULTS`. Asked for: no exception leaves a callback, the process
lives, memory (`Witness.growth`) grows by less than 20 MB after the first five minutes (a third of
a run shorter than 15; one shorter than five minutes ends before memory is level, and only prints
it), threads, files, publishers and subscriptions are in the end those of the beginning, and
results of every camera go on but for the time that it or the node was off.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "test" / "ros")]

from scripted_networks import ScriptedNetworks  # noqa: E402
from soak_cameras import BLOCK, CAMERAS, MISBEHAVIOUR  # noqa: E402
from soak_rig import Rig  # noqa: E402

from bmp_ros.loop.protocols import Detections, Poses  # noqa: E402

NODE, NAMESPACE = "bmp_node", "/bmp"
RATE_HZ, MAX_GROWTH_MB, SETTLE_S = 30.0, 20.0, 300.0
WAIT_S = 240.0
END_S = 120.0
"""That the node may take to end, on a busy machine."""
LAZY_THREADS = 2
"""That libraries may start when they are first used."""
# What the log may complain about: the faults themselves.
FORESEEN = re.compile(
    r"image refused|no image for|incompatible QoS|subscribing|a scripted failure|damaged"
)
FAULTS = {  # per second
    "bad_image": 2.0, "bad_depth": 1.0, "bad_calibration": 0.2, "bad_boxes": 1.0,
    "misbehave": 0.5, "jump": 0.05, "die": 0.05, "parameters": 0.5, "services": 0.5,
    "off_and_on": 0.05, "transitions": 0.05,
}  # fmt: skip


class ToldByTheImage(ScriptedNetworks):
    """Networks that find whom the upper rim of an image names, and fail as it says."""

    def detect(self, frame: Any, *, score_threshold: float) -> Detections:
        said = frame.image[:BLOCK, : 8 * BLOCK].astype(float).mean(axis=2)
        said = [said[:, at : at + BLOCK] for at in range(0, said.shape[1], BLOCK)]
        code = [float(block.mean()) if block.size else 0.0 for block in said] + [0.0] * 8
        self.misbehaviour = MISBEHAVIOUR[round(code[0] / 40) % len(MISBEHAVIOUR)]
        if self.misbehaviour == "raises":
            raise RuntimeError("a scripted failure of the detector")
        centres = np.array(code[2 : 2 + round(code[1] / 40)]) / 255 * frame.width
        boxes = np.zeros((len(centres), 4), np.float32)
        boxes[:, 0], boxes[:, 2] = centres - 0.06 * frame.width, centres + 0.06 * frame.width
        boxes[:, 1], boxes[:, 3] = 0.15 * frame.height, 0.95 * frame.height
        if self.misbehaviour == "huge boxes":
            boxes *= 1e30
        scores = np.linspace(0.9, 0.8, len(boxes), dtype=np.float32)
        if self.misbehaviour == "NaN scores":
            scores[:] = np.nan
        return Detections(boxes, scores)

    def estimate(self, frame: Any, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        poses = super().estimate(frame, boxes, masks)
        if getattr(self, "misbehaviour", "") == "NaN keypoints":
            poses.keypoints[:] = np.nan
        return poses


class Witness:
    """What is known of the node from outside: memory, threads, files, publishers, results."""

    def __init__(self, rig: Rig, pid: int) -> None:
        self.rig, self.pid = rig, pid
        self.memory: list[tuple[float, float]] = []
        self._start = time.monotonic()

    def sample(self) -> None:
        """Note the memory, MB, and the time since the beginning, s."""
        pages = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]
        memory = int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6
        self.memory.append((time.monotonic() - self._start, memory))

    def memory_between(self, start: float, stop: float) -> float:
        """Median of a time; the nearest value where there is none."""
        found = [memory for at, memory in self.memory if start <= at <= stop]
        return median(found or [self.memory[-1][1]])

    def growth(self, start: float, stop: float, window: float) -> float:
        """By how much memory grew in a time, MB: the larger of two measures, of medians of
        windows. What a large image leaves in the histories of DDS until its camera comes anew, up
        to 36 MB each here, is no growth, whenever it comes; both are blind to a few high windows.

        The median slope between two windows (Theil and Sen) sees what grows steadily, the median
        of the last third less that of the first what came in one step.
        """
        count = max(3, round((stop - start) / window))
        edges = np.linspace(start, stop, count + 1)
        middles = np.array(
            [self.memory_between(*edge) for edge in zip(edges, edges[1:], strict=False)]
        )
        first, second = np.triu_indices(count, 1)
        slope = np.median((middles[second] - middles[first]) / (second - first))
        third = count // 3
        step = np.median(middles[-third:]) - np.median(middles[:third])
        return float(max(slope * count, step))

    def counts(self) -> Counter[str]:
        """What the node holds: threads, files, services, publishers and subscriptions by topic."""
        process = Path(f"/proc/{self.pid}")
        found = Counter(
            threads=len(list((process / "task").iterdir())),
            files=len(list((process / "fd").iterdir())),
        )
        own = self.rig.node
        for what, of_node, of_topic in (
            ("publishers", own.get_publisher_names_and_types_by_node,
             own.get_publishers_info_by_topic),
            ("subscriptions", own.get_subscriber_names_and_types_by_node,
             own.get_subscriptions_info_by_topic),
        ):  # fmt: skip
            for topic, _ in of_node(NODE, NAMESPACE):
                ends = [end for end in of_topic(topic) if end.node_name == NODE]
                found[f"{what} {topic}"] += len(ends)
        found["services"] = len(own.get_service_names_and_types_by_node(NODE, NAMESPACE))
        return found


def summary(counts: Counter[str]) -> dict[str, int]:
    """Counts without the names of topics."""
    found = Counter[str]()
    for what, number in counts.items():
        found[what.split()[0]] += number
    return dict(found)


def settled_counts(rig: Rig, witness: Witness) -> tuple[Counter[str], str]:
    """What the node holds while nothing goes wrong and nobody is seen; why it never was so."""
    before, until = Counter[str](), time.monotonic() + WAIT_S
    rig.people(0)
    while time.monotonic() < until:
        seen, asked = Counter(rig.results), time.monotonic()
        while time.monotonic() < asked + 4.0:  # bodies are kept for two seconds
            rig.calm()
            rig.send()
            rig.spin(1 / 10)
        now = witness.counts()
        going = all(rig.results[name] > seen[name] for name in CAMERAS)
        if going and now == before:
            rig.people(None)
            return now, ""
        before = now
    silent = [name for name in CAMERAS if rig.results[name] == seen[name]]
    return before, f"not at rest after {WAIT_S:g} s without faults; silent: {silent}; {before}"


def soak(
    rig: Rig,
    witness: Witness,
    node: subprocess.Popen[bytes],
    seconds: float,
    faults: dict[str, float],
) -> list[str]:
    """Soak for so long; return what was wrong."""
    start = next_frame = next_sample = time.monotonic()
    while (now := time.monotonic()) - start < seconds:
        if now >= next_frame:
            next_frame = max(next_frame + 1 / RATE_HZ, now)
            rig.send()
            rig.commit_faults(faults, 1 / RATE_HZ)
        if now >= next_sample:
            next_sample = now + 2.0
            witness.sample()
            rig.follow_topics()
        rig.spin(max(0.0, next_frame - time.monotonic()))
        if node.poll() is not None:
            return [f"the node ended with exit code {node.returncode}"]
    return []


def judge(rig: Rig, witness: Witness, seconds: float, max_gap_s: float) -> list[str]:
    """Print the figures; return those that are not as they should be."""
    settle = min(SETTLE_S, seconds / 3)
    window = min(180.0, seconds / 6)
    base = witness.memory_between(settle, settle + window)
    last = witness.memory_between(seconds - window, seconds)
    growth = witness.growth(settle, seconds, window)
    highest = max(memory for _, memory in witness.memory)
    print("memory by time: " + ", ".join(
        f"{at / 60:.1f} min {memory:.0f}" for at, memory in
        witness.memory[:: max(1, len(witness.memory) // 20)]
    ))  # fmt: skip
    sent, results = sum(rig.sent.values()), sum(rig.results.values())
    print(f"{seconds / 60:.0f} min, {len(CAMERAS)} cameras: {sent} images sent, {results} results")
    print(
        f"{len(rig.heard)} topics had a subscriber, of {len(rig.bodies)} ROS4HRI bodies among them"
    )
    print(f"faults: {dict(sorted(rig.faults.items()))}")
    print(
        f"memory: {base:.1f} MB after {settle:.0f} s, {last:.1f} MB in the end "
        f"({last - base:+.1f} MB), at most {highest:.1f} MB; growth between: {growth:+.1f} MB"
    )
    gaps = ", ".join(f"{name} {rig.gaps[name]:.1f} s" for name in CAMERAS)
    print(f"longest gap in results while camera and node were on: {gaps}")
    wrong = []
    if seconds < SETTLE_S:
        print(f"no verdict on memory: the run was shorter than {SETTLE_S / 60:.0f} minutes")
    elif growth > MAX_GROWTH_MB:
        wrong.append(f"memory grew by {growth:.1f} MB, allowed are {MAX_GROWTH_MB:.0f}")
    for name in CAMERAS:
        if rig.gaps[name] > max_gap_s:
            wrong.append(f"no result of {name} for {rig.gaps[name]:.1f} s, allowed {max_gap_s:g}")
    return wrong


def end(
    node: subprocess.Popen[bytes], number: signal.Signals, limit_s: float = END_S
) -> list[str]:
    """Send the node a signal to end; return what was wrong with how it did."""
    node.send_signal(number)
    try:
        code = node.wait(limit_s)
    except subprocess.TimeoutExpired:
        return [f"the node still ran {limit_s:g} s after {number.name}"]
    return [f"exit code {code} after {number.name}"] if code != 0 else []


def start_node(log: Any, max_rate: float) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    command = [sys.executable, __file__, "--node", "--ros-args", "-r", f"__ns:={NAMESPACE}"]
    for name, value in Rig.node_parameters(max_rate).items():
        command += ["-p", f"{name}:={value}"]
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def log_errors(text: str) -> list[str]:
    """Entries of the log that no fault explains."""
    entries = re.split(r"\n(?=\[[A-Z]+\] \[)", text)
    bad = [each for each in entries if re.match(r"\[ERROR|\[FATAL|Traceback", each)]
    return [f"in the log: {each}" for each in bad if not FORESEEN.search(each)]


def faults_of(args: argparse.Namespace) -> dict[str, float]:
    """Faults per second that were asked for."""
    wanted = FAULTS if args.faults is None else args.faults
    return {name: FAULTS[name] for name in wanted}


def run(args: argparse.Namespace) -> int:
    import rclpy

    seconds = 60 * args.minutes
    with tempfile.TemporaryFile() as log:
        node = start_node(log, args.max_rate)
        rclpy.init()
        wrong: list[str] = []
        try:
            width, height = map(int, args.size.split("x"))
            rig = Rig(random.Random(args.seed), width, height)
            witness = Witness(rig, node.pid)
            rig.wait_for_results(lambda: node.poll() is None, WAIT_S)
            first, problem = settled_counts(rig, witness)
            wrong += [problem] if problem else []
            rig.begin()
            witness = Witness(rig, node.pid)
            wrong += soak(rig, witness, node, seconds, faults_of(args))
            if node.poll() is None:
                wrong += judge(rig, witness, seconds, args.max_gap)
                last, problem = settled_counts(rig, witness)
                wrong += [problem] if problem else []
                print(f"before: {summary(first)}\nafter:  {summary(last)}")
                more = last - first - Counter(threads=LAZY_THREADS)
                if more:
                    wrong.append(f"the node holds more than in the beginning: {dict(more)}")
                if first - last:  # of somebody who was still there, or known to DDS
                    print(f"only in the beginning: {dict(first - last)}")
                wrong += end(node, signal.SIGINT)
        finally:
            node.kill()
            node.wait()
            rclpy.try_shutdown()
        log.seek(0)
        text = log.read().decode("utf-8", errors="replace")
    if args.log is not None:
        args.log.write_text(text, encoding="utf-8")
    wrong += log_errors(text)
    if wrong:
        print("\n".join(text.splitlines()[-40:]))
    for line in wrong:
        print(f"WRONG: {line}")
    return 1 if wrong else 0


def main() -> int:
    if sys.argv[1:2] == ["--node"]:
        from bmp_ros.ros.bmp_node import main as node_main

        return node_main(build_loop=ToldByTheImage().build_loop)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--size", default="320x240", help="of the images, default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--max-rate", type=float, default=0.0, help="parameter of the node")
    parser.add_argument("--max-gap", type=float, default=20.0, help="seconds without a result")
    parser.add_argument("--faults", nargs="*", choices=FAULTS, help="only these")
    parser.add_argument("--log", type=Path, help="where to keep the log of the node")
    from bmp_ros.demo.processes import private_domain

    with private_domain():
        return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
