# SPDX-License-Identifier: Apache-2.0
"""What all tests share: thread counts, the report's header and last line, one marker."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import signal
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

try:  # a loaded machine may take any time for an example
    from hypothesis import settings
except ImportError:
    pass
else:
    settings.register_profile("no_deadline", deadline=None)
    settings.load_profile("no_deadline")

# Before torch, OpenCV or onnxruntime are imported: more threads than cores only slow them down,
# and several test processes may share a machine.
IN_PARALLEL = "PYTEST_XDIST_WORKER" in os.environ
os.environ.setdefault("OMP_NUM_THREADS", "1" if IN_PARALLEL else str(min(4, os.cpu_count() or 1)))

# A shell has SIGINT ignored in what it starts with "&", and nohup SIGHUP: tests that interrupt
# something need them.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

OPENMMLAB_TESTS = Path(__file__).parent / "engines" / "openmmlab"
SLOW = (
    "demo/", "examples/", "synthetic/", "ros/test_node_", "ros/test_launch", "ros/test_soak",
    "test_packaging", "benchmark/test_measure", "benchmark/test_gpu",
    "engines/test_published_presets", "engines/test_sam2_parity",
    "engines/test_yolov5.py::test_td_crowdhuman", "engines/onnx/test_larger_networks",
    *(f"engines/export/test_int8.py::test_{name}" for name in (
        "quantised", "every_layer", "a_network", "too_little", "images_without",
    )),
    "archives/", "training/test_trainer", "viewing/test_in_the_browser",
    "training/test_interruption.py::test_a_closed",
    "training/test_published.py::test_each", "training/test_processes.py::test_two",
    "reporting/test_reports.py::test_pages_of_the_commands",
    "training/test_pose2seg.py::test_it_goes", "training/test_by_heart",
)  # fmt: skip
"""Tests that start processes, nodes, renderers or pip, train, or run networks at full size: left
out by ``make test-fast``."""


LONGEST = (
    "demo/test_demo", "engines/test_published_presets", "ros/test_soak",
    "demo/test_node_benchmark", "cli/test_bench", "training/test_trainer", "benchmark/test_gpu",
    "ros/test_node_depth",
    "training/test_processes", "engines/export/test_int8", "benchmark/test_measure",
    "engines/test_sam2_parity", "ros/test_node_bad_images", "ros/test_node_process",
    "demo/test_camera_node", "archives/test_ray", "archives/test_archives",
    "training/test_by_heart", "training/test_published", "synthetic/test_generator",
    "test_packaging", "networks/test_hrnet",
)  # fmt: skip
"""Files that take longest, longest first: the last file to end decides how long all take."""


class _LongestFirst(OrderedDict[str, Any]):
    """Files that wait for a process, as pytest-xdist takes them; it would begin with those that
    have most tests, and the longest ones have few."""

    def popitem(self, last: bool = True) -> tuple[str, Any]:
        def place(scope: str) -> int:
            name = scope.removeprefix("test/")
            found = (k for k, each in enumerate(LONGEST) if name.startswith(each))
            return next(found, len(LONGEST))

        scope = min(self, key=place)  # the first of several
        return scope, self.pop(scope)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Half as many again as cores: tests of nodes wait for DDS most of their time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) * 3 // 2)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getoption("dist") != "loadfile":
        return None  # pytest-xdist's own
    from xdist.scheduler import LoadFileScheduling

    scheduler = LoadFileScheduling(config, log)
    scheduler.workqueue = _LongestFirst()
    return scheduler


def pytest_report_header() -> str:
    if importlib.util.find_spec("rclpy") is None:
        ros = "none, its tests are skipped (make test brings one)"
    else:
        import rclpy

        ros = f"{os.environ.get('ROS_DISTRO', 'of unknown name')} at {Path(rclpy.__file__).parent}"
    return f"ROS 2: {ros}; Python {platform.python_version()}, {os.cpu_count()} cores"


class _ModuleWithoutTorch(pytest.Module):
    """A test module that is skipped before it is imported."""

    def collect(self) -> list[pytest.Item]:
        pytest.skip("torch is not installed", allow_module_level=True)


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    if importlib.util.find_spec("torch") is not None:
        return None  # pytest's own module
    imports = re.search(r"^(import|from) torch\b", module_path.read_text(encoding="utf-8"), re.M)
    if imports is None and OPENMMLAB_TESTS not in module_path.parents:
        return None
    return _ModuleWithoutTorch.from_parent(parent, path=module_path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if OPENMMLAB_TESTS in item.path.parents:
            item.add_marker(pytest.mark.openmmlab)
        if item.nodeid.removeprefix("test/").startswith(SLOW):
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = {
        outcome: len(terminalreporter.getreports(outcome))
        for outcome in ("passed", "failed", "error", "skipped")
    }
    ran = counts["passed"] + counts["failed"]
    terminalreporter.section("count")
    terminalreporter.line(
        f"{ran} tests ran ({counts['failed']} failed), {counts['skipped']} skipped, "
        f"{counts['error']} errors"
    )
