# SPDX-License-Identifier: Apache-2.0
"""Recipes: what they may say, and that they train, go on and leave the kept images alone."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from photographs import write_photographs

from bmp_ros.engines import build_loop
from bmp_ros.synthetic.dataset import gather_annotations
from bmp_ros.training import processes, trainer
from bmp_ros.training.coco_images import NEVER_TRAINED
from bmp_ros.training.command import main
from bmp_ros.training.optimisation import Schedule
from bmp_ros.training.recipe import open_folders, prepare, read_recipe

CONFIG = Path(__file__).parents[2] / "config" / "training"


def write_recipe(folder: Path, **changes: Any) -> Path:
    values = {
        "network": "detector",
        "size": [128, 96],
        "held_out": "kept.json",
        "pasted_share": 0.5,
        "schedule": {"steps": 4, "batch": 2, "warmup": 1, "save_every": 2},
        "data": [{"folder": "photographs", "annotations": "people.json", "cut_outs": True}],
        **changes,
    }
    (folder / "kept.json").write_text(json.dumps({"people.json": [101, 103]}))
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_photographs(tmp_path / "photographs")
    return tmp_path


@pytest.mark.parametrize("name", ["detector", "pose", "segmenter"])
def test_a_recipe_trains_and_goes_on(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    monkeypatch.setattr("bmp_ros.training.pose_samples.LEAST_HEIGHT", 5.0)
    file = write_recipe(root, network=name, size=None if name == "pose" else [128, 96])
    options = ["--root", str(root), "--cache", str(root / "cache"), "--threads", "1"]
    assert main([str(file), "--output", str(root / "out"), *options]) == 0
    rows = list(csv.DictReader((root / "out" / "losses.csv").open()))
    assert [row["step"] for row in rows] == ["2", "4"]
    ids = json.loads((root / "out" / "coco_ids.json").read_text())
    assert ids == [n for n in range(100, 112) if n not in (101, 103)]
    weights = torch.load(root / "out" / f"{name}.pth", weights_only=True)
    assert all(value.isfinite().all() for value in weights.values())
    assert main([str(file), "--output", str(root / "out"), *options]) == 0, "nothing left to do"
    said = capsys.readouterr().out
    assert "10 images, 2 kept aside; 4 steps of 2, fp32 on cpu" in said
    assert "goes on after step 4 of 4" in said
    image = np.full((96, 128, 3), 90, np.uint8)
    build_loop(root / "out" / "preset.yaml", "cpu", iterations=1)(image)


def test_a_share_is_kept_aside(root: Path) -> None:
    """The same images every time, and none of them is trained on."""
    recipe = read_recipe(write_recipe(root, held_out=0.25))
    parts = [
        sorted(sum((folder.coco_ids for folder in folders), []))
        for folders in open_folders(recipe, root, root / "cache")
    ]
    assert len(parts[1]) == 3 and sorted(parts[0] + parts[1]) == list(range(100, 112))
    _, again = open_folders(recipe, root, root / "cache")
    assert sorted(again[0].coco_ids) == parts[1] != [100, 101, 102]


def test_folders_are_drawn_by_weight(root: Path) -> None:
    write_photographs(root / "more", first_id=500)
    data = [
        {"folder": "photographs", "annotations": "people.json", "weight": 3},
        {"folder": "more", "annotations": "people.json", "weight": 1},
    ]
    task, ids = prepare(read_recipe(write_recipe(root, data=data)), root, root / "cache")
    assert len(ids) == 22, "ids that are kept aside are those of one folder"
    folders = task.images.folders  # type: ignore[attr-defined]
    drawn = [task.images.draw(n, 0, False)[1].image for n in range(400)]  # type: ignore[attr-defined]
    first = {folders[0][n].image.tobytes() for n in range(len(folders[0]))}
    share = sum(image.tobytes() in first for image in drawn) / len(drawn)
    assert 0.65 < share < 0.85


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": "transformer"}, "transformer"),
        ({"data": []}, "at least one folder"),
        ({"data": [{"annotations": "people.json"}]}, "no folder"),
        ({"data": [{"folder": "x", "wieght": 2}]}, "wieght"),
        ({"data": [{"folder": "x", "weight": -1}]}, "-1"),
        ({"data": [{"folder": "x", "weight": 0}]}, "every weight"),
        ({"schedule": {"stesp": 4}}, "stesp"),
        ({"precision": "fp8"}, "fp8"),
        ({"held_out": 1.5}, "held_out is 1.5.*between 0 and 1"),
        ({"speed": 2}, "speed"),
        ({"network": ["detector"]}, "network is .'detector'., known are"),
        ({"held_out": ["a"]}, "held_out is .*needs a share or the name"),
        ({"size": "128x96"}, "size is '128x96', needs .width, height."),
        ({"size": [128]}, "size is .128., needs"),
        ({"pasted_share": None}, "pasted_share is None, allowed: 0 to 1"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], words: str, root: Path) -> None:
    with pytest.raises(ValueError, match=words):
        read_recipe(write_recipe(root, **changes))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("schedule: [", "recipe.yaml: not a YAML file"),
        ("network: pose", "not a YAML file: the key 'network' is there twice"),
        ("\tspeed: 1", "recipe.yaml: not a YAML file"),
    ],
)
def test_what_is_no_yaml_is_named(line: str, words: str, root: Path) -> None:
    file = write_recipe(root)
    file.write_text(f"{file.read_text()}{line}\n")
    with pytest.raises(ValueError, match=words):
        read_recipe(file)


def test_a_short_training_is_validated_ten_times(root: Path) -> None:
    """The defaults of the published networks are those of trainings that take days."""
    short = read_recipe(write_recipe(root, network="vit_pose", schedule={"steps": 300}, size=None))
    assert (short.schedule.save_every, short.schedule.warmup) == (30, 30)
    own = {"steps": 300, "save_every": 100, "warmup": 200}
    own_words = read_recipe(write_recipe(root, network="vit_pose", schedule=own, size=None))
    assert (own_words.schedule.save_every, own_words.schedule.warmup) == (100, 200)


def test_steps_of_the_command_line_shorten_what_is_a_tenth_of_them(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And without pycocotools no score announces a line of losses."""
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    schedule = {"steps": 5000, "batch": 2, "score_every": 2}
    place = ["--root", str(root), "--cache", str(root / "cache"), "--output", str(root / "out")]
    for steps, first in ((4, 1), (30, 3)):
        file = write_recipe(root, schedule=schedule)
        assert read_recipe(file, {"steps": steps}).schedule.save_every == first
        assert read_recipe(file, {"steps": steps}).schedule.warmup == first
    file = write_recipe(root, schedule={**schedule, "save_every": 3})
    assert main([str(file), "--steps", "4", "--threads", "1", *place]) == 0
    assert "4 steps of 2, fp32 on cpu; a line of losses first after step 3" in (
        said := capsys.readouterr().out
    )
    assert "no AP and no drawings" in said and "detector 3/4: " in said
    assert torch.load(root / "out" / "last.pth", weights_only=True)["schedule"]["warmup"] == 1
    assert main([str(file), "--steps", "0", *place]) == 1
    assert "error: steps is 0, must be at least 1" in capsys.readouterr().err


