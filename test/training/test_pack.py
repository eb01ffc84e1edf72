# SPDX-License-Identifier: Apache-2.0
"""Packs: parts of limited size that give back every byte, or say which part is to blame."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photographs import write_photographs
from test_recipe import write_recipe

from bmp_ros.training.command import main as train
from bmp_ros.training.pack import MANIFEST, files_of_recipes, main, pack, unpack

MIB = 1 << 20


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["a", "b/c", "d/e.bin", "z"]), st.binary(max_size=300)),
    st.integers(1, 200),
)
def test_files_come_back_and_no_part_is_too_large(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("pack")
    files = {}
    for number, (name, content) in enumerate(contents.items()):
        files[name] = folder / f"source_{number}"
        files[name].write_bytes(content)
    parts = pack(files, folder / "packed", limit / MIB)
    assert all(part.stat().st_size <= limit for part in parts)
    unpack(folder / "packed", folder / "back")
    assert {name: (folder / "back" / name).read_bytes() for name in files} == contents


def packed(folder: Path) -> Path:
    (folder / "one").write_bytes(bytes(range(200)))
    pack({"one": folder / "one"}, folder / "packed", 64 / MIB)
    return folder / "packed"


def test_a_missing_or_cut_part_is_named(tmp_path: Path) -> None:
    parts = packed(tmp_path)
    (parts / "part_001.bin").write_bytes(b"1234")
    with pytest.raises(ValueError, match=r"part_001\.bin has 4 bytes instead of 64"):
        unpack(parts, tmp_path / "back")
    (parts / "part_001.bin").unlink()
    with pytest.raises(ValueError, match=r"part_001\.bin has 0 bytes"):
        unpack(parts, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    part = packed(tmp_path) / "part_002.bin"
    part.write_bytes(part.read_bytes()[::-1])
    with pytest.raises(ValueError, match="one is damaged"):
        unpack(part.parent, tmp_path / "back")
    assert not any((tmp_path / "back").iterdir())


@pytest.mark.parametrize("name", ["../one", "/tmp/one", "a/../../one"])
def test_nothing_is_written_elsewhere(name: str, tmp_path: Path) -> None:
    parts = packed(tmp_path)
    manifest = json.loads((parts / MANIFEST).read_text())
    manifest["files"][0]["name"] = name
    (parts / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="not below"):
        unpack(parts, tmp_path / "back")


def test_a_folder_that_holds_a_pack_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = packed(tmp_path)
    assert main(["files", str(tmp_path), "--output", str(parts)]) == 1
    assert "holds a pack already" in capsys.readouterr().err
    assert main(["unpack", str(tmp_path / "nothing"), "--output", str(tmp_path / "back")]) == 1
    assert "is no pack" in capsys.readouterr().err


def test_a_recipe_trains_from_what_was_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What networks saw included: its file must fit the images on the other machine."""
    monkeypatch.setattr("bmp_ros.training.trainer.VALIDATION_BATCHES", 1)
    write_photographs(tmp_path / "photographs")
    schedule = {"steps": 1, "batch": 1, "warmup": 1, "save_every": 1}
    recipe = write_recipe(tmp_path, network="segmenter", schedule=schedule)
    cache = tmp_path / "cache"
    files = files_of_recipes([recipe], tmp_path, cache)
    assert {"recipes/recipe.yaml", "recipes/kept.json", "photographs/people.json"} < set(files)
    assert sum(name.endswith(".jpg") for name in files) == 12, "those kept aside as well"
    seen = next(cache.glob("*.labels")).with_suffix(".seen")
    seen.write_bytes(b"\x80\x04N.")  # a pickled None
    options = ["--root", str(tmp_path), "--cache", str(cache), "--largest", "0.01"]
    assert main(["data", str(recipe), "--output", str(tmp_path / "packed"), *options]) == 0
    there = tmp_path / "there"
    assert main(["unpack", str(tmp_path / "packed"), "--output", str(there)]) == 0
    assert (there / "cache" / seen.name).is_file()
    options = ["--root", str(there), "--cache", str(there / "cache"), "--threads", "1"]
    recipe = there / "recipes" / "recipe.yaml"
    assert train([str(recipe), "--output", str(there / "out"), *options]) == 0
    names = {file.name for file in (there / "cache").glob("*.labels")}
    assert seen.with_suffix(".labels").name in names, "the same key"
    assert main(["files", str(there / "out"), "--output", str(there / "results"),
                 "--largest", "1"]) == 0  # fmt: skip
    assert max(part.stat().st_size for part in (there / "results").glob("*.bin")) <= MIB
