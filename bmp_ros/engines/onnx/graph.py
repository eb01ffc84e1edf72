# SPDX-License-Identifier: Apache-2.0
"""``Graph``: one ONNX file in a session of onnxruntime, and the files of a network together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bmp_ros.engines.batches import cut, joined, rows_of, split
from bmp_ros.engines.onnx.card import KINDS, Card, largest_canvas, part_path
from bmp_ros.engines.onnx.engine_cache import cache_options, profile_options, tensorrt_version
from bmp_ros.engines.onnx.target import Target, import_onnxruntime, providers, session_options
from bmp_ros.weights.errors import BadCheckpoint, WeightsMissing, in_place_of_weights

if TYPE_CHECKING:
    from onnxruntime import OrtValue


log = logging.getLogger(__name__)


class Graph:
    """One graph, loaded. card: what its file says about it."""

    whole = False
    """What comes before and after the exported graph is done on the host."""

    def __init__(self, path: Path, target: Target) -> None:
        """Load a file.

        Raises BadCheckpoint when it is no ONNX model, RuntimeError when onnxruntime cannot use the
        device that was asked for, and what `Card.from_metadata` raises.
        """
        wanted = providers(target)
        if target.tensorrt:
            wanted = providers(target, _tensorrt_options(path, target))
        self._session = _session(path, session_options(target, path), wanted)
        used = self._session.get_providers()
        missing = [name for name, _ in wanted if name not in used]
        if missing:
            raise RuntimeError(
                f"onnxruntime could not start {', '.join(missing)} and would have used "
                f"{', '.join(used)} for {path.name}; its output above says what is missing "
                "(a version of CUDA, cuDNN or TensorRT); or use device cpu"
            )
        self.card = _card(self._session, path)
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._of_people = [
            tuple(value.name for value in values if value.shape and value.shape[0] == "people")
            for values in (self._session.get_inputs(), self._session.get_outputs())
        ]
        self.padded = target.tensorrt
        device, _, index = target.device.partition(":")
        self._device, self._index = device, int(index or 0)

    def run(
        self, inputs: Mapping[str, np.ndarray | OrtValue], keep: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Run the graph once and return its outputs by name.

        inputs: NumPy arrays, and what an earlier run kept. Outputs are NumPy arrays but those in
        ``keep``: these stay on the device, as values that only another graph can read. Through
        TensorRT people pass in padded portions (`bmp_ros.engines.batches`), for which its engine
        was built.
        """
        names, answered = self._of_people
        if not self.padded or not names or not len(inputs[names[0]]):
            return self._run(inputs, keep)
        parts = []
        for rows, size in split(len(inputs[names[0]]), padded=True):
            found = self._run(rows_of(inputs, names, rows, size), keep)
            people = {name: found.pop(name) for name in answered}
            parts.append((found, cut(people, rows.stop - rows.start, size)))
        return {**parts[0][0], **joined([people for _, people in parts])}

    def _run(self, inputs: Mapping[str, Any], keep: Sequence[str]) -> dict[str, Any]:
        binding = self._session.io_binding()
        for name, value in inputs.items():
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
            else:
                binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            if name in keep:
                binding.bind_output(name, self._device, self._index)
            else:
                binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        values = zip(self._outputs, binding.get_outputs(), strict=True)
        return {name: value if name in keep else value.numpy() for name, value in values}


def _session(path: Path, options: Any, providers: list[tuple[str, dict[str, Any]]]) -> Any:
    try:
        return import_onnxruntime().InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # its own classes derive from Exception directly
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = in_place_of_weights(path) or "; is it whole? Make, download or copy it again"
        raise BadCheckpoint(
            f"onnxruntime cannot load {path}: {reason.rstrip('.')}{hint}"
        ) from error


def _card(session: Any, path: Path) -> Card:
    return Card.from_metadata(session.get_modelmeta().custom_metadata_map, path)


def _tensorrt_options(path: Path, target: Target) -> dict[str, Any]:
    """What TensorRT needs to know of one file: shapes, format, where its engine is kept."""
    from bmp_ros.weights.zoo import models_dir

    unread = _session(path, session_options(target, path), [("CPUExecutionProvider", {})])
    card = _card(unread, path)
    inputs = {value.name: value.shape for value in unread.get_inputs()}
    index = int(target.device.partition(":")[2])
    cache, engines = cache_options(path, models_dir() / "tensorrt", index)
    engines.mkdir(parents=True, exist_ok=True)
    if not any(engines.iterdir()):
        log.info(
            "TensorRT builds its engine of %s for this GPU, once; it takes minutes", path.name
        )
    in_fp32 = target.half_precision and card.precision == "fp32"
    version = tensorrt_version()
    if in_fp32 and not version.startswith(("8.", "10.")):
        raise ValueError(
            f"precision is fp16, but {path.name} computes in fp32, and TensorRT {version} does "
            "what a graph says; export it with `bmp export --precision fp16`, or use fp32"
        )
    shapes = profile_options(inputs, largest_canvas(card.facts))
    return {**shapes, **cache, **({"trt_fp16_enable": True} if in_fp32 else {})}


def load_network(path: Path, role: str, target: Target) -> dict[str, Graph]:
    """Load all graphs of the network whose first file is ``path``, by the names of its parts.

    role: detector, pose_estimator or segmenter. Raises ValueError when the file holds a network
    for another role or a part that is not the first, WeightsMissing when a file is missing,
    BadCheckpoint when files of different exports lie side by side.
    """
    first = Graph(path, target)
    card = first.card
    if target.half_precision and not target.tensorrt and card.precision == "fp32":
        raise ValueError(
            f"precision is fp16, but {path} computes in fp32; export it with `bmp export "
            "--precision fp16`, set tensorrt: true in the preset, or use precision fp32"
        )
    kind = KINDS[card.network]
    if kind.role != role:
        raise ValueError(
            f"{path} holds {card.network}, which is a {kind.role}; this preset uses it as the "
            f"{role}"
        )
    if card.part != kind.parts[0]:
        raise ValueError(
            f"{path} holds the part {card.part!r} of {card.network}; name the file with the part "
            f"{kind.parts[0]!r} instead, this one is found beside it"
        )
    graphs = {card.part: first}
    for part in kind.parts[1:]:
        file = part_path(path, card.network, part)
        if not file.is_file():
            raise WeightsMissing(
                f"{file} is missing: {card.network} consists of {' and '.join(kind.parts)}; copy "
                "all files of an export together"
            )
        graphs[part] = Graph(file, target)
        if graphs[part].card != replace(card, part=part):
            raise BadCheckpoint(
                f"{file} belongs to another export than {path.name}; copy all files of one export "
                "together"
            )
    return graphs
