# SPDX-License-Identifier: Apache-2.0
"""Diagnostics: what the node counts per camera, and how that becomes a ``DiagnosticArray``."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from bmp_ros.engines.auto_preset import AutoChoice

WINDOW = 100
"""Percentiles are of so many frames."""
FOREIGN_CLOCK_S = 3600.0
"""Images that seem older than this, or from the future, were stamped by another clock."""


class CameraStatistics:
    """Counts since the start, and the last `WINDOW` frames; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Every frame that was received is one of the others, or waits.
        self.received = 0
        self.replaced = 0
        self.processed = 0
        self.discarded = 0
        self.refused = 0
        self.failed = 0
        self.damaged = 0  # but processed
        self.error = ""  # what the last frame failed with; empty after a good one
        self.refusal = ""
        self.tracking_failed = 0  # the frame was published, without ids
        self.ego_motions = 0
        self._tracks: Mapping[str, int] = {}
        self._remarks: dict[str, str] = {}
        self.damage = ""  # of the last image that was decoded
        self._clear()

    def _clear(self) -> None:
        self._ages: deque[float] = deque(maxlen=WINDOW)
        self._stages: dict[str, deque[float]] = {}
        self._people: deque[int] = deque(maxlen=WINDOW)
        self._not_finite = 0

    def clear(self) -> None:
        """Forget the last frames, not the counts."""
        with self._lock:
            self._clear()
            self.error = self.refusal = self.damage = ""
            self._remarks.clear()

    def count(self, *, received: int = 0, replaced: int = 0, discarded: int = 0) -> None:
        """discarded: because the node was disabled or deactivated before they were published."""
        with self._lock:
            self.received += received
            self.replaced += replaced
            self.discarded += discarded

    def add(
        self, age_s: float, stage_ms: Mapping[str, float], people: int, not_finite: int
    ) -> None:
        """Count a frame that went well. age_s: of the image at publication, NaN if unknown."""
        with self._lock:
            self.processed += 1
            self.error = self.refusal = ""
            self._ages.append(age_s)
            self._people.append(people)
            self._not_finite += not_finite
            for stage, milliseconds in stage_ms.items():
                self._stages.setdefault(stage, deque(maxlen=WINDOW)).append(milliseconds)

    def refuse(self, reason: str) -> None:
        """Count an image that could not be used."""
        with self._lock:
            self.refused += 1
            self.refusal = reason

    def note_damage(self, damage: str) -> None:
        """Count an image that arrived damaged; an empty ``damage`` is that of a whole one."""
        with self._lock:
            self.damaged += bool(damage)
            self.damage = damage

    def fail(self, error: str) -> None:
        """Count a frame that the networks failed on."""
        with self._lock:
            self.failed += 1
            self.error = error

    def note_tracking(
        self, counts: Mapping[str, int], *, failed: bool = False, ego_motion: bool = False
    ) -> None:
        """Count a frame whose people were tracked, or were not because the tracker failed.

        counts: of the tracker. ego_motion: whether the camera's turn was known.
        """
        with self._lock:
            self._tracks = counts
            self.tracking_failed += failed
            self.ego_motions += ego_motion

    def remark(self, what: str, text: str) -> None:
        """Keep why something (depth, markers) is missing beside good results; empty: it is not."""
        with self._lock:
            if text:
                self._remarks[what] = text
            else:
                self._remarks.pop(what, None)

    def snapshot(self) -> Snapshot:
        with self._lock:
            return Snapshot(
                counts={
                    "frames received": self.received,
                    "frames processed": self.processed,
                    "frames replaced by newer ones": self.replaced,
                    "frames discarded": self.discarded,
                    "frames refused": self.refused,
                    "frames failed": self.failed,
                    "frames damaged": self.damaged,
                    "people dropped for NaN": self._not_finite,
                    "frames not tracked for an error": self.tracking_failed,
                    "frames with ego motion": self.ego_motions,
                    "frames without detection": self._tracks.get("rests", 0),
                    "tracker resets": self._tracks.get("resets", 0),
                    "track ids exchanged": self._tracks.get("swaps", 0),
                },
                error=self.error,
                refusal=self.refusal,
                damage=self.damage,
                ages_s=np.array(self._ages, np.float64),
                stages_ms={name: np.array(values) for name, values in self._stages.items()},
                people=np.array(self._people, np.float64),
                remarks=tuple(self._remarks.values()),
            )


@dataclass(frozen=True)
class Snapshot:
    """`CameraStatistics` at one moment; arrays hold the last frames."""

    counts: Mapping[str, int]
    error: str
    refusal: str
    damage: str
    ages_s: np.ndarray
    stages_ms: Mapping[str, np.ndarray] = field(default_factory=dict)
    people: np.ndarray = field(default_factory=lambda: np.zeros(0))
    remarks: tuple[str, ...] = ()

    @property
    def known_ages_s(self) -> np.ndarray:
        """Ages of images whose stamps are of the node's clock."""
        ages = self.ages_s[np.isfinite(self.ages_s)]
        return ages[(ages > -1.0) & (ages < FOREIGN_CLOCK_S)]


