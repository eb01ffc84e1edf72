# SPDX-License-Identifier: Apache-2.0
"""The rule behind preset ``auto``: `FULL` where it can run on a GPU here, else `SMALL`."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path

from bmp_ros.networks.sam2_package import INSTALL_SAM2
from bmp_ros.weights.zoo import PERMISSIVE, by_unaccepted_licence, installed_path, load_zoo

log = logging.getLogger(__name__)

AUTO = "auto"
FULL, SMALL = "bmp_d3", "tiny"


@dataclass(frozen=True)
class AutoChoice:
    """preset: `FULL` or `SMALL`. reason: why, in words. more: how to get `FULL`, empty for it."""

    preset: str
    reason: str
    more: str = ""

    def __str__(self) -> str:
        line = f"preset auto: {self.preset}, because {self.reason}"
        return f"{line}. {self.more}" if self.more else line


def resolve_preset(preset: str | Path, device: str = "auto") -> str | Path:
    """Return the preset that ``auto`` stands for on this machine, logged; any other one as it is.

    device: as in `build_loop`; with ``cpu`` the choice is `SMALL`.
    """
    if preset != AUTO:
        return preset
    choice = choose_preset(device)
    log.info("%s", choice)
    return choice.preset


def choose_preset(device: str = "auto") -> AutoChoice:
    """Apply the rule. Never downloads; imports torch only if nothing else rules `FULL` out."""
    missing = [file for file in load_zoo().for_preset(FULL) if installed_path(file) is None]
    consent = "".join(f" --accept-licence {x}" for x in by_unaccepted_licence(missing, PERMISSIVE))
    fetch = f"`bmp models download {FULL}{consent}`"
    if device == "cpu" or cuda_devices() == 0:
        reason = "device is cpu" if device == "cpu" else "this process can use no CUDA GPU"
        steps = [*([fetch] if missing else []), f"name the preset {FULL}"]
        return AutoChoice(
            SMALL, reason, f"{FULL} on a CPU takes seconds per frame: {' and '.join(steps)}"
        )
    problems: list[str] = []
    remedies: list[str] = []
    if missing:
        names = ", ".join(file.name for file in missing)
        problems.append(f"weights of {FULL} are not on this machine ({names})")
        remedies.append(f"download them with {fetch}")
    if not _installed("torch"):
        problems.append("PyTorch is not installed")
        remedies.append("`pip install torch torchvision safetensors` (on a Jetson NVIDIA's torch)")
    lacking = [package for package in ("sam2", "hydra", "iopath") if not _installed(package)]
    if lacking:
        problems.append(f"Python packages are not installed ({', '.join(lacking)})")
        remedies.append(INSTALL_SAM2)
    if not problems:
        trouble = _why_torch_sees_no_gpu()
        if trouble is None:
            return AutoChoice(FULL, "its weights and a CUDA GPU are on this machine")
        problems.append(trouble)
        remedies.append("install a PyTorch whose CUDA fits the driver")
    return AutoChoice(
        SMALL,
        "; ".join(problems),
        f"There is a CUDA GPU. For {FULL}: {'; '.join(remedies)}",
    )


def cuda_devices() -> int:
    """Return the number of CUDA GPUs that the driver offers this process, without torch.

    The driver counts as torch does: ``CUDA_VISIBLE_DEVICES`` and a container's limits apply.
    """
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return 0
    return 0 if failed else count.value


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _why_torch_sees_no_gpu() -> str | None:
    try:
        import torch
    except Exception as error:  # a broken installation may raise anything
        return f"PyTorch cannot be imported ({error or type(error).__name__})"
    if torch.cuda.is_available():
        return None
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "a build without CUDA"
    return f"PyTorch {torch.__version__} ({build}) cannot use the GPU"
