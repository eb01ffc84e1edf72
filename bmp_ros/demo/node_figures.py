# SPDX-License-Identifier: Apache-2.0
"""The figures of ``bmp bench node``: computed, held against their limits, printed.

Nothing is asserted: a limit is what the node is meant to hold on a machine that does nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

RATE = 30.0
"""Images per second of the camera, the networks being slower."""
OVERHEAD_LIMIT_MS = {(640, 480): 3.0, (1920, 1080): 6.0}
SERVICE_LIMIT_MS = 100.0
AGE_ALLOWANCE_MS = 30.0
RATE_SHARE = 0.9


@dataclass(frozen=True)
class Figure:
    """One measured number. limit: the most (``at_least``: the least) that is meant, or None."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = False

    @property
    def held(self) -> bool | None:
        """Whether the limit is held, None without one or without a value."""
        if self.limit is None or np.isnan([self.limit, self.value]).any():
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON; None instead of what is not known."""
        numbers = {"value": self.value, "limit": self.limit}
        known = {
            name: None if number is None or np.isnan(number) else number
            for name, number in numbers.items()
        }
        return asdict(self) | known | {"held": self.held}


@dataclass(frozen=True)
class Run:
    """What was seen of one camera and one node.

    ages_ms: of each image when its result came. times: of these arrivals, seconds.
    calls_ms: how long services took. overhead_ms: of the scripted node, per image.
    loop_ms: median and 95th percentile of the loop. sent, received: images. camera_rate: images
    per second that were sent.
    """

    ages_ms: np.ndarray
    times: np.ndarray
    calls_ms: np.ndarray
    overhead_ms: np.ndarray
    loop_ms: tuple[float, float]
    sent: int
    received: int
    camera_rate: float


def overhead_figures(run: Run, size: tuple[int, int]) -> list[Figure]:
    """What the node adds to the loop."""
    middle, high = _percentiles(run.overhead_ms)
    return [
        Figure("node overhead, median", middle, "ms", OVERHEAD_LIMIT_MS.get(size)),
        Figure("node overhead, p95", high, "ms"),
        Figure("age of results, median", _percentiles(run.ages_ms)[0], "ms"),
        *_loss(run),
    ]


def stream_figures(run: Run) -> list[Figure]:
    """Age and rate of results, answers of services, losses of the transport."""
    age, age_high = _percentiles(run.ages_ms)
    loop, loop_high = run.loop_ms
    call, call_high = _percentiles(run.calls_ms)
    # The images that come while one is worked on cost a period, not a queue.
    allowance = 1e3 / RATE + AGE_ALLOWANCE_MS
    possible = min(run.camera_rate, 1e3 / loop)
    return [
        Figure("camera", run.camera_rate, "per s"),
        Figure("loop, median", loop, "ms"),
        Figure("loop, p95", loop_high, "ms"),
        Figure("age of results, median", age, "ms", loop + allowance),
        Figure("age of results, p95", age_high, "ms", loop_high + allowance),
        Figure("results", _rate(run.times), "per s", RATE_SHARE * possible, at_least=True),
        Figure("answer of a service, median", call, "ms"),
        Figure("answer of a service, p95", call_high, "ms", SERVICE_LIMIT_MS),
        Figure("answer of a service, longest", float(run.calls_ms.max(initial=0.0)), "ms"),
        *_loss(run),
    ]


def lines(figures: Mapping[str, Sequence[Figure]]) -> list[str]:
    """A table for the terminal."""
    text = []
    for heading, group in figures.items():
        text += ["", heading, f"  {'':<32}{'measured':>12}{'limit':>14}"]
        for figure in group:
            text.append(
                f"  {figure.name:<32}{_number(figure.value, figure.unit):>12}"
                f"{_limit(figure):>14}{_verdict(figure)}"
            )
    return text[1:]


def _loss(run: Run) -> list[Figure]:
    return [
        Figure("images sent", run.sent, ""),
        Figure("images lost on the way", run.sent - run.received, "", 0),
    ]


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return np.nan, np.nan
    middle, high = np.percentile(values, [50, 95])
    return float(middle), float(high)


def _rate(times: np.ndarray) -> float:
    """Results per second between the first and the last."""
    return float((len(times) - 1) / (times[-1] - times[0])) if len(times) > 1 else np.nan


def _number(value: float, unit: str) -> str:
    return f"{value:.0f}" if not unit else f"{value:.1f} {unit}"


def _limit(figure: Figure) -> str:
    if figure.limit is None:
        return ""
    return f"{'>=' if figure.at_least else '<='} {_number(figure.limit, figure.unit)}"


def _verdict(figure: Figure) -> str:
    return {None: "", True: "  held", False: "  NOT held"}[figure.held]
