# SPDX-License-Identifier: Apache-2.0
"""Which published network a checkpoint holds: family and size, by reading it and by building it.

A file fits a name of the zoo when the engine of that name takes its tensors, strictly, and when
they have the shapes of a network of that size.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmp_ros.engines.registry import Runtime, find_engine
from bmp_ros.fields import settings_from_mapping
from bmp_ros.weights.checkpoint import load_state_dict
from bmp_ros.weights.errors import BadCheckpoint
from bmp_ros.weights.zoo import WeightsFile

log = logging.getLogger(__name__)

SAME_SHAPES = 0.9
"""Share of the tensors that must have the shapes of a size; the next size shares far fewer, and
other classes or keypoints change the last layers only."""


@dataclass(frozen=True)
class Contents:
    """What a file holds. engine: that takes it. odd: shapes that its name does not lead to expect,
    in words; empty where all are as expected, or nobody knows what to expect."""

    engine: str
    tensors: int
    parameters: int
    odd: str = ""

    def __str__(self) -> str:
        millions = f"{self.parameters / 1e6:.1f} M"
        return f"{self.engine}, {self.tensors} tensors, {millions} parameters"


def check_contents(path: Path, weights: WeightsFile) -> Contents:
    """Return what a file holds, if it holds the network ``weights``.

    Raises BadCheckpoint for a file that is none, of another family or of another size; and what
    `load_state_dict` raises.
    """
    state_dict = load_state_dict(path)
    engine, settings = _engine_of(weights)
    try:
        engine.build(settings, state_dict, Runtime("cpu"))
    except ModuleNotFoundError as error:
        raise BadCheckpoint(f"{path} cannot be checked: {error}") from error
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise BadCheckpoint(
            f"{path} is not {weights.name} ({weights.network}): {_shortened(reason)}"
        ) from error
    found = Contents(engine.name, len(state_dict), _parameters(state_dict))
    if engine.random_weights is None:
        return found
    wanted = _shapes(engine.random_weights(settings))
    missing = wanted - _shapes(state_dict)
    expected, odd = sum(wanted.values()), sum(missing.values())
    if odd > (1 - SAME_SHAPES) * expected:
        raise BadCheckpoint(
            f"{path} is not {weights.name} ({weights.network}), but {engine.name} of another size "
            f"({found}): {odd} of {expected} tensors have other shapes"
        )
    some = ", ".join(str(shape) for shape in list(missing)[:3])
    return Contents(engine.name, found.tensors, found.parameters, some)


def find_name(path: Path, candidates: Iterable[WeightsFile]) -> WeightsFile:
    """Return which of the candidates a file is: by its name, else by what it holds.

    Raises BadCheckpoint when it is none of them or could be several, which are named.
    """
    known = [weights for weights in candidates if weights.engine]
    named = [weights for weights in known if weights.file_name == path.name]
    if named:
        return named[0]
    state_dict = load_state_dict(path)  # a file that is none says so before the search
    fits = []
    tried: dict[Any, bool] = {}
    for weights in known:
        engine, settings = _engine_of(weights)
        how = (engine.role, engine.name, repr({**vars(settings), "weights": ""}))
        if how not in tried:
            tried[how] = _builds(engine, settings, state_dict)
        if tried[how] and _has_size(engine, settings, state_dict):
            fits.append(weights)
    if len(fits) == 1:
        return fits[0]
    if not fits:
        some = ", ".join(list(state_dict)[:3])
        raise BadCheckpoint(
            f"{path} is none of the networks that `bmp models list` shows ({len(state_dict)} "
            f"tensors: {some} ...); a network of your own is named in a preset by its path"
        )
    names = " or ".join(weights.name for weights in fits)
    raise BadCheckpoint(f"{path} could be {names}: say which with --name")


def _engine_of(weights: WeightsFile) -> tuple[Any, Any]:
    section = dict(weights.engine or {})
    if not section:
        raise BadCheckpoint(
            f"{weights.name}: its entry in models/zoo.yaml names no engine, which would check it"
        )
    engine = find_engine(weights.role, section.pop("engine", None))
    where = f"models/zoo.yaml: {weights.name}: engine"
    return engine, settings_from_mapping(
        engine.options, {**section, "weights": weights.name}, where
    )


def _builds(engine: Any, settings: Any, state_dict: Mapping[str, Any]) -> bool:
    try:
        engine.build(settings, state_dict, Runtime("cpu"))
    except Exception as error:  # whatever a network says of tensors that are not its own
        log.debug("%s: %s", engine.name, error)
        return False
    return True


def _has_size(engine: Any, settings: Any, state_dict: Mapping[str, Any]) -> bool:
    if engine.random_weights is None:
        return True
    wanted = _shapes(engine.random_weights(settings))
    return not wanted - _shapes(state_dict)


def _shapes(state_dict: Mapping[str, Any]) -> Counter[tuple[int, ...]]:
    """How often each shape occurs, of tensors with more than one number."""
    return Counter(tuple(value.shape) for value in state_dict.values() if value.numel() > 1)


def _parameters(state_dict: Mapping[str, Any]) -> int:
    return sum(value.numel() for value in state_dict.values() if value.is_floating_point())


def _shortened(text: str, most: int = 400) -> str:
    return text if len(text) <= most else f"{text[:most]} ..."
