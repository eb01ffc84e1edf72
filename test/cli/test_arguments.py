# SPDX-License-Identifier: Apache-2.0
"""Arguments that several verbs share."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from bmp_ros.cli.arguments import folder, result_file, result_folder
from bmp_ros.cli.main import main


def test_a_file_that_cannot_be_written_is_found_out_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert result_file(str(tmp_path / "a" / "b" / "c.json")) == tmp_path / "a" / "b" / "c.json"
    assert not (tmp_path / "a").exists()
    assert result_file(str(tmp_path / "file")) == tmp_path / "file"
    for name, message in (("", "is a folder"), ("file/x.json", "is no folder")):
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            result_file(str(tmp_path / name))


def test_what_is_no_path_is_told_as_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty variable of a shell names no folder, least of all the current one."""
    for kind in (folder, result_file, result_folder):
        for text, message in (("", "path is empty"), ("~no_such_user/x", "Write the path out")):
            with pytest.raises(argparse.ArgumentTypeError, match=message):
                kind(text)
    with pytest.raises(SystemExit) as ended:
        main(["infer", "--source", "demo", "--output", ""])
    assert ended.value.code == 2
    assert "--output: the path is empty" in capsys.readouterr().err


def test_what_is_read_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each option beside the files that its verb reads, in other spellings, too."""
    (tmp_path / "images").mkdir()
    for name in ("annotations.json", "bag.mcap"):
        (tmp_path / name).write_text("of the user")
    (tmp_path / "linked.json").symlink_to("annotations.json")
    labels = str(tmp_path / "annotations.json")
    again = str(tmp_path / "images" / ".." / "annotations.json")
    for arguments in (
        ["evaluate", "--dataset", str(tmp_path), "--json", labels],
        ["evaluate", "--mpii", str(tmp_path), "--json", str(tmp_path / "linked.json")],
        ["evaluate", "--dataset", str(tmp_path / "images"), "--annotations", labels, "--json",
         again],
        ["convert", "crowdpose", labels, "--images", str(tmp_path), "--output", again],
        ["view", str(tmp_path / "bag.mcap"), "--save", str(tmp_path / "bag.mcap")],
    ):  # fmt: skip
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert "would be overwritten; choose another" in error or "with .rrd" in error
    for name in ("annotations.json", "bag.mcap"):
        assert (tmp_path / name).read_text() == "of the user"


@pytest.mark.parametrize(
    "verb",
    [
        ["evaluate", "--dataset", "demo", "--json"],
        ["bench", "--json"],
        ["bench", "node", "--json"],
        ["annotate", ".", "--output"],
    ],
)
def test_verbs_refuse_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*verb, str(tmp_path)])
    assert ended.value.code == 2
    assert "is a folder, needs the path of a file" in capsys.readouterr().err


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # tests may run as root
    for kind in (result_file, result_folder):
        with pytest.raises(argparse.ArgumentTypeError, match="cannot be written; choose another"):
            kind(str(tmp_path / "new"))
    assert folder(str(tmp_path)) == tmp_path, "to read, no permission to write is needed"
