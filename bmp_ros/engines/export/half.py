# SPDX-License-Identifier: Apache-2.0
"""A graph in fp32 made to compute in fp16, where that is safe: autocast, written into the file.

TensorRT 11 has no precision flags: it computes in the formats that the graph says. So casts are
put where the format changes:

* convolutions and products of matrices compute in fp16, with their weights stored so;
* element-wise and moving operations go on in the format of what they are given, in fp32 where it
  differs: a residual stream that began in fp32 stays so;
* everything else computes in fp32: LayerNormalization, Softmax, reductions, powers, exponentials,
  sines. In fp16 these overflow in large transformers, or lose what they measure;
* inputs and outputs are fp32, and layers whose weights are named by the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

COMPUTED_IN_HALF = ("Conv", "ConvTranspose", "MatMul", "Gemm")
FOLLOWING = (
    "Add", "Sub", "Mul", "Div", "Neg", "Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "Tanh",
    "Erf", "Clip", "Max", "Min", "Where", "Concat", "Split", "Slice", "Reshape", "Transpose",
    "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile", "Gather", "Identity", "Pad", "MaxPool",
    "AveragePool", "GlobalAveragePool", "Resize", "DepthToSpace", "SpaceToDepth",
)  # fmt: skip
"""Operations that change no format. Of a Resize only the first input is of the image's."""
_FIRST_INPUT_ONLY = ("Resize",)
_LARGEST = float(np.finfo(np.float16).max)


def compute_in_half(model: Any, exact: Sequence[str] = ()) -> Any:
    """Return the ONNX model (ModelProto) with the formats described above.

    exact: parts of the names of weights whose layers stay in fp32. Layers with a weight beyond the
    range of fp16 stay so, too.
    Raises ValueError for a graph with subgraphs (If, Loop), whose formats are not followed.
    """
    import onnx
    from onnx import TensorProto

    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    inner = [node.op_type for node in graph.node if any(a.g.node for a in node.attribute)]
    if inner:
        raise ValueError(f"cannot follow the formats in the subgraphs of {', '.join(inner)}")
    _constants_to_initializers(graph)
    floats = _float_values(graph)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    formats = _Formats(floats, constants)
    nodes: list[Any] = []
    for node in graph.node:
        nodes += formats.rewritten(node, _half(node, formats, exact))
    nodes += formats.outputs_in_full(graph)
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(formats.stored)
    _drop_unused(graph)
    del graph.value_info[:]  # of the formats of before
    assert all(value.type.tensor_type.elem_type != TensorProto.FLOAT16 for value in graph.output)
    return model


def _half(node: Any, formats: _Formats, exact: Sequence[str]) -> bool:
    """Whether a node computes in fp16."""
    given = [name for name in _of_format(node) if name in formats.floats]
    if node.op_type in COMPUTED_IN_HALF:
        weights = [name for name in given if name in formats.constants]
        named = any(part in name for name in weights for part in exact)
        return not named and all(formats.fits(name) for name in weights)
    if node.op_type not in FOLLOWING:
        return False
    changing = [name for name in given if name not in formats.constants]
    # A constant as large as a map, such as a position embedding, begins a stream in fp32.
    maps = [name for name in given if name in formats.constants and formats.is_map(name)]
    return bool(changing) and not maps and all(name in formats.half for name in changing)


class _Formats:
    """In which format every value is there by now; casts and copies are made once."""

    def __init__(self, floats: set[str], constants: dict[str, Any]) -> None:
        self.floats, self.constants = floats, constants
        self.half: set[str] = set()
        """Values that are computed in fp16."""
        self.stored: list[Any] = []
        self._there: dict[tuple[str, bool], str] = {}

    def fits(self, name: str) -> bool:
        values = self._values(name)
        return values.size == 0 or bool(np.abs(values).max() <= _LARGEST)

    def is_map(self, name: str) -> bool:
        """Whether a constant varies along two or more axes."""
        return sum(length > 1 for length in self.constants[name].dims) >= 2

    def rewritten(self, node: Any, half: bool) -> list[Any]:
        """The node with inputs in its format, after the casts that are still missing."""
        casts = []
        given = set(_of_format(node)) & self.floats
        for place, name in enumerate(node.input):
            if name in given:
                node.input[place], missing = self._as(name, half)
                casts += missing
        if half:
            self.half.update(name for name in node.output if name in self.floats)
        return [*casts, node]

    def outputs_in_full(self, graph: Any) -> list[Any]:
        """Outputs keep their names and are fp32: what is computed in fp16 gets another name."""
        from onnx import TensorProto, helper

        casts = []
        for name in (value.name for value in graph.output if value.name in self.half):
            inner = f"{name}.half"
            for node in graph.node:
                node.output[:] = [inner if out == name else out for out in node.output]
                node.input[:] = [inner if used == name else used for used in node.input]
            casts.append(helper.make_node("Cast", [inner], [name], to=TensorProto.FLOAT))
        return casts

    def _as(self, name: str, half: bool) -> tuple[str, list[Any]]:
        from onnx import TensorProto, helper, numpy_helper

        if (name in self.half) == half:
            return name, []
        if (name, half) in self._there:
            return self._there[name, half], []
        other = f"{name}.{'fp16' if half else 'fp32'}"
        self._there[name, half] = other
        if name in self.constants:
            values = np.clip(self._values(name), -_LARGEST, _LARGEST).astype(np.float16)
            self.stored.append(numpy_helper.from_array(values, other))
            return other, []
        to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        return other, [helper.make_node("Cast", [name], [other], to=to)]

    def _values(self, name: str) -> np.ndarray:
        from onnx import numpy_helper

        values: np.ndarray = numpy_helper.to_array(self.constants[name])
        return values


def _of_format(node: Any) -> Iterable[str]:
    """Inputs of a node that share the format of its output."""
    return node.input[:1] if node.op_type in _FIRST_INPUT_ONLY else node.input


def _float_values(graph: Any) -> set[str]:
    from onnx import TensorProto

    typed = [*graph.input, *graph.value_info, *graph.output]
    names = {v.name for v in typed if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    return names | {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}


def _constants_to_initializers(graph: Any) -> None:
    """Constant nodes become initializers, which can be stored in another format.

    So do the Identity nodes through which a traced graph shares equal weights.
    """
    constants = {tensor.name for tensor in graph.initializer}
    shared: dict[str, str] = {}
    kept = []
    for node in graph.node:
        node.input[:] = [shared.get(name, name) for name in node.input]
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            value.name = node.output[0]
            graph.initializer.append(value)
            constants.add(value.name)
        elif node.op_type == "Identity" and node.input[0] in constants:
            shared[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _drop_unused(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input}
    used |= {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
