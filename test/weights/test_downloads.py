# SPDX-License-Identifier: Apache-2.0
"""Downloads from a stand-in for the hub that misbehaves, and pins."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test" / "stand_ins"))

from weights_server import COMMIT, WeightsServer, sha256, weights_server  # noqa: E402

from bmp_ros.weights import remote  # noqa: E402
from bmp_ros.weights.downloads import download, read_pins, verify  # noqa: E402
from bmp_ros.weights.errors import (  # noqa: E402
    DiskFull,
    DownloadCancelled,
    DownloadFailed,
    WeightsError,
    WeightsMissing,
    WrongHash,
)
from bmp_ros.weights.zoo import Zoo, load_zoo, locate  # noqa: E402

CONTENT = random.Random(0).randbytes(1_000_003)
OTHER = random.Random(1).randbytes(1_000_003)
REPO = "some-lab/some-networks"


@pytest.fixture
def server(models, monkeypatch, tmp_path):
    constants = pytest.importorskip(
        "huggingface_hub.constants", reason="huggingface_hub is not installed"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setattr(remote, "RETRY_WAITS_S", (0.01,))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with weights_server() as files:
        monkeypatch.setenv("HF_ENDPOINT", files.url)
        files.hub[f"{REPO}/Networks/net_b+.pth"] = CONTENT
        files.plain[f"/coco/net-{sha256(CONTENT)[:8]}_20220909.pth"] = CONTENT
        yield files


@pytest.fixture
def zoo(server: WeightsServer, tmp_path, write_zoo) -> Zoo:
    hub = {"repo": REPO, "file": "Networks/net_b+.pth", "revision": "main"}
    url = f"{server.url}/coco/net-{sha256(CONTENT)[:8]}_20220909.pth"
    return load_zoo(write_zoo(tmp_path / "zoo.yaml", hub_net={"hub": hub}, url_net={"url": url}))


@pytest.fixture
def fetch(zoo):
    """download() with the zoo of the tests."""

    def run(name: str, **options: object) -> Path:
        return download(name, zoo=zoo, **options)

    return run


BOTH = pytest.mark.parametrize("name", ["hub-net", "url-net"])


def parts(models: Path) -> list[Path]:
    return sorted(models.glob(".*.part"))


def test_what_no_program_may_fetch_is_not_tried(models, tmp_path, write_zoo):
    manual = {"page": "https://drive.example/folder", "name": "by_hand.pth"}
    zoo = load_zoo(write_zoo(tmp_path / "zoo.yaml", net={"manual": manual}))
    with pytest.raises(DownloadFailed, match=r"drive\.example/folder .*bmp models import"):
        download("net", zoo=zoo)
    (models / "by_hand.pth").write_bytes(CONTENT)
    assert download("net", zoo=zoo) == models / "by_hand.pth"


# ---------------------------------------------------------------- downloads that go well


@BOTH
def test_a_good_download(fetch, zoo, models, name):
    licences: list[str] = []
    steps: list[tuple[int, int | None]] = []
    path = fetch(
        name, on_licence=licences.append, progress=lambda here, total: steps.append((here, total))
    )
    assert path == locate(name, zoo) and path.read_bytes() == CONTENT
    assert len(licences) == 1 and "GPL-3.0" in licences[0]
    assert steps[0] == (0, len(CONTENT)) and steps[-1] == (len(CONTENT), len(CONTENT))
    assert [here for here, _ in steps] == sorted(here for here, _ in steps)
    pin = read_pins(models)[name]
    assert (pin.sha256, pin.size) == (sha256(CONTENT), len(CONTENT))
    assert (COMMIT in pin.source) == (name == "hub-net")
    assert not parts(models)
    assert verify(name, zoo).against


@BOTH
def test_the_second_time_nothing_is_asked(fetch, server, name):
    fetch(name)
    server.requests.clear()
    server.status = 500
    assert fetch(name).read_bytes() == CONTENT
    assert not server.requests


@BOTH
def test_a_file_copied_from_another_machine_is_checked_and_pinned(
    fetch, server, zoo, models, name
):
    models.mkdir()
    (models / zoo[name].file_name).write_bytes(CONTENT)
    fetch(name)
    assert not server.bodies(), "it was there already"
    assert read_pins(models)[name].sha256 == sha256(CONTENT)


def test_the_cache_of_the_hub_is_used(fetch, server, zoo, models, tmp_path):
    blob = (
        tmp_path / "hub_cache" / f"models--{REPO.replace('/', '--')}" / "blobs" / sha256(CONTENT)
    )
    snapshot = blob.parent.parent / "snapshots" / COMMIT / "Networks" / "net_b+.pth"
    for folder in (blob.parent, snapshot.parent, blob.parent.parent / "refs"):
        folder.mkdir(parents=True)
    blob.write_bytes(CONTENT)
    snapshot.symlink_to(blob)
    (blob.parent.parent / "refs" / "main").write_text(COMMIT)
    assert fetch("hub-net").read_bytes() == CONTENT
    assert not server.bodies()


def test_the_cache_of_the_hub_is_used_offline(fetch, server, models, tmp_path, monkeypatch):
    test_the_cache_of_the_hub_is_used(fetch, server, None, models, tmp_path)
    (models / "net_b+.pth").unlink()
    server.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch("hub-net").read_bytes() == CONTENT
    assert not server.requests


# ---------------------------------------------------------------- downloads that go wrong


@BOTH
def test_cut_in_the_middle_then_resumed_by_the_next_call(fetch, server, zoo, models, name):
    server.cut_after, server.down_after_cut = 400_000, True
    with pytest.raises(DownloadFailed, match="503.*400000 bytes are kept"):
        fetch(name)
    assert [part.stat().st_size for part in parts(models)] == [400_000]
    with pytest.raises(WeightsMissing):
        locate(name, zoo)
    server.cut_after, server.status = None, None
    server.requests.clear()
    assert fetch(name).read_bytes() == CONTENT
    assert server.bodies() == ["bytes=400000-"], "only the rest was asked for"
    assert not parts(models)


@BOTH
def test_a_link_that_keeps_breaking_gets_there(fetch, server, name):
    server.cut_after = 300_000
    assert fetch(name).read_bytes() == CONTENT
    assert server.bodies() == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


@BOTH
def test_a_server_without_ranges_starts_over(fetch, server, models, name):
    server.cut_after, server.down_after_cut = 400_000, True
    with pytest.raises(DownloadFailed):
        fetch(name)
    server.cut_after, server.status, server.range_supported = None, None, False
    assert fetch(name).read_bytes() == CONTENT


@BOTH
def test_a_part_that_is_too_long_or_of_other_bytes_does_no_harm(fetch, zoo, models, name):
    models.mkdir()
    part = models / f".{zoo[name].file_name}.{sha256(CONTENT)[:8]}.part"
    part.write_bytes(CONTENT + b"more")
    assert fetch(name).read_bytes() == CONTENT
    (models / zoo[name].file_name).unlink()
    part.write_bytes(OTHER[:1000])
    with pytest.raises(WrongHash):
        fetch(name)
    assert not parts(models), "the next call starts afresh"
    assert fetch(name).read_bytes() == CONTENT


@BOTH
def test_corrupted_bytes_are_refused_and_the_old_file_stays(fetch, server, zoo, models, name):
    models.mkdir()
    old = models / zoo[name].file_name
    old.write_bytes(b"an older version")
    server.corrupt = True
    with pytest.raises(WrongHash, match="deleted and nothing was changed"):
        fetch(name)
    assert old.read_bytes() == b"an older version"
    assert not parts(models) and not read_pins(models)


@BOTH
def test_a_damaged_file_is_noticed_and_replaced(fetch, zoo, models, name):
    path = fetch(name)
    path.write_bytes(OTHER)
    with pytest.raises(WrongHash, match=rf"`bmp models download {name}` replaces it"):
        verify(name, zoo)
    assert fetch(name).read_bytes() == CONTENT


def test_bytes_other_than_the_pinned_ones_are_refused_until_accepted(fetch, server, models):
    path = fetch("hub-net")
    server.hub[f"{REPO}/Networks/net_b+.pth"] = OTHER
    assert fetch("hub-net").read_bytes() == CONTENT, "the pinned file is here and right"
    path.unlink()
    with pytest.raises(WrongHash, match=r"`bmp models download --repin hub-net` accepts it"):
        fetch("hub-net")
    assert not path.exists() and not parts(models)
    assert fetch("hub-net", repin=True).read_bytes() == OTHER
    assert read_pins(models)["hub-net"].sha256 == sha256(OTHER)


def test_a_hash_in_the_catalogue_outranks_the_server(server, models, tmp_path, write_zoo):
    hub = {"repo": REPO, "file": "Networks/net_b+.pth", "revision": COMMIT}
    entry = {"hub": hub, "sha256": sha256(OTHER)}
    zoo = load_zoo(write_zoo(tmp_path / "zoo.yaml", net=entry))
    for repin in (False, True):
        with pytest.raises(WrongHash, match="expected hash is that of models/zoo.yaml"):
            download("net", zoo=zoo, repin=repin)
    assert not server.bodies(), "refused before the first byte"


def test_a_size_other_than_the_catalogue_says_is_refused(server, models, tmp_path, write_zoo):
    hub = {"repo": REPO, "file": "Networks/net_b+.pth", "revision": "main"}
    zoo = load_zoo(write_zoo(tmp_path / "zoo.yaml", net={"hub": hub, "size": 5}))
    with pytest.raises(DownloadFailed, match="has 1000003 bytes, the catalogue says 5"):
        download("net", zoo=zoo)


def test_a_lying_hub_is_found_out(fetch, server, models):
    server.advertised_sha256 = sha256(OTHER)
    with pytest.raises(WrongHash):
        fetch("hub-net")
    assert not parts(models)


@BOTH
def test_offline_says_so_and_asks_nothing(fetch, server, monkeypatch, models, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadFailed, match="HF_HUB_OFFLINE forbids downloads") as caught:
        fetch(name)
    assert str(models) in str(caught.value)
    assert not server.requests


@BOTH
def test_offline_is_no_trouble_where_the_file_is(fetch, zoo, monkeypatch, models, caplog, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    models.mkdir()
    (models / zoo[name].file_name).write_bytes(CONTENT)
    with caplog.at_level(logging.WARNING):
        assert fetch(name).read_bytes() == CONTENT
    assert "hash cannot be checked while offline" in caplog.text


@BOTH
@pytest.mark.parametrize("status", [404, 403, 500])
def test_errors_of_the_server(fetch, server, models, name, status):
    server.status = status
    with pytest.raises(DownloadFailed, match=str(status)):
        fetch(name)
    assert not parts(models)


@BOTH
def test_no_server_at_all(server, fetch, monkeypatch, zoo, tmp_path, name, write_zoo):
    nowhere = "http://127.0.0.1:1"
    monkeypatch.setenv("HF_ENDPOINT", nowhere)
    url = {"url": f"{nowhere}/net.pth"}
    hub = {"hub": {"repo": REPO, "file": "Networks/net_b+.pth", "revision": "main"}}
    zoo = load_zoo(write_zoo(tmp_path / "z.yaml", net=url if name == "url-net" else hub))
    with pytest.raises(DownloadFailed, match=r"no connection|no answer from the hub"):
        download("net", zoo=zoo)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repo": "some-lab/nothing"}, "there is no repository some-lab/nothing"),
        ({"file": "Networks/none.pth"}, r"has no file Networks/none\.pth at main"),
        ({"revision": "v9"}, "has no revision v9"),
    ],
)
def test_what_the_hub_does_not_have(server, models, tmp_path, change, message, write_zoo):
    hub = {"repo": REPO, "file": "Networks/net_b+.pth", "revision": "main", **change}
    zoo = load_zoo(write_zoo(tmp_path / "zoo.yaml", net={"hub": hub}))
    with pytest.raises(DownloadFailed, match=message):
        download("net", zoo=zoo)


@BOTH
def test_a_cancelled_download_keeps_its_part(fetch, zoo, models, name):
    here = 0

    def progress(done: int, total: int | None) -> None:
        nonlocal here
        here = done

    with pytest.raises(DownloadCancelled):
        fetch(name, progress=progress, cancelled=lambda: here > 300_000)
    assert [part.stat().st_size for part in parts(models)] == [here]
    with pytest.raises(WeightsMissing):
        locate(name, zoo)
    assert fetch(name).read_bytes() == CONTENT


@BOTH
def test_an_interrupt_keeps_the_part_and_the_old_file(fetch, server, zoo, models, name):
    models.mkdir()
    old = models / zoo[name].file_name
    old.write_bytes(b"an older version")

    def interrupt(done: int, total: int | None) -> None:
        if done > 300_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(name, progress=interrupt)
    assert old.read_bytes() == b"an older version"
    kept = parts(models)[0].stat().st_size
    assert kept > 300_000
    server.requests.clear()
    assert fetch(name).read_bytes() == CONTENT
    assert server.bodies() == [f"bytes={kept}-"]


@BOTH
def test_too_little_room_is_noticed_before_the_first_byte(fetch, zoo, models, monkeypatch, name):
    models.mkdir()
    old = models / zoo[name].file_name
    old.write_bytes(b"an older version")
    usage = type("usage", (), {"free": 500_000})
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFull, match=r"has 0 MB free, 1 MB are needed: free some space"):
        fetch(name)
    assert old.read_bytes() == b"an older version" and not parts(models)


@BOTH
def test_a_disk_that_fills_up_leaves_the_old_file_and_no_part(server, zoo, models, tmp_path, name):
    """The system itself refuses the write: a file-size limit on a process of its own."""
    models.mkdir()
    old = models / zoo[name].file_name
    old.write_bytes(b"an older version")
    script = f"""
        import resource
        from bmp_ros.weights.downloads import download
        from bmp_ros.weights.errors import DiskFull
        from bmp_ros.weights.zoo import load_zoo
        zoo = load_zoo({str(tmp_path / "zoo.yaml")!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
        try:
            download({name!r}, zoo=zoo)
        except DiskFull as error:
            print("DiskFull:", error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert "DiskFull:" in done.stdout and "the partial file was removed" in done.stdout
    assert old.read_bytes() == b"an older version" and not parts(models)


def test_the_disk_fills_up_while_a_cached_copy_is_taken(fetch, server, tmp_path, monkeypatch):
    test_the_cache_of_the_hub_is_used(fetch, server, None, tmp_path / "models", tmp_path)
    (tmp_path / "models" / "net_b+.pth").unlink()

    def no_room(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bmp_ros.weights.downloads.shutil.copyfile", no_room)
    with pytest.raises(DiskFull, match="No space left on device"):
        fetch("hub-net")
    assert not parts(tmp_path / "models")


@BOTH
def test_a_models_folder_that_cannot_be_written(fetch, models, name):
    models.write_text("a file where the folder should be")
    with pytest.raises(DownloadFailed, match="cannot be written to .* BMP_MODELS"):
        fetch(name)


def test_two_at_once_download_once(fetch, server, models):
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(fetch("hub-net").read_bytes()))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [CONTENT] * 3
    assert len(server.bodies()) == 1


# ---------------------------------------------------------------- pins


def test_verify_without_anything_to_compare_with_says_so(models, tmp_path):
    zoo = load_zoo(ROOT / "models" / "zoo.yaml")
    models.mkdir()
    (models / "MaskPose-b-1.0.0.pth").write_bytes(CONTENT)
    verified = verify("maskpose-b-1.0.0", zoo)
    assert verified.sha256 == sha256(CONTENT) and verified.against is None


def test_verify_knows_the_hash_in_an_openmmlab_file_name(models):
    zoo = load_zoo(ROOT / "models" / "zoo.yaml")
    models.mkdir()
    (models / zoo["hrnet-w32-coco"].file_name).write_bytes(CONTENT)
    with pytest.raises(WrongHash, match="the catalogue says 81c58e40"):
        verify("hrnet-w32-coco", zoo)


def test_a_damaged_pins_file_is_named(fetch, models):
    fetch("hub-net")
    (models / "pinned.json").write_text("{")
    with pytest.raises(WeightsError, match=r"pinned\.json is damaged"):
        fetch("hub-net")


def test_pins_are_readable_by_people(fetch, models):
    fetch("hub-net")
    fetch("url-net")
    pins = json.loads((models / "pinned.json").read_text())
    assert list(pins) == ["hub-net", "url-net"]
    assert set(pins["url-net"]) == {"file", "size", "sha256", "source"}
