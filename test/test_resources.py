# SPDX-License-Identifier: Apache-2.0
"""Presets, zoo and tiny networks are found however the package was installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bmp_ros import resources

CHECKOUT = Path(__file__).resolve().parent.parent

REPORT = """
import json, bmp_ros.resources as r
found = [r.zoo_path(), r.find_preset("bmp_d3"), r.tiny_network("example")]
print(json.dumps({"presets": r.preset_names(), "root": str(r.resource_root()),
                  "contents": [p.read_text() for p in found]}))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy of the checkout without what was built, with one tiny network more."""
    folder = tmp_path_factory.mktemp("source") / "bmp"
    ignored = shutil.ignore_patterns(".*", "build", "install", "log", "out", "__pycache__", "test")
    shutil.copytree(CHECKOUT, folder, ignore=ignored)
    tiny = folder / "models" / "tiny"
    tiny.mkdir(exist_ok=True)
    (tiny / "example.onnx").write_text("a network")
    return folder


def run(command: list[str | Path], **environment: str) -> str:
    """Run in an empty environment but for PATH, so that nothing of this checkout is found."""
    kept = {k: os.environ[k] for k in ("PATH", "HOME", "LD_LIBRARY_PATH") if k in os.environ}
    kept["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] = "1"
    done = subprocess.run(
        [str(part) for part in command],
        env=kept | environment,
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_found(output: str, source: Path, root: Path) -> None:
    found = json.loads(output.splitlines()[-1])
    assert Path(found["root"]) == root
    assert found["presets"] == sorted(p.stem for p in source.glob("config/presets/*.yaml"))
    expected = ("models/zoo.yaml", "config/presets/bmp_d3.yaml", "models/tiny/example.onnx")
    assert found["contents"] == [(source / path).read_text() for path in expected]


def test_checkout(source: Path) -> None:
    check_found(run([sys.executable, "-c", REPORT], PYTHONPATH=str(source)), source, source)


def test_pip_install_into_a_folder(source: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "-q"]
    run([*pip, "--target", tmp_path, source])
    output = run([sys.executable, "-c", REPORT], PYTHONPATH=str(tmp_path))
    check_found(output, source, tmp_path / "share" / "bmp_ros")


@pytest.mark.parametrize("editable", [False, True])
def test_pip_install_into_a_virtual_environment(
    source: Path, tmp_path: Path, editable: bool
) -> None:
    venv = tmp_path / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", venv])
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "install"]
    # The new environment has no setuptools of its own: it borrows this one's.
    libraries = {"PYTHONPATH": str(Path(pytest.__file__).parent.parent)}
    options = ["--no-deps", "--no-build-isolation", "-q", *(["-e"] if editable else [])]
    run([*pip, *options, source], **libraries)
    output = run([venv / "bin" / "python", "-c", REPORT])
    check_found(output, source, source if editable else venv / "share" / "bmp_ros")


@pytest.mark.parametrize("symlink", [False, True])
def test_colcon_build(source: Path, tmp_path: Path, symlink: bool) -> None:
    colcon = shutil.which("colcon")
    if colcon is None:
        pytest.skip("colcon is not installed (make test brings it)")
    install = tmp_path / "install"
    options = [
        "--base-paths",
        source,
        "--build-base",
        tmp_path / "build",
        "--install-base",
        install,
    ]
    link = ["--symlink-install"] if symlink else []
    run([colcon, "--log-base", tmp_path / "log", "build", *options, *link])
    workspace = ["sh", "-c", f'. "{install}/local_setup.sh" && exec "$@"', "sh"]
    root = source if symlink else install / "bmp_ros" / "share" / "bmp_ros"
    check_found(run([*workspace, sys.executable, "-c", REPORT]), source, root)
    assert "verbs" in run([*workspace, install / "bmp_ros" / "lib" / "bmp_ros" / "bmp", "--help"])


def test_preset_of_ones_own(tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text("description: mine\n")
    assert resources.find_preset(preset) == preset
    assert resources.find_preset(str(preset)) == preset


@pytest.mark.parametrize("wanted", ["bmp_d4", "config/presets/bmp_d4.yaml", "bmp_d4.yaml"])
def test_missing_preset_names_those_there_are(wanted: str) -> None:
    with pytest.raises(FileNotFoundError, match="bmp_d4.*bmp_d3"):
        resources.find_preset(wanted)


def test_missing_network_names_those_there_are() -> None:
    with pytest.raises(FileNotFoundError, match="'rtmdet_x'.*there are: "):
        resources.tiny_network("rtmdet_x")
