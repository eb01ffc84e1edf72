# SPDX-License-Identifier: Apache-2.0
"""One graph to one ONNX file: trace, weights in half precision, card."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import bmp_ros
from bmp_ros.engines.export.half import compute_in_half
from bmp_ros.engines.onnx.card import Card

if TYPE_CHECKING:
    from bmp_ros.engines.export.source import GraphSource

OPSET = 17
INSTALL_ONNX = "writing ONNX files needs `pip install onnx`"

_SMALLEST = 256
"""Elements from which on a tensor is worth a node that converts it."""
_WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def import_onnx() -> Any:
    """Import onnx. Raises ModuleNotFoundError that says what to install."""
    try:
        import onnx
    except ImportError as error:
        raise ModuleNotFoundError(f"{INSTALL_ONNX} ({error})", name="onnx") from error
    return onnx


def write_graph(
    source: GraphSource, card: Card, path: Path, *, half_weights: bool = False, half: bool = False
) -> None:
    """Trace a module with its first sample and write it to ``path``.

    half_weights: store matrices and kernels in fp16. The graph converts them to fp32, which
    onnxruntime does once, when it loads the file; it computes in fp32. half: the graph computes
    in fp16, see `bmp_ros.engines.export.half`.
    """
    import torch

    onnx = import_onnx()
    traced = io.BytesIO()
    inputs = source.samples[0]
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # sizes become constants: those that are not in `dynamic`
        torch.onnx.export(
            source.module.eval(),
            tuple(inputs.values()),
            traced,
            input_names=list(inputs),
            output_names=list(source.outputs),
            dynamic_axes=source.dynamic,
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(traced.getvalue())
    if half:
        model = compute_in_half(model, source.exact)
    elif half_weights:
        _halve_weights(model)
    model.producer_name, model.producer_version = "bmp_ros", bmp_ros.__version__
    for key, value in card.to_metadata().items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _halve_weights(model: Any) -> None:
    """Store the float32 weights of products and convolutions in fp16, with a Cast back."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    used = {name for node in graph.node if node.op_type in _WITH_WEIGHTS for name in node.input}
    casts = []
    for tensor in graph.initializer:
        if tensor.name not in used or tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < _SMALLEST or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name, half = tensor.name, f"{tensor.name}.fp16"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def widen_weights(model: Any) -> None:
    """Give every layer weights of its own in fp32, as quantisation wants them.

    Undoes `half_weights` of `write_graph` (values stay rounded), and the Identity by which torch
    shares equal tensors: a shared one has no Cast or Identity any more, but a copy per name.
    """
    from onnx import TensorProto, numpy_helper

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    kept, read = [], set()
    for node in graph.node:
        tensor = tensors.get(node.input[0]) if node.op_type in ("Cast", "Identity") else None
        half = tensor is not None and tensor.data_type == TensorProto.FLOAT16
        if tensor is None or (node.op_type == "Cast" and not half):
            kept.append(node)
            read |= set(node.input)
            continue
        values = numpy_helper.to_array(tensor)
        values = values.astype(np.float32) if node.op_type == "Cast" else values
        copy = numpy_helper.from_array(values, node.output[0])
        tensors[copy.name] = copy  # an Identity of a Cast finds it
    read |= {output.name for output in graph.output}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensor for name, tensor in tensors.items() if name in read)
