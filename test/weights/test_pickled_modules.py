# SPDX-License-Identifier: Apache-2.0
"""Networks that were pickled as objects are read as tensors; nothing in their file is run."""

from __future__ import annotations

import os
import pickle
import pickletools
import struct
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed")

from bmp_ros.weights import pickled_modules  # noqa: E402
from bmp_ros.weights.checkpoint import load_checkpoint, load_state_dict  # noqa: E402
from bmp_ros.weights.errors import BadCheckpoint, UnsafeCheckpoint  # noqa: E402
from bmp_ros.weights.inert_pickle import (  # noqa: E402
    DamagedPickle,
    RefusedName,
    read_pickle,
)

FIXTURE = Path(__file__).parents[1] / "data/seed_networks/yolov5_tiny_checkpoint_fixture.pt"
CONTAINERS = pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Classes under the published names, for writing only: `unload` takes them away again."""

    def forward(self: Any, x: Any) -> Any:
        raise AssertionError("a class of the checkpoint was used")

    classes = {}
    for name in ("yolo.Model", "yolo.Detect", "common.Conv"):
        module, _, kind = f"models.{name}".rpartition(".")
        body = {"forward": forward, "__module__": module, "__qualname__": kind}
        classes[kind] = type(kind, (torch.nn.Module,), body)
    names = ("models", "models.yolo", "models.common")
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for kind, made in classes.items():
        setattr(sys.modules[made.__module__], kind, made)

    def unload() -> None:
        for name in names:
            monkeypatch.delitem(sys.modules, name)

    return types.SimpleNamespace(**classes, unload=unload)


def small_network(published: types.SimpleNamespace) -> Any:
    """Two layers: a convolution with a batch norm, and one with buffers of all kinds."""
    torch.manual_seed(3)
    conv = published.Conv()
    conv.conv = torch.nn.Conv2d(3, 4, 3, bias=False)
    conv.bn = torch.nn.BatchNorm2d(4, eps=1e-3)
    detect = published.Detect()
    weights = torch.arange(24.0).reshape(4, 6)
    detect.register_parameter("turned", torch.nn.Parameter(weights.t()))
    detect.register_buffer("part", weights[1:3, 2:5])  # shares its storage
    detect.register_buffer("passing", torch.ones(2), persistent=False)
    detect.register_buffer("nothing", None)
    detect.register_buffer("flags", torch.tensor([True, False]))
    detect.register_buffer("empty", torch.zeros(0, 5))
    detect.stride = torch.tensor([8.0, 16.0, 32.0])
    network = published.Model()
    network.model = torch.nn.Sequential(conv, detect)
    network.names = ["person", "head"]
    network.yaml = {"nc": 2, "depth_multiple": 0.33, "backbone": [[-1, 1, "Focus", [64, 3]]]}
    return network.half()


def save(content: Any, path: Path, *, zip_format: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zip_format)
    return path


def test_fixture_gives_every_tensor_bit_by_bit() -> None:
    assert "models.yolo" not in sys.modules
    checkpoint = load_checkpoint(FIXTURE)
    with np.load(FIXTURE.with_name(f"{FIXTURE.stem}_statedict.npz")) as expected:
        assert list(checkpoint.state_dict) == expected.files and len(expected.files) == 362
        for name in expected.files:
            found = checkpoint.state_dict[name].numpy()
            assert found.dtype == expected[name].dtype and found.shape == expected[name].shape
            assert found.tobytes() == expected[name].tobytes(), name
    assert checkpoint.meta["names"] == ["person", "head"]
    assert checkpoint.meta["norm_eps"] == 1e-3
    assert checkpoint.meta["layers"][0] == "Focus" and checkpoint.meta["layers"][24] == "Detect"
    assert checkpoint.left_out == (
        "epoch", "best_fitness", "training_results", "optimizer", "wandb_id"
    )  # fmt: skip


@CONTAINERS
def test_any_network_gives_its_state_dict(
    tmp_path: Path, published: types.SimpleNamespace, zip_format: bool
) -> None:
    network = small_network(published)
    content = {"epoch": 3, "best_fitness": np.array([0.5]), "model": network}
    path = save(content, tmp_path / "last.pt", zip_format=zip_format)
    expected = network.state_dict()
    published.unload()
    checkpoint = load_checkpoint(path)
    assert list(checkpoint.state_dict) == list(expected)
    for name, value in expected.items():
        assert checkpoint.state_dict[name].dtype == value.dtype
        assert torch.equal(checkpoint.state_dict[name], value), name
    assert checkpoint.meta["names"] == ["person", "head"]
    assert checkpoint.meta["yaml"] == {"nc": 2, "depth_multiple": 0.33}
    assert load_state_dict(path).meta == checkpoint.meta


@CONTAINERS
def test_a_training_that_goes_on_has_optimizer_and_average(
    tmp_path: Path, published: types.SimpleNamespace, zip_format: bool
) -> None:
    network, average = small_network(published), small_network(published)
    with torch.no_grad():
        average.model[0].conv.weight.fill_(2)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    sum(p.float().sum() for p in network.parameters()).backward()
    optimizer.step()
    content = {
        "epoch": 3, "training_results": "3/299 0.1", "model": network, "ema": average,
        "optimizer": optimizer.state_dict(), "opt": {"save_dir": Path("runs")},
    }  # fmt: skip
    path = save(content, tmp_path / "last.pt", zip_format=zip_format)
    published.unload()
    state_dict = load_state_dict(path)
    assert (state_dict["model.0.conv.weight"] == 2).all()


class Evil:
    """Pickles into a call of os.system that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@CONTAINERS
