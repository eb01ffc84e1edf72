# SPDX-License-Identifier: Apache-2.0
"""Exported graphs in int8, per channel: convolutions statically, matrix products dynamically.

The fp32 export runs on images like those of the camera, once, and the inputs of every graph are
kept: a pose network sees the crops of the people who are found there. onnxruntime measures the
range of every tensor before a convolution on them and puts integer convolutions in the place of
those in float (static quantisation: Jacob et al., "Quantization and Training of Neural Networks
for Efficient Integer-Arithmetic-Only Inference", CVPR 2018). Matrix products with weights, of
transformers above all, measure the range of their input in every run (dynamic quantisation): what
passes there has a few large values in some images, and fp32 between the layers costs less than
rounding everything to stored ranges. The last layer of each output stays in fp32: its values are
coordinates and logits, which 256 steps would round visibly. So do the first layers of a detector:
on images with people painted out their rounded edges became false people.

Images that were not measured decide whether the result is good enough (`agreement`).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bmp_ros.engines.build import build_loop
from bmp_ros.engines.export.agreement import Calls, Measure, agreement, recorded_loop
from bmp_ros.engines.export.check import ExportRefused
from bmp_ros.engines.export.write import import_onnx, widen_weights
from bmp_ros.engines.onnx.card import KINDS, METADATA_KEY, Card, part_path
from bmp_ros.engines.presets import load_preset
from bmp_ros.image_files import IMAGE_SUFFIXES, UnreadableImageError, natural_key, read_image
from bmp_ros.loop.bmp_loop import BMPLoop
from bmp_ros.loop.settings import LoopSettings

LEAST_AGREEMENT = 0.85
LEAST_IMAGES = 4
MOST_IMAGES = 100
"""Of a folder; with more, this many are taken at even distances."""
MOST_RUNS = 200
"""Of a graph whose inputs are kept."""
HELD_OUT = 4
"""Every so many images one is not measured, but compared."""
FIRST_LAYERS = {"detector": 4}
"""By role: convolutions in the order of the graph that stay in fp32. With 4 the tiny detector sees
as many boxes in painted-out images as in fp32, with 2 a third more and with none twice as many."""
STATIC, DYNAMIC = ("Conv",), ("Gemm", "MatMul")
"""Operators in int8, with ranges that were measured and with those of the moment; what lies
between them stays in float."""


@dataclass(frozen=True)
class Calibration:
    """images: folder of images like those of the camera, with people. least: agreement with fp32,
    in [0, 1], below which nothing is written; 0: whatever it is. keep_fp32: roles that are not
    quantised."""

    images: Path
    least: float = LEAST_AGREEMENT
    keep_fp32: tuple[str, ...] = ()


def calibration_images(folder: Path) -> list[Path]:
    """The image files of a folder, at most `MOST_IMAGES`, at even distances.

    Raises ValueError for fewer than `LEAST_IMAGES`, FileNotFoundError for a folder that is none.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"--calibrate {folder}: there is no such folder of images")
    files = sorted(
        (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES),
        key=natural_key,
    )
    files = [path for path in files if path.name[0] != "."]
    if len(files) < LEAST_IMAGES:
        raise ValueError(
            f"--calibrate {folder} holds {len(files)} images, needs at least {LEAST_IMAGES}, "
            "better 50, with people, like those of the camera"
        )
    steps = np.linspace(0, len(files) - 1, min(len(files), MOST_IMAGES)).round()
    return [files[int(step)] for step in steps]


