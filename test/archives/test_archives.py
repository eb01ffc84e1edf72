# SPDX-License-Identifier: Apache-2.0
"""Archives by processes: the same outputs, whoever dies; nothing twice, nothing by halves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed (requirements/bags.txt)")
import image_loops
from archive import (
    LIMIT_S,
    Killer,
    files_of,
    make_archive,
    orders,
    outputs,
    write_image,
    write_video,
)
from image_loops import BLACK, WHITE
from test_bag import write_bag

from bmp_ros.archives.files import find_files
from bmp_ros.archives.pools import Pool, ProcessPool
from bmp_ros.archives.run import ArchiveError, run_archive
from bmp_ros.archives.work import STAGE_NAME, Orders, process_file, read_report
from bmp_ros.cli.main import main
from bmp_ros.image_files import shown_name
from bmp_ros.offline.infer_files import infer
from bmp_ros.offline.sources import open_source


def run(folder: Path, output: Path, workers: int, given: Orders | None = None, **options):
    given = given or orders()

    def make_pool(most: int) -> Pool:
        return ProcessPool(given, output, min(workers, most))

    return run_archive(files_of(folder), given, output, make_pool, **options)


def test_what_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_archive(tmp_path / "in")
    write_bag(archive / "bags" / "one")
    write_bag(tmp_path / "bare")
    (mcap,) = (tmp_path / "bare").glob("*.mcap")
    mcap.rename(archive / "bags" / "two.mcap")
    write_image(archive / ".hidden" / "x.png", 3)
    write_image(archive / "out" / "old.png", 3)
    (archive / "elsewhere").symlink_to(tmp_path)
    found, left_out = find_files(archive, archive / "out")
    kinds = {each.name: each.kind for each in found}
    assert kinds == {
        "a.mp4": "video", "deep/a.mp4": "video", "bags/one": "bag", "bags/two.mcap": "bag",
        "i0.png": "image", "i2.png": "image", "i4.png": "image",
        "deep/er/i1.png": "image", "deep/er/i3.png": "image",
    }  # fmt: skip
    assert left_out == "1 *.txt, 1 link to a folder"
    (archive / "bags" / "one" / "gone").symlink_to("nowhere")  # no reason to end

    def scandir(folder: str, look: Any = os.scandir) -> Any:
        if Path(folder).name == "er":
            raise PermissionError(13, "Permission denied", folder)
        return look(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    found, left_out = find_files(archive, archive / "out")
    assert len(found) == len(kinds) - 2
    assert "1 folder that cannot be read" in left_out


def one_by_one(folder: Path, output: Path, *names: str) -> dict[str, bytes]:
    """Outputs of files, by default all, in this process."""
    given = orders()
    loop = given.build(**given.options)
    for file in files_of(folder):
        if not names or file.name in names:
            process_file(loop, file, given, output)
    return outputs(output)


def test_two_workers_write_what_one_process_writes_and_bmp_infer(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "in")
    write_bag(archive / "bag")
    two = tmp_path / "two"
    outcome = run(archive, two, 2)
    assert (len(outcome.reports), outcome.deaths, outcome.failed) == (8, 0, {})
    assert sum(each.images for each in outcome.reports) == 5 + 12 + 8 + 5
    written = outputs(two)
    assert written == one_by_one(archive, tmp_path / "one")
    assert {"bag/people.mcap", "deep/er/i1.png/i1.png", "a.mp4/results.json"} <= set(written)
    given = orders()
    for name in ("a.mp4", "deep/er/i3.png"):
        alone = tmp_path / "alone" / name
        source = archive / name
        infer(
            given.build(**given.options), open_source(str(source)), alone, given.wanted,
            info={"source": shown_name(source)},
        )  # fmt: skip
        assert outputs(alone) == outputs(two / name)
    assert not (two / STAGE_NAME).exists()


def test_a_worker_that_is_killed_costs_one_attempt(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "in")
    write_video(archive / "long.mp4", 60)
    killer = Killer(tmp_path / "two", "long.mp4")
    outcome = run(archive, tmp_path / "two", 2, orders(slow_s=0.03))
    assert killer.killed and outcome.deaths == 1 and not outcome.failed
    assert len(outcome.reports) == 8
    assert outputs(tmp_path / "two") == one_by_one(archive, tmp_path / "one")
    (line,) = (tmp_path / "two" / "attempts.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert entry["file"] == "long.mp4" and "SIGKILL" in entry["reason"]


def test_files_that_kill_their_workers_are_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "in")
    write_image(archive / "poison.png", WHITE)
    write_image(archive / "too_large.png", BLACK)
    (archive / "broken.mp4").write_bytes(b"no video")
    (archive / "broken.mcap").write_bytes(b"no bag")
    output = tmp_path / "out"
    outcome = run(archive, output, 2)
    assert outcome.deaths == 3, "of the poison; an exception costs no worker"
    assert set(outcome.failed) == {"poison.png", "broken.mcap"}
    assert "SIGKILL" in outcome.failed["poison.png"]
    assert "attempt 3 of 3" in outcome.failed["poison.png"]
    reports = {each.name: each for each in outcome.reports}
    assert len(reports) == 9 and "broken.mp4" in reports["broken.mp4"].failures[0]
    assert "out of memory" in reports["too_large.png"].failures[0]
    assert not (output / "poison.png").exists()
    # The next start knows, and needs no workers.
    again = run_archive(files_of(archive), orders(), output, lambda most: pytest.fail("workers"))
    assert (again.skipped, again.deaths, set(again.failed)) == (9, 0, set(outcome.failed))
    write_image(archive / "poison.png", 77)  # another file now
    write_image(archive / "too_large.png", 78)
    third = run(archive, output, 1, retry_failed=True)
    assert set(third.failed) == {"broken.mcap"} and third.skipped == 7, "broken.mp4 again as well"
    assert read_report(output / "poison.png") is not None
    assert len((output / "attempts.jsonl").read_text().splitlines()) == 1, "tried again"


def test_what_is_done_is_skipped_and_what_has_changed_is_not(tmp_path: Path) -> None:
    archive, output = make_archive(tmp_path / "in"), tmp_path / "out"
    before = one_by_one(archive, output)
    kept = (output / "i0.png" / "done.json").stat().st_mtime_ns
    shutil.rmtree(output / "a.mp4")  # as if it had never been complete
    write_image(archive / "i2.png", 200)
    outcome = run(archive, output, 1)
    assert outcome.skipped == 5 and len(outcome.reports) == 7
    after = outputs(output)
    assert {name for name in after if after[name] != before[name]} == {
        "i2.png/i2.png", "i2.png/results.json",
    }  # fmt: skip
    assert (output / "i0.png" / "done.json").stat().st_mtime_ns == kept


def test_results_of_other_options_are_not_mixed(tmp_path: Path) -> None:
    archive, output = make_archive(tmp_path / "in"), tmp_path / "out"
    one_by_one(archive, output)
    with pytest.raises(ArchiveError, match="with other options"):
        run(archive, output, 1, Orders({}, track=True, build=orders().build))


@pytest.mark.parametrize("where", [".", "bags"])
def test_what_lies_where_outputs_belong_stays(tmp_path: Path, where: str) -> None:
    """Recordings above all: with outputs beside their inputs, a bag is such a folder itself."""
    archive, output = tmp_path / "archive", tmp_path / "archive" / where
    write_bag(archive / "bag")
    write_image(archive / "a.png", 90)
    write_bag(archive / "bags" / "bag")
    before = {path: path.read_bytes() for path in archive.rglob("*") if path.is_file()}
    files, _ = find_files(archive, output)
    assert {"bag", "a.png"} <= {file.name for file in files}
    with pytest.raises(ArchiveError, match="bag is there.*choose another --output"):
        run_archive([file for file in files if file.name == "bag"], orders(), output, no_pool)
    if where == ".":
        with pytest.raises(ArchiveError, match="a.png is there"):
            run_archive([file for file in files if file.name != "bag"], orders(), output, no_pool)
    for file in files:  # nor does a worker that is told nevertheless
        if file.name == "bag" or where == ".":
            with pytest.raises(FileExistsError, match="no earlier output"):
                process_file(image_loops.build(), file, orders(), output)
    assert before == {path: path.read_bytes() for path in before}


def no_pool(most: int) -> Pool:
    raise AssertionError("work begins")


@pytest.mark.parametrize("broken", ["weights are missing", "die"])
def test_networks_that_cannot_be_built_end_it(tmp_path: Path, broken: str) -> None:
    archive = make_archive(tmp_path / "in")
    reason = "weights are missing" if broken != "die" else "workers die while they load.*SIGKILL"
    with pytest.raises(ArchiveError, match=reason):
        run(archive, tmp_path / "out", 2, orders(broken=broken))


COMMAND = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from archive import files_of, orders
from bmp_ros.archives.pools import ProcessPool
from bmp_ros.archives.run import run_archive
if __name__ == "__main__":
    given, output = orders(slow_s=0.005), Path({output!r})
    run_archive(
        files_of(Path({archive!r})), given, output,
        lambda most: ProcessPool(given, output, 2),
    )
"""