def test_what_is_in_the_folder_of_a_training_stays(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights and presets of somebody, and the ids of a training that another one is not."""
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    out, file = root / "out", write_recipe(root)
    arguments = [str(file), "--root", str(root), "--cache", str(root / "cache"),
                 "--output", str(out), "--threads", "1"]  # fmt: skip
    out.mkdir()
    for name, words in (
        ("detector.pth", "holds detector.pth, and no training that goes on"),
        ("preset.yaml", "holds preset.yaml"),
        ("last.pth", "last.pth is no training to go on with"),
    ):
        (out / name).write_bytes(b"of somebody")
        assert main(arguments) == 1
        assert words in capsys.readouterr().err
        assert [path.name for path in out.iterdir()] == [name]
        (out / name).unlink()
    torch.save({"model": {}}, out / "last.pth")  # of another program
    assert main(arguments) == 1
    assert "last.pth is no training to go on with" in capsys.readouterr().err
    (out / "last.pth").unlink()
    assert main([*arguments, "--threads", "0"]) == main([*arguments, "--workers", "-1"]) == 1
    assert "--threads is 0, must be at least 1" in (said := capsys.readouterr().err)
    assert "--workers is -1, must be at least 0" in said
    assert main([*arguments, "--steps", "2"]) == 0
    ids = (out / "coco_ids.json").read_bytes()
    (root / "kept.json").write_text("{}")
    write_recipe(root, held_out=0.5)
    assert main([*arguments, "--steps", "3"]) == 1
    assert "belongs to a training with" in capsys.readouterr().err
    assert (out / "coco_ids.json").read_bytes() == ids, "what was trained on is still known"


def test_what_no_preset_could_run_is_refused_before_the_first_step(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sam2", reason="SAM's modules are those of the package sam2")
    options = {"variant": "t"}
    file = write_recipe(root, network="pose2seg", size=[128, 128], options=options)
    place = ["--root", str(root), "--cache", str(root / "cache"), "--output", str(root / "out")]
    assert main([str(file), *place]) == 1
    assert "image_size is 128, allowed: a whole number from 256" in capsys.readouterr().err
    assert not (root / "out" / "losses.csv").exists()


def test_the_first_process_alone_says_what_is_wrong(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that is refused is found before the other processes begin."""
    found: list[str] = []

    def first_alone(work: Any) -> Any:
        try:
            return work()
        except ValueError as error:
            found.append(str(error))
            raise

    monkeypatch.setattr(processes, "first_alone", first_alone)
    place = ["--root", str(root), "--cache", str(root / "cache"), "--output", str(root / "out")]
    file = write_recipe(root)
    (root / "out").mkdir()
    torch.save({"schedule": asdict(Schedule(9, 2, 1e-3))}, root / "out" / "last.pth")
    for wrong, words in (
        (["--steps", "0"], "steps is 0"),
        (["--minutes", "0"], "--minutes is 0"),
        (["--batch", "4", "--accumulate", "3"], "accumulate is 3"),
        ([], "belongs to a training with"),
    ):
        assert main([str(file), *wrong, *place]) == 1
        assert words in found[-1] and found[-1] in capsys.readouterr().err
    assert len(found) == 4
    monkeypatch.setattr(processes, "count", lambda: 3)
    assert main([str(file), *place]) == 1
    assert "batch is 2" in found[-1] and "number of processes, 3" in found[-1]


def test_a_batch_too_small_for_its_norms_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"variant": {"widths": [8, 16, 32, 64], "modules": [1, 1, 1], "blocks": 1}}
    schedule = {"steps": 1, "batch": 4, "accumulate": 4}
    file = write_recipe(
        root, network="omnipose", size=[64, 96], options=options, schedule=schedule,
        pasted_share=0.0,
    )  # fmt: skip
    place = ["--root", str(root), "--cache", str(root / "cache"), "--output", str(root / "out")]
    assert main([str(file), *place]) == 1
    assert "1 for each process and part: OmniPose needs 2 at least" in capsys.readouterr().err


