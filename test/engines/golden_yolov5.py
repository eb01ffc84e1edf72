# SPDX-License-Identifier: Apache-2.0
"""Golden vectors of YOLOv5: weights by the fill rule of the vectors, inputs and outputs."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch

from bmp_ros.networks.yolov5 import YOLOv5, YOLOv5Size

DATA = Path(__file__).parents[1] / "data" / "seed_networks"
TINY, MEDIUM = "yolov5_tiny_w0p0625_d0p33", "yolov5m_crowdhuman"
SIZES = {TINY: (0.33, 0.0625), MEDIUM: (0.67, 0.75)}


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


def filled(key: str, shape: tuple[int, ...], gain: float) -> np.ndarray:
    """Values of a parameter from its name, as the vectors were made with."""
    draw = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF).standard_normal(shape)
    last = key.rsplit(".", 1)[-1]
    if last == "running_mean":
        value = 0.1 * draw
    elif last == "running_var":
        value = 1 + 0.1 * abs(draw)
    elif len(shape) in (0, 1, 3):
        value = 1 + 0.1 * draw if last == "weight" else 0.1 * draw
    else:
        value = gain * draw / np.sqrt(np.prod(shape[1:]))
    return np.asarray(value, np.float32)


def state_dict(name: str = TINY, *, gain: float | None = None, classes: int = 2) -> dict:
    """The weights of a golden file; with other ``classes`` a network of the same kind."""
    golden = arrays(name)
    gain = float(golden["gain"]) if gain is None else gain
    weights = {}
    for key, value in YOLOv5(YOLOv5Size.scaled(*SIZES[name]), classes).state_dict().items():
        if key.endswith("num_batches_tracked"):
            weights[key] = torch.zeros((), dtype=torch.int64)
        elif "anchor" in key:
            part = "anchors_buffer" if key.endswith("anchors") else "anchor_grid_buffer"
            weights[key] = torch.from_numpy(golden[part])
        else:
            weights[key] = torch.from_numpy(filled(key, tuple(value.shape), gain))
    return weights
