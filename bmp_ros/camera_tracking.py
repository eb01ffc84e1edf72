# SPDX-License-Identifier: Apache-2.0
"""``CameraTracking``: what of one camera's people is kept from image to image."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np

from bmp_ros.depth.people_3d import People3D
from bmp_ros.loop import BMPLoop
from bmp_ros.loop.people import People
from bmp_ros.loop.protocols import Detections
from bmp_ros.loop.trace import RunReport
from bmp_ros.tracking import (
    IdCounter,
    JointSmoother,
    Keyframes,
    KeyframeSettings,
    PersonTracker,
    SmoothingSettings,
    TrackerSettings,
)

EXPECTED_S = 1.0
"""Seconds for which a person who is no longer seen is still expected where they should be."""


@dataclass(frozen=True)
class Tracked:
    """People of one image with their ids. ages: (N,) float64 seconds since each track began, NaN
    without one. stamp_s: of the image; gone on by times of arrival where stamps stand still, see
    `PersonTracker.time_s`. milliseconds: that it took.
    known: ids of everyone whom the tracker remembers, seen in this image or not. hidden: (M, 4)
    boxes expected of those who were not seen in it, for a short time only. colours: (N, BINS) of
    clothes, see `tracking.appearance`; None where nobody is tracked."""

    people: People
    ages: np.ndarray
    stamp_s: float
    milliseconds: float = 0.0
    known: frozenset[int] = frozenset()
    hidden: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    colours: np.ndarray | None = None


class CameraTracking:
    """The tracker of one camera and its filters; all but `forget` is for one thread.

    counter: of the node, so that no two people ever have one id.
    """

    def __init__(self, counter: IdCounter) -> None:
        self._tracker = PersonTracker(counter=counter)
        self._keyframes = Keyframes()
        self._joints = JointSmoother()
        self._joints_in_space = JointSmoother()
        self._places = JointSmoother()
        self._stale = False
        self._stamp_s = 0.0
        self._swaps = 0

    def forget(self) -> None:
        """Let the next image be like the first; from any thread."""
        self._stale = True

    @property
    def counts(self) -> dict[str, int]:
        """``resets``, ``swaps`` and ``rests`` (of the detector) since the node was configured."""
        return {**self._tracker.counts, "rests": self._keyframes.rests}

    @property
    def why_reset(self) -> str:
        """Why the tracker began anew last, see `PersonTracker.why_reset`."""
        return self._tracker.why_reset

    @property
    def stamps_stand_still(self) -> bool:
        """Whether the last images had one stamp, and times of arrival are used."""
        return self._tracker.stamps_stand_still

    def find(
        self,
        loop: BMPLoop,
        image: np.ndarray,
        stamp_ns: int,
        *,
        arrival_s: float,
        settings: KeyframeSettings,
        known: Detections | None = None,
        ego_motion: np.ndarray | None = None,
    ) -> tuple[People, RunReport]:
        """The people in a BGR uint8 image (H, W, 3); `track` or `untracked` comes next.

        known: boxes of another program, see `Keyframes.find`. ego_motion: as for `track`.
        """
        if self._stale:
            self._keyframes.reset()
        self._keyframes.settings = settings
        return self._keyframes.find(
            loop, self._tracker, image, self._seconds(stamp_ns), arrival_s=arrival_s, known=known,
            ego_motion=ego_motion,
        )  # fmt: skip

    def untracked(self, people: People, stamp_ns: int) -> Tracked:
        """The people as they are, without ids, while nobody is tracked."""
        self.forget()
        return Tracked(people, np.full(len(people), np.nan), self._seconds(stamp_ns))

    def track(
        self,
        people: People,
        stamp_ns: int,
        image: np.ndarray,
        *,
        arrival_s: float,
        settings: TrackerSettings,
        ego_motion: np.ndarray | None,
    ) -> Tracked:
        """Give people ids. image: BGR uint8 (H, W, 3). arrival_s: of the image, on a steady clock.

        ego_motion: (3, 3) homography from the image before, None where it is unknown.
        """
        start = time.perf_counter()
        if self._stale:
            self._stale = False
            self._tracker.reset()
            self._keyframes.reset()  # what `find` took from the image before is not to go on
            self._drop_filters()
        self._tracker.settings = settings
        stamp_s = self._seconds(stamp_ns)
        tracked = self._tracker.update(
            people, stamp_s, ego_motion, image=image, arrival_s=arrival_s
        )
        self._keyframes.remember(tracked, image, stamp_s)
        if self._swaps != self._tracker.counts["swaps"]:  # ids now go with other bodies
            self._swaps = self._tracker.counts["swaps"]
            self._drop_filters()
        report = self._tracker.report()
        ages = dict(zip(report.ids.tolist(), report.ages.tolist(), strict=True))
        known = np.array([ages.get(each, np.nan) for each in tracked.track_ids.tolist()], float)
        milliseconds = (time.perf_counter() - start) * 1e3
        expected = (report.unseen > 0) & (report.unseen <= EXPECTED_S)
        hidden = report.boxes[expected & ~np.isin(report.ids, tracked.track_ids)]
        return Tracked(
            tracked,
            known,
            self._tracker.time_s,
            milliseconds,
            frozenset(ages),
            hidden,
            self._tracker.colours,
        )

    def smooth(self, tracked: Tracked, settings: SmoothingSettings) -> People:
        """The people with smoothed keypoints; to be called for every image while it is wanted."""
        people = tracked.people
        self._joints.settings = settings
        sizes = people.boxes[:, 2:] - people.boxes[:, :2]
        keypoints, _ = self._joints.update(
            people.track_ids, people.keypoints, people.keypoint_scores,
            np.sqrt(sizes.prod(axis=1)), tracked.stamp_s,
        )  # fmt: skip
        return with_same_masks(people, keypoints.astype(np.float32))

    def smooth_in_space(
        self, tracked: Tracked, found: People3D, settings: SmoothingSettings
    ) -> People3D:
        """The same in space: keypoints and, by `locate`, centroids and distances."""
        people = tracked.people
        self._joints_in_space.settings = settings
        keypoints, _ = self._joints_in_space.update(
            people.track_ids, found.keypoints, people.keypoint_scores, np.ones(len(people)),
            tracked.stamp_s,
        )  # fmt: skip
        return replace(found, keypoints=keypoints.astype(np.float32))

    def locate(
        self, tracked: Tracked, found: People3D, settings: SmoothingSettings
    ) -> tuple[People3D, np.ndarray]:
        """People in space with smoothed centroids and distances, and their velocities.

        Velocities (N, 3) float64 are those of the centroids in metres per second, in the frame of
        ``found``; NaN where unknown.
        """
        self._places.settings = settings
        # The distance goes along as one more point, on a line.
        distances = np.zeros_like(found.centroids)
        distances[:, 0] = found.distances
        points = np.stack([found.centroids, distances], axis=1)
        count = len(points)
        smooth, speeds = self._places.update(
            tracked.people.track_ids, points, np.ones((count, 2)), np.ones(count),
            tracked.stamp_s,
        )  # fmt: skip
        placed = replace(
            found,
            centroids=smooth[:, 0].astype(np.float32),
            distances=smooth[:, 1, 0].astype(np.float32),
        )
        return placed, speeds[:, 0]

    def stop_smoothing(self) -> None:
        """Forget joints in the image: nobody wants them, and who wants them later begins anew."""
        self._joints.reset()

    def stop_smoothing_in_space(self) -> None:
        """The same for joints in space."""
        self._joints_in_space.reset()

    def _drop_filters(self) -> None:
        for each in (self._joints, self._joints_in_space, self._places):
            each.reset()

    def _seconds(self, stamp_ns: int) -> float:
        """The stamp for the tracker; an image without one is as late as the one before."""
        if stamp_ns != 0:
            self._stamp_s = stamp_ns / 1e9
        return self._stamp_s


def with_same_masks(people: People, keypoints: np.ndarray) -> People:
    """The people with other keypoints; what was computed of their masks is kept."""
    changed = replace(people, keypoints=keypoints)
    if "mask_rectangles" in people.__dict__:
        changed.__dict__["mask_rectangles"] = people.__dict__["mask_rectangles"]
    return changed
