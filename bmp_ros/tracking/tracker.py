# SPDX-License-Identifier: Apache-2.0
"""``PersonTracker``: ids for the people of one image after the other."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bmp_ros import __version__
from bmp_ros.loop.frame import check_image
from bmp_ros.loop.people import People
from bmp_ros.tracking import life_cycle, motion
from bmp_ros.tracking.appearance import BINS
from bmp_ros.tracking.continuity import LONG_GAP, StampClock, Step, background, shows_another_place
from bmp_ros.tracking.matching import LIKE, Matches, Sighting, look_at, match
from bmp_ros.tracking.settings import TrackerSettings
from bmp_ros.tracking.swap_guard import Encounter, exchange
from bmp_ros.tracking.tracks import IdCounter, State, Tracks

SHORT_GAP = 1.0
"""Seconds between two images up to which motion says where people are. (With 0.5 s, three times as
many switches at 5 Hz with a fifth of the images dropped.)"""


@dataclass
class TrackerState:
    """Everything a tracker knows; plain arrays and numbers, can be copied and pickled."""

    clock: StampClock
    tracks: Tracks
    image_size: tuple[int, int] = (0, 0)
    background: np.ndarray | None = None
    encounters: list[Encounter] = field(default_factory=list)
    fresh: bool = True
    resets: int = 0
    why_reset: str = ""
    swaps: int = 0

    def is_of_other_images(self, people: People) -> bool:
        """Whether ``people`` are of images of another size, or have another skeleton."""
        joints = self.tracks.joints.shape[1]
        return (people.image_size, len(people.skeleton)) != (self.image_size, joints)

    def is_cut(self, matches: Matches, seen: Sighting, before: np.ndarray | None) -> bool:
        """Whether two people or more were known, fewer than half of those who could be the same
        match somebody of like colours, and the background is of another place than ``before``.
        After a cut somebody often is by chance where another one was."""
        known = int((self.tracks.state != State.TENTATIVE).sum())
        if known < 2 or not len(seen.people):
            return False
        same = int((~(matches.looks < LIKE)).sum())  # unknown colours may be alike
        few = 2 * same < min(known, len(seen.people))
        return few and shows_another_place(before, self.background)


@dataclass(frozen=True)
class TrackReport:
    """T tracks with an id after the last image: ids (T,), state (T,) see `State`, ages (T,) and
    unseen (T,) seconds, boxes (T, 4) xyxy predicted for or seen in that image, velocities (T, 2)
    pixels per second. Those that are not CONFIRMED were not seen."""

    ids: np.ndarray
    state: np.ndarray
    ages: np.ndarray
    unseen: np.ndarray
    boxes: np.ndarray
    velocities: np.ndarray


class PersonTracker:
    """Recognises people from image to image of one camera.

    ``tracker.update(people, stamp_s)`` returns the same people with ``track_ids``: -1 for somebody
    who is not sure yet. An id means one person and is never given to another one; several trackers
    with one ``counter`` share their ids. Not for several threads at once.
    """

    def __init__(
        self, settings: TrackerSettings | None = None, counter: IdCounter | None = None
    ) -> None:
        self.settings = settings or TrackerSettings()
        self.counter = counter or IdCounter()
        self._state = self._empty(0)
        self._colours = np.zeros((0, BINS))

    def update(
        self,
        people: People,
        stamp_s: float,
        ego_motion: np.ndarray | None = None,
        *,
        image: np.ndarray | None = None,
        arrival_s: float | None = None,
    ) -> People:
        """Match ``people``, found in the image of the time ``stamp_s``, with those known.

        ego_motion: (3, 3) homography from pixels of the previous image to pixels of this one, such
        as `motion.rotation_homography` gives; None where the camera stands or it is unknown.
        image: BGR uint8 (H, W, 3), for the colours of clothes and for noticing cuts. arrival_s:
        when it came, for cameras whose stamps stand still.

        Longer gaps than two seconds, steps back by a second or more, another image size and cuts
        begin anew, with new ids; smaller steps back do not. Raises ValueError for a stamp that is
        not finite, a homography that cannot be inverted, an image of another size; then nothing
        is changed.
        """
        homography = None if ego_motion is None else motion.check_homography(ego_motion)
        if image is not None and check_image(image).shape[:2] != people.image_size:
            raise ValueError(
                f"the image is {image.shape[:2]}, the people are of one of {people.image_size}"
            )
        state, settings = self._state, self.settings
        step, dt = state.clock.step(stamp_s, arrival_s)
        now, gap = state.clock.now, dt if step is Step.GAP else 0.0
        if step in (Step.START, Step.RESTART) or state.is_of_other_images(people):
            why = "" if step is Step.RESTART else "images or skeletons have another size"
            if step is Step.RESTART and dt > 0:
                why = (
                    f"{dt:.1f} s between two images, and nobody is followed over more than "
                    f"{LONG_GAP:g} s: faster results (another preset) or a higher rate keep ids"
                )
            self._restart(people, why)
            state.background = None
        seen = look_at(people, image)
        self._colours = seen.colours
        if homography is not None and len(state.tracks):
            state.tracks.move_with_camera(homography)
        life_cycle.predict(state.tracks, dt, settings)
        matches = match(state.tracks, seen, settings, now, gap)
        before, state.background = state.background, None
        if image is not None:
            state.background = background(image, seen.pixels.labels)
        if state.is_cut(matches, seen, before):
            self._restart(people, "the image shows another place (a cut, or a quick turn)")
            matches = Matches.none()
        life_cycle.go_on(state.tracks, seen, matches, settings, now, dt)
        born = life_cycle.newcomers(seen, matches, settings)
        rows = len(state.tracks) + np.arange(len(born))
        if len(born):
            state.tracks = state.tracks.with_more(life_cycle.begin(seen, born, now))
        life_cycle.miss(state.tracks, matches, now)
        if settings.swap_guard:
            state.encounters, swaps = exchange(state.encounters, state.tracks, seen, matches, now)
            state.swaps += swaps
        at_once = state.fresh or dt >= life_cycle.SLOW
        life_cycle.confirm(
            state.tracks, seen, matches, self.counter, settings, now,
            at_once=at_once, patient=not gap,
        )  # fmt: skip
        ids = np.full(len(people), -1, np.int32)
        ids[matches.columns] = state.tracks.ids[matches.rows]
        ids[born] = state.tracks.ids[rows]
        state.tracks = state.tracks.keep(life_cycle.alive(state.tracks, settings, now))
        state.fresh = state.fresh and not len(people)
        return _with_ids(people, ids)

    def reset(self) -> None:
        """Forget everybody; ids go on counting."""
        state = self._state
        self._state = replace(
            self._empty(state.tracks.joints.shape[1]),
            image_size=state.image_size,
            resets=state.resets + 1,
            why_reset="",
            swaps=state.swaps,
        )

    def report(self) -> TrackReport:
        """Everybody with an id, also those who were not seen in the last image."""
        tracks = self._state.tracks
        return self._report(tracks.keep(tracks.ids >= 0), self._state.clock.now)

    @staticmethod
    def _report(tracks: Tracks, now: float) -> TrackReport:
        return TrackReport(
            tracks.ids.copy(), tracks.state.copy(), now - tracks.first_s, now - tracks.seen_s,
            motion.to_corners(tracks.centres), tracks.mean[:, :, 1].copy(),
        )  # fmt: skip

    @property
    def colours(self) -> np.ndarray:
        """(N, BINS) colours of the people of the last image, see `appearance.colour_histograms`;
        zero where unknown."""
        return self._colours

    @property
    def time_s(self) -> float:
        """Time of the last image: its stamp; while stamps stand still, as far after it as the
        image came later (``arrival_s``)."""
        return self._state.clock.time_s

    @property
    def counts(self) -> dict[str, int]:
        """Since the tracker was made: ``resets`` for gaps, steps back and cuts, and ``swaps``."""
        return {"resets": self._state.resets, "swaps": self._state.swaps}

    @property
    def why_reset(self) -> str:
        """Why everybody was forgotten last, in words; empty where stamps went back, or `reset`
        was called."""
        return self._state.why_reset

    @property
    def stamps_stand_still(self) -> bool:
        """Whether the last images had one stamp, so that times of arrival were used."""
        return self._state.clock.frozen

    def has_newcomers(self, within_s: float) -> bool:
        """Whether somebody waits for an id who was first seen at most ``within_s`` seconds ago."""
        tracks = self._state.tracks
        young = self._state.clock.now - tracks.first_s <= within_s
        return bool((young & (tracks.state == State.TENTATIVE)).any())

    def expect(
        self,
        stamp_s: float,
        arrival_s: float | None = None,
        ego_motion: np.ndarray | None = None,
    ) -> TrackReport | None:
        """Where everybody with an id should be in an image of the time ``stamp_s``.

        Nothing is changed; `update` with that image, and the same ``ego_motion``, comes next. None
        where the tracker would begin anew, or nobody knows how people moved: after a gap, or a
        step back. ``state`` is that of the last image. Raises ValueError as `update` does.
        """
        homography = None if ego_motion is None else motion.check_homography(ego_motion)
        step, dt = copy.copy(self._state.clock).step(stamp_s, arrival_s)
        if step not in (Step.NORMAL, Step.SAME):
            return None
        known = self._state.tracks
        tracks = replace(known.keep(known.ids >= 0))  # other arrays are put into it
        if homography is not None and len(tracks):
            tracks.move_with_camera(homography)
        life_cycle.predict(tracks, dt, self.settings)
        return self._report(tracks, self._state.clock.now + dt)

    def save(self) -> dict[str, Any]:
        """A copy of all that the tracker knows, for `restore`; can be pickled."""
        return {
            "version": __version__,
            "state": copy.deepcopy(self._state),
            "next_id": self.counter.next,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from what `save` gave. Ids given out since then are not given out again.

        Raises ValueError for anything else, also for what another version of bmp_ros saved.
        """
        if not isinstance(saved, dict) or {"version", "state", "next_id"} - saved.keys():
            raise ValueError("this is nothing that PersonTracker.save() gave")
        if saved["version"] != __version__:
            raise ValueError(
                f"the tracker's state was saved by bmp_ros {saved['version']}, this is "
                f"{__version__}: begin with a new tracker, whose counter skips to next_id"
            )
        self._state = copy.deepcopy(saved["state"])
        self.counter.skip_to(saved["next_id"])

    def _empty(self, joints: int) -> TrackerState:
        return TrackerState(StampClock(SHORT_GAP), Tracks.none(joints))

    def _restart(self, people: People, why: str) -> None:
        state = self._state
        if len(state.tracks):
            state.resets, state.why_reset = state.resets + 1, why
        state.tracks, state.encounters = Tracks.none(len(people.skeleton)), []
        state.image_size, state.fresh = people.image_size, True


def _with_ids(people: People, ids: np.ndarray) -> People:
    tracked = replace(people, track_ids=ids)
    if "mask_rectangles" in people.__dict__:  # computed once, of the same masks
        tracked.__dict__["mask_rectangles"] = people.__dict__["mask_rectangles"]
    return tracked