def test_nothing_kept_aside_is_refused(root: Path) -> None:
    file = write_recipe(root, held_out=None)
    with pytest.raises(ValueError, match="held_out"):
        prepare(read_recipe(file), root, root / "cache")


@pytest.mark.parametrize("network", ["pose", "vit_pose", "segmenter", "masked"])
@pytest.mark.parametrize("aside", [True, False])
def test_images_without_labels_on_one_side_are_refused(
    network: str, aside: bool, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a small folder a share may be just the images in which no person has what is learned."""
    people = root / "photographs" / "people.json"
    document = json.loads(people.read_text())
    for item in document["annotations"]:
        if (item["image_id"] in (101, 103)) == aside:
            item |= {"segmentation": [], "keypoints": [0] * 51}
    people.write_text(json.dumps(document))
    source = {"folder": "photographs", "annotations": "people.json", "masked": network == "masked"}
    network = "segmenter" if network == "masked" else network
    file = write_recipe(root, network=network, size=None, data=[source], pasted_share=0.0)
    place = ["--root", str(root), "--cache", str(root / "cache"), "--output", str(root / "out")]
    words = "in the 2 images that are kept aside" if aside else "left to train on"
    assert main([str(file), *place]) == 1
    said = capsys.readouterr().err
    assert words in said and str(people) in said and "held_out: FILE.json" in said
    assert not (root / "out" / "losses.csv").exists()


def test_rendered_folders_are_read_in_cocos_format(root: Path, disc_folder: Path) -> None:
    gather_annotations_of_discs(disc_folder)
    data = [
        {"folder": "photographs", "annotations": "people.json"},
        {"folder": str(disc_folder), "all_joints": True, "masked": True},
    ]
    folders, _ = open_folders(read_recipe(write_recipe(root, data=data)), root, root / "cache")
    assert len(folders[1]) == 37, "those with people"
    assert folders[1][0].rendered and folders[1][0].joints_complete.all()


def gather_annotations_of_discs(folder: Path) -> None:
    """The labels of the fixture lack what COCO's format asks for."""
    file = gather_annotations(folder)
    document = json.loads(file.read_text())
    for number, image in enumerate(document["images"]):
        image |= {"id": number, "width": 128, "height": 96}
    labels = [json.loads(f.read_text()) for f in sorted((folder / "labels").glob("*.json"))]
    owners = [n for n, label in enumerate(labels) for _ in label["annotations"]]
    for annotation, owner in zip(document["annotations"], owners, strict=True):
        annotation |= {"image_id": owner, "category_id": 1}
    file.write_text(json.dumps(document))


def test_the_recipes_that_come_with_the_package_are_valid() -> None:
    files = sorted(CONFIG.glob("*.yaml"))
    assert {read_recipe(file).network for file in files} >= {"detector", "pose", "segmenter"}
    kept = json.loads((CONFIG / "kept_aside.json").read_text())
    assert len(set(kept["train_a.json"])) == 100 and len(set(kept["train_b.json"])) == 130
    assert not NEVER_TRAINED & {*kept["train_a.json"], *kept["train_b.json"]}
