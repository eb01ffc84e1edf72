# SPDX-License-Identifier: Apache-2.0
"""The catalogue, and names -> files on this machine. No network."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bmp_ros.weights.errors import InvalidZoo, UnknownWeights, WeightsMissing
from bmp_ros.weights.zoo import HubFile, UrlFile, load_zoo, locate, models_dir

ROOT = Path(__file__).resolve().parents[2]


# ---------------------------------------------------------------- the catalogue


def test_the_shipped_catalogue_is_valid_and_says_what_matters():
    zoo = load_zoo(ROOT / "models" / "zoo.yaml")
    assert {file.name for file in zoo.for_preset("bmp_d3")} == {
        "rtmdet-ins-l-mask",
        "maskpose-b-1.0.0",
        "sam2.1-hiera-base-plus",
    }
    assert {file.name for file in zoo.for_preset("bmp_v2")} == {
        "rtmdet-ins-l-mask",
        "pmpose-b-1.0.0",
        "sam-pose2seg-b+",
    }
    for file in zoo:
        ours = any(word in str(file.origin) for word in ("BBoxMaskPose", "ultralytics/yolov5"))
        if isinstance(file.origin, HubFile | UrlFile):
            assert file.licence == ("GPL-3.0" if ours else "Apache-2.0"), file.name
        if "facebook/sam2" in str(file.origin):
            assert file.sha256 and file.size and "main" not in str(file.origin), file.name
        if "openmmlab" in str(file.origin):
            assert file.sha256_prefix and len(file.sha256_prefix) == 8, file.name


def test_the_licence_notice_says_what_gpl_means():
    notice = load_zoo(ROOT / "models" / "zoo.yaml")["maskpose-b-1.0.0"].licence_notice
    for words in ("GPL-3.0", "combination", "code of bmp_ros itself is Apache-2.0"):
        assert words in notice


GOOD = {
    "role": "pose_estimator",
    "network": "n",
    "licence": "GPL-3.0",
    "url": "https://host/net.pth",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sise": 3}, r"net: unknown key 'sise'; did you mean 'size'"),
        ({"role": None}, r"net: role is None, allowed: .* detector, pose_estimator, segmenter"),
        ({"role": "pose"}, r"net: role is 'pose', allowed: "),
        ({"licence": "mit"}, r"net: licence is 'mit', allowed: .*Apache-2.0, MIT, .*GPL-3.0"),
        ({"size": "big"}, r"net: size is 'big', allowed: a whole number from 1"),
        ({"size": True}, r"net: size is True"),
        ({"size": 0}, r"net: size is 0"),
        ({"sha256": "123"}, r"net: sha256 must be 64 lower-case hex digits"),
        ({"sha256": 123}, r"net: sha256 is 123"),
        ({"presets": "bmp_d3"}, r"net: presets is 'bmp_d3', allowed: a list"),
        ({"presets": [3]}, r"net: presets is \[3\]"),
        ({"url": "ftp://host/net.pth"}, r"net: url must be https://"),
        ({"url": "http://host/net.pth"}, r"net: url must be https://"),
        ({"url": "https://host/"}, r"net: url must be https://"),
        ({"hub": {"repo": "a/b", "file": "c", "revision": "d"}}, r"exactly one of"),
        ({"network": 3}, r"net: network is 3, allowed: a string"),
        ({"manual": {"page": "https://drive", "name": "n.pth"}}, r"exactly one of"),
    ],
)
def test_a_wrong_entry_is_refused_naming_file_key_and_what_is_allowed(tmp_path, change, message):
    path = tmp_path / "my_zoo.yaml"
    path.write_text(yaml.safe_dump({"weights": {"net": {**GOOD, **change}}}))
    with pytest.raises(InvalidZoo, match=message) as caught:
        load_zoo(path)
    assert "my_zoo.yaml" in str(caught.value)


@pytest.mark.parametrize("missing", ["role", "network", "licence", "url"])
def test_a_missing_key_is_named(tmp_path, missing):
    path = tmp_path / "zoo.yaml"
    entry = {key: value for key, value in GOOD.items() if key != missing}
    path.write_text(yaml.safe_dump({"weights": {"net": entry}}))
    with pytest.raises(InvalidZoo, match=missing):
        load_zoo(path)


BY_HAND = {"page": "https://drive.example/folder", "name": "by_hand.pth"}


@pytest.mark.parametrize(
    ("manual", "message"),
    [
        ("https://drive.example/folder", r"net: manual must be a mapping"),
        ({"page": BY_HAND["page"]}, r"net: manual: key 'name' is missing"),
        ({**BY_HAND, "page": "drive.example"}, r"manual: page must be https"),
        ({**BY_HAND, "name": "a/by_hand.pth"}, r"manual: name must be a file name .*\.pth"),
        ({**BY_HAND, "name": "by_hand"}, r"manual: name must be a file name .*\.pth"),
    ],
)
def test_a_wrong_manual_entry_is_refused(tmp_path, manual, message, write_zoo):
    with pytest.raises(InvalidZoo, match=message):
        load_zoo(write_zoo(tmp_path / "z.yaml", net={"manual": manual}))


def test_what_no_program_may_fetch_says_how_to_get_it_by_hand(models, tmp_path, write_zoo):
    entry = {"manual": BY_HAND, "licence": "OmniPose-non-commercial"}
    zoo = load_zoo(write_zoo(tmp_path / "z.yaml", net=entry))
    assert not zoo["net"].by_program
    with pytest.raises(WeightsMissing) as caught:
        locate("net", zoo)
    for words in (BY_HAND["page"], "non-commercial use only", "`bmp models import FILE`",
                  str(models / "by_hand.pth")):  # fmt: skip
        assert words in str(caught.value)
    models.mkdir()
    (models / "by_hand.pth").touch()
    assert locate("net", zoo) == models / "by_hand.pth"


def test_a_hub_entry_needs_all_three_keys(tmp_path, write_zoo):
    with pytest.raises(InvalidZoo, match="hub: key 'revision' is missing"):
        load_zoo(write_zoo(tmp_path / "z.yaml", net={"hub": {"repo": "a/b", "file": "c"}}))


@pytest.mark.parametrize("text", ["", "weights: 3", "weights: [a", "- a", "networks: {}"])
def test_what_is_not_a_catalogue_is_refused(tmp_path, text):
    path = tmp_path / "zoo.yaml"
    path.write_text(text)
    with pytest.raises(InvalidZoo, match=r"zoo\.yaml"):
        load_zoo(path)


def test_two_entries_cannot_share_a_file_name(tmp_path, write_zoo):
    a, b = {"url": "https://one/net.pth"}, {"url": "https://two/net.pth"}
    with pytest.raises(InvalidZoo, match=r"one and two share the file net\.pth"):
        load_zoo(write_zoo(tmp_path / "zoo.yaml", one=a, two=b))


# ---------------------------------------------------------------- names -> files


def test_the_models_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("BMP_MODELS", str(tmp_path / "mine"))
    assert models_dir() == tmp_path / "mine"
    monkeypatch.delenv("BMP_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert models_dir() == tmp_path / "cache" / "bmp_ros" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models_dir() == tmp_path / ".cache" / "bmp_ros" / "models"


def test_missing_weights_name_the_command_and_the_place(models):
    zoo = load_zoo(ROOT / "models" / "zoo.yaml")
    with pytest.raises(WeightsMissing) as caught:
        locate("maskpose-b-1.0.0", zoo)
    assert "`bmp models download maskpose-b-1.0.0`" in str(caught.value)
    assert str(models / "MaskPose-b-1.0.0.pth") in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("maskpose-b-1.0", "maskpose-b-1.0.0"),
        ("sam2.1-hiera-base+", "sam2.1-hiera-base-plus"),
        ("bmp_d4", "bmp_d3"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(models, wrong, near):
    zoo = load_zoo(ROOT / "models" / "zoo.yaml")
    for ask in (lambda: locate(wrong, zoo), lambda: zoo[wrong], lambda: zoo.resolve(wrong)):
        with pytest.raises(UnknownWeights, match="did you mean") as caught:
            ask()
        assert near in str(caught.value)


def test_a_path_is_accepted_wherever_a_name_is(models, tmp_path, monkeypatch):
    zoo = load_zoo(ROOT / "models" / "zoo.yaml")
    (tmp_path / "mine.pth").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    for given in (tmp_path / "mine.pth", str(tmp_path / "mine.pth"), "mine.pth", "./mine.pth"):
        assert locate(given, zoo) == tmp_path / "mine.pth"
    for missing in ("no.pth", "./no", Path("no"), str(tmp_path / "no.pt")):
        with pytest.raises(WeightsMissing, match="there is no weights file /"):
            locate(missing, zoo)


def test_a_converted_file_counts_as_installed(models):
    zoo = load_zoo(ROOT / "models" / "zoo.yaml")
    models.mkdir()
    (models / "MaskPose-b-1.0.0.safetensors").write_bytes(b"x")
    assert locate("maskpose-b-1.0.0", zoo) == models / "MaskPose-b-1.0.0.safetensors"
