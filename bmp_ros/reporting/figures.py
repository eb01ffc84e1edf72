# SPDX-License-Identifier: Apache-2.0
"""Figures of a report, by plotly: people over time, tracks, times of the stages, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from bmp_ros.drawing import person_color
from bmp_ros.reporting.people_log import NUMBERS, PeopleLog, Track

INSTALL = "reports need plotly: `pip install -r requirements/report.txt`"
PERCENTILES = (50, 90, 95, 99)
MOST_POINTS, MOST_TRACKS = 4000, 200
_LEAST_GAP_S, _GAPS = 0.5, 3.0
"""A bar of a track ends where the id was not seen for so many seconds, or so many of the usual
times between images, whichever is longer."""


def import_plotly() -> ModuleType:
    """Import plotly.graph_objects. Raises ModuleNotFoundError that says what to install."""
    try:
        import plotly.graph_objects as objects
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{INSTALL} ({error})", name="plotly") from error
    return objects


def people_over_time(log: PeopleLog) -> Any:
    """A line per sequence; of many images at most `MOST_POINTS` are drawn (see `thinned`).

    Images without times get a bar each: a line would say that one leads to the next.
    """
    objects = import_plotly()
    figure = objects.Figure()
    sequences = log.sequences
    if log.axis == NUMBERS and len(log) <= MOST_POINTS:
        figure.add_bar(x=log.seconds + 1, y=log.counts, name="people")
        sequences = sequences[:0]
    for name in dict.fromkeys(sequences.tolist()):
        mine = sequences == name
        seconds, counts = thinned(log.seconds[mine], log.counts[mine])
        figure.add_scatter(
            x=seconds, y=counts, name=name or "people", mode="lines", line_shape="hv",
            showlegend=bool(name),
        )  # fmt: skip
    figure.update_layout(xaxis_title=log.axis, yaxis_title="people", yaxis_rangemode="tozero")
    return _styled(figure, 320)


def thinned(
    x: np.ndarray, y: np.ndarray, most: int = MOST_POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """The same curve with at most ``most`` points: of each part the lowest and the highest."""
    if len(x) <= most:
        return x, y
    kept = []
    for part in np.array_split(np.arange(len(x)), most // 2):
        kept += sorted({int(part[y[part].argmin()]), int(part[y[part].argmax()])})
    return x[kept], y[kept]


def bars_of(track: Track) -> list[tuple[float, float]]:
    """Start and length in seconds of each time that an id was seen without a gap."""
    steps = np.diff(track.seconds)
    usual = float(np.median(steps)) if len(steps) else 0.0
    breaks = np.flatnonzero(steps > max(_LEAST_GAP_S, _GAPS * usual)) + 1
    parts = np.split(track.seconds, breaks)
    return [(float(part[0]), float(part[-1] - part[0]) + usual) for part in parts]


def gantt(tracks: Sequence[Track], axis: str = "seconds") -> Any:
    """A row per id, a bar for each time that it was seen; the longest ones of many."""
    objects = import_plotly()
    kept = set(sorted(range(len(tracks)), key=lambda row: -len(tracks[row].seconds))[:MOST_TRACKS])
    rows = [track for row, track in enumerate(tracks) if row in kept]
    figure = objects.Figure()
    labels, starts, lengths, colors, texts = [], [], [], [], []
    for track in rows:
        blue, green, red = person_color(track.track_id)
        name = f"{track.sequence} #{track.track_id}".strip()
        for start, length in bars_of(track):
            labels.append(name)
            starts.append(start)
            lengths.append(length)
            colors.append(f"rgb({red},{green},{blue})")
            texts.append(f"{len(track.seconds)} images, mean score {track.scores.mean():.2f}")
    figure.add_bar(
        y=labels, x=lengths, base=starts, orientation="h", marker_color=colors,
        hovertext=texts, showlegend=False,
    )  # fmt: skip
    figure.update_layout(
        xaxis_title=axis, barmode="overlay", bargap=0.25,
        yaxis={"autorange": "reversed", "type": "category"},
    )  # fmt: skip
    return _styled(figure, max(220, 90 + 22 * len(rows)))


def stage_percentiles(times_ms: Mapping[str, np.ndarray]) -> list[tuple[str, list[float]]]:
    """Of each stage: milliseconds at `PERCENTILES`, the slowest stage first, the total last."""
    rows = [
        (name, [float(np.percentile(values, each)) for each in PERCENTILES])
        for name, values in times_ms.items()
        if len(values)
    ]
    return sorted(rows, key=lambda row: (row[0] == "total", -row[1][0]))


def latency(times_ms: Mapping[str, np.ndarray]) -> Any:
    """Of each stage a group of bars, one for each of `PERCENTILES`."""
    objects = import_plotly()
    rows = stage_percentiles(times_ms)
    figure = objects.Figure()
    for index, percentile in enumerate(PERCENTILES):
        figure.add_bar(
            x=[name for name, _ in rows], y=[values[index] for _, values in rows],
            name=f"p{percentile}",
        )  # fmt: skip
    figure.update_layout(yaxis_title="milliseconds", barmode="group")
    return _styled(figure, 340)


def score_histogram(log: PeopleLog) -> Any:
    """Scores of the detector, and of poses, of everyone in every image."""
    objects = import_plotly()
    figure = objects.Figure()
    edges = np.linspace(0, 1, 41)
    for name, values in (("detector", log.scores), ("pose", log.pose_scores)):
        counts, _ = np.histogram(np.clip(values, 0, 1), edges)
        figure.add_bar(x=(edges[1:] + edges[:-1]) / 2, y=counts, name=name, opacity=0.7)
    figure.update_layout(xaxis_title="score", yaxis_title="people", barmode="overlay", bargap=0)
    return _styled(figure, 300)


def precision_recall(curves: Mapping[str, np.ndarray], thresholds: np.ndarray) -> Any:
    """A line per kind of result at IoU (OKS) 0.50, and a thin one at 0.75.

    curves: (thresholds, 101) precision at recall 0.00 to 1.00; below 0 where nothing is known.
    """
    objects = import_plotly()
    figure = objects.Figure()
    recall = np.linspace(0, 1, 101)
    palette = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")
    for (name, precision), color in zip(curves.items(), palette * 10, strict=False):
        for threshold, width, dash in ((0.5, 2.5, "solid"), (0.75, 1.5, "dot")):
            row = int(np.argmin(np.abs(thresholds - threshold)))
            known = precision[row] >= 0
            figure.add_scatter(
                x=recall[known], y=precision[row][known], mode="lines",
                name=f"{name}, {threshold:.2f}",
                line={"color": color, "width": width, "dash": dash},
            )  # fmt: skip
    figure.update_layout(
        xaxis={"title": "recall", "range": [0, 1.01]},
        yaxis={"title": "precision", "range": [0, 1.01]},
    )
    _styled(figure, 440)
    return figure.update_layout(legend={"orientation": "v", "y": 1.0, "x": 1.02})


def _styled(figure: Any, height: int) -> Any:
    figure.update_layout(
        height=height, template="plotly_white", margin={"l": 60, "r": 20, "t": 20, "b": 50},
        legend={"orientation": "h", "y": 1.12},
    )  # fmt: skip
    return figure
