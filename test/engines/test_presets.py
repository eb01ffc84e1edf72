# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.engines.presets import load_preset
from bmp_ros.engines.registry import find_engine
from bmp_ros.engines.sam2 import Sam2Options
from bmp_ros.fields import settings_from_mapping
from bmp_ros.loop import LoopSettings, SettingsError
from bmp_ros.weights.zoo import load_zoo

SHIPPED = sorted((Path(__file__).parents[2] / "config" / "presets").glob("*.yaml"))

GOOD: dict[str, Any] = {
    "description": "For a test.",
    "detector": {"engine": "rtmdet_ins", "weights": "d.pth"},
    "pose_estimator": {"engine": "vit_pose", "weights": "p.pth"},
    "segmenter": {"engine": "sam2", "weights": "s.pt", "max_hole_area": 0},
    "loop": {"iterations": 1},
}


def write(folder: Path, data: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data), encoding="utf-8")
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_presets(path: Path) -> None:
    preset = load_preset(path)
    assert preset.name == path.stem and preset.description.endswith(".")
    assert replace(load_preset(path.stem), reference=str(path)) == preset, "found by name as well"


def test_numbers_of_the_published_presets() -> None:
    d3, j1, v2 = (load_preset(name) for name in ("bmp_d3", "bmp_j1", "bmp_v2"))
    assert d3.loop == LoopSettings(), "the defaults are those of bmp_d3"
    assert (j1.loop.iterations, j1.loop.num_positive, j1.loop.num_positive_crowded) == (1, 4, 6)
    assert (j1.loop.confidence_threshold, j1.loop.visibility_threshold) == (0.5, 0.5)
    assert j1.loop.crowd_iou == 0.5 and v2.loop.crowd_iou is None
    assert (v2.loop.num_positive, v2.loop.prompt_method) == (3, "k_most_visible")
    assert (v2.loop.confidence_threshold, v2.loop.visibility_threshold) == (0.5, 0.5)
    for preset, dynamic in ((d3, False), (j1, False), (v2, True)):
        assert preset.segmenter is not None
        assert preset.segmenter.settings.dynamic_multimask is dynamic
    assert {p.pose_estimator.settings.background_factor for p in (d3, j1)} == {0.8}
    assert v2.pose_estimator.settings.background_factor == 0.75


def test_own_preset(tmp_path: Path) -> None:
    preset = load_preset(write(tmp_path, GOOD))
    assert (preset.name, preset.description) == ("mine", "For a test.")
    assert preset.loop == LoopSettings(iterations=1)
    assert preset.segmenter is not None
    assert preset.segmenter.settings == Sam2Options(weights="s.pt", max_hole_area=0)
    lean = {key: value for key, value in GOOD.items() if key != "loop"}
    preset = load_preset(write(tmp_path, {**lean, "segmenter": None}))
    assert preset.segmenter is None and preset.loop == LoopSettings()


def test_overrides_win_and_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    preset = load_preset(path, {"loop": {"max_people": 3}, "detector": {"weights": "other.pth"}})
    assert preset.loop == LoopSettings(iterations=1, max_people=3)
    assert preset.detector.settings.weights == "other.pth"
    with pytest.raises(SettingsError, match="loop: max_people is 0, allowed: a whole number"):
        load_preset(path, {"loop": {"max_people": 0}})
    with pytest.raises(SettingsError, match="unknown section 'lop'; known sections: description"):
        load_preset(path, {"lop": {}})
    with pytest.raises(SettingsError, match="mine.yaml: description must be a mapping"):
        load_preset(path, {"description": {"text": "x"}})
    bare = write(tmp_path, {**GOOD, "segmenter": None, "loop": None})
    preset = load_preset(bare, {"segmenter": GOOD["segmenter"], "loop": {"iterations": 3}})
    assert preset.segmenter is not None and preset.loop.iterations == 3


