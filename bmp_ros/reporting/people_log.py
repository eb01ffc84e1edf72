# SPDX-License-Identifier: Apache-2.0
"""``PeopleLog``: numbers of every image as they come, and pictures of those most in doubt."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from bmp_ros.drawing import draw_people
from bmp_ros.loop.people import People

PICTURE_WIDTH = 480
NUMBERS = "number of the image, in the order of names"
"""The axis of images that have no times."""
_JPEG_QUALITY = 80


@dataclass(frozen=True)
class Track:
    """Where one id was seen: ``seconds`` and ``scores`` of the images, rising; ``sequence`` it
    belongs to (ids begin anew in every video)."""

    sequence: str
    track_id: int
    seconds: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class DoubtfulPicture:
    """jpeg: with people drawn. certainty: score times pose score of its least certain person."""

    label: str
    certainty: float
    jpeg: bytes


@dataclass
class PeopleLog:
    """What a report of `bmp infer` or `bmp bag` is made of.

    pictures: how many are kept; 0 where nobody is to be recognised. tracked: whether ids count.
    axis: what the seconds are, where they are something else.
    """

    pictures: int = 12
    tracked: bool = True
    axis: str = "seconds"
    _seconds: list[float] = field(default_factory=list)
    _sequences: list[str] = field(default_factory=list)
    _counts: list[int] = field(default_factory=list)
    _scores: list[np.ndarray] = field(default_factory=list)
    _pose_scores: list[np.ndarray] = field(default_factory=list)
    _times: list[Mapping[str, float]] = field(default_factory=list)
    _tracks: dict[tuple[str, int], list[tuple[float, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _doubtful: list[tuple[float, int, DoubtfulPicture]] = field(default_factory=list)

    def add(
        self,
        image: np.ndarray,
        people: People,
        seconds: float,
        times_ms: Mapping[str, float],
        sequence: str = "",
        label: str = "",
    ) -> None:
        """Take one image, in the order of their times; only numbers are kept of most.

        image: BGR uint8 (H, W, 3). seconds: on the axis of its sequence, a video or a bag.
        times_ms: milliseconds by stage. label: of the picture, if it is kept.
        """
        number = len(self._counts)
        self._seconds.append(seconds)
        self._sequences.append(sequence)
        self._counts.append(len(people))
        self._scores.append(people.scores.copy())
        self._pose_scores.append(people.pose_scores.copy())
        self._times.append(dict(times_ms))
        for track, score in zip(people.track_ids.tolist(), people.scores.tolist(), strict=True):
            if track >= 0 and self.tracked:
                self._tracks[sequence, track].append((seconds, score))
        if len(people) and self.pictures:
            self._keep(image, people, number, label or f"{sequence} {seconds:.2f} s".strip())

    def _keep(self, image: np.ndarray, people: People, number: int, label: str) -> None:
        certainty = float((people.scores * people.pose_scores).min())
        # A heap of the least certain; its first one is the most certain of them.
        if len(self._doubtful) >= self.pictures and -self._doubtful[0][0] <= certainty:
            return
        entry = -certainty, number, DoubtfulPicture(label, certainty, thumbnail(image, people))
        if len(self._doubtful) < self.pictures:
            heapq.heappush(self._doubtful, entry)
        else:
            heapq.heapreplace(self._doubtful, entry)

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def seconds(self) -> np.ndarray:
        """(F,) of every image."""
        return np.array(self._seconds, float)

    @property
    def sequences(self) -> np.ndarray:
        """(F,) the sequence of every image."""
        return np.array(self._sequences, object)

    @property
    def counts(self) -> np.ndarray:
        """(F,) people in every image."""
        return np.array(self._counts, int)

    @property
    def scores(self) -> np.ndarray:
        """(N,) the detector's, of everyone in every image."""
        return np.concatenate(self._scores) if self._scores else np.zeros(0)

    @property
    def pose_scores(self) -> np.ndarray:
        """(N,) likewise."""
        return np.concatenate(self._pose_scores) if self._pose_scores else np.zeros(0)

    def times_ms(self) -> dict[str, np.ndarray]:
        """Milliseconds of every image by stage, 0 where a stage did not run.

        Without the first image, where there are more: it warms the networks up.
        """
        return stage_times(self._times)

    def tracks(self) -> list[Track]:
        """By sequence, then in the order in which they began."""
        found = [
            Track(sequence, track, *np.array(seen, float).T)
            for (sequence, track), seen in self._tracks.items()
        ]
        order = {name: index for index, name in enumerate(dict.fromkeys(self._sequences))}
        return sorted(found, key=lambda each: (order[each.sequence], each.seconds[0]))

    def doubtful(self) -> list[DoubtfulPicture]:
        """The pictures with the least certain people, the worst one first."""
        return [picture for _, _, picture in sorted(self._doubtful, reverse=True)]


def stage_times(frames: list[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """Milliseconds of every frame by stage; the first frame left out where there are more."""
    timed = frames[1:] or frames
    names = dict.fromkeys(name for frame in timed for name in frame)
    return {name: np.array([frame.get(name, 0.0) for frame in timed]) for name in names}


def thumbnail(image: np.ndarray, people: People) -> bytes:
    """A small JPEG of an image with its people drawn."""
    drawn = draw_people(image, people)
    scale = min(1.0, PICTURE_WIDTH / drawn.shape[1])
    size = max(1, round(drawn.shape[1] * scale)), max(1, round(drawn.shape[0] * scale))
    small = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return bytes(data.tobytes())
