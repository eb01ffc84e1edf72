# SPDX-License-Identifier: Apache-2.0
"""A pipeline by the names of its networks: ``yolov5m-crowdhuman`` and ``posehrnet-w48``.

Which engine runs a network, with which options, and which thresholds of the loop suit it, stands
in its entry of the weights zoo.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bmp_ros.engines.presets import load_preset
from bmp_ros.fields import SettingsError
from bmp_ros.weights.zoo import Zoo, load_zoo

Section = dict[str, Any]

_TINY = "tiny_fast"
"""The preset that says what suits the networks of the package."""
_SUITS = {
    "tiny/detector": ("detection_threshold", "box_nms_iou"),
    "tiny/pose_estimator": (
        "confidence_threshold", "visibility_threshold", "oks_threshold", "pose_nms_keeps",
    ),
}  # fmt: skip


def by_names(
    detector: str | None, pose: str | None, preset: str | None = None, zoo: Zoo | None = None
) -> tuple[str | Mapping[str, Any], dict[str, Section]]:
    """A preset, and the sections to replace in it: arguments of `bmp_ros.engines.build_loop`.

    detector, pose: names of the zoo, ``tiny/NAME``, paths of .onnx files, or None: as in the
    preset. preset: a name or path; None is ``tiny`` with one name, and with both a pipeline of its
    own: one pass, no segmenter.
    Raises UnknownWeights for a name that nobody knows, SettingsError for a network of another
    role, and for one of which it is not known how to run it.
    """
    zoo = load_zoo() if zoo is None else zoo
    sections: dict[str, Section] = {}
    loop: Section = {}
    base = preset or ("tiny" if None in (detector, pose) else None)
    for role, name in (("detector", detector), ("pose_estimator", pose)):
        if name is not None:
            sections[role], thresholds = _section(role, name, zoo)
            if not (name.startswith("tiny/") and base in ("tiny", _TINY)):
                loop |= thresholds
    if base is not None and detector is not None and not detector.startswith("tiny/"):
        # The preset's suit its own detector's scores.
        loop.setdefault("later_threshold", None)
        loop.setdefault("look_again_score", None)
    if preset is not None or len(sections) < 2:
        return preset or "tiny", sections | loop
    whole = {
        "description": f"People by {detector}, poses by {pose}, in one pass without a segmenter.",
        **sections,
        "segmenter": None,
        "loop": {"iterations": 1, **loop},
    }
    return whole, {}


def _section(role: str, name: str, zoo: Zoo) -> tuple[Section, Section]:
    """The section of a preset for one network, and the settings of the loop that suit it."""
    if name.endswith(".onnx"):
        return {"engine": "onnx", "weights": str(Path(name).expanduser().absolute())}, {}
    if name.startswith("tiny/"):
        section: Section = {"engine": "onnx", "weights": name}
        if role == "pose_estimator":
            section["flip_test"] = False
        loop = load_preset(_TINY).loop
        return section, {key: getattr(loop, key) for key in _SUITS.get(name, ())}
    weights = zoo[name]
    if weights.role != role:
        raise SettingsError(
            f"{name} is a {weights.role} of the zoo, not a {role}; `bmp models list` shows all"
        )
    if not weights.engine:
        raise SettingsError(
            f"{name}: its entry in models/zoo.yaml does not say which engine runs it; name it in "
            "a preset (docs/adding_a_network.md)"
        )
    return {**weights.engine, "weights": name}, dict(weights.loop)


def detector_size(text: str, option: str = "--size") -> int | tuple[int, int]:
    """The value of an option such as ``--size``: a side in pixels, or WIDTHxHEIGHT."""
    width, by, height = text.lower().partition("x")
    if width.isdecimal() and (height.isdecimal() if by else True):
        return (int(width), int(height)) if by else int(width)
    raise ValueError(f"{option} is {text!r}, needs a side in pixels or WIDTHxHEIGHT, e.g. 640")