@pytest.mark.parametrize("where", ["beside", "names", "inside", "before"])
def test_hostile_network_is_refused_by_name_and_never_runs(
    tmp_path: Path, published: types.SimpleNamespace, zip_format: bool, where: str
) -> None:
    mark = tmp_path / "mark"
    network = small_network(published)
    content: dict[str, Any] = {"model": network}
    if where == "beside":
        content["optimizer"] = Evil(mark)
    elif where == "names":
        network.names = ["person", Evil(mark)]
    elif where == "inside":
        network.model[0].bn.training = Evil(mark)
    else:
        content = {"epoch": Evil(mark), **content}
    path = save(content, tmp_path / "evil.pt", zip_format=zip_format)
    published.unload()
    with pytest.raises(UnsafeCheckpoint, match=r"evil\.pt requests (posix|nt)\.system") as caught:
        load_checkpoint(path)
    assert "nothing of it was run" in " ".join(str(caught.value).split())
    assert not mark.exists()


def allow_everything(name: str) -> bool:
    return True


@pytest.mark.parametrize(
    "attack",
    [
        b"cos\nsystem\n(X\x04\x00\x00\x00truetR.",
        b"cbuiltins\neval\n(X\x03\x00\x00\x001/0tR.",
        b"cmodels.yolo\nModel\n)\x81(X\x0c\x00\x00\x00__setstate__cos\nsystem\nd0}b.",
    ],
    ids=["system", "eval", "setstate"],
)
def test_machine_writes_calls_down_and_makes_none(attack: bytes) -> None:
    """Even where every name is allowed, what comes out is data."""
    try:
        value, _ = read_pickle(b"\x80\x02" + attack, allow_everything)
    except DamagedPickle:
        return
    assert type(value).__module__ == "bmp_ros.weights.inert_pickle"


