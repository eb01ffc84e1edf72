# SPDX-License-Identifier: Apache-2.0
"""Engines for the node: weights fetched if wanted, networks built, warmed and let go again."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmp_ros.engines.build import build_loop
from bmp_ros.engines.presets import Preset, load_preset
from bmp_ros.loop import BMPLoop
from bmp_ros.resources import preset_names
from bmp_ros.ros.settings import EngineSettings
from bmp_ros.weights.errors import DownloadCancelled, WeightsMissing

BuildLoop = Callable[..., BMPLoop]

_WARM_UP_SIZE = (480, 640)
_SLOW_S = 0.5
_PROGRESS_EVERY_S = 5.0


@dataclass(frozen=True)
class Engines:
    """A loop that is warm. device: where it runs."""

    loop: BMPLoop
    preset: Preset
    device: str


def load_engines(
    settings: EngineSettings,
    logger: Any,
    cancelled: Callable[[], bool],
    build: BuildLoop = build_loop,
) -> Engines:
    """Build the loop of a preset and let it see one image.

    logger: of rclpy. cancelled: asked while weights are fetched. build: makes the loop, as
    `bmp_ros.engines.build_loop` does.
    Raises what ``build`` and downloads do: SettingsError, WeightsError, ValueError, ImportError.
    """
    preset = load_preset(settings.preset)
    try:
        loop = _build(settings, build)
    except WeightsMissing as error:
        if not settings.auto_download:
            raise WeightsMissing(f"{error}\n(or set the parameter auto_download)") from error
        fetch_weights(preset, logger, cancelled)
        loop = _build(settings, build)
    frame_s = warm_up(loop)
    device = device_of(loop, settings.device)
    logger.info(f"preset {preset.name} is ready on {device}")
    if device.startswith("cpu") and frame_s > _SLOW_S and preset.name != "tiny":
        lighter = "preset:=tiny is made for CPUs, " if "tiny" in preset_names() else ""
        logger.warning(
            f"preset {preset.name} runs on the CPU: expect {frame_s:.1f} s per frame; {lighter}"
            "device:=cuda uses a GPU"
        )
    return Engines(loop, preset, device)


def fetch_weights(preset: Preset, logger: Any, cancelled: Callable[[], bool]) -> None:
    """Download whatever a preset lacks, with licences and progress in the log."""
    from bmp_ros.weights.downloads import download
    from bmp_ros.weights.zoo import locate

    for choice in (preset.detector, preset.pose_estimator, preset.segmenter):
        if choice is None:
            continue
        name = choice.settings.weights
        try:
            locate(name)
        except WeightsMissing:
            logger.info(f"{name}: downloading (auto_download is true)")
            path = download(
                name,
                on_licence=logger.info,
                progress=_progress_in_log(name, logger),
                cancelled=cancelled,
            )
            logger.info(f"{name}: {path}")
    if cancelled():
        raise DownloadCancelled("interrupted; what has come is kept, the next start goes on")


def warm_up(loop: BMPLoop) -> float:
    """Run every network once and return the seconds that a frame with one person takes.

    The first call of a network allocates its memory and may compile it: a lack of memory shows
    now, and the first image of the camera is not the one that waits.
    """
    height, width = _WARM_UP_SIZE
    image = np.full((height, width, 3), 114, np.uint8)
    start = time.perf_counter()
    loop(image)
    detect_s = time.perf_counter() - start
    start = time.perf_counter()
    box = [0.35 * width, 0.1 * height, 0.65 * width, 0.9 * height]
    loop(image, boxes=np.array([box], np.float32))
    rest_s = time.perf_counter() - start
    return loop.settings.iterations * detect_s + rest_s


def device_of(loop: BMPLoop, asked: str) -> str:
    """Name the device of a loop's networks; what was asked for where they do not tell."""
    for engine in (loop.detector, loop.pose_estimator, loop.segmenter):
        device = getattr(engine, "device", None)
        if device is not None:
            return str(device)
    return asked


def free_memory() -> None:
    """Give the memory of engines that nobody holds any more back to the device."""
    gc.collect()
    torch = sys.modules.get("torch")  # only engines import it
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def memory_in_use() -> dict[str, str]:
    """Megabytes of this process and, with a GPU, of torch on it, for the diagnostics."""
    values = {}
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    values["memory of the process (MB)"] = f"{pages * os.sysconf('SC_PAGESIZE') / 1e6:.0f}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        values["GPU memory of the networks (MB)"] = f"{torch.cuda.memory_allocated() / 1e6:.0f}"
    return values


def _build(settings: EngineSettings, build: BuildLoop) -> BMPLoop:
    return build(
        settings.preset, settings.device, precision=settings.precision, compile=settings.compile
    )


def _progress_in_log(name: str, logger: Any) -> Callable[[int, int | None], None]:
    said = time.monotonic()

    def progress(here: int, total: int | None) -> None:
        nonlocal said
        if time.monotonic() - said >= _PROGRESS_EVERY_S:
            said = time.monotonic()
            of = f" of {total / 1e6:.0f}" if total else ""
            logger.info(f"{name}: {here / 1e6:.0f}{of} MB are here")

    return progress
