# SPDX-License-Identifier: Apache-2.0
"""HOTA, IDF1, MOTA and switches of tracks against identities, by TrackEval."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from types import ModuleType
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from bmp_ros.evaluation.sequences import FrameTruth
from bmp_ros.loop.box_nms import box_iou

MATCH_IOU = 0.5


@dataclass(frozen=True)
class FrameTracks:
    """What a tracker says of one image: ids (M,) int64, boxes (M, 4) xyxy, masks (M, H, W) bool or
    None. People without an id are left out."""

    ids: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray | None = None


@dataclass(frozen=True)
class Comparison:
    """One image, compared: true_ids (N,), track_ids (M,) int64, iou (N, M) of those who count."""

    true_ids: np.ndarray
    track_ids: np.ndarray
    iou: np.ndarray

    def ids_of_true(self) -> dict[int, int]:
        """Track ids of the people whom a track fits with an IoU of 0.5, by identity."""
        rows, columns = linear_sum_assignment(-np.where(self.iou >= MATCH_IOU, self.iou, 0.0))
        return {
            int(self.true_ids[row]): int(self.track_ids[column])
            for row, column in zip(rows, columns, strict=True)
            if self.iou[row, column] >= MATCH_IOU
        }


@dataclass(frozen=True)
class TrackScores:
    """hota, deta, assa, idf1, mota in [0, 1] (mota may be negative), HOTA and its parts as means
    over the IoU thresholds 0.05 to 0.95. switches: identity switches at IoU 0.5; a whole
    number, but in means and differences."""

    hota: float
    deta: float
    assa: float
    idf1: float
    mota: float
    switches: float


def import_trackeval() -> ModuleType:
    """TrackEval's metrics. Raises ModuleNotFoundError saying what to install."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import trackeval.metrics
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "scores of tracks need pycocotools and TrackEval: `pip install -r "
            "requirements/evaluate.txt`, then `pip install --no-deps -r "
            "requirements/evaluate-tracking.txt` (without --no-deps it would replace NumPy) "
            f"({error})"
        ) from error
    metrics: ModuleType = trackeval.metrics
    return metrics


class TrackScorer:
    """Collects sequences and scores them together."""

    def __init__(self) -> None:
        metrics = import_trackeval()
        with contextlib.redirect_stdout(io.StringIO()):  # they announce their settings
            self._metrics = {
                "hota": metrics.HOTA(),
                "clear": metrics.CLEAR({"THRESHOLD": MATCH_IOU}),
                "identity": metrics.Identity({"THRESHOLD": MATCH_IOU}),
            }
        self._results: dict[str, dict[str, Any]] = {name: {} for name in self._metrics}

    def add(self, name: str, frames: Sequence[Comparison]) -> TrackScores:
        """Score one sequence, image by image; returns its own scores.

        Raises ValueError for a name that was there before: its scores would be lost.
        """
        if name in self._results["hota"]:
            raise ValueError(
                f"a sequence called {name!r} was scored before; give each a name of its own"
            )
        data = _sequence_data(frames)
        results = {}
        for kind, metric in self._metrics.items():
            results[kind] = metric.eval_sequence(data)
            self._results[kind][name] = results[kind]
        return _scores(results)

    def total(self, names: Sequence[str] | None = None) -> TrackScores:
        """The scores of all sequences together, or of those with the ``names``, as often as each
        occurs. Raises ValueError when there is none."""
        results = self._results
        if names is not None:
            results = {
                kind: {str(row): by_name[name] for row, name in enumerate(names)}
                for kind, by_name in results.items()
            }
        if not results["hota"]:
            raise ValueError("no sequence was scored")
        return _scores(
            {
                kind: metric.combine_sequences(results[kind])
                for kind, metric in self._metrics.items()
            }
        )


def _scores(results: dict[str, dict[str, Any]]) -> TrackScores:
    hota = results["hota"]
    return TrackScores(
        hota=float(np.mean(hota["HOTA"])),
        deta=float(np.mean(hota["DetA"])),
        assa=float(np.mean(hota["AssA"])),
        idf1=float(results["identity"]["IDF1"]),
        mota=float(results["clear"]["MOTA"]),
        switches=int(results["clear"]["IDSW"]),
    )


def compare(truth: FrameTruth, tracks: FrameTracks, *, masks: bool = False) -> Comparison:
    """Compare the tracks of one image with the truth, by boxes or by ``masks``.

    Tracks on people who are ignored are removed first, as MOTChallenge does.
    """
    iou = similarity(truth, tracks, masks)
    keep = np.ones(len(tracks.ids), np.bool_)
    if truth.ignored.any() and len(tracks.ids):
        # Those who count take part first: nobody is removed who fits them as well.
        gain = np.where(iou >= MATCH_IOU, iou + ~truth.ignored[:, None], 0.0)
        rows, columns = linear_sum_assignment(-gain)
        matched = gain[rows, columns] > 0
        keep[columns[matched & truth.ignored[rows]]] = False
    counts = ~truth.ignored
    return Comparison(truth.identities[counts], tracks.ids[keep], iou[counts][:, keep])


