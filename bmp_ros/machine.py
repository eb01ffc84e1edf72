# SPDX-License-Identifier: Apache-2.0
"""What every figure of speed depends on: processor, threads, device, versions."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import cv2
import numpy as np

from bmp_ros import __version__


def machine() -> dict[str, Any]:
    """Facts about this machine and process, for JSON.

    Those of torch and onnxruntime are there when the process has imported them, that is, when the
    figures depend on them.
    """
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "opencv": cv2.__version__,
        "opencv_threads": cv2.getNumThreads(),
        "numpy": np.__version__,
        "bmp_ros": __version__,
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        facts |= {"torch": torch.__version__, "torch_threads": torch.get_num_threads()}
        if torch.cuda.is_available():
            facts["gpu"] = torch.cuda.get_device_name()
            facts["tf32"] = (
                torch.backends.cudnn.allow_tf32,
                torch.backends.cuda.matmul.allow_tf32,
            )
    onnxruntime = sys.modules.get("onnxruntime")
    if onnxruntime is not None:
        facts["onnxruntime"] = onnxruntime.__version__
    return facts


def machine_line() -> str:
    """The same in one line."""
    facts = machine()
    parts = [facts["processor"], f"{facts['cores']} cores"]
    parts += [facts["gpu"]] if "gpu" in facts else []
    if "torch" in facts:
        parts.append(f"torch {facts['torch']} with {facts['torch_threads']} CPU threads")
    if "onnxruntime" in facts:
        parts.append(f"onnxruntime {facts['onnxruntime']}")
    return ", ".join([*parts, f"bmp_ros {facts['bmp_ros']}"])


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not a Linux machine
    return platform.processor() or platform.machine()
