# SPDX-License-Identifier: Apache-2.0
"""Engines of one's own: one file each; named by a preset, in a folder, behind an entry point."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from bmp_ros.cli.main import main
from bmp_ros.engines import build_loop, load_preset
from bmp_ros.engines.registry import ROLES, Engine, built_in, installed_points
from bmp_ros.fields import SettingsError

HEAD = """
from dataclasses import dataclass
import numpy as np
from bmp_ros.engines.registry import Engine
from bmp_ros.fields import number_field
from bmp_ros.loop.protocols import Detections, Poses, Segments
from bmp_ros.loop.skeletons import COCO_17

@dataclass(frozen=True)
class Options:
    scale: float = number_field(1.0, low=0.5, high=2.0, text="of what it says")
"""
FILES = {
    "detector": HEAD
    + """
class Middle:
    "Finds one person, in the middle of the picture."
    def __init__(self, options):
        self.scale = options.scale

    def detect(self, frame, *, score_threshold):
        half = np.array([frame.width, frame.height], np.float32) * self.scale / 4
        centre = np.array([frame.width, frame.height], np.float32) / 2
        box = np.concatenate([centre - half, centre + half])
        return Detections(box[None], np.array([0.9], np.float32))

ENGINE = Engine("middle", "detector", Options, lambda options, weights, runtime: Middle(options))
""",
    "pose_estimator": HEAD
    + """
class Column:
    skeleton = COCO_17

    def estimate(self, frame, boxes, masks):
        x = np.repeat(boxes[:, None, [0, 2]].mean(axis=2), 17, axis=1)
        y = boxes[:, 1, None] + np.linspace(0.1, 0.9, 17) * (boxes[:, 3] - boxes[:, 1])[:, None]
        return Poses(np.stack([x, y], axis=2).astype(np.float32), np.full(x.shape, 0.9, "f4"))

ENGINE = Engine("column", "pose_estimator", Options, lambda options, weights, runtime: Column())
""",
    "segmenter": HEAD
    + """
class Square:
    def segment(self, frame, points, labels, masks=None):
        found = np.zeros((len(points), frame.height, frame.width), bool)
        for mask, (x, y) in zip(found, points[:, 0].astype(int)):
            mask[max(0, y - 9) : y + 9, max(0, x - 9) : x + 9] = True
        return Segments(found, np.full(len(points), 0.8, np.float32))

