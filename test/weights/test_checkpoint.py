# SPDX-License-Identifier: Apache-2.0
"""Checkpoints are read, never run."""

from __future__ import annotations

import collections
import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from bmp_ros.engines.onnx.graph import Graph  # noqa: E402
from bmp_ros.engines.onnx.target import Target  # noqa: E402
from bmp_ros.weights.checkpoint import load_checkpoint, load_state_dict  # noqa: E402
from bmp_ros.weights.errors import BadCheckpoint, UnsafeCheckpoint  # noqa: E402

WEIGHTS = {
    "backbone.weight": torch.arange(12.0).reshape(3, 4),
    "backbone.num_batches_tracked": torch.tensor(7),
    "head.bias": torch.tensor([1.5, -2.5], dtype=torch.float16),
}


class Evil:
    """Pickles into a call of os.system that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return os.system, (f"touch {self.mark}",)


class NotOnTheList:
    """An ordinary class that no checkpoint needs."""


def assert_weights(state_dict: dict[str, torch.Tensor]) -> None:
    assert list(state_dict) == list(WEIGHTS)
    for name, tensor in WEIGHTS.items():
        assert state_dict[name].dtype == tensor.dtype
        assert torch.equal(state_dict[name], tensor)


@pytest.fixture
def history_buffer(monkeypatch: pytest.MonkeyPatch) -> type:
    """MMEngine's HistoryBuffer as far as pickling goes: it drags its own methods along."""

    class HistoryBuffer:
        def __init__(self) -> None:
            self._log_history = np.array([0.5, 0.25])
            self._count_history = np.array([1, 1])

        def mean(self) -> float:
            return float(self._log_history.mean())

        def __getstate__(self) -> dict[str, object]:
            return {**self.__dict__, "statistics_methods": {"mean": HistoryBuffer.mean}}

    name = "mmengine.logging.history_buffer"
    HistoryBuffer.__module__ = HistoryBuffer.mean.__module__ = name
    HistoryBuffer.__qualname__ = "HistoryBuffer"
    HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    module = types.ModuleType(name)
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    for parent in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    monkeypatch.setitem(sys.modules, name, module)
    return HistoryBuffer


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "layout",
    [
        lambda weights: {"meta": {"epoch": 3}, "state_dict": weights},
        lambda weights: {"model": weights},
        lambda weights: weights,
    ],
    ids=["openmmlab", "sam", "flat"],
)
def test_layouts_and_formats(tmp_path, layout, zip_format):
    path = tmp_path / "weights.pth"
    torch.save(layout(WEIGHTS), path, _use_new_zipfile_serialization=zip_format)
    assert_weights(load_state_dict(path))


def test_an_ordered_dict_with_metadata_is_a_state_dict(tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    state_dict = load_state_dict(tmp_path / "weights.pth")
    assert not module.load_state_dict(state_dict, strict=True).missing_keys


def test_everything_that_mmengine_writes_is_read(tmp_path, history_buffer):
    keypoints = {"sigmas": np.linspace(0.02, 0.1, 17, dtype=np.float32), "num_keypoints": 17}
    meta = {
        "epoch": 210,
        "dataset_meta": {**keypoints, "flip_indices": [0, 2, 1], "CLASSES": ("person",)},
        "best": np.float64(0.763),
        "flags": np.array([True, False]),
        "counts": collections.defaultdict(int, person=3),
    }
    log_scalars = collections.OrderedDict(loss=history_buffer())
    path = tmp_path / "epoch_210.pth"
    torch.save(
        {
            "meta": meta,
            "state_dict": WEIGHTS,
            "message_hub": {"log_scalars": log_scalars},
            "optimizer": {"lr": 5e-4},
        },
        path,
    )
    checkpoint = load_checkpoint(path)
    assert_weights(checkpoint.state_dict)
    assert checkpoint.left_out == ("message_hub", "optimizer")
    dataset = checkpoint.meta["dataset_meta"]
    np.testing.assert_array_equal(dataset["sigmas"], keypoints["sigmas"])
    assert dataset["sigmas"].dtype == np.float32
    assert dataset["flip_indices"] == [0, 2, 1] and dataset["CLASSES"] == ("person",)
    assert checkpoint.meta["best"] == 0.763
    assert checkpoint.meta["flags"].tolist() == [True, False]
    assert checkpoint.meta["counts"]["person"] == 3


def test_a_real_history_buffer_is_read(tmp_path):
    logging = pytest.importorskip("mmengine.logging", reason="mmengine is not installed")
    buffer = logging.HistoryBuffer([0.5, 0.25], [1, 1])
    path = tmp_path / "epoch_1.pth"
    torch.save({"state_dict": WEIGHTS, "message_hub": {"loss": buffer}}, path)
    assert_weights(load_state_dict(path))


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_an_evil_pickle_is_refused_by_name_and_never_runs(tmp_path, zip_format):
    mark = tmp_path / "mark"
    path = tmp_path / "evil.pth"
    torch.save(
        {"state_dict": WEIGHTS, "meta": {"x": Evil(mark)}},
        path,
        _use_new_zipfile_serialization=zip_format,
    )
    with pytest.raises(UnsafeCheckpoint, match=r"evil\.pth requests (posix|nt)\.system") as caught:
        load_checkpoint(path)
    assert not mark.exists()
    assert "evil.safetensors" in str(caught.value)
    assert "weights_only=False" in str(caught.value)
    torch.load(path, weights_only=False)
    assert mark.exists(), "the pickle of this test is harmless, it proves nothing"


def test_getattr_cannot_be_used_to_reach_code(tmp_path):
    mark = tmp_path / "mark"

    class Reach:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return np.ndarray.tofile, (np.zeros(1), str(mark))  # pickled by way of getattr

    path = tmp_path / "reach.pth"
    torch.save({"state_dict": WEIGHTS, "x": Reach()}, path)
    with pytest.raises(UnsafeCheckpoint, match="the attribute tofile"):
        load_checkpoint(path)
    assert not mark.exists()


def test_numpy_numbers_are_let_through_but_no_objects_in_their_guise(tmp_path):
    class ObjectType:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return np.dtype, ("O",)  # without the state that NumPy adds, which is refused anyway

    class Guise:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return np.float64(0).__reduce__()[0], (ObjectType(), b"object")

    path = tmp_path / "guise.pth"
    torch.save({"state_dict": WEIGHTS, "x": Guise()}, path)
    with pytest.raises(UnsafeCheckpoint, match=r"requests numpy\.object_"):
        load_checkpoint(path)


def test_a_type_that_is_not_on_the_list_is_named(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"state_dict": WEIGHTS, "args": NotOnTheList()}, path)
    with pytest.raises(
        UnsafeCheckpoint, match=rf"requests {NotOnTheList.__module__}\.NotOnTheList"
    ):
        load_checkpoint(path)