def test_an_ended_start_leaves_whole_results_and_the_next_one_goes_on(tmp_path: Path) -> None:
    archive, output = make_archive(tmp_path / "in"), tmp_path / "out"
    for name in ("long", "longer"):
        write_video(archive / f"{name}.mp4", 100)
    script = tmp_path / "start.py"
    script.write_text(
        COMMAND.format(paths=sys.path, output=str(output), archive=str(archive)), encoding="utf-8"
    )
    driver = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    until = time.monotonic() + LIMIT_S
    while not (stages := list((output / STAGE_NAME).glob("*/*.mp4"))):
        assert time.monotonic() < until and driver.poll() is None
        time.sleep(0.01)
    with pytest.raises(ArchiveError, match="another process writes"):
        run(archive, output, 1)
    workers = {int(stage.parent.name.rpartition("-")[2]) for stage in stages}
    driver.send_signal(signal.SIGKILL)
    driver.wait(LIMIT_S)
    while any(_lives(worker) for worker in workers):
        assert time.monotonic() < until, "workers end with the process that started them"
        time.sleep(0.01)
    names = {each.name for each in files_of(archive)}
    done = {name for name in names if (output / name).exists()}
    assert all(read_report(output / name) for name in done), "whole or not there"
    assert done != names
    outcome = run(archive, output, 2, orders(slow_s=0.005))
    assert outcome.skipped == len(done) and len(outcome.reports) == len(names)
    assert outputs(output) == one_by_one(archive, tmp_path / "whole")


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive, output = tmp_path / "in", tmp_path / "out"
    write_image(archive / "a.png", 90)
    write_image(archive / "deep" / "b.png", 90)
    (archive / "deep" / "c.png").write_bytes(b"no image")
    for skipped, source in ((0, archive), (3, archive / "deep" / "..")):  # spelled otherwise
        arguments = ["--source", str(source), "--workers", "2", "--output", str(output)]
        assert main(["infer", *arguments, "--json"]) == 1, "c.png cannot be read"
        said = capsys.readouterr()
        assert f"3 of 3 files ({skipped} were done before, 0 failed), 2 images" in said.out
        assert "deep/c.png" in said.err
    assert (output / "deep" / "b.png" / "results.json").is_file()


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--source", "a.png", "--workers", "2"], "are for folders"),
        (["--source", ".", "--workers", "0"], "must be 1 to 1000"),
        (["--source", ".", "--workers", "1", "--count", "3"], "--count goes without"),
        (["--source", ".", "--copy-bags"], "--copy-bags is for archives"),
        (["--source", ".", "--workers", "1"], "no bag, video or image"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, capsys, arguments, reason) -> None:
    write_image(tmp_path / "a.png", 9)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path if arguments[1] != "." else tmp_path / "empty")
    assert main(["infer", *arguments]) == 1
    assert reason in capsys.readouterr().err
