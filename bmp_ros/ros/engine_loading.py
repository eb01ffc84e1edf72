# SPDX-License-Identifier: Apache-2.0
"""Engines for the node: choose the preset, download weights if allowed, build and warm up."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bmp_ros.engines.auto_preset import AUTO, SMALL, AutoChoice, choose_preset, cuda_devices
from bmp_ros.engines.build import build_loop, missing_libraries
from bmp_ros.engines.presets import Preset, load_preset
from bmp_ros.loop import BMPLoop
from bmp_ros.resources import find_preset
from bmp_ros.ros.settings import EngineSettings
from bmp_ros.weights.errors import DownloadCancelled, LicenceNotAccepted, WeightsMissing
from bmp_ros.weights.zoo import (
    WeightsFile,
    by_unaccepted_licence,
    installed_path,
    load_zoo,
    locate,
)

BuildLoop = Callable[..., BMPLoop]

_WARM_UP_SIZE = (480, 640)
_SLOW_S = 0.5
_PROGRESS_EVERY_S = 5.0


@dataclass(frozen=True)
class Engines:
    """A loop that is warm. device: where it runs. choice: of preset ``auto``, None for others."""

    loop: BMPLoop
    preset: Preset
    device: str
    choice: AutoChoice | None = None


def load_engines(
    settings: EngineSettings,
    logger: Any,
    cancelled: Callable[[], bool],
    build: BuildLoop = build_loop,
) -> Engines:
    """Build the loop of a preset and run it on one image.

    logger: of rclpy. cancelled: stops a download when it returns True. build: makes the loop, as
    `bmp_ros.engines.build_loop` does.
    Raises what ``build`` and downloads do: SettingsError, WeightsError, ValueError, ImportError.
    """
    choice = None
    if settings.preset == AUTO:
        choice = choose_preset(settings.device)
        logger.info(str(choice))
        settings = replace(settings, preset=choice.preset)
    preset = load_preset(settings.preset)
    try:
        loop = _build(settings, build)
    except WeightsMissing as error:
        download_missing(preset, settings, error, logger, cancelled)
        loop = _build(settings, build)
    frame_s = warm_up(loop)
    device = device_of(loop, settings.device)
    logger.info(f"preset {preset.name} is ready on {device}")
    if device.startswith("cpu") and frame_s > _SLOW_S:
        logger.warning(
            f"preset {preset.name} runs on the CPU: expect {frame_s:.1f} s per frame; "
            f"{_faster(preset)}"
        )
    return Engines(loop, preset, device, choice)


def _faster(preset: Preset) -> str:
    """What makes a preset that is slow on this CPU faster."""
    weights = [choice.weights or "" for choice in preset.engines.values()]
    if all(name.startswith("tiny/") for name in weights):
        # Made for CPUs: slow where others compute, too, or while everything is loaded.
        fewer = "" if preset.segmenter is None else "preset:=tiny_fast takes half the time, "
        return f"{fewer}other programs may be using this CPU"
    gpu = "device:=cuda uses the GPU or says why it cannot, " if cuda_devices() else ""
    return f"{gpu}preset:={SMALL} is made for CPUs"


def download_missing(
    preset: Preset,
    settings: EngineSettings,
    error: WeightsMissing,
    logger: Any,
    cancelled: Callable[[], bool],
) -> None:
    """Download the missing weights of a preset, if that is wanted and their licences accepted.

    error: what said that weights are missing. Raises it, with the parameters that would help, if
    they may not be downloaded, LicenceNotAccepted naming every licence, and ModuleNotFoundError
    naming every library that the networks need and that is not installed; no byte is fetched then.
    """
    from bmp_ros.weights.downloads import download

    missing = missing_files(preset)
    licences = by_unaccepted_licence(missing, settings.accepted_licences)
    if not missing:  # it is not the catalogue's weights that are missing
        raise error
    if not all(weights.by_program for weights in missing):
        raise error  # it says how to get them by hand; half a preset is of no use
    if not settings.auto_download:
        also = f" and add {', '.join(licences)} to accepted_licences" if licences else ""
        raise WeightsMissing(f"{error}\n(or set the parameter auto_download{also})") from error
    if licences:
        raise _not_accepted(preset, settings, licences) from error
    if libraries := missing_libraries(preset):
        raise ModuleNotFoundError(
            f"preset {preset.name} needs what is not installed: {', '.join(libraries)}. Its "
            "weights are not on this machine either, and nothing was downloaded"
        ) from error
    for weights in missing:
        logger.info(f"{weights.name}: downloading (auto_download is true)")
        path = download(
            weights.name,
            on_licence=logger.info,
            progress=_progress_in_log(weights.name, logger),
            cancelled=cancelled,
        )
        logger.info(f"{weights.name}: {path}")
    if cancelled():
        raise DownloadCancelled("interrupted; partial files are kept, the next start resumes")


def missing_files(preset: Preset) -> list[WeightsFile]:
    """Return the catalogue files of a preset that are not on this machine.

    Raises WeightsMissing for a file by path that is not there: downloads would be of no use.
    """
    zoo = load_zoo()
    beside = find_preset(preset.reference).parent
    weights = (choice.weights for choice in preset.engines.values())
    names = dict.fromkeys(name for name in weights if name is not None)
    for name in names:
        if name not in zoo:
            locate(name, zoo, beside)
    return [zoo[name] for name in names if name in zoo and installed_path(zoo[name]) is None]


def _not_accepted(
    preset: Preset, settings: EngineSettings, licences: Mapping[str, Sequence[WeightsFile]]
) -> LicenceNotAccepted:
    files = "; ".join(
        f"{licence} ({', '.join(file.name for file in files)})"
        for licence, files in licences.items()
    )
    first = next(iter(licences.values()))[0].name
    flags = "".join(f" --accept-licence {licence}" for licence in licences)
    accepted = ", ".join(settings.accepted_licences) or "none"
    return LicenceNotAccepted(
        f"preset {preset.name} needs weights that are not on this machine, under a licence that "
        f"is not in the parameter accepted_licences ({accepted}): {files}. Nothing was "
        f"downloaded. `bmp models show {first}` shows the licence. To accept it: `bmp models "
        f"download {preset.reference}{flags}`, or add {', '.join(licences)} to accepted_licences"
    )


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
    """Give the memory of engines that are no longer used back to the system and the device."""
    gc.collect()
    # glibc keeps what was freed below anything that is still in use.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
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
            logger.info(f"{name}: {here / 1e6:.0f}{of} MB")

    return progress
