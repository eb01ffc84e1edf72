# SPDX-License-Identifier: Apache-2.0
"""The gate of every export: onnxruntime must answer what torch answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bmp_ros.engines.onnx.graph import Graph
from bmp_ros.engines.onnx.target import Target

if TYPE_CHECKING:
    from bmp_ros.engines.export.source import GraphSource

LEAST_COSINE = 0.999


class ExportRefused(RuntimeError):  # noqa: N818  (says what happened)
    """The exported graph does not do what the network does; the message names the output."""


def compare(source: GraphSource, path: Path) -> dict[str, float]:
    """Run a file and its module on all samples; return the smallest cosine of every output.

    Raises ExportRefused when one is below `LEAST_COSINE`, when shapes differ or values are not
    finite, and when the graph does not run at all.
    """
    import torch

    graph = Graph(path, Target("cpu"))
    least = dict.fromkeys(source.outputs, 1.0)
    for sample in source.samples:
        with torch.inference_mode():
            wanted = source.module(*sample.values())
        wanted = (wanted,) if isinstance(wanted, torch.Tensor) else wanted
        inputs = {name: value.numpy() for name, value in sample.items()}
        try:
            found = graph.run(inputs)
        except Exception as error:  # onnxruntime's own classes derive from Exception directly
            shapes = ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
            raise ExportRefused(
                f"{path.name}: onnxruntime cannot run the graph on {shapes}: {error}"
            ) from error
        for name, expected in zip(source.outputs, wanted, strict=True):
            cosine = cosine_similarity(expected.numpy(), found[name])
            if not cosine >= LEAST_COSINE:
                raise ExportRefused(
                    f"{path.name}: output {name!r} of the ONNX graph differs from torch's: cosine "
                    f"similarity {cosine:.6f}, needs at least {LEAST_COSINE}; nothing was written "
                    "(try --precision fp32)"
                )
            least[name] = min(least[name], cosine)
    return least


def cosine_similarity(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the cosine of two arrays, NaN when they have other shapes or are not finite.

    Two arrays of zeros are equal: 1.
    """
    if expected.shape != found.shape:
        return float("nan")
    a, b = (values.ravel().astype(np.float64) for values in (expected, found))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("nan")
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    if lengths == 0:
        return 1.0 if np.array_equal(a, b) else 0.0
    return float(a @ b) / lengths