@pytest.mark.parametrize(
    "change, message",
    [
        ({"loops": {}}, "unknown section 'loops'; known sections: description, loop, detector"),
        ({"description": None}, "description must be a text, got None"),
        ({"loop": 5}, "loop must be a mapping of keys to values, got 5"),
        ({"loop": False}, "loop must be a mapping of keys to values, got False"),
        ({"loop": {"iterations": 9}}, "loop: iterations is 9, allowed: a whole number from 1 to"),
        ({"loop": {"iterations": True}}, "loop: iterations is True, allowed: a whole number"),
        ({"loop": {"iteration": 1}}, "unknown key 'iteration'; did you mean 'iterations'?"),
        ({"detector": None}, "needs a detector and a pose_estimator"),
        ({"pose_estimator": None}, "needs a detector and a pose_estimator"),
        ({"detector": "rtmdet"}, "detector must be a mapping of keys to values, got 'rtmdet'"),
        ({"detector": {"engine": "yolo"}}, "detector.engine is 'yolo', allowed: .*rtmdet_ins"),
        ({"detector": {"weights": "x"}}, "detector.engine is None, allowed: "),
        ({"detector": {"engine": ["sam2"]}}, r"detector.engine is \['sam2'\], allowed: "),
        ({"detector": {"engine": "rtmdet_ins"}}, "detector: key 'weights' is missing"),
        ({"segmenter": {"engine": "sam2", "weights": 5}}, "segmenter: weights is 5, allowed: a s"),
        (
            {"pose_estimator": {"engine": "vit_pose", "weights": "x", "head": "pmpos"}},
            "pose_estimator: head is 'pmpos', allowed: one of heatmap, pmpose",
        ),
    ],
)
def test_error_names_file_key_and_allowed_values(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = write(tmp_path, {**GOOD, **change})
    with pytest.raises(SettingsError, match=message) as caught:
        load_preset(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    "text, message",
    [
        ("loop: [1, 2", "not a YAML file"),
        ("\tloop: 1", "not a YAML file"),
        ("just words", "a preset is a mapping of sections, got 'just words'"),
        ("", "a preset is a mapping of sections, got None"),
        ("description: a\nloop: {}\ndescription: b\n", "the key 'description' is there twice"),
        ("loop: {iterations: 1, 'iterations': 2}", "the key 'iterations' is there twice"),
        ("- 1\n- 2\n", r"a preset is a mapping of sections, got \[1, 2\]"),
    ],
)
def test_other_files(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError, match=message) as caught:
        load_preset(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_other_systems_are_read(tmp_path: Path, encoding: str) -> None:
    text = yaml.safe_dump(GOOD, allow_unicode=True).replace("\n", "\r\n")
    (tmp_path / "mine.yaml").write_bytes(text.encode(encoding))
    assert load_preset(tmp_path / "mine.yaml").name == "mine"


def test_parts_of_a_preset_may_be_named_and_used_again(tmp_path: Path) -> None:
    """What is merged in may be replaced: that is no key that is there twice."""
    text = yaml.safe_dump({key: GOOD[key] for key in GOOD if key != "loop"})
    again = "loop: &own\n  <<: {iterations: 1, box_nms_iou: 0.5}\n  iterations: 2\n"
    assert load_preset(write(tmp_path, text + again)).loop.iterations == 2


def test_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01\x80")
    with pytest.raises(SettingsError, match="not a YAML file"):
        load_preset(path)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["engine", "weights", "x"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["engine", "loop"]), inner)
    ),
    max_leaves=4,
)


@given(section=st.sampled_from(sorted(GOOD)), value=values)
def test_no_value_of_a_section_fails_in_another_way(
    tmp_path_factory: pytest.TempPathFactory, section: str, value: Any
) -> None:
    path = write(tmp_path_factory.getbasetemp(), {**GOOD, section: value})
    try:
        load_preset(path)
    except SettingsError as error:
        assert str(error).startswith(str(path))


def test_the_zoo_says_how_to_run_its_networks_as_the_presets_do() -> None:
    zoo = load_zoo()
    for file in zoo:
        assert file.engine is not None, file.name
        engine = find_engine(file.role, file.engine["engine"])
        options = {key: value for key, value in file.engine.items() if key != "engine"}
        settings = settings_from_mapping(
            engine.options, {**options, "weights": file.name}, file.name
        )
        for preset in file.presets:
            choice = load_preset(preset).engines[file.role]
            if choice.engine == file.engine["engine"]:
                said = {name: getattr(settings, name) for name in options}
                assert said == {name: getattr(choice.settings, name) for name in options}, preset
