# SPDX-License-Identifier: Apache-2.0
"""Which networks the node takes by default, and which weights it downloads by itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from node_harness import Lab

from bmp_ros.engines.build import locate_weights
from bmp_ros.engines.presets import load_preset
from bmp_ros.loop import BMPLoop
from bmp_ros.weights.zoo import PERMISSIVE, HubFile, installed_path, load_zoo

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "stand_ins"))

from weights_server import WeightsServer, weights_server  # noqa: E402


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("BMP_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The hub, with files under the names of bmp_v2's, all GPL-3.0."""
    constants = pytest.importorskip(
        "huggingface_hub.constants", reason="huggingface_hub is not installed"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with weights_server() as files:
        monkeypatch.setenv("HF_ENDPOINT", files.url)
        for weights in load_zoo().for_preset("bmp_v2"):
            assert isinstance(weights.origin, HubFile)
            files.hub[f"{weights.origin.repo}/{weights.origin.file}"] = weights.name.encode()
        yield files


@pytest.fixture
def build(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """Scripted networks, as soon as the preset's weights are on this machine."""
    # Which need no libraries.
    monkeypatch.setattr("bmp_ros.ros.engine_loading.missing_libraries", lambda preset: [])
    presets: list[str] = []

    def build(preset: str, device: str, **options: Any) -> BMPLoop:
        locate_weights(load_preset(preset))
        presets.append(preset)
        return lab.networks.build_loop(preset, device)

    build.presets = presets  # type: ignore[attr-defined]
    return build


def values(status: Any) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def test_preset_auto_is_said_with_its_reason_and_what_would_give_more(lab: Lab, build) -> None:
    """No weights are here, so it is tiny whatever GPU this machine has."""
    lab.start(preset="auto", build_loop=build)
    lab.wait_for_log("preset auto: tiny, because", "bmp_d3")
    lab.wait_for_state("active")
    said = values(lab.diagnosis(": engines", lambda s: s.level == b"\0", "OK"))
    assert said["preset"] == "tiny" and said["chosen by auto because"]
    assert "bmp models download bmp_d3 --accept-licence GPL-3.0" in said["for the full networks"]
    assert build.presets == ["tiny"] and lab.get("preset") == "auto"
    assert lab.get("oks_threshold") == load_preset("tiny").loop.oks_threshold


def test_another_preset_says_nothing_of_auto(lab: Lab) -> None:
    lab.start_active(preset="bmp_j1")
    said = values(lab.diagnosis(": engines", lambda s: s.level == b"\0", "OK"))
    assert said["preset"] == "bmp_j1" and "chosen by auto because" not in said


@pytest.mark.parametrize("accepted", [None, ["MIT"], [""]], ids=["default", "MIT", "none"])
def test_a_licence_that_was_not_accepted_keeps_weights_away(
    lab: Lab, build, server: WeightsServer, models: Path, accepted: list[str] | None
) -> None:
    given = {} if accepted is None else {"accepted_licences": accepted}
    lab.start(preset="bmp_v2", build_loop=build, **given)
    line = lab.wait_for_log("cannot configure", "GPL-3.0", "accepted_licences")
    for words in ("rtmdet-ins-l-mask", "bmp models show rtmdet-ins-l-mask",
                  "bmp models download bmp_v2 --accept-licence GPL-3.0"):  # fmt: skip
        assert words in line
    lab.wait_for_state("unconfigured")
    status = lab.diagnosis(": engines", lambda s: s.level == b"\2", "ERROR")
    assert "accepted_licences" in status.message
    assert not server.requests and not list(models.glob("*"))
    # The remedies: accept the licence, ...
    assert lab.set(accepted_licences=["GPL-3.0"])[0].successful
    assert lab.transition("configure")
    assert all(installed_path(file) for file in load_zoo().for_preset("bmp_v2"))


def test_weights_that_are_here_need_no_licence(lab: Lab, build, models: Path) -> None:
    models.mkdir()
    for weights in load_zoo().for_preset("bmp_v2"):
        (models / weights.file_name).write_bytes(b"x")
    lab.start_active(preset="bmp_v2", build_loop=build, accepted_licences=[""])


def test_an_own_file_that_is_missing_downloads_nothing(
    lab: Lab, build, server: WeightsServer, tmp_path: Path
) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text(
        "description: mine\n"
        "detector: {engine: rtmdet_ins, weights: rtmdet-ins-l-mask}\n"
        "pose_estimator: {engine: vit_pose, weights: nowhere.pth}\n"
    )
    lab.start(preset=str(preset), build_loop=build, accepted_licences=["GPL-3.0"])
    lab.wait_for_log("cannot configure", "nowhere.pth")
    assert not server.requests


@pytest.mark.parametrize("wrong", [["GPL3"], ["Apache-2.0", ""], "MIT", [1]])
def test_a_licence_that_is_unknown_is_refused_naming_the_known(lab: Lab, wrong: Any) -> None:
    lab.start(autostart=False)
    result = lab.set(accepted_licences=wrong)[0]
    assert not result.successful
    for word in ("accepted_licences", repr(wrong), "GPL-3.0"):
        assert word in result.reason
    assert tuple(lab.get("accepted_licences")) == PERMISSIVE


def test_no_licence_at_all_may_be_accepted(lab: Lab) -> None:
    lab.start(autostart=False)
    for nothing in ([""], []):
        assert lab.set(accepted_licences=nothing)[0].successful
        assert lab.node.parameters.engine().accepted_licences == ()


@pytest.mark.parametrize("gpus", [0, 1])
def test_slow_networks_are_advised_a_gpu_only_where_there_is_one(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, gpus: int
) -> None:
    monkeypatch.setattr("bmp_ros.ros.engine_loading._SLOW_S", 0.0)
    monkeypatch.setattr("bmp_ros.ros.engine_loading.cuda_devices", lambda: gpus)
    lab.networks.device = "cpu"
    lab.start(preset="bmp_d3")
    line = lab.wait_for_log("preset bmp_d3 runs on the CPU", "preset:=tiny")
    assert ("device:=cuda" in line) == bool(gpus)
