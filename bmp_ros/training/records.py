# SPDX-License-Identifier: Apache-2.0
"""What a training leaves behind for people: a table of losses, curves, a line of words."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path


def append_row(file: Path, row: Mapping[str, float | str]) -> None:
    """Add ``row`` to a CSV file; its names become the header of a new one."""
    new = not file.is_file()
    with file.open("a", newline="", encoding="utf-8") as sink:
        writer = csv.DictWriter(sink, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def to_tensorboard(folder: Path, step: int, row: Mapping[str, float]) -> None:
    """Write ``row`` for TensorBoard, into ``folder/tensorboard``; where that is installed.

    Numbers that are not known (NaN) are left out. What an interrupted training wrote of this step
    and later ones is no longer shown.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    with SummaryWriter(str(folder / "tensorboard"), purge_step=step) as writer:
        for name, value in row.items():
            if not math.isnan(value):
                writer.add_scalar(name.replace("held-out ", "held-out/"), value, step)


def keep_rows(file: Path, last: int) -> None:
    """Drop the rows of steps after ``last``: who goes on from there writes them anew."""
    if not file.is_file():
        return
    with file.open(newline="", encoding="utf-8") as source:
        rows = list(csv.DictReader(source))
    kept = [row for row in rows if int(row["step"]) <= last]
    if len(kept) < len(rows):
        file.unlink()
        for row in kept:
            append_row(file, row)


def in_words(row: Mapping[str, float]) -> str:
    """``row`` on one line, four digits each, without what is not known (NaN)."""
    return ", ".join(f"{name} {value:.4g}" for name, value in row.items() if value == value)


def draw_curves(folder: Path) -> Path | None:
    """Draw ``losses.csv`` as ``curves.png``; None where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    with (folder / "losses.csv").open(encoding="utf-8") as source:
        rows = list(csv.DictReader(source))
    steps = [int(row["step"]) for row in rows]
    names = [name for name in rows[0] if name not in ("step", "learning_rate")]
    names = [name for name in names if not name.startswith("held-out ")]
    figure, axes = pyplot.subplots(1, len(names), figsize=(4.5 * len(names), 3.5), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        own = "held out, averaged" if name == "AP" else "training"
        for column, label in ((name, own), (f"held-out {name}", "held out, averaged")):
            if column not in rows[0]:
                continue
            points = [(step, float(row[column])) for step, row in zip(steps, rows, strict=True)]
            known = [point for point in points if not math.isnan(point[1])]
            if known:
                axis.plot(*zip(*known, strict=True), label=label, marker=".")
        axis.set(title=name, xlabel="step", ylim=(0, None))
        if axis.lines:
            axis.legend()
    figure.tight_layout()
    figure.savefig(folder / "curves.png", dpi=90)
    pyplot.close(figure)
    return folder / "curves.png"
