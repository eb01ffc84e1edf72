# SPDX-License-Identifier: Apache-2.0
"""``bmp models``, run as users run it: in a process of its own."""

from __future__ import annotations

import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test" / "stand_ins"))

from weights_server import WeightsServer, sha256, weights_server  # noqa: E402

from bmp_ros.weights.zoo import LICENCES, HubFile, load_zoo  # noqa: E402

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

GPL = ("--accept-licence", "GPL-3.0")
CONTENT = random.Random(0).randbytes(1_000_003)
ZOO = load_zoo(ROOT / "models" / "zoo.yaml")


@pytest.fixture
def server():
    """The hub with every file of the catalogue that comes from it; each has its own bytes."""
    with weights_server() as files:
        for weights in ZOO:
            if isinstance(weights.origin, HubFile):
                key = f"{weights.origin.repo}/{weights.origin.file}"
                files.hub[key] = CONTENT + weights.name.encode()
                files.revisions.add(weights.origin.revision)
        yield files


@pytest.fixture
def environment(server: WeightsServer, tmp_path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return kept | {
        "BMP_MODELS": str(tmp_path / "models"),
        "HF_HOME": str(tmp_path / "hub"),
        "HF_ENDPOINT": server.url,
        "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }


@pytest.fixture
def bmp(environment, tmp_path):
    """Run ``bmp models ...`` to its end."""

    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bmp_ros", "models", *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
            cwd=tmp_path,
            env={**environment, **changes},
        )

    return run


def test_list_shows_every_name_with_its_licence(bmp):
    done = bmp("list")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    for weights in ZOO:
        assert weights.licence in lines[weights.name]
        assert weights.network in lines[weights.name]


def test_download_of_a_preset_brings_its_files_and_shows_the_licences(bmp, tmp_path):
    done = bmp("download", "bmp_v2", *GPL)
    assert done.returncode == 0, done.stderr
    for weights in ZOO.for_preset("bmp_v2"):
        path = tmp_path / "models" / weights.file_name
        assert path.read_bytes() == CONTENT + weights.name.encode()
        notice = done.stdout.index(weights.licence_notice)
        assert notice < done.stdout.index(f"{weights.name}: {path}"), "the licence comes first"
    verified = bmp("verify")
    assert verified.returncode == 0, verified.stdout
    assert verified.stdout.count("right, by the pin") == 3
    listed = bmp("list", "--here").stdout
    assert "pmpose-b-1.0.0" in listed and "maskpose-b-1.0.0" not in listed
    assert bmp("path", "pmpose-b-1.0.0").stdout.strip() == str(
        tmp_path / "models" / "PMPose-b-1.0.0.pth"
    )


def test_download_for_a_preset_of_ones_own(bmp, tmp_path):
    preset = yaml.safe_load((ROOT / "config" / "presets" / "bmp_v2.yaml").read_text())
    preset["detector"]["weights"] = str(tmp_path / "my_own.pth")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(preset))
    done = bmp("download", "mine.yaml", *GPL)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "models").glob("*.p*t*")} == {
        "PMPose-b-1.0.0.pth",
        "SAM-pose2seg_hiera_b+.pt",
    }


def test_verify_reports_a_damaged_file(bmp, tmp_path):
    bmp("download", "maskpose-b-1.0.0", "sam-pose2seg-b+", *GPL)
    (tmp_path / "models" / "MaskPose-b-1.0.0.pth").write_bytes(b"damaged")
    done = bmp("verify")
    assert done.returncode == 1
    assert "maskpose-b-1.0.0: FAILED" in done.stdout
    assert "sam-pose2seg-b+: right" in done.stdout


def test_path_without_a_name_is_the_models_folder(bmp, tmp_path):
    assert bmp("path").stdout.strip() == str(tmp_path / "models")