def quantise_preset(
    source: Path,
    target: Path,
    calibration: Calibration,
    tell: Callable[[str], None],
    loop_settings: LoopSettings | None = None,
) -> None:
    """Write the networks of an exported preset in int8 into the folder ``target``.

    source: the preset's file, its networks in fp32 beside it; it is copied. loop_settings: of the
    loop that finds people in the images; None: the preset's.
    Raises ExportRefused when a graph saw nothing in the images, and when a network in int8 agrees
    too little with itself in fp32.
    """
    files = calibration_images(calibration.images)
    preset = load_preset(source)
    quantised = [role for role in preset.engines if role not in calibration.keep_fp32]
    built = build_loop(source, "cpu")
    loop = BMPLoop(
        built.detector, built.pose_estimator, built.segmenter, loop_settings or built.settings
    )
    held_out = files[HELD_OUT - 1 :: HELD_OUT]
    measured = [path for path in files if path not in held_out]
    samples = source.with_name("samples")
    tell(f"int8: what the networks see in {len(measured)} images of {calibration.images}")
    with _inputs_kept(loop, samples):
        for image in _readable(measured, tell):
            loop(image)
    target.mkdir()
    shutil.copy(source, target)
    for role, choice in preset.engines.items():
        for part, path in enumerate(graph_files(source.with_name(str(choice.weights)))):
            if role not in quantised:
                shutil.copy(path, target)
                continue
            done, layers = quantise(
                path, target / path.name, _kept(samples / path.name, path, calibration),
                first=FIRST_LAYERS.get(role, 0) if part == 0 else 0,
            )  # fmt: skip
            tell(f"int8: {path.name}, {done} of {layers} layers")
    shutil.rmtree(samples)
    listening, calls = recorded_loop(loop)
    for image in _readable(held_out, tell):
        listening(image)
    _compare(loop, build_loop(target / source.name, "cpu"), calls, quantised, calibration, tell)


def _readable(files: Sequence[Path], tell: Callable[[str], None]) -> Iterator[np.ndarray]:
    """The images; one that cannot be read is told, and costs nothing that was done before."""
    for path in files:
        try:
            image = read_image(path)
        except (OSError, UnreadableImageError) as error:
            tell(f"int8: left out: {error}")
        else:
            yield image


def graph_files(first: Path) -> list[Path]:
    """All files of the network whose first part is the file ``first``."""
    model = import_onnx().load(str(first))
    card = Card.from_metadata({each.key: each.value for each in model.metadata_props}, first)
    return [part_path(first, card.network, part) for part in KINDS[card.network].parts]


def _compare(
    loop: BMPLoop,
    other: BMPLoop,
    calls: Calls,
    roles: Sequence[str],
    calibration: Calibration,
    tell: Callable[[str], None],
) -> None:
    """Say how much each network agrees with itself in fp32; raise ExportRefused for too little."""
    for role in roles:
        engines = getattr(loop, role), getattr(other, role)
        for measure in agreement(role, *engines, calls):
            tell(f"int8: {role} {measure}")
            if measure.value >= calibration.least or calibration.least == 0:
                continue
            raise ExportRefused(_refusal(role, measure, calibration))


def _refusal(role: str, measure: Measure, calibration: Calibration) -> str:
    if not measure.count:
        return (
            f"int8: the {role} cannot be compared with fp32: nobody was found in the images of "
            f"{calibration.images} that were held out; nothing was written. Give images with "
            "people, like those of the camera"
        )
    return (
        f"int8: the {role} agrees too little with fp32: {measure}, needs at least "
        f"{calibration.least:g}; nothing was written. Calibrate with more images, and more like "
        f"those of the camera, keep this network as it is (--keep-fp32 {role}), or accept the "
        "loss (--least-agreement)"
    )


# ---------------------------------------------------------------- what the graphs see


class _Keeper:
    """A graph that keeps its inputs in files; otherwise the graph."""

    def __init__(self, graph: Any, folder: Path) -> None:
        self._graph = graph
        self._folder = folder
        self._runs = 0
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, inputs: Mapping[str, Any], keep: Sequence[str] = ()) -> dict[str, Any]:
        if self._runs < MOST_RUNS:
            arrays = {
                name: value if isinstance(value, np.ndarray) else value.numpy()
                for name, value in inputs.items()
            }
            np.savez(self._folder / f"{self._runs:04}.npz", **arrays)
        self._runs += 1
        found: dict[str, Any] = self._graph.run(inputs, keep)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._graph, name)


@contextmanager
def _inputs_kept(loop: BMPLoop, folder: Path) -> Iterator[None]:
    """While it lasts, the inputs of every graph are kept in folders named like its file."""
    engines: dict[str, Any] = {
        "detector": loop.detector, "pose_estimator": loop.pose_estimator,
        "segmenter": loop.segmenter,
    }  # fmt: skip
    before: list[tuple[Any, str, Any]] = []
    for role, engine in engines.items():
        name = "graph" if hasattr(engine, "graph") else "graphs"
        if engine is None:
            continue
        graphs = getattr(engine, name)
        before.append((engine, name, graphs))

        def keeper(graph: Any, role: str = role) -> _Keeper:
            file = part_path(Path(f"{role}.onnx"), graph.card.network, graph.card.part)
            return _Keeper(graph, folder / file)

        kept = keeper(graphs) if name == "graph" else {k: keeper(v) for k, v in graphs.items()}
        setattr(engine, name, kept)
    try:
        yield
    finally:
        for engine, name, graphs in before:
            setattr(engine, name, graphs)