ENGINES = (Engine("square", "segmenter", Options, lambda options, weights, runtime: Square()),)
""",
}
NAMES = {"detector": "middle", "pose_estimator": "column", "segmenter": "square"}
IMAGE = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def preset(folder: Path, **more: Any) -> Path:
    sections = {role: {"engine": name} for role, name in NAMES.items()}
    content = {"description": "Of the test.", **sections, "loop": {"iterations": 1}, **more}
    return write(folder / "mine.yaml", yaml.safe_dump(content))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A preset whose three engines lie in files of their own, in a folder beside it."""
    for role, text in FILES.items():
        write(tmp_path / "own" / f"my_{role}.py", text)
    return preset(tmp_path, engine_files="own")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package on sys.path as pip leaves it: module, metadata, entry points."""
    site = tmp_path / "site"
    write(site / "my_engines.py", FILES["detector"])
    info = site / "my_engines-1.0.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: my-engines\nVersion: 1.0\n")
    write(info / "entry_points.txt", "[bmp_ros.engines]\nmiddle = my_engines\n"
                                     "lens = my_engines:ENGINE\n")  # fmt: skip
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "my_engines", raising=False)
    return site


def test_three_roles_run_by_preset(own: Path) -> None:
    people = build_loop(own)(IMAGE)
    assert len(people) == 1 and people.masks.sum() == 18 * 18
    np.testing.assert_allclose(people.boxes, [[32, 24, 96, 72]])
    people = build_loop(own, detector={"scale": 0.5})(IMAGE)
    np.testing.assert_allclose(people.boxes, [[48, 36, 80, 60]])
    with pytest.raises(SettingsError, match="scale is 9, allowed: a number from 0.5 to 2"):
        build_loop(own, detector={"scale": 9})


def test_they_run_in_infer(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite(str(tmp_path / "picture.png"), IMAGE)
    output = tmp_path / "out"
    arguments = ["infer", "--preset", str(own), "--source", str(tmp_path / "picture.png")]
    assert main([*arguments, "--output", str(output)]) == 0
    assert "1 image, 1 person" in capsys.readouterr().out


def test_they_run_in_the_node(own: Path) -> None:
    loading = pytest.importorskip(
        "bmp_ros.ros.engine_loading", reason="no rclpy here", exc_type=ImportError
    )
    from bmp_ros.ros.settings import EngineSettings

    class Logger:
        said: list[str] = []

        def info(self, line: str) -> None:
            self.said.append(line)

        warning = info

    settings = EngineSettings(preset=str(own))
    engines = loading.load_engines(settings, Logger(), lambda: False)
    assert len(engines.loop(IMAGE)) == 1 and any("ready" in line for line in Logger.said)


def test_a_file_beside_a_preset_is_not_run_unasked(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    write(tmp_path / "middle.py", f"open({str(witness)!r}, 'w')\n{FILES['detector']}")
    with pytest.raises(SettingsError, match="'middle', allowed: .*rtmdet_ins"):
        load_preset(preset(tmp_path))
    assert not witness.exists()


def test_environment_variable(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write(tmp_path / "elsewhere" / "square.py", FILES["segmenter"])
    (tmp_path / "own" / "my_segmenter.py").unlink()
    (tmp_path / "own" / "_draft.py").write_text("raise RuntimeError('not to be loaded')")
    monkeypatch.setenv("BMP_ENGINES", f"{tmp_path / 'own'}{os.pathsep}{one}")
    assert len(build_loop(preset(tmp_path))(IMAGE)) == 1
    # Named by both: still one declaration.
    assert len(build_loop(preset(tmp_path, engine_files="own"))(IMAGE)) == 1


@pytest.mark.parametrize("segmenter", [None])
def test_entry_point(installed: Path, tmp_path: Path, segmenter: None) -> None:
    write(tmp_path / "column.py", FILES["pose_estimator"])
    path = preset(tmp_path, engine_files=["column.py"], segmenter=segmenter)
    assert len(build_loop(path)(IMAGE)) == 1
    with pytest.raises(SettingsError, match=r"my-engines \(entry point lens.* declares middle"):
        load_preset(path, {"detector": {"engine": "lens"}})
    with pytest.raises(SettingsError, match="'midle', allowed.*did you mean 'middle'"):
        load_preset(path, {"detector": {"engine": "midle"}})


def test_packages_that_a_preset_does_not_name_are_not_imported(installed: Path) -> None:
    load_preset("tiny")
    assert "my_engines" not in sys.modules


def test_declared_twice(installed: Path, own: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="declared twice, by .*my_detector.py and by my-engin"):
        load_preset(own)
    (installed / "my_engines-1.0.dist-info" / "entry_points.txt").unlink()
    installed_points.cache_clear()
    write(tmp_path / "own" / "copy.py", FILES["detector"])
    with pytest.raises(SettingsError, match="'middle', which is declared twice.*copy.py"):
        load_preset(own)
    (tmp_path / "own" / "copy.py").unlink()
    write(tmp_path / "own" / "my_detector.py", FILES["detector"].replace('"middle"', '"onnx"'))
    with pytest.raises(SettingsError, match="'onnx', which is declared twice, by bmp_ros and by"):
        load_preset(own, {"detector": {"engine": "onnx"}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_this_name", "broken.py cannot be loaded: ModuleNotFoundError"),
        ("def f(:", "broken.py cannot be loaded: SyntaxError"),
        ("import sys; sys.exit(3)", "broken.py cannot be loaded: SystemExit: 3"),
        ("x = 1", "broken.py cannot be loaded.*declares no engine"),
        ("ENGINE = 'middle'", "declares no engine"),
        (HEAD + "ENGINE = Engine('a', 'nose', Options, print)", "role is 'nose', allowed: detec"),
        (HEAD + "ENGINE = Engine('a b', 'detector', Options, print)", "letters, digits.*'a b'"),
        (HEAD + "ENGINE = Engine('a', 'detector', dict, print)", "options must be a dataclass"),
        (HEAD + "ENGINE = Engine('a', 'detector', Options, 5)", "build must be a function"),
        (HEAD + "ENGINE = Engine('a', 'detector', Options, print, runtime='jax')", "'jax', allo"),
        (HEAD + "ENGINES = [Engine('a', 'detector', Options, print)] * 2", "'a' twice"),
    ],
)
def test_a_file_with_a_mistake(
    text: str, message: str, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = write(tmp_path / "broken.py", text)
    with pytest.raises(SettingsError, match=message):
        load_preset(preset(tmp_path, engine_files=["own", "broken.py"]))
    # A machine's own folder: what does not need the file goes on, who misses it reads why.
    monkeypatch.setenv("BMP_ENGINES", str(broken))
    assert len(build_loop(preset(tmp_path, engine_files="own"))(IMAGE)) == 1
    with pytest.raises(SettingsError, match=f"'iris', allowed.*{message}"):
        load_preset(own, {"detector": {"engine": "iris"}})


def test_an_unknown_engine(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMP_ENGINES", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError) as caught:
        load_preset(own, {"detector": {"engine": "midle"}})
    said = str(caught.value)
    assert said.startswith(
        f"{own}: detector.engine is 'midle', allowed: rtmdet_ins, yolov5, mmdet, onnx"
    )
    assert "did you mean 'middle'?" in said and "engine_files of the preset (own)" in said
    assert f"BMP_ENGINES ({tmp_path / 'nowhere'})" in said
    with pytest.raises(SettingsError, match="'square' is a segmenter"):
        load_preset(own, {"detector": {"engine": "square"}})
    with pytest.raises(SettingsError, match="nowhere is neither a file nor a folder"):
        load_preset(preset(tmp_path, engine_files="nowhere"))
    with pytest.raises(SettingsError, match="engine_files must be a path or a list of paths"):
        load_preset(preset(tmp_path, engine_files={"a": 1}))


def test_a_changed_file_is_loaded_again(own: Path, tmp_path: Path) -> None:
    assert load_preset(own).detector.declaration is load_preset(own).detector.declaration
    file = tmp_path / "own" / "my_detector.py"
    file.write_text(file.read_text().replace('"middle"', '"centre"'))
    os.utime(file, ns=(1, 1))
    with pytest.raises(SettingsError, match="'middle', allowed.*centre"):
        load_preset(own)


def test_a_builder_that_builds_something_else(own: Path, tmp_path: Path) -> None:
    file = tmp_path / "own" / "my_detector.py"
    file.write_text(file.read_text().replace("Middle(options)\n", "0\n"))
    file.write_text(file.read_text().replace(": Middle(options))", ": 5)"))
    with pytest.raises(ValueError, match="engine middle built a int, which is no Detector"):
        build_loop(own)


def test_what_comes_with_the_package() -> None:
    engines = [found.engine for found in built_in()]
    assert {engine.role for engine in engines} == set(ROLES)
    assert len({(engine.role, engine.name) for engine in engines}) == len(engines) >= 10
    exported = {engine.name for engine in engines if engine.export}
    assert exported == {engine.name for engine in engines if engine.random_weights}
    assert exported == {
        "rtmdet_ins", "yolov5", "vit_pose", "conv_pose", "hrnet", "omnipose", "rtmpose", "sam2",
        "point_segmenter",
    }  # fmt: skip
    for engine in engines:
        assert isinstance(engine, Engine) and engine.options.__doc__


def test_the_documented_table_follows_from_the_declarations() -> None:
    page = Path(__file__).parents[2] / "docs" / "adding_a_network.md"
    rows = [
        f"| `{engine.name}` | {engine.role} | {engine.runtime} "
        f"| {'yes' if engine.export else '-'} | {engine.needs or '-'} |"
        for engine in (found.engine for found in built_in())
    ]
    assert "\n".join(["|---|---|---|---|---|", *rows]) + "\n\n" in page.read_text("utf-8")
