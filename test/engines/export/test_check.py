# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exports come from torch")
pytest.importorskip("onnx", reason="writing ONNX files needs onnx")

from bmp_ros.engines.export.check import ExportRefused, compare, cosine_similarity  # noqa: E402
from bmp_ros.engines.export.source import GraphSource  # noqa: E402
from bmp_ros.engines.export.write import write_graph  # noqa: E402
from bmp_ros.engines.onnx.card import Card, PoseFacts  # noqa: E402

CARD = Card("heatmaps", "heatmaps", "", PoseFacts((16, 16), "coco_17", "heatmap"))


class Twice(torch.nn.Module):
    """Returns what it sees, and a product that goes wrong on request."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        matrix = torch.randn(40, 40, generator=torch.Generator().manual_seed(0)) * scale
        self.matrix = torch.nn.Parameter(matrix)

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return crops * 2, crops @ self.matrix


def source(module: torch.nn.Module, outputs: tuple[str, ...] = ("same", "product")) -> GraphSource:
    generator = torch.Generator().manual_seed(1)
    samples = [{"crops": torch.randn(n, 40, generator=generator)} for n in (2, 5)]
    dynamic = {name: {0: "people"} for name in ("crops", *outputs)}
    return GraphSource("heatmaps", module, outputs, samples, dynamic)


def test_cosine() -> None:
    a = np.array([[3.0, 4.0]])
    assert cosine_similarity(a, a * 7) == pytest.approx(1)
    assert cosine_similarity(a, -a) == pytest.approx(-1)
    assert cosine_similarity(a, np.array([[4.0, -3.0]])) == pytest.approx(0)
    assert cosine_similarity(a * 0, a * 0) == 1
    assert cosine_similarity(a, a * 0) == 0
    assert math.isnan(cosine_similarity(a, a[0]))
    assert math.isnan(cosine_similarity(a, a * np.nan))
    assert math.isnan(cosine_similarity(a * np.inf, a * np.inf))


@pytest.mark.parametrize("half", [False, True])
def test_what_agrees_passes(tmp_path: Path, half: bool) -> None:
    path = tmp_path / "x.onnx"
    write_graph(source(Twice()), CARD, path, half_weights=half)
    cosines = compare(source(Twice()), path)
    assert set(cosines) == {"same", "product"}
    assert all(0.999 < value <= 1 + 1e-9 for value in cosines.values())


def test_half_precision_halves_the_file(tmp_path: Path) -> None:
    sizes = []
    for half in (False, True):
        write_graph(source(Twice()), CARD, tmp_path / "x.onnx", half_weights=half)
        sizes.append((tmp_path / "x.onnx").stat().st_size)
    assert sizes[0] - sizes[1] > 40 * 40 * 2 - 300


def test_weights_beyond_half_precision_stay(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    write_graph(source(Twice(1e6)), CARD, path, half_weights=True)
    assert compare(source(Twice(1e6)), path)["product"] > 0.999


def test_another_answer_is_refused_by_name_and_value(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    module = Twice()
    write_graph(source(module), CARD, path, half_weights=False)
    with torch.no_grad():
        module.matrix[:, ::2] *= -0.5
    with pytest.raises(
        ExportRefused, match=r"x.onnx: output 'product'.*cosine similarity -?0\.\d"
    ):
        compare(source(module), path)


def test_a_shape_that_was_frozen_is_refused(tmp_path: Path) -> None:
    """The first sample, which is traced, has two rows, the second one five."""

    class Frozen(torch.nn.Module):
        def forward(self, crops: torch.Tensor) -> torch.Tensor:
            return crops.mean(0, keepdim=True).expand(int(crops.shape[0]), -1) + crops[:1]

    path = tmp_path / "x.onnx"
    write_graph(source(Frozen(), ("rows",)), CARD, path, half_weights=False)
    with pytest.raises(ExportRefused, match="output 'rows'"):
        compare(source(Frozen(), ("rows",)), path)
