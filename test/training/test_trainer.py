# SPDX-License-Identifier: Apache-2.0
"""The training loop: it learns, goes on where it was, and refuses what does not fit."""

from __future__ import annotations

import csv
import importlib.util
import multiprocessing
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bmp_ros.training import detector_loss, trainer
from bmp_ros.training.command import main
from bmp_ros.training.optimisation import Schedule, learning_rate
from bmp_ros.training.records import append_row, draw_curves
from bmp_ros.training.tasks import make_task
from bmp_ros.training.trainer import train

SCHEDULE = Schedule(40, 8, 0.05, warmup=4, save_every=10, averaging=0.8)


class Line:
    """Learn y = 3 x - 1 from noisy samples."""

    name = "line"

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network: nn.Module = nn.Linear(1, 1)

    def sample(self, number: int, seed: int, *, validation: bool = False) -> Tensor:
        generator = torch.Generator().manual_seed(hash((number, seed)) % 2**31)
        x = torch.rand(1, generator=generator)
        return torch.cat([x, 3 * x - 1])

    def collate(self, samples: list[Any]) -> Tensor:
        return torch.stack(samples)

    def losses(self, network: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return {"square": (network(batch[:, :1]) - batch[:, 1:]).square().mean()}


def test_it_learns_and_keeps_a_record(tmp_path: Path) -> None:
    weights = train(Line(), replace(SCHEDULE, steps=300), tmp_path)
    assert weights == tmp_path / "line.pth"
    rows = list(csv.DictReader((tmp_path / "losses.csv").open()))
    assert float(rows[-1]["held-out square"]) < 0.1 * float(rows[0]["held-out square"])
    assert [int(row["step"]) for row in rows] == list(range(10, 301, 10))
    assert torch.load(weights, weights_only=True)["weight"].item() == pytest.approx(3, abs=0.5)


def test_an_interrupted_training_ends_like_one_that_was_not(tmp_path: Path) -> None:
    whole = train(Line(), SCHEDULE, tmp_path / "whole")
    assert train(Line(), SCHEDULE, tmp_path / "parts", stop_after=20) is None
    parts = train(Line(), SCHEDULE, tmp_path / "parts")
    assert whole and parts
    first, second = (torch.load(file, weights_only=True) for file in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", ["detector", "pose", "segmenter"])
def test_every_network_goes_on_exactly(
    name: str, disc_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    monkeypatch.setattr(detector_loss, "MASKS_PER_IMAGE", 2)  # so that the loss draws lots
    schedule = Schedule(6, 2, 1e-3, warmup=1, save_every=3)
    size = None if name == "pose" else (128, 96)

    def run(folder: str, stop_after: int | None = None) -> Path | None:
        torch.manual_seed(0)
        task = make_task(name, disc_folder, size)
        random.seed(stop_after)  # a new process has other states than the one that was stopped
        np.random.seed(stop_after)
        workers = int(name == "segmenter")  # a loader with processes draws a number to begin with
        return train(task, schedule, tmp_path / folder, stop_after=stop_after, workers=workers)

    whole = run("whole")
    assert whole
    for stop in (3, 4):  # at a checkpoint that is made anyway, and between two
        assert run(f"parts of {stop}", stop) is None
        parts = run(f"parts of {stop}")
        assert parts
        first, second = (torch.load(file, weights_only=True) for file in (whole, parts))
        assert all(torch.equal(first[name], second[name]) for name in first), stop


class Interrupted(Line):
    """Signals come while the loss of step ``at`` is computed."""

    def __init__(self, at: int, *signals: int) -> None:
        super().__init__()
        self.left, self.signals = at, signals or (signal.SIGINT,)

    def losses(self, network: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        if network.training:
            self.left -= 1
            for number in self.signals if self.left == 0 else ():
                signal.raise_signal(number)
        return super().losses(network, batch)


def test_ctrl_c_keeps_every_step(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Also the losses of steps that are in no row of the table yet."""
    whole = train(Line(), SCHEDULE, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(Interrupted(27), SCHEDULE, tmp_path / "parts")
    shown = capfd.readouterr()
    assert "stopped after step 27 of 40" in shown.out and "stopping after this step" in shown.err
    assert torch.load(tmp_path / "parts" / "last.pth", weights_only=True)["step"] == 27
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    parts = train(Line(), SCHEDULE, tmp_path / "parts")
    assert whole and parts
    first, second = (torch.load(file, weights_only=True) for file in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
    rows = [(tmp_path / name / "losses.csv").read_text() for name in ("whole", "parts")]
    assert rows[0] == rows[1]


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(Interrupted(27, signal.SIGTERM, signal.SIGINT), SCHEDULE, tmp_path)
    assert torch.load(tmp_path / "last.pth", weights_only=True)["step"] == 20
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_container_that_is_stopped_keeps_every_step(tmp_path: Path, number: int) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # SIGHUP is ignored under nohup
    try:
        with pytest.raises(SystemExit) as ended:
            train(Interrupted(27, number), SCHEDULE, tmp_path)
        assert ended.value.code == 128 + number and signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert torch.load(tmp_path / "last.pth", weights_only=True)["step"] == 27


def test_signals_that_are_ignored_stay_so(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        assert train(Interrupted(27, signal.SIGHUP), SCHEDULE, tmp_path)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_in_the_last_step_is_told_when_the_weights_are_there(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(Interrupted(40), SCHEDULE, tmp_path)
    assert (tmp_path / "line.pth").is_file()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, None])
@pytest.mark.parametrize("at", [20, 40])
def test_a_score_that_is_not_finished_loses_no_step(
    tmp_path: Path, ending: int | None, at: int
) -> None:
    """It may take minutes; docker kills ten seconds after its SIGTERM, the kernel (None) at once.

    The score is taken when the training goes on, which ends like one that was not interrupted.
    """
    schedule = replace(SCHEDULE, save_every=5, score_every=10)
    endings = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit, None: MemoryError}
    scored: list[int] = []

    def score(network: nn.Module, step: int) -> dict[str, float]:
        scored.append(step)
        return {"AP": float(torch.rand(())) if step == 20 else -1.0}

    def ended(network: nn.Module, step: int) -> dict[str, float]:
        if step < at:
            return score(network, step)
        if ending is None:
            raise MemoryError
        signal.raise_signal(ending)
        pytest.fail("the signal waited for the score")

    def run(folder: str, score: trainer.Score) -> Path | None:
        random.seed(1)
        np.random.seed(1)
        return train(Lots(), schedule, tmp_path / folder, score=score)

    whole = run("whole", score)
    with pytest.raises(endings[ending]):
        run("parts", ended)
    assert torch.load(tmp_path / "parts" / "last.pth", weights_only=True)["step"] == at
    parts = run("parts", score)
    assert scored == 2 * [0, 10, 20, 30, 40]
    assert whole and parts
    for name in ("line.pth", "line.best.pth"):
        first, second = (torch.load(f.parent / name, weights_only=True) for f in (whole, parts))
        assert all(torch.equal(first[key], second[key]) for key in first), name
    rows = [(tmp_path / name / "losses.csv").read_text() for name in ("whole", "parts")]
    assert rows[0] == rows[1]


def test_an_interrupted_training_is_not_scored_first(tmp_path: Path) -> None:
    scored = replace(SCHEDULE, score_every=10)
    steps: list[int] = []

    def score(network: nn.Module, step: int) -> dict[str, float]:
        steps.append(step)
        return {"AP": 0.5}

    with pytest.raises(SystemExit):
        train(Interrupted(20, signal.SIGTERM), scored, tmp_path, score=score)
    assert torch.load(tmp_path / "last.pth", weights_only=True)["step"] == 20
    assert steps == [0, 10]
    train(Line(), scored, tmp_path, score=score)
    assert steps == [0, 10, 20, 30, 40]


class Lots(Line):
    """Draws from every generator in its loss, as samples and losses may."""

    def losses(self, network: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        drawn = torch.rand(()) + np.random.normal() + random.random()
        return {"square": drawn * super().losses(network, batch)["square"]}


def test_random_numbers_go_on_as_well(tmp_path: Path) -> None:
    results = []
    for folder, stops in (("whole", [None]), ("parts", [7, 20, None])):
        random.seed(1)
        np.random.seed(1)
        for stop in stops:
            weights = train(Lots(), SCHEDULE, tmp_path / folder, stop_after=stop)
            random.seed(2)
            np.random.seed(2)
        assert weights
        results.append(torch.load(weights, weights_only=True))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_a_limited_time_ends_with_the_lowest_rate(tmp_path: Path) -> None:
    endless = replace(SCHEDULE, steps=10**9, warmup=0)  # however few steps there is time for
    weights = train(Line(), endless, tmp_path, minutes=0.02)
    assert weights == tmp_path / "line.pth"
    rows = list(csv.DictReader((tmp_path / "losses.csv").open()))
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[-1] == pytest.approx(0.01 * SCHEDULE.learning_rate)
    assert rates == sorted(rates, reverse=True)
    assert torch.load(tmp_path / "last.pth", weights_only=True)["step"] == int(rows[-1]["step"])


def test_the_time_of_before_an_interruption_counts(tmp_path: Path) -> None:
    endless = replace(SCHEDULE, steps=10**9)
    with pytest.raises(ValueError, match="above 0"):
        train(Line(), endless, tmp_path, minutes=0)
    weights = train(Line(), endless, tmp_path, minutes=0.01)
    assert weights
    before, rows = weights.read_bytes(), (tmp_path / "losses.csv").read_text()
    assert train(Line(), endless, tmp_path, minutes=0.01) == weights
    first, second = torch.load(weights, weights_only=True), before
    assert (tmp_path / "losses.csv").read_text() == rows, "no step was taken"
    (tmp_path / "again.pth").write_bytes(second)
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_processes_that_prepare_samples_end_with_the_time(
    disc_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    endless = Schedule(10**9, 2, 1e-3, warmup=1)
    task = make_task("segmenter", disc_folder, (64, 64))
    assert train(task, endless, tmp_path, minutes=0.002, workers=1)
    until = time.monotonic() + 60
    while multiprocessing.active_children():
        assert time.monotonic() < until, multiprocessing.active_children()
        time.sleep(0.05)


def test_a_limited_time_may_be_more_than_enough(tmp_path: Path) -> None:
    whole = train(Line(), SCHEDULE, tmp_path / "whole")
    timed = train(Line(), SCHEDULE, tmp_path / "timed", minutes=1000)
    assert whole and timed
    first, second = (torch.load(file, weights_only=True) for file in (whole, timed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_rows_after_the_checkpoint_are_written_once(tmp_path: Path) -> None:
    train(Line(), SCHEDULE, tmp_path, stop_after=20)
    checkpoint = (tmp_path / "last.pth").read_bytes()
    train(Line(), SCHEDULE, tmp_path, stop_after=30)
    (tmp_path / "last.pth").write_bytes(checkpoint)  # killed between the row and the checkpoint
    train(Line(), SCHEDULE, tmp_path)
    rows = list(csv.DictReader((tmp_path / "losses.csv").open()))
    assert [int(row["step"]) for row in rows] == [10, 20, 30, 40]


def test_a_checkpoint_without_random_states_is_refused(tmp_path: Path) -> None:
    train(Line(), SCHEDULE, tmp_path, stop_after=10)
    state = torch.load(tmp_path / "last.pth", weights_only=True)
    del state["random"]
    torch.save(state, tmp_path / "last.pth")
    with pytest.raises(ValueError, match="random states"):
        train(Line(), SCHEDULE, tmp_path)


def test_another_schedule_is_refused(tmp_path: Path) -> None:
    train(Line(), SCHEDULE, tmp_path, stop_after=10)
    with pytest.raises(ValueError, match="another --output"):
        train(Line(), replace(SCHEDULE, batch=4), tmp_path)


def test_the_best_weights_are_kept_beside_the_last_ones(tmp_path: Path) -> None:
    scores = {0: 0.1, 10: 0.2, 20: 0.6, 30: 0.4, 40: 0.5}
    seen: dict[int, Any] = {}

    def score(network: nn.Module, step: int) -> dict[str, float]:
        seen[step] = {k: v.clone() for k, v in network.state_dict().items()}
        return {"AP": scores[step]}

    scored = replace(SCHEDULE, score_every=10)
    assert train(Line(), scored, tmp_path, stop_after=30, score=score) is None
    train(Line(), scored, tmp_path, score=score)
    best = torch.load(tmp_path / "line.best.pth", weights_only=True)
    assert all(torch.equal(best[k], seen[20][k]) for k in best)
    rows = list(csv.DictReader((tmp_path / "losses.csv").open()))
    assert [float(row["AP"]) for row in rows] == list(scores.values())[1:]


def test_where_no_step_helped_the_first_weights_are_the_best(tmp_path: Path) -> None:
    task = Line()
    first = {name: value.clone() for name, value in task.network.state_dict().items()}
    scored = replace(SCHEDULE, score_every=10)
    train(task, scored, tmp_path, score=lambda network, step: {"AP": 0.5 - step / 100})
    best = torch.load(tmp_path / "line.best.pth", weights_only=True)
    assert all(torch.equal(best[name], first[name]) for name in first)


def test_of_equal_scores_the_newest_weights_are_the_best(tmp_path: Path) -> None:
    """A network that finds no one at first and in the end has learned all the same."""
    scored = replace(SCHEDULE, score_every=20)
    weights = train(Line(), scored, tmp_path, score=lambda network, step: {"AP": 0.0})
    assert weights
    best, last = (
        torch.load(file, weights_only=True) for file in (tmp_path / "line.best.pth", weights)
    )
    assert all(torch.equal(best[name], last[name]) for name in last)


def test_a_first_score_that_is_no_number_is_bettered(tmp_path: Path) -> None:
    scores = {0: float("nan"), 20: 0.3, 40: float("nan")}
    seen: dict[int, Any] = {}

    def score(network: nn.Module, step: int) -> dict[str, float]:
        seen[step] = {k: v.clone() for k, v in network.state_dict().items()}
        return {"AP": scores[step]}

    train(Line(), replace(SCHEDULE, score_every=20), tmp_path, score=score)
    best = torch.load(tmp_path / "line.best.pth", weights_only=True)
    assert all(torch.equal(best[k], seen[20][k]) for k in best)


@pytest.mark.parametrize("save_every", [1, 1000])
def test_a_limited_time_ends_with_a_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_every: int
) -> None:
    """Whether or not the last step is one after which a checkpoint is due."""
    time_over = iter([0.0, 0.1, 0.2, *[1.0] * 3])
    monkeypatch.setattr(trainer._Clock, "over", property(lambda clock: next(time_over)))
    seen: dict[int, Any] = {}

    def score(network: nn.Module, step: int) -> dict[str, float]:
        seen[step] = {k: v.clone() for k, v in network.state_dict().items()}
        return {"AP": float(step > 0)}

    often = replace(SCHEDULE, steps=10**6, save_every=save_every, score_every=1000)
    assert train(Line(), often, tmp_path, minutes=1, score=score)
    last = torch.load(tmp_path / "last.pth", weights_only=True)["step"]
    assert sorted(seen) == [0, last] and last == 3
    best = torch.load(tmp_path / "line.best.pth", weights_only=True)
    assert all(torch.equal(best[k], seen[last][k]) for k in best), "not the untrained ones"
    rows = list(csv.DictReader((tmp_path / "losses.csv").open()))
    assert [row["AP"] for row in rows] == ["nan"] * (len(rows) - 1) + ["1.0"]
    before = (tmp_path / "losses.csv").read_text()
    assert train(Line(), often, tmp_path, minutes=1, score=score)
    assert sorted(seen) == [0, last] and (tmp_path / "losses.csv").read_text() == before


def test_a_time_that_is_shortened_to_what_is_over_ends_with_a_score(tmp_path: Path) -> None:
    steps: list[int] = []

    def score(network: nn.Module, step: int) -> dict[str, float]:
        steps.append(step)
        return {"AP": float(step)}

    rare = replace(SCHEDULE, score_every=1000)
    assert train(Line(), rare, tmp_path, minutes=1, stop_after=20, score=score) is None
    assert steps == [0], "an interruption is no end"
    for _ in range(2):
        assert train(Line(), rare, tmp_path, minutes=1e-9, score=score)
        assert steps == [0, 21]


def test_scores_are_due_between_two_checkpoints_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And every row that is added is drawn."""
    steps: list[int] = []
    drawn: list[Path | None] = []
    monkeypatch.setattr(trainer, "draw_curves", lambda folder: drawn.append(draw_curves(folder)))

    def score(network: nn.Module, step: int) -> dict[str, float]:
        steps.append(step)
        return {"AP": 0.5}

    train(Line(), replace(SCHEDULE, save_every=30, score_every=15), tmp_path, score=score)
    assert steps == [0, 15, 30, 40]
    rows = list(csv.DictReader((tmp_path / "losses.csv").open()))
    assert [row["step"] for row in rows] == ["15", "30", "40"]
    file = tmp_path / "curves.png"
    assert drawn == 3 * [file if importlib.util.find_spec("matplotlib") else None]
    assert drawn[-1] is None or file.is_file()


def test_curves_connect_the_scores_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="needs requirements/train.txt")
    for step, score in ((1, "nan"), (2, 0.5), (3, "nan"), (4, 0.75)):
        row = {"step": step, "learning_rate": 1, "square": 9 - step, "AP": score, "none": "nan"}
        append_row(tmp_path / "losses.csv", row)
    monkeypatch.setattr(pyplot, "close", lambda figure: None)
    assert draw_curves(tmp_path) == tmp_path / "curves.png"
    square, ap, none = pyplot.gcf().axes
    assert list(square.lines[0].get_xdata()) == [1, 2, 3, 4]
    assert list(ap.lines[0].get_xdata()) == [2, 4] and list(ap.lines[0].get_ydata()) == [0.5, 0.75]
    assert ap.lines[0].get_label() == "held out, averaged" and not none.lines
    monkeypatch.undo()
    pyplot.close("all")


def test_tensorboard_shows_every_number_of_a_training(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs requirements/train.txt")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scores = {0: 0.125, 20: 0.25, 40: 0.5}
    schedule = replace(SCHEDULE, score_every=20)

    def score(network: nn.Module, step: int) -> dict[str, float]:
        return {"AP": scores[step]}

    train(Line(), schedule, tmp_path, stop_after=20, score=score)
    checkpoint = (tmp_path / "last.pth").read_bytes()
    train(Line(), schedule, tmp_path, stop_after=30, score=score)
    (tmp_path / "last.pth").write_bytes(checkpoint)  # killed: what came after is done again
    train(Line(), schedule, tmp_path, score=score)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    rows = list(csv.DictReader((tmp_path / "losses.csv").open()))
    names = {"learning_rate": "learning_rate", "square": "square"}
    names["held-out/square"] = "held-out square"
    assert set(events.Tags()["scalars"]) == {*names, "AP"}
    for tag, column in names.items():
        shown = {event.step: event.value for event in events.Scalars(tag)}
        assert shown == pytest.approx({int(row["step"]): float(row[column]) for row in rows})
    assert {event.step: event.value for event in events.Scalars("AP")} == scores


def test_half_precision_scales_its_loss(tmp_path: Path) -> None:
    """Gradients that half precision cannot hold are learned from all the same."""

    class Faint(Line):
        def losses(self, network: nn.Module, batch: Tensor) -> dict[str, Tensor]:
            return {"square": 1e-6 * super().losses(network, batch)["square"].float()}

    weights = train(Faint(), SCHEDULE, tmp_path / "whole", precision="fp16")
    assert train(Faint(), SCHEDULE, tmp_path / "parts", precision="fp16", stop_after=20) is None
    parts = train(Faint(), SCHEDULE, tmp_path / "parts", precision="fp16")
    assert weights and parts
    first, second = (torch.load(file, weights_only=True) for file in (weights, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
    state = torch.load(tmp_path / "whole" / "last.pth", weights_only=True)
    assert state["scaler"]["scale"] >= 2.0**16, "no step was left out"
    assert first["weight"].item() != Faint().network.state_dict()["weight"].item()


def test_a_schedule_of_before_this_version_goes_on(tmp_path: Path) -> None:
    """Entries that it did not have had their defaults."""
    train(Line(), SCHEDULE, tmp_path, stop_after=10)
    state = torch.load(tmp_path / "last.pth", weights_only=True)
    for name in ("accumulate", "layer_decay", "shape", "drops"):
        del state["schedule"][name]
    del state["others"]
    torch.save(state, tmp_path / "last.pth")
    assert train(Line(), SCHEDULE, tmp_path)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("drops", {1: 0.025, 4: 0.05, 20: 0.05, 21: 0.005, 31: 0.0005}),
        ("flat_cosine", {4: 0.05, 21: 0.05, 40: 0.0005}),
        ("cosine", {4: 0.05, 22: 0.02525, 40: 0.0005}),
    ],
)
def test_shapes_of_the_learning_rate(shape: str, expected: dict[int, float]) -> None:
    schedule = replace(SCHEDULE, shape=shape, drops=(0.5, 0.75), warmup_from=1 / 3)
    rates = {step: learning_rate(step, schedule) for step in expected}
    assert rates == pytest.approx(expected, rel=1e-6)


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path: Path) -> None:
    task = Line()
    nn.init.constant_(task.network.weight, float("nan"))
    with pytest.raises(FloatingPointError, match="--learning-rate"):
        train(task, SCHEDULE, tmp_path)


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(step, SCHEDULE) for step in range(1, 41)]
    assert max(rates) == rates[3] == pytest.approx(0.05)
    assert rates[:4] == sorted(rates[:4]) and rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] == pytest.approx(0.0005)


@pytest.mark.parametrize(
    ("name", "size", "loss", "steps"),
    [
        ("detector", (128, 96), "mask", 24),
        ("segmenter", (128, 96), "dice", 12),
        ("pose", None, "location", 12),
    ],
)
def test_each_network_learns_from_discs(
    name: str, size: tuple[int, int] | None, loss: str, steps: int, disc_folder: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # The detector's other losses rise at first: they are divided by how much it finds. The same
    # four samples again and again, so that few steps are enough.
    torch.manual_seed(0)
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    task = make_task(name, disc_folder, size)
    draw = task.sample
    monkeypatch.setattr(
        task, "sample", lambda number, seed, **options: draw(1 + number % 4, 0, **options)
    )
    train(task, Schedule(steps, 4, 2e-3, warmup=2, save_every=steps // 4), tmp_path)
    rows = list(csv.DictReader((tmp_path / "losses.csv").open()))
    assert float(rows[-1][loss]) < float(rows[0][loss])


def test_samples_repeat(disc_folder: Path) -> None:
    task = make_task("segmenter", disc_folder, (128, 96))
    first, again, other = (task.sample(number, 0) for number in (3, 3, 4))
    assert (first.canvas == again.canvas).all() and (first.points == again.points).all()
    assert first.canvas.shape == other.canvas.shape and (first.canvas != other.canvas).any()


def test_the_command_names_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["pose", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--threads", "1"]) == 1
    assert "bmp_ros.synthetic.dataset" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--size", "100x100"])
