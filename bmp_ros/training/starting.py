# SPDX-License-Identifier: Apache-2.0
"""What a training begins with: a published checkpoint, another training's, a preset's network."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bmp_ros.networks import hrnet, rtmdet_ins, vit_pose
from bmp_ros.networks.sam2 import Sam2Network, image_tensors
from bmp_ros.training.read_back import calibrate, read_back_tiny
from bmp_ros.training.samples import Task

CALIBRATION_BATCHES = 8
_SHOWN = 5

FRESH: dict[str, str] = {
    "VitPose": r"head\.",
    "PoseHRNet": r"final_layer\.",
    # HRNet's files lack the head, the learned up-sampling and three outputs of the last stage.
    "OmniPose": r"waspv2\.|stage\d\.\d+\.fuse_layers\.",
    "RTMDetIns": r"bbox_head\.",
    "Sam2Network": r"sam_mask_decoder\.",
}
"""By class of network: names of parameters that may begin anew where the file has no such tensor.
A backbone that does not fit is an error."""


def start_from(task: Task, name: str | Path, root: Path = Path()) -> list[str]:
    """Load what ``name`` means into the task's network; return what is not in it, by name.

    name: below ``root`` a file of weights or a folder of exported networks; a name of the weights
    zoo; a preset, whose network of the task's role is meant. Raises what reading these raises,
    ValueError where the file is of another network.
    """
    place = root / name
    if place.is_dir():
        read_back_tiny(task.name, task.network, place)
        _calibrate(task)
        return []
    if not place.is_file():
        place = _named(task, str(name), place)
        if place.suffix == ".onnx":
            return start_from(task, place.parent.absolute())
    from bmp_ros.weights.checkpoint import load_state_dict

    return load_what_fits(task.network, load_state_dict(place), str(place))


def _named(task: Task, name: str, place: Path) -> Path:
    """The file of a name of the zoo, or of the network of a preset."""
    from bmp_ros.engines.build import locate_weights
    from bmp_ros.engines.presets import load_preset
    from bmp_ros.fields import SettingsError
    from bmp_ros.weights.errors import UnknownWeights
    from bmp_ros.weights.zoo import locate

    try:
        return locate(name)
    except UnknownWeights as error:
        unknown = error
    role = {"pose": "pose_estimator"}.get(task.name, task.name)
    try:
        preset = load_preset(name)
    except (SettingsError, OSError):
        raise ValueError(
            f"start_from is {name!r}: {place} is not there, no preset is called so, and {unknown}"
        ) from None
    choice = preset.engines.get(role)
    files = locate_weights(preset)
    if choice is None or choice.weights not in files:
        raise ValueError(f"start_from: preset {name} has no weights of a {role}")
    return files[choice.weights]


def load_what_fits(network: nn.Module, state: Mapping[str, Tensor], where: str) -> list[str]:
    """Load the tensors of ``state`` that are the network's; return the others, each in words.

    Parts of `FRESH` may be missing or of another shape and then keep their first values; of a
    detector of many classes the person's row is taken. Raises ValueError for anything else.
    """
    kind = type(network).__name__
    given = _own_names(network, state)
    own = network.state_dict()
    fresh = re.compile(FRESH.get(kind, r"(?!)"))
    loaded: dict[str, Tensor] = {}
    told: list[str] = []
    wrong: list[str] = []
    for name, value in own.items():
        found = given.get(name)
        if found is not None and found.shape != value.shape and ".rtm_cls." in name:
            found = found[rtmdet_ins.PERSON : rtmdet_ins.PERSON + 1]
        if found is not None and found.shape == value.shape:
            loaded[name] = found
            continue
        if "num_batches" in name:
            continue
        has = "nothing" if found is None else tuple(found.shape)
        words = f"{name}: needs {tuple(value.shape)}, the file has {has}"
        (told if fresh.match(name) else wrong).append(words)
    if wrong or not loaded:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ValueError(
            f"{where} does not fit this {kind}: {'; '.join(wrong[:_SHOWN])}{more}; choose the "
            "variant and size that the file was made with"
        )
    unused = [name for name in given if name not in own]
    told += [f"{name}: not used, this network has no such part" for name in unused]
    network.load_state_dict({**own, **loaded})
    return told


def _own_names(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names that the network has, without what no network loads."""
    if isinstance(network, hrnet.HRNetTrunk):
        return hrnet.flat_names(state)
    if isinstance(network, Sam2Network):
        return image_tensors(state)
    dropped = {
        vit_pose.VitPose: vit_pose.DROPPED_PREFIXES,
        rtmdet_ins.RTMDetIns: rtmdet_ins.DROPPED_PREFIXES,
    }.get(type(network), ())
    names = {name.removeprefix("module."): value for name, value in state.items()}
    return {name: value for name, value in names.items() if not name.startswith(dropped)}


def _calibrate(task: Task) -> None:
    batches = [
        task.collate([task.sample(number, 0) for number in range(first, first + 8)])
        for first in range(0, 8 * CALIBRATION_BATCHES, 8)
    ]
    calibrate(task.network, _runner(task, batches))


def _runner(task: Task, batches: Sequence[Any]) -> Callable[[], None]:
    def run() -> None:
        for batch in batches:
            task.losses(task.network, batch)

    return run