def test_the_list_is_withdrawn_after_loading(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(WEIGHTS, path)
    before = set(torch.serialization.get_safe_globals())
    load_state_dict(path)
    assert set(torch.serialization.get_safe_globals()) == before


def test_the_conversion_that_the_message_gives_works(tmp_path, monkeypatch):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    path = tmp_path / "other.pth"
    shared = torch.arange(4.0)
    weights = {**WEIGHTS, "cls": shared, "reg": shared}  # RTMDet's towers share their tensors
    torch.save({"state_dict": weights, "args": NotOnTheList()}, path)
    with pytest.raises(UnsafeCheckpoint) as caught:
        load_checkpoint(path)
    lines = str(caught.value).split("\n")[1:]
    assert len(lines) == 2
    monkeypatch.chdir(tmp_path)
    exec("\n".join(line.strip() for line in lines), {})
    checkpoint = load_checkpoint(path)
    assert checkpoint.path == tmp_path / "other.safetensors"
    assert torch.equal(checkpoint.state_dict["reg"], shared)
    assert set(checkpoint.state_dict) == set(weights)


def test_a_safetensors_twin_is_read_instead(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    torch.save({"state_dict": {"old": torch.zeros(1)}}, tmp_path / "weights.pth")
    safetensors.save_file(WEIGHTS, tmp_path / "weights.safetensors", metadata={"format": "pt"})
    checkpoint = load_checkpoint(tmp_path / "weights.pth")
    assert {name: t.tolist() for name, t in checkpoint.state_dict.items()} == {
        name: t.tolist() for name, t in WEIGHTS.items()
    }
    assert checkpoint.meta == {"format": "pt"}
    assert checkpoint.path.name == "weights.safetensors"


def test_a_safetensors_twin_that_is_older_is_warned_about(tmp_path, caplog):
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    safetensors.save_file(WEIGHTS, tmp_path / "weights.safetensors")
    os.utime(tmp_path / "weights.safetensors", (1, 1))
    torch.save(WEIGHTS, tmp_path / "weights.pth")
    load_checkpoint(tmp_path / "weights.pth")
    assert "weights.safetensors is older than weights.pth" in caplog.text


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_file_cut_short_is_said_to_be_so(tmp_path, zip_format, kept):
    path = tmp_path / "weights.pth"
    weights = {"state_dict": {"w": torch.arange(4096.0)}}
    torch.save(weights, path, _use_new_zipfile_serialization=zip_format)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(BadCheckpoint, match="cut short"):
        load_checkpoint(path)


def test_a_safetensors_file_cut_short_is_said_to_be_so(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    path = tmp_path / "weights.safetensors"
    safetensors.save_file(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BadCheckpoint, match="cut short"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [b"<!DOCTYPE html><html>404</html>", b"version https://git-lfs.github.com/spec/v1\n", b"",
     b"\x80"],
    ids=["html", "git-lfs pointer", "empty", "one byte"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".onnx"])
def test_what_is_not_a_checkpoint_is_said_to_be_none(tmp_path, content, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    hints = {b"<": "it is a web page", b"v": "`git lfs pull` brings it", b"": "the file is empty"}
    hint = hints.get(content[:1], "copy it again")
    with pytest.raises(BadCheckpoint, match=f"weights{suffix}.*{hint}"):
        Graph(path, Target()) if suffix == ".onnx" else load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "contains a list"),
        ({}, "empty"),
        ({"state_dict": {"w": torch.zeros(1), "note": "text"}}, "'note' is a str"),
        ({"epoch": 3, "optimizer": {}}, "has no state dict: 'epoch' is a int"),
    ],
    ids=["list", "empty", "text among tensors", "no weights"],
)
def test_a_file_without_a_state_dict_is_refused(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(BadCheckpoint, match=message):
        load_checkpoint(path)


def test_a_plain_pickle_with_code_is_refused(tmp_path):
    mark = tmp_path / "mark"
    path = tmp_path / "plain.pth"
    path.write_bytes(pickle.dumps({"state_dict": Evil(mark)}, protocol=2))
    with pytest.raises((UnsafeCheckpoint, BadCheckpoint)):
        load_checkpoint(path)
    assert not mark.exists()


def test_no_such_file(tmp_path):
    with pytest.raises(BadCheckpoint, match="there is no weights file"):
        load_checkpoint(tmp_path / "none.pth")