def camera_status(
    name: str,
    hardware: str,
    snapshot: Snapshot,
    *,
    silent_s: float | None,
    timeout_s: float,
    budget_ms: float,
    source: str,
) -> DiagnosticStatus:
    """Judge one camera.

    silent_s: seconds since the last image, None while none is expected, which is always OK.
    source: what the node listens to. ERROR: no image for ``timeout_s``, or the last frame failed.
    WARN: the last image was refused or damaged, results are older than ``budget_ms``, stamps are
    0 or of another clock, or depth or markers are wanted and missing.
    """
    ages = snapshot.known_ages_s
    p95 = float(np.percentile(ages, 95)) * 1e3 if len(ages) else math.nan
    unknown = len(snapshot.ages_s) > 0 and not len(ages)
    level, text = DiagnosticStatus.OK, "OK"
    if silent_s is None:
        text = "not listening"
    elif silent_s > timeout_s:
        level, text = DiagnosticStatus.ERROR, f"no image for {silent_s:.0f} s on {source}"
    elif snapshot.error:
        level, text = DiagnosticStatus.ERROR, f"the last frame failed: {snapshot.error}"
    elif snapshot.refusal:
        level, text = DiagnosticStatus.WARN, f"the last image was refused: {snapshot.refusal}"
    elif snapshot.damage:
        level, text = DiagnosticStatus.WARN, f"the last image was damaged: {snapshot.damage}"
    elif budget_ms and p95 > budget_ms:
        level, text = (
            DiagnosticStatus.WARN,
            f"results are {p95:.0f} ms old (95th percentile), the budget is {budget_ms:.0f} ms "
            f"(latency_budget_ms){_why_old(p95, snapshot.stages_ms.get('total'))}",
        )
    elif unknown and np.isnan(snapshot.ages_s).all():
        level, text = (
            DiagnosticStatus.WARN,
            "the images are stamped 0: their age is unknown; the camera's driver has to set the "
            "stamp",
        )
    elif unknown:
        level, text = (
            DiagnosticStatus.WARN,
            "the images' stamps are not of the node's clock; with a bag or a simulator set "
            "use_sim_time, with a camera on another machine synchronise the clocks (chrony)",
        )
    if snapshot.remarks and silent_s is not None:
        texts = ([] if level == DiagnosticStatus.OK else [text]) + list(snapshot.remarks)
        level, text = max(level, DiagnosticStatus.WARN), "; ".join(texts)
    values = {"listens to": source, **snapshot.counts}
    values |= _percentiles("age of the result", ages * 1e3)
    for stage, milliseconds in snapshot.stages_ms.items():
        values |= _percentiles(stage, milliseconds)
    if len(snapshot.people):
        values["people per frame"] = f"{snapshot.people.mean():.2f}"
    return status(name, hardware, level, text, values)


def engine_status(
    name: str,
    hardware: str,
    *,
    preset: str,
    choice: AutoChoice | None = None,
    problem: str,
    enabled: bool,
    memory: Mapping[str, str],
) -> DiagnosticStatus:
    """Judge the networks.

    hardware: the device, empty while not configured. choice: why preset ``auto`` is this preset.
    problem: why the node is not configured.
    """
    level, text = DiagnosticStatus.OK, "OK" if enabled else "disabled by the service enable"
    if problem:
        level, text = DiagnosticStatus.ERROR, f"cannot configure: {problem}"
    elif not hardware:
        level, text = DiagnosticStatus.WARN, "not configured"
    values: dict[str, object] = {"preset": preset}
    if choice is not None:
        values["chosen by auto because"] = choice.reason
        if choice.more:
            values["for the full networks"] = choice.more
    return status(name, hardware, level, text, {**values, "device": hardware, **memory})


def status(
    name: str, hardware: str, level: bytes, text: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """Make one entry of a ``DiagnosticArray``."""
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=name, message=text, hardware_id=hardware, values=pairs
    )


def _why_old(p95_ms: float, total_ms: Sequence[float] | np.ndarray | None) -> str:
    """What makes results old, and what helps. total_ms: of the networks, frame by frame."""
    if total_ms is None or not len(total_ms):
        return ""
    slow_ms = float(np.percentile(total_ms, 95))
    if 2 * slow_ms > p95_ms:  # an image waits for the one before it, and is computed
        return (
            f": the networks take {slow_ms:.0f} ms; a smaller preset, a GPU or "
            "detection_interval takes less"
        )
    return (
        f": the networks take {slow_ms:.0f} ms, so images are old when they come; look at the "
        "camera's driver, at the transport and at its clock"
    )


def _percentiles(name: str, milliseconds: Sequence[float] | np.ndarray) -> dict[str, str]:
    if not len(milliseconds):
        return {}
    middle, high = np.percentile(milliseconds, [50, 95])
    return {f"{name} p50 (ms)": f"{middle:.1f}", f"{name} p95 (ms)": f"{high:.1f}"}