def test_state_cannot_be_set_on_a_type_or_function() -> None:
    """The standard unpickler would put attributes onto the shared object."""
    attack = b"\x80\x02cmodels.yolo\nModel\n}X\x01\x00\x00\x00xK\x01sb."
    with pytest.raises(DamagedPickle, match="sets the state of a Global"):
        read_pickle(attack, allow_everything)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x04]\x94.", "protocol 4"),
        (b"\x80\x02r\xff\xff\xff\xff.", "damaged"),  # remembers, with an empty stack
        (b"\x80\x02Nr\xff\xff\xff\x7f.", None),  # a large number of memory costs nothing
        (b"\x80\x02X\xff\xff\xff\x7fab", "ends too early"),
        (b"\x80\x02ios\nsystem\n", "0x69"),
        (b"\x80\x02" + b"(" * 1000 + b".", "none"),
        (b"\x80\x02}" + b")" + b"\x85" * 20_000 + b"Ks.", None),
        (b"\x80\x02}" + b")" + b"\x85" * 20_000 + b"K\x01s.", "tuple as a key"),
        (b"", "early"),
    ],
    ids=["protocol", "memory", "large index", "long text", "protocol 0", "marks", "cut", "key",
         "empty"],
)  # fmt: skip
def test_damage_and_bombs_of_a_pickle(data: bytes, message: str | None) -> None:
    if message is None:
        try:
            read_pickle(data, allow_everything)
        except DamagedPickle:
            pass
        return
    with pytest.raises(DamagedPickle, match=message):
        read_pickle(data, allow_everything)


def _fixture_pickle() -> bytes:
    with zipfile.ZipFile(FIXTURE) as archive:
        return archive.read(f"{FIXTURE.stem}/data.pkl")


PICKLE = _fixture_pickle()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, len(PICKLE) - 1), st.integers(1, 255), st.integers(0, 12))
def test_altered_bytes_of_a_pickle(position: int, change: int, lost: int) -> None:
    altered = bytearray(PICKLE)
    altered[position] ^= change
    del altered[position + 1 : position + 1 + lost]
    try:
        read_pickle(bytes(altered), pickled_modules.is_known)
    except (DamagedPickle, RefusedName):
        pass


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=40), st.sampled_from([2, 200, 1000, 40_000, 80_000]))
def test_foreign_bytes_in_a_pickle(inserted: bytes, position: int) -> None:
    try:
        read_pickle(PICKLE[:position] + inserted + PICKLE[position:], allow_everything)
    except DamagedPickle:
        pass


