# SPDX-License-Identifier: Apache-2.0
"""Graphs of a network in PyTorch: device and number format, named arrays in, named arrays out.

`TorchGraph` has the interface of `bmp_ros.engines.onnx.graph.Graph`, so that one engine in NumPy
runs either. The functions that it calls are the ones that `bmp export` traces; beside their
exported input many take pixels as they are, uint8, and prepare them on the device.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bmp_ros.engines.batches import cut, joined, rows_of, split
from bmp_ros.engines.crops import RGB_MEAN, RGB_STD

MOST_CAPTURED = 24
"""CUDA graphs kept per network and part; the least recently used one goes."""

_RECORDING = threading.Lock()
"""Of CUDA graphs torch records one at a time in a process."""

_GRAPHS: weakref.WeakSet[TorchGraph] = weakref.WeakSet()
"""All graphs of the process, for the memory that their recordings hold; read and added to under
`_RECORDING`."""

log = logging.getLogger(__name__)


class TorchGraph:
    """One part of a network.

    network: the module, for whoever counts or hooks. whole: the function also takes uint8 pixels
    as they are, and does what follows the exported graph, on the device. capture: record the work
    on a GPU as a CUDA graph, one per set of input shapes, and replay it, which saves launching
    hundreds of kernels. The default, but not with ``compile``, nor where the environment says
    ``BMP_CUDA_GRAPHS=0``. Must not be changed while the graph runs.
    """

    def __init__(
        self,
        network: nn.Module,
        function: Callable[..., Any],
        outputs: Sequence[str],
        device: str = "cpu",
        *,
        people: Sequence[str] = (),
        most: int | None = None,
        autocast: torch.dtype = torch.float32,
        compile: bool = False,
        whole: bool = False,
    ) -> None:
        """Take over ``network``, which is on ``device`` already.

        function: its arguments are the graph's inputs by name, it returns a tensor or a tuple.
        outputs: names of what it returns. people: inputs of one row per person (see
        `bmp_ros.engines.batches`); then all outputs have as many, or twice as many with mirror
        images, and none can be kept. most: people that pass at once, None: all. autocast: number
        format of products and convolutions.
        compile: fuse with ``torch.compile`` at the first run (minutes).
        """
        self.network = network
        self.whole = whole
        self._device = torch.device(device)
        wanted = os.environ.get("BMP_CUDA_GRAPHS", "1") != "0"
        self.capture = wanted and self._device.type == "cuda" and not compile
        self._function = torch.compile(function) if compile else function
        self._outputs = tuple(outputs)
        self._people = tuple(people)
        self._most = most
        self._autocast = autocast
        self._turn = threading.Lock()
        self._captured: OrderedDict[Any, _Captured | None] = OrderedDict()
        self._made_room = False
        with _RECORDING:
            _GRAPHS.add(self)

    def run(
        self, inputs: Mapping[str, np.ndarray | Tensor], keep: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Run the graph once and return its outputs by name, float32.

        inputs: NumPy arrays, and what an earlier run kept. Outputs are NumPy arrays (bool and
        integers as they are, everything else float32) but those in ``keep``: these stay on the
        device as they are. Waits for the device once, at the end, and not at all when everything
        is kept.

        Where the memory of a GPU does not suffice, the CUDA graphs of all networks of the process
        are dropped first, to be recorded again. Where that does not help, or not for long, people
        go in smaller parts, from then on, and at last CUDA graphs are given up. Warnings say so.
        Raises torch.cuda.OutOfMemoryError when the memory does not suffice for one person, or for
        the image.
        """
        while True:
            try:
                return self._in_parts(inputs, keep)
            except torch.cuda.OutOfMemoryError as error:
                trouble = str(error).splitlines()[0]
            # Outside of the handler, whose traceback would hold on to the tensors.
            self._make_room(inputs, trouble)

    def _in_parts(
        self, inputs: Mapping[str, np.ndarray | Tensor], keep: Sequence[str]
    ) -> dict[str, Any]:
        people = self._count(inputs)
        if not people:
            return self._run(inputs, keep)
        parts = split(people, self._most, padded=self._replays)
        answers = []
        for rows, size in parts:
            part = rows_of(inputs, self._people, rows, size)
            answers.append(cut(self._run(part, ()), rows.stop - rows.start, size))
        return joined(answers)

    def _count(self, inputs: Mapping[str, np.ndarray | Tensor]) -> int | None:
        """How many people there are in the inputs; None where they are not about people."""
        names = [name for name in self._people if name in inputs]
        return len(inputs[names[0]]) if names else None

    def _make_room(self, inputs: Mapping[str, np.ndarray | Tensor], trouble: str) -> None:
        """Free what can be freed; raise where the next attempt could not ask for less.

        Must not be called by a thread that holds a lock of a graph.
        """
        people = self._count(inputs)
        before = people if people is None or self._most is None else min(people, self._most)
        # The recordings of another network may hold what this one needs.
        dropped = forget_recordings()
        if self._device.type == "cuda":
            with _RECORDING:
                torch.cuda.empty_cache()
        if dropped and not self._made_room:
            # Once: else the same recordings would be made and dropped again with every frame.
            self._made_room = True
            log.warning("out of GPU memory (%s): dropped %d CUDA graphs", trouble, dropped)
        elif before is not None and before > 1:
            self._most = before // 2
            log.warning(
                "out of GPU memory with %d people at once (%s): from now on at most %d at once",
                before, trouble, self._most,
            )  # fmt: skip
        elif dropped:
            forget_recordings(for_good=True)
            log.warning("out of GPU memory (%s): from now on without CUDA graphs", trouble)
        else:
            raise torch.cuda.OutOfMemoryError(
                f"{trouble} There is not enough memory for "
                f"{'the image' if before is None else 'one person'}: use precision fp16 or a "
                "smaller network, or end other programs on this GPU"
            )

    @property
    def _replays(self) -> bool:
        return self.capture and self._device.type == "cuda"

    def _run(
        self, inputs: Mapping[str, np.ndarray | Tensor], keep: Sequence[str]
    ) -> dict[str, Any]:
        # A recorded graph has one place for its inputs and outputs: threads that share a loop take
        # turns.
        with torch.inference_mode(), self._turn if self._replays else nullcontext():
            tensors = {name: self._uploaded(value) for name, value in inputs.items()}
            captured = self._capture_of(tensors) if self._replays else None
            values = captured.replay(tensors) if captured else self._called(tensors)
            # Networks with fewer outputs than names have the first ones.
            named = dict(zip(self._outputs, values, strict=False))
            kept = {name: value for name, value in named.items() if name in keep}
            if captured:  # the next replay writes into the same memory
                kept = {name: value.clone() for name, value in kept.items()}
            arrays = self._downloaded({name: named[name] for name in named if name not in kept})
        return {name: kept[name] if name in kept else arrays[name] for name in named}

    def _called(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        # Casts of weights are not cached: weights are held in their format already, and a cache
        # would outlive the recording of a CUDA graph.
        with torch.autocast(
            self._device.type,
            dtype=self._autocast,
            enabled=self._autocast != torch.float32,
            cache_enabled=False,
        ):
            values = self._function(**tensors)
        return (values,) if isinstance(values, Tensor) else tuple(values)

    def _uploaded(self, value: np.ndarray | Tensor) -> Tensor:
        if isinstance(value, Tensor):
            return value
        array = np.ascontiguousarray(value)
        # torch warns of arrays that it could not write to: images of messages, cached matrices.
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
        if self._device.type != "cuda":
            return tensor.to(self._device)
        # From pinned memory the copy runs while the host prepares the next one.
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _downloaded(self, values: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """All values as NumPy arrays, the device waited for once."""
        floats = {
            name: value.float() if value.is_floating_point() else value
            for name, value in values.items()
        }
        if self._device.type != "cuda" or not floats:
            return {name: value.cpu().numpy() for name, value in floats.items()}
        host = {name: value.to("cpu", non_blocking=True) for name, value in floats.items()}
        torch.cuda.current_stream(self._device).synchronize()
        return {name: value.numpy() for name, value in host.items()}

    def _capture_of(self, tensors: Mapping[str, Tensor]) -> _Captured | None:
        """The recorded work for these shapes; None the first time that they are seen.

        Recording takes about as long as ten frames and memory of its own: a number of people, or
        of prompts, that comes once is not worth it.
        """
        key = tuple((name, tuple(value.shape), value.dtype) for name, value in tensors.items())
        known = key in self._captured
        captured = self._captured.get(key)
        if known and captured is None:
            try:
                earlier = next((kept for kept in self._captured.values() if kept), None)
                captured = _Captured(self._called, tensors, earlier)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self.capture = False
                self._captured.clear()
                reason = str(error).splitlines()[0]
                log.warning("CUDA graphs cannot be recorded here, going on without: %s", reason)
                return None
        self._captured[key] = captured
        self._captured.move_to_end(key)
        if len(self._captured) > MOST_CAPTURED:
            self._captured.popitem(last=False)
        return captured


def forget_recordings(*, for_good: bool = False) -> int:
    """Drop the CUDA graphs of all networks of the process; return how many there were.

    for_good: record no more, either. Waits for each graph that runs; whoever calls must hold none
    of their locks.
    """
    with _RECORDING:
        graphs = list(_GRAPHS)
    dropped = 0
    for graph in graphs:
        with graph._turn:
            dropped += sum(captured is not None for captured in graph._captured.values())
            graph._captured.clear()
            if for_good:
                graph.capture = False
    return dropped


class _Captured:
    """The work of one call, recorded: inputs and outputs have their place in memory.

    Recordings of one graph share memory: one that is made later uses again what earlier ones need
    only while they run. So they must not be replayed at the same time, and a replay overwrites the
    outputs of all of them.
    """

    _stream: torch.cuda.Stream
    _pool: Any

    def __init__(
        self,
        call: Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]],
        tensors: Mapping[str, Tensor],
        earlier: _Captured | None = None,
    ) -> None:
        """Record ``call``. earlier: a recording of the same graph, to share its memory.

        Raises torch.cuda.OutOfMemoryError, and RuntimeError where it cannot be recorded.
        """
        self._inputs = {name: value.clone() for name, value in tensors.items()}
        self._device = device = next(iter(tensors.values())).device
        # torch records on a stream of the current device unless told otherwise, and then nothing
        # of what runs on another one.
        with _RECORDING, torch.cuda.device(device):
            # torch gives memory of a pool again to the stream alone that had it. The pool of
            # recordings that are all gone cannot be used again.
            self._stream = earlier._stream if earlier else torch.cuda.Stream(device)
            self._pool = earlier._pool if earlier else torch.cuda.graph_pool_handle()
            self._graph = torch.cuda.CUDAGraph()
            here = torch.cuda.current_stream(device)
            try:
                self._record(call, here)
            finally:
                # Where a recording fails, torch leaves the thread on the stream of the recording.
                torch.cuda.set_stream(here)

    def _record(
        self,
        call: Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]],
        here: torch.cuda.Stream,
    ) -> None:
        # As torch's documentation asks: a few runs beside the main stream, then the recording.
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            for _ in range(2):
                call(self._inputs)
        here.wait_stream(self._stream)
        with torch.cuda.graph(
            self._graph, self._pool, self._stream, capture_error_mode="thread_local"
        ):
            self._outputs = call(self._inputs)

    def replay(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The outputs, in memory that the next replay overwrites."""
        with torch.cuda.device(self._device):
            for name, value in tensors.items():
                self._inputs[name].copy_(value, non_blocking=True)
            self._graph.replay()
        return self._outputs


class RgbNormalisation(nn.Module):
    """Normalises RGB grey levels (..., 3, h, w) float32 as `bmp_ros.engines.crops.normalised`."""

    def __init__(self, device: str | torch.device) -> None:
        super().__init__()
        self.mean = torch.from_numpy(RGB_MEAN).view(3, 1, 1).to(device)
        self.std = torch.from_numpy(RGB_STD).view(3, 1, 1).to(device)

    def forward(self, levels: Tensor) -> Tensor:
        return (levels - self.mean) / self.std


def rgb_levels(pixels: Tensor) -> Tensor:
    """BGR pixels (..., h, w, 3) uint8 -> RGB grey levels (..., 3, h, w) float32."""
    return pixels.movedim(-1, -3).flip(-3).float()
