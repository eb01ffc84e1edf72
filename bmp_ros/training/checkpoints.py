# SPDX-License-Identifier: Apache-2.0
"""``last.pth``: everything that a training needs to go on as if it had never stopped."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from bmp_ros.training import processes
from bmp_ros.training.optimisation import Schedule

LAST = "last.pth"


def read_checkpoint(folder: Path, schedule: Schedule) -> dict[str, Any] | None:
    """What `write_checkpoint` wrote, None without any; refuses that of another training."""
    file = folder / LAST
    if not file.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        # Entries that a schedule did not have when the file was written had their defaults.
        before = Schedule(**state["schedule"])
    except OSError:
        raise
    except Exception as error:  # torch's reader raises whatever the bytes lead to
        raise ValueError(
            f"{file} is no training to go on with, or is damaged ({type(error).__name__}); it "
            "would be overwritten: choose another --output, or move it away"
        ) from error
    if asdict(before) != asdict(schedule):
        raise ValueError(
            f"{file} belongs to a training with {state['schedule']}, asked for is "
            f"{asdict(schedule)}; use the same options or another --output"
        )
    if "random" not in state:
        raise ValueError(
            f"{file} was written by a version that did not keep the random states, so that the "
            "training would not go on as it was; start a new one (another --output) from its "
            "weights"
        )
    others = state.setdefault("others", [])
    if len(others) + 1 != processes.count():
        raise ValueError(
            f"{file} belongs to a training in {len(others) + 1} processes, these are "
            f"{processes.count()}; use as many, or start a new one (another --output) from its "
            "weights"
        )
    state["random"] = [state["random"], *others][processes.rank()]
    return state


def write_checkpoint(folder: Path, schedule: Schedule, state: Mapping[str, Any]) -> None:
    """Write ``state`` and the random states of all processes; the file appears when it is whole.

    Every process calls it; the first one writes.
    """
    states = processes.gathered(random_states())
    if processes.rank() > 0:
        return
    part = folder / f"{LAST}.part"
    whole = {**state, "schedule": asdict(schedule), "random": states[0], "others": states[1:]}
    torch.save(whole, part)
    part.replace(folder / LAST)


def random_states() -> dict[str, Any]:
    """The states of every generator that a step may draw from, as ``torch.load`` takes them."""
    name, keys, position, has_gauss, cached = cast(tuple[Any, ...], np.random.get_state())
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    name, keys, *others = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *others))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
