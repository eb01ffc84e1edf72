# SPDX-License-Identifier: Apache-2.0
"""``Graph``: one ONNX file in a session of onnxruntime, and the files of a network together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bmp_ros.engines.onnx.card import KINDS, Card, part_path
from bmp_ros.engines.onnx.target import Target, import_onnxruntime, providers, session_options
from bmp_ros.weights.errors import BadCheckpoint, WeightsMissing

if TYPE_CHECKING:
    from onnxruntime import OrtValue


class Graph:
    """One graph, loaded. card: what its file says about it."""

    whole = False
    """What comes before and after the exported graph is done on the host."""

    def __init__(self, path: Path, target: Target) -> None:
        """Load a file.

        Raises BadCheckpoint when it is no ONNX model, RuntimeError when onnxruntime cannot use the
        device that was asked for, and what `Card.from_metadata` raises.
        """
        onnxruntime = import_onnxruntime()
        wanted = providers(target)
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), session_options(target), providers=wanted
            )
        except Exception as error:  # its own classes derive from Exception directly
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BadCheckpoint(f"onnxruntime cannot load {path}: {reason}") from error
        used = self._session.get_providers()
        missing = [name for name, _ in wanted if name not in used]
        if missing:
            raise RuntimeError(
                f"onnxruntime could not start {', '.join(missing)} and would have used "
                f"{', '.join(used)} for {path.name}; its output above says what is missing "
                "(a version of CUDA, cuDNN or TensorRT); or use device cpu"
            )
        self.card = Card.from_metadata(self._session.get_modelmeta().custom_metadata_map, path)
        self._outputs = [output.name for output in self._session.get_outputs()]
        device, _, index = target.device.partition(":")
        self._device, self._index = device, int(index or 0)

    def run(
        self, inputs: Mapping[str, np.ndarray | OrtValue], keep: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Run the graph once and return its outputs by name.

        inputs: NumPy arrays, and what an earlier run kept. Outputs are NumPy arrays but those in
        ``keep``: these stay on the device, as values that only another graph can read.
        """
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


def load_network(path: Path, role: str, target: Target) -> dict[str, Graph]:
    """Load all graphs of the network whose first file is ``path``, by the names of its parts.

    role: detector, pose_estimator or segmenter. Raises ValueError when the file holds a network
    for another role or a part that is not the first, WeightsMissing when a file is missing,
    BadCheckpoint when files of different exports lie side by side.
    """
    first = Graph(path, target)
    card = first.card
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
        if graphs[part].card != Card(card.network, part, card.weights, card.facts):
            raise BadCheckpoint(
                f"{file} belongs to another export than {path.name}; copy all files of one export "
                "together"
            )
    return graphs