@CONTAINERS
def test_a_file_cut_short_or_altered(
    tmp_path: Path, published: types.SimpleNamespace, zip_format: bool
) -> None:
    path = save({"model": small_network(published)}, tmp_path / "w.pt", zip_format=zip_format)
    published.unload()
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(BadCheckpoint, match="cut short"):
            load_checkpoint(path)
    refused = 0
    for position in rng.integers(0, len(whole), 80):
        altered = bytearray(whole)
        altered[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(altered)
        try:
            load_checkpoint(path)  # values of tensors may have changed, no more
        except (BadCheckpoint, UnsafeCheckpoint):
            refused += 1
    assert refused > 5


def rewritten(
    source: Path, target: Path, change: Callable[[str, bytes], bytes], compress: str = ""
) -> Path:
    """A copy of an archive with some entries changed, or one compressed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            data = change(info.filename, old.read(info))
            method = zipfile.ZIP_DEFLATED if info.filename.endswith(compress or "\0") else 0
            new.writestr(info.filename, data, method)
    return target


def test_archives_that_torch_does_not_write(tmp_path: Path) -> None:
    def unchanged(name: str, data: bytes) -> bytes:
        return data

    def shorter(name: str, data: bytes) -> bytes:
        return data[:-2] if name.endswith("/data/0") else data

    def big_endian(name: str, data: bytes) -> bytes:
        return b"big" if name.endswith("byteorder") else data

    path = tmp_path / "w.pt"
    for change, compress, message in (
        (unchanged, "data/3", "data/3 is compressed"),
        (unchanged, "data.pkl", "data.pkl is compressed"),
        (shorter, "", "data/0 has 1726 bytes, expected 1728"),
        (big_endian, "", "byte order"),
    ):
        rewritten(FIXTURE, path, change, compress)
        with pytest.raises(BadCheckpoint, match=message):
            pickled_modules.load_pickled_module(path)
    rewritten(FIXTURE, path, unchanged)
    assert len(pickled_modules.load_pickled_module(path)["state_dict"]) == 362


@pytest.mark.parametrize(
    ("offset", "size", "stride", "length"),
    [
        (0, (1 << 40,), (0,), 4),  # terabytes by repetition
        (0, (3,), (2,), 4),
        (2, (3,), (1,), 4),
        (0, (2, 2), (1,), 4),
        (-1, (2,), (1,), 4),
        (0, (4,), (-1,), 4),
        (0, (2,), (1 << 62,), 4),
        (0, (1,) * 9, (1,) * 9, 4),
        (0, (True,), (1,), 4),
        (0, "ab", (1, 1), 4),
        (0, (4,), (1,), 1 << 40),
    ],
)
def test_tensors_that_reach_beyond_their_storage(
    tmp_path: Path, offset: int, size: Any, stride: Any, length: int
) -> None:
    rebuild = pickle_global("torch._utils", "_rebuild_tensor_v2")
    storage = tuple_of(
        pickled("storage"), pickle_global("torch", "FloatStorage"), pickled("0"), pickled("cpu"),
        pickled(length),
    ) + b"Q"  # fmt: skip
    tensor = rebuild + tuple_of(
        storage, pickled(offset), pickled(size), pickled(stride), b"\x89", b"}"
    ) + b"R"  # fmt: skip
    state = b"}(" + pickled("_parameters") + b"}" + pickled("w") + tensor + b"su"
    model = pickle_global("models.yolo", "Model") + b")\x81" + state + b"b"
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", b"\x80\x02}" + pickled("model") + model + b"s.")
        archive.writestr("w/data/0", np.arange(4, dtype="<f4").tobytes())
    with pytest.raises(
        BadCheckpoint, match="w has no valid shape|reaches beyond|longer than the file"
    ):
        pickled_modules.load_pickled_module(path)


def pickled(value: Any) -> bytes:
    """A plain value as instructions of protocol 2."""
    return pickletools.optimize(pickle.dumps(value, protocol=2))[2:-1]


def pickle_global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def test_modules_without_end(tmp_path: Path) -> None:
    """A module that is its own part, and thirty levels of twice the level below."""
    model = pickle_global("models.yolo", "Model") + b")\x81"
    circle = model + b"q\x00}" + pickled("_modules") + b"}" + pickled("a") + b"h\x00" + b"ssb"
    level = model + b"}b"
    for index in range(31):
        twice = b"}(" + pickled("a") + b"h" + bytes([index + 1]) + pickled("b") + b"h"
        twice += bytes([index + 1]) + b"u"
        level += b"q" + bytes([index + 1]) + b"0" + model + b"}" + pickled("_modules") + twice
        level += b"sb"
    for content in (circle, level):
        path = tmp_path / "w.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("w/data.pkl", b"\x80\x02}" + pickled("model") + content + b"s.")
        with pytest.raises(BadCheckpoint, match="more than 20000 modules"):
            pickled_modules.load_pickled_module(path)


def test_legacy_storage_of_another_length(
    tmp_path: Path, published: types.SimpleNamespace
) -> None:
    path = save({"model": small_network(published)}, tmp_path / "w.pt", zip_format=False)
    published.unload()
    content = path.read_bytes()
    weights = struct.pack("<q", 4 * 3 * 3 * 3)
    assert content.count(weights) == 1
    path.write_bytes(content.replace(weights, struct.pack("<q", 1 << 40)))
    with pytest.raises(BadCheckpoint, match="a length that nothing mentions"):
        load_checkpoint(path)


def test_an_object_that_is_no_network(tmp_path: Path, published: types.SimpleNamespace) -> None:
    path = save({"parts": [small_network(published)]}, tmp_path / "w.pt")
    published.unload()
    with pytest.raises(BadCheckpoint, match="neither tensors by name nor a network"):
        load_checkpoint(path)
