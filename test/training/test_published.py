# SPDX-License-Identifier: Apache-2.0
"""The published networks at reduced width: they train, go on exactly, and run as a preset does."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml
from figures import write_figures

from bmp_ros.loop.frame import Frame
from bmp_ros.training import trainer
from bmp_ros.training.pose2seg import Pose2SegOptions
from bmp_ros.training.recipe import prepare, read_recipe
from bmp_ros.training.scoring import make_engine, score_network
from bmp_ros.training.tasks import make_task
from bmp_ros.training.trainer import train

VIT = {"variant": {"width": 384, "depth": 2, "hidden": 64, "channels": 8}}
HRNET = {"variant": {"widths": [8, 16, 32, 64], "modules": [1, 1, 1], "blocks": 1}}
# The recipes of the published networks, narrower; pose2seg's is in test_pose2seg.
REDUCED: dict[str, dict[str, Any]] = {
    "rtmdet_ins_maskout": {
        "network": "rtmdet_ins", "size": [96, 96],
        "options": {"variant": {"widen": 0.125, "deepen": 0.17}, "mosaic_share": 0.0},
    },
    "maskpose": {
        "network": "vit_pose", "size": [96, 128],
        "options": {**VIT, "mask_background": {"dim": 0.25}, "drop_path": 0.2,
                    "skeleton": "multi_23"},
    },
    "vitpose_multi": {
        "network": "vit_pose", "size": [96, 128],
        "options": {**VIT, "drop_path": 0.2, "skeleton": "multi_21"},
    },
    "pmpose": {
        "network": "pmpose",
        "options": {**VIT, "mask_background": {"dim": 0.25}, "skeleton": "multi_23"},
    },
    "hrnet": {"network": "hrnet", "options": HRNET, "size": [64, 96]},
    "omnipose": {"network": "omnipose", "options": HRNET, "size": [64, 96]},
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    for data_set in ("coco", "mpii", "aic"):
        write_figures(root / data_set, 4, data_set)
    return root


def write_recipe(root: Path, name: str, **schedule: Any) -> Path:
    coco = {"folder": "coco", "annotations": "coco.json"}
    data = [coco, {**coco, "validation": True}]
    if "skeleton" in REDUCED[name]["options"]:
        data += [{"folder": folder, "annotations": f"{folder}.json"} for folder in ("mpii", "aic")]
    steps = {"steps": 4, "batch": 2, "warmup": 1, "save_every": 2, **schedule}
    recipe = {"data": data, "schedule": steps, **REDUCED[name]}
    file = root / f"{name}.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return file


@pytest.mark.parametrize("name", sorted(REDUCED))
def test_each_goes_on_exactly_and_its_weights_run_as_a_preset(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    # PMPose is the largest, and its crops have one size.
    half = 1 if name == "pmpose" else 2
    file = write_recipe(root, name, steps=2 * half, save_every=half, score_every=2 * half)

    def run(folder: str, stop_after: int | None = None) -> Any:
        recipe = read_recipe(file)
        torch.manual_seed(0)
        task, _ = prepare(recipe, root, root / "cache")
        images: Any = task.images  # type: ignore[attr-defined]
        drawing = tmp_path / folder / "predictions" / "last.jpg"

        def score(network: Any, step: int) -> dict[str, float]:
            return score_network(task, network, images.kept_aside(), "cpu", drawing)  # type: ignore[arg-type]

        weights = train(
            task, recipe.schedule, tmp_path / folder, stop_after=stop_after, score=score
        )
        assert drawing.is_file() or stop_after
        return task, weights

    _, whole = run("whole")
    run("parts", half)
    task, parts = run("parts")
    first, second = (torch.load(weights, weights_only=True) for weights in (whole, parts))
    assert all(torch.equal(first[key], second[key]) for key in first)
    rows = list(csv.DictReader((tmp_path / "whole" / "losses.csv").open()))
    assert [row["AP"] == "nan" for row in rows] == [True, False]
    assert (tmp_path / "whole" / f"{task.name}.best.pth").is_file()

    labelled = next(task.images.kept_aside())
    engine = make_engine(task, second, "cpu")
    if task.role == "detector":
        engine.detect(Frame(labelled.image), score_threshold=0.3)
    else:
        poses = engine.estimate(Frame(labelled.image), labelled.boxes, labelled.masks)
        assert poses.keypoints.shape[::2] == (1, 2)
    outputs = task.network.eval()(torch.zeros(1, 3, *task.size[::-1]))
    assert outputs is not None


def test_the_options_of_the_shipped_recipes_are_accepted() -> None:
    folder = Path(__file__).parents[2] / "config" / "training"
    published = {file.stem: read_recipe(file) for file in sorted(folder.glob("*.yaml"))}
    published = {name: recipe for name, recipe in published.items() if recipe.options}
    assert set(published) == {*REDUCED, "pose2seg"}
    for name, recipe in published.items():
        if name == "pose2seg":
            Pose2SegOptions(**recipe.options)
            continue
        reduced = REDUCED[name]
        assert recipe.network == reduced["network"]
        assert recipe.options.get("skeleton", "coco_17") == reduced["options"].get(
            "skeleton", "coco_17"
        )
        options = {**recipe.options, "variant": reduced["options"]["variant"]}
        task = make_task(recipe.network, cast(Any, None), recipe.size, options)
        assert task.section("x.pth")["weights"] == "x.pth"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("network", "size", "options", "words"),
    [
        ("vit_pose", (192, 192), {}, r"\[48 n, 64 n\]"),
        ("vit_pose", None, {"variant": "xl"}, "variant is 'xl', allowed: s, b, l, h"),
        ("vit_pose", None, {"skeleton": "dog"}, "dog.*coco_17"),
        ("vit_pose", None, {"drop_path": "much"}, "options of vit_pose"),
        ("vit_pose", None, {"mask_background": {"alpha": 1}}, "no entry 'alpha'"),
        ("vit_pose", None, {"augmentation": {"flip": 1}}, "no entry 'flip'"),
        ("hrnet", (100, 100), {}, "multiples of 16"),
        ("hrnet", None, {"variant": "w18"}, "w32, w48"),
        ("pmpose", (96, 128), {}, r"\[192, 256\]"),
        ("rtmdet_ins", None, {"variant": "huge"}, "packaged, tiny"),
        ("rtmdet_ins", None, {"widen": 1}, "no entry 'widen'"),
        ("rtmdet_ins", None, {"zoom": [2, 1]}, r"zoom is \[2, 1\], needs two factors"),
        ("rtmdet_ins", None, {"painted_share": 2}, "painted_share is 2, allowed: 0 to 1"),
        ("pose", None, {"variant": "b"}, "pose has no options"),
    ],
)
def test_wrong_options_are_named(
    network: str, size: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        make_task(network, cast(Any, None), size, options)


def test_the_layers_of_a_transformer_learn_at_their_own_rates(root: Path) -> None:
    from bmp_ros.training.optimisation import parameter_groups

    recipe = read_recipe(write_recipe(root, "maskpose", layer_decay=0.5, weight_decay=0.1))
    task, _ = prepare(recipe, root, root / "cache")
    groups = parameter_groups(task.network, recipe.schedule, task.layer_of)  # type: ignore[attr-defined]
    scale = {p: g["scale"] for g in groups for p in g["params"]}
    decay = {p: g["weight_decay"] for g in groups for p in g["params"]}
    named = dict(task.network.named_parameters())
    assert len(scale) == len(named)
    for name, expected in (
        ("backbone.pos_embed", 0.125), ("backbone.patch_embed.projection.weight", 0.125),
        ("backbone.layers.0.ffn.layers.1.weight", 0.25), ("backbone.layers.1.ln1.bias", 0.5),
        ("backbone.ln1.weight", 1.0), ("head.final_layer.weight", 1.0),
    ):  # fmt: skip
        assert scale[named[name]] == expected, name
    assert decay[named["backbone.pos_embed"]] == decay[named["backbone.ln1.weight"]] == 0
    assert decay[named["head.final_layer.weight"]] == 0.1