def recognised(
    frames: Sequence[Comparison], stamps: Sequence[float], longer_than: float, within: float = 1.0
) -> tuple[int, int]:
    """How many people came back after an absence of more than so many seconds, and how many of
    them with the id that they had before, at the latest ``within`` seconds after.

    Who has no id before the absence or after it counts as not recognised.
    """
    last_seen: dict[int, float] = {}
    before: dict[int, int] = {}
    waiting: dict[int, tuple[int | None, float]] = {}
    returned = again = 0
    for frame, stamp in zip(frames, stamps, strict=True):
        ids = frame.ids_of_true()
        for identity in frame.true_ids.tolist():
            if stamp - last_seen.get(identity, stamp) > longer_than:
                returned += 1
                waiting[identity] = before.get(identity), stamp + within
            last_seen[identity] = stamp
            track = ids.get(identity)
            if track is None:
                continue
            if identity in waiting:
                old, limit = waiting[identity]
                if old == track and stamp <= limit:
                    again += 1
                if old == track or stamp > limit:
                    del waiting[identity]
            before[identity] = track
    return returned, again


def block_bootstrap(
    first: Mapping[Any, Sequence[Comparison]],
    second: Mapping[Any, Sequence[Comparison]],
    stamps: Mapping[Any, Sequence[float]],
    *,
    block_s: float = 1.0,
    samples: int = 1000,
    seed: int = 0,
) -> list[TrackScores]:
    """How much better the first tracker is in every sample, for `interval`.

    first, second: their comparisons of the same sequences. stamps: of the sequences' images,
    seconds. Every sample is the mean lead over the sequences, and takes as many blocks of
    ``block_s`` seconds from each sequence as it has, with replacement and the same ones for both
    (Künsch's block bootstrap, blocks that do not overlap): images that follow each other are not
    independent.
    """
    random = np.random.default_rng(seed)
    leads = []
    for _ in range(samples):
        sample = []
        for name, times in stamps.items():
            block = ((np.asarray(times) - times[0]) // block_s).astype(np.int64)
            drawn = random.integers(0, block[-1] + 1, block[-1] + 1)
            chosen = np.concatenate([np.flatnonzero(block == number) for number in drawn])
            one, other = (
                TrackScorer().add("", [tracker[name][i] for i in chosen])
                for tracker in (first, second)
            )
            sample.append(lead(one, other))
        leads.append(_mean(sample))
    return leads


def sequence_bootstrap(
    first: Sequence[TrackScorer],
    second: Sequence[TrackScorer],
    names: Sequence[str],
    *,
    samples: int = 1000,
    seed: int = 0,
) -> list[TrackScores]:
    """The same for many short sequences: every sample takes as many of them as there are, with
    replacement and the same ones for both.

    first, second: at each of several timings, a scorer with all sequences, by ``names``; every
    sample is the mean lead over the timings.
    """
    random = np.random.default_rng(seed)
    leads = []
    for _ in range(samples):
        drawn = [names[i] for i in random.integers(0, len(names), len(names))]
        pairs = zip(first, second, strict=True)
        leads.append(_mean([lead(one.total(drawn), other.total(drawn)) for one, other in pairs]))
    return leads


def lead(first: TrackScores, second: TrackScores) -> TrackScores:
    """The first scores less the second ones."""
    return TrackScores(*(a - b for a, b in zip(astuple(first), astuple(second), strict=True)))


def interval(leads: Sequence[TrackScores], metric: str) -> tuple[float, float]:
    """2.5th and 97.5th percentile of ``metric``, a field of `TrackScores`."""
    low, high = np.percentile([getattr(each, metric) for each in leads], [2.5, 97.5])
    return float(low), float(high)


def _mean(scores: Sequence[TrackScores]) -> TrackScores:
    return TrackScores(*np.mean([astuple(each) for each in scores], axis=0).tolist())


def _sequence_data(frames: Sequence[Comparison]) -> dict[str, Any]:
    """The form that TrackEval's metrics read: ids counted from 0, similarities per image."""
    true_ids, number_of_true = _from_zero([frame.true_ids for frame in frames])
    track_ids, number_of_tracks = _from_zero([frame.track_ids for frame in frames])
    return {
        "gt_ids": true_ids,
        "tracker_ids": track_ids,
        "similarity_scores": [frame.iou for frame in frames],
        "num_gt_ids": number_of_true,
        "num_tracker_ids": number_of_tracks,
        "num_gt_dets": sum(map(len, true_ids)),
        "num_tracker_dets": sum(map(len, track_ids)),
        "num_timesteps": len(true_ids),
    }


def _from_zero(frames: list[np.ndarray]) -> tuple[list[np.ndarray], int]:
    known = np.unique(np.concatenate(frames)) if frames else np.zeros(0, np.int64)
    return [np.searchsorted(known, ids) for ids in frames], len(known)


def similarity(truth: FrameTruth, tracks: FrameTracks, masks: bool) -> np.ndarray:
    """(N, M) IoU of boxes or, with ``masks``, of masks."""
    if not masks:
        return box_iou(truth.boxes.reshape(-1, 4), tracks.boxes.reshape(-1, 4))
    if truth.masks is None or tracks.masks is None:
        raise ValueError("masks are to be compared, and the truth or the tracks have none")
    first = truth.masks.reshape(len(truth), -1).astype(np.float32)
    second = tracks.masks.reshape(len(tracks.ids), first.shape[1]).astype(np.float32)
    shared = first @ second.T
    union = first.sum(axis=1)[:, None] + second.sum(axis=1)[None] - shared
    return np.asarray(shared / np.maximum(union, 1.0), np.float64)