def test_missing_weights_end_with_one_line_that_names_the_command(bmp):
    done = bmp("path", "maskpose-b-1.0.0")
    assert done.returncode == 1 and not done.stdout
    assert "`bmp models download maskpose-b-1.0.0`" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_name_is_answered_with_the_nearest(bmp, server):
    done = bmp("download", "bmp_d33")
    assert done.returncode == 1
    assert "bmp_d3" in done.stderr and "Traceback" not in done.stderr
    assert not server.requests


def test_one_failure_does_not_keep_the_others_away(bmp, server, tmp_path):
    origin = ZOO["pmpose-b-1.0.0"].origin
    assert isinstance(origin, HubFile)
    del server.hub[f"{origin.repo}/{origin.file}"]
    done = bmp("download", "bmp_v2", *GPL)
    assert done.returncode == 1
    assert "has no file PMPose/PMPose-b-1.0.0.pth" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in (tmp_path / "models").glob("*.p*t*")} == {
        "rtmdet-ins-l-mask.pth",
        "SAM-pose2seg_hiera_b+.pt",
    }


def test_offline_is_one_line(bmp, server):
    done = bmp("download", "bmp_v2", *GPL, HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "HF_HUB_OFFLINE" in done.stderr and "Traceback" not in done.stderr
    assert not server.requests


def test_replaced_bytes_are_accepted_with_repin(bmp, server, tmp_path):
    assert bmp("download", "maskpose-b-1.0.0", *GPL).returncode == 0
    origin = ZOO["maskpose-b-1.0.0"].origin
    assert isinstance(origin, HubFile)
    server.hub[f"{origin.repo}/{origin.file}"] = b"new bytes"
    path = tmp_path / "models" / "MaskPose-b-1.0.0.pth"
    path.unlink()
    refused = bmp("download", "maskpose-b-1.0.0", *GPL)
    assert refused.returncode == 1 and "--repin" in refused.stderr and not path.exists()
    assert bmp("download", "--repin", "maskpose-b-1.0.0", *GPL).returncode == 0
    assert path.read_bytes() == b"new bytes"
    assert sha256(b"new bytes") in bmp("verify").stdout


def test_ctrl_c_keeps_what_has_come(bmp, server, environment, tmp_path):
    server.cut_after, server.hold = 600_000, threading.Event()
    process = subprocess.Popen(
        [sys.executable, "-m", "bmp_ros", "models", "download", "maskpose-b-1.0.0", *GPL],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment,
        # A shell starts background jobs, this test run perhaps, with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "models").glob(".*.part")):
            assert process.poll() is None and time.monotonic() < deadline, "no part appeared"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        server.hold.set()
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "repeat the command to resume" in errors and "Traceback" not in errors
    assert len(list((tmp_path / "models").glob(".*.part"))) == 1
    server.cut_after, server.hold = None, None
    assert bmp("download", "maskpose-b-1.0.0", *GPL).returncode == 0


@pytest.mark.parametrize(
    ("answer", "downloads"), [("n", False), ("", False), ("y", True), ("YES", True)]
)
def test_in_a_terminal_it_asks_for_the_licence(environment, tmp_path, answer, downloads):
    status, output, errors = in_a_terminal(environment, tmp_path, answer, "maskpose-b-1.0.0")
    assert ZOO["maskpose-b-1.0.0"].licence_notice in output
    assert LICENCES["GPL-3.0"].text in output and "[y/N]" in output
    assert status == (0 if downloads else 1), errors
    assert ("--accept-licence GPL-3.0" in errors) != downloads
    assert (tmp_path / "models" / "MaskPose-b-1.0.0.pth").exists() == downloads


def test_what_was_accepted_before_is_not_asked_again(environment, tmp_path):
    status, output, _ = in_a_terminal(environment, tmp_path, "n", "maskpose-b-1.0.0", *GPL)
    assert status == 0 and "[y/N]" not in output
    status, output, _ = in_a_terminal(environment, tmp_path, "n", "maskpose-b-1.0.0")
    assert status == 0 and "[y/N]" not in output, "the file is on this machine already"


def in_a_terminal(environment, folder, answer: str, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of ``bmp models download`` with a terminal as its input."""
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "bmp_ros", "models", "download", *arguments],
        stdin=inside,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
    )
    try:
        os.write(terminal, f"{answer}\n".encode())
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        os.close(inside)
    return process.returncode, output, errors


@pytest.mark.parametrize("flags", [(), ("--yes",), ("--accept-licence", "MIT")])
def test_without_consent_no_byte_of_a_gpl_file_is_fetched(bmp, server, tmp_path, flags):
    done = bmp("download", "bmp_d3", *flags)  # one of its files is Apache-2.0
    assert done.returncode == 1
    for words in ("GPL-3.0", "rtmdet-ins-l-mask", "maskpose-b-1.0.0", "--accept-licence GPL-3.0"):
        assert words in done.stderr
    assert "bmp models show rtmdet-ins-l-mask" in done.stderr and "sam2" not in done.stderr
    assert not server.requests and not (tmp_path / "models").exists()


def test_permissive_weights_need_no_consent(bmp, server, tmp_path):
    """A step further, and the stand-in's bytes are refused: the catalogue has the true hash."""
    done = bmp("download", "sam2.1-hiera-tiny")
    assert done.returncode == 1 and "--accept-licence" not in done.stderr
    assert "sam2.1-hiera-tiny" in done.stderr and ZOO["sam2.1-hiera-tiny"].sha256 in done.stderr
    assert not server.bodies() and not list((tmp_path / "models").glob("*.pt"))


def test_an_unknown_licence_is_refused_naming_the_known_ones(bmp, server):
    done = bmp("download", "bmp_d3", "--accept-licence", "GPL3")
    assert done.returncode == 2 and "GPL3" in done.stderr and "GPL-3.0" in done.stderr
    assert not server.requests


def test_show_says_licence_origin_size_and_hash(bmp):
    done = bmp("show", "bmp_d3", "maskpose-b-1.0.0", "tiny")
    assert done.returncode == 0, done.stderr
    for weights in ZOO.for_preset("bmp_d3"):
        assert done.stdout.count(f"\n{weights.name}\n") + done.stdout.startswith(weights.name) == 1
        assert str(weights.origin) in done.stdout
        assert LICENCES[weights.licence].text in done.stdout
    assert str(ZOO["sam2.1-hiera-base-plus"].sha256) in done.stdout and "324 MB" in done.stdout
    assert "81c58e40…; pinned" in bmp("show", "hrnet-w32-coco").stdout


@pytest.mark.parametrize("arguments", [[], ["fetch"], ["download"], ["show"]])
def test_wrong_usage_is_explained(bmp, arguments):
    done = bmp(*arguments)
    assert done.returncode == 2 and "usage" in done.stderr


def presets() -> list[Path]:
    return sorted((ROOT / "config" / "presets").glob("*.yaml"))


@pytest.mark.parametrize("path", presets(), ids=lambda path: path.stem)
def test_catalogue_and_preset_name_the_same_weights(path):
    preset = yaml.safe_load(path.read_text())
    roles = [preset.get(role) or {} for role in ("detector", "pose_estimator", "segmenter")]
    named = {role["weights"] for role in roles if "weights" in role}
    named = {name for name in named if not name.startswith("tiny/")}  # come with the package
    assert named == {weights.name for weights in ZOO.for_preset(path.stem)}


def test_every_preset_in_the_catalogue_exists():
    assert set(ZOO.presets) <= {path.stem for path in presets()}


def test_a_preset_without_downloads_says_so(bmp):
    without = [path.stem for path in presets() if path.stem not in ZOO.presets]
    if not without:
        pytest.skip("every preset of this checkout needs a download")
    done = bmp("download", without[0])
    assert done.returncode == 0 and "nothing to download" in done.stdout


def test_the_stand_in_is_not_needed_for_list(environment, tmp_path):
    """The command works from an empty folder with nothing but a home."""
    shutil.rmtree(tmp_path / "models", ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "bmp_ros", "models", "list"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**environment, "HF_ENDPOINT": "http://127.0.0.1:1"},
    )
    assert done.returncode == 0 and not (tmp_path / "models").exists()