def _kept(folder: Path, graph: Path, calibration: Calibration) -> list[Path]:
    samples = sorted(folder.glob("*.npz"))
    if not samples:
        raise ExportRefused(
            f"int8: {graph.name} was never asked while the loop ran on the images of "
            f"{calibration.images}: no one was found there; nothing was written. Give images with "
            "people, like those of the camera, or lower the preset's detection_threshold"
        )
    return samples


# ---------------------------------------------------------------- one graph


class _Reader:
    """Kept inputs for onnxruntime's calibration, one run after the other."""

    def __init__(self, samples: Sequence[Path], names: Sequence[str]) -> None:
        self._samples, self._names = iter(samples), names

    def get_next(self) -> dict[str, np.ndarray] | None:
        path = next(self._samples, None)
        if path is None:
            return None
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in self._names}


def quantise(
    source: Path, target: Path, samples: Sequence[Path], *, first: int = 0
) -> tuple[int, int]:
    """Write a graph in int8; return how many layers compute in int8, and how many there are.

    samples: files of the graph's inputs by name (.npz). first: convolutions that stay in fp32.

    Activations are uint8: onnxruntime has no signed kernels on x86 and falls back to float.
    Weights have 7 bits: processors without integer dot products (AVX2 without VNNI) add pairs of
    products in 16 bits, which 8 bits overflow.
    """
    onnx = import_onnx()
    from onnxruntime import quantization

    model = onnx.load(str(source))
    card = {each.key: each.value for each in model.metadata_props}
    widen_weights(model)
    operators = {node.op_type for node in model.graph.node}
    last = last_layers(model.graph)
    stem = [node.name for node in model.graph.node if node.op_type in STATIC][:first]
    how = {"per_channel": True, "reduce_range": True}
    with _silent():
        if operators.intersection(STATIC):
            quantization.quantize_static(
                onnx.shape_inference.infer_shapes(model),
                str(target),
                _Reader(samples, [each.name for each in model.graph.input]),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(STATIC),
                activation_type=quantization.QuantType.QUInt8,
                nodes_to_exclude=[*stem, *last],
                calibrate_method=quantization.CalibrationMethod.MinMax,
                **how,
            )
            model = onnx.load(str(target))
        if operators.intersection(DYNAMIC):
            quantization.quantize_dynamic(
                model,
                str(target),
                op_types_to_quantize=["MatMul"],  # a Gemm becomes one, with this ending
                nodes_to_exclude=[*last, *(f"{name}_MatMul" for name in last)],
                # Products of two computed tensors (attention) stay in float.
                extra_options={"MatMulConstBOnly": True},
                **how,
            )
            model = onnx.load(str(target))
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=card[METADATA_KEY])
    onnx.save(model, str(target))
    return layers_in_int8(model.graph)


def layers_in_int8(graph: Any) -> tuple[int, int]:
    """How many layers compute with integers, and how many there are."""
    stored = {name for node in graph.node if node.op_type == "DequantizeLinear"
              for name in node.output}  # fmt: skip
    products = sum(node.op_type == "MatMulInteger" for node in graph.node)
    layers = [node for node in graph.node if node.op_type in (*STATIC, *DYNAMIC)]
    static = sum(all(name in stored for name in node.input) for node in layers)
    return static + products, len(layers) + products


def last_layers(graph: Any) -> list[str]:
    """Names of the layers (`STATIC`, `DYNAMIC`) that no other layer comes after."""
    last = []
    leading: set[str] = set()  # tensors from which such a node is reached
    for node in reversed(graph.node):
        leads = any(name in leading for name in node.output)
        layer = node.op_type in (*STATIC, *DYNAMIC)
        if layer and not leads:
            last.append(node.name)
        if layer or leads:
            leading.update(node.input)
    return last


@contextmanager
def _silent() -> Iterator[None]:
    """onnxruntime tells the root logger of steps that were taken, or that are not wanted."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
