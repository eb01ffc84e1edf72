# SPDX-License-Identifier: Apache-2.0
"""``PersonTracker``: ids for the people of one image after the other."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from bmp_ros.loop.frame import check_image
from bmp_ros.loop.people import People
from bmp_ros.tracking import motion
from bmp_ros.tracking.appearance import BINS, appearance_similarity, colour_histograms
from bmp_ros.tracking.association import (
    JOINT_SCORE,
    LEAST_JOINTS,
    MaskOverlap,
    Pixels,
    assign,
    box_similarity,
    coarse_pixels,
    mask_overlap,
    pose_similarity,
)
from bmp_ros.tracking.clock import StampClock, Step
from bmp_ros.tracking.settings import TrackerSettings
from bmp_ros.tracking.swap_guard import Encounter, judge
from bmp_ros.tracking.tracks import IdCounter, State, Tracks

SHORT_GAP = 1.0
"""Seconds between two images up to which motion says where people are. (With 0.5 s, three times as
many switches at 5 Hz with a fifth of the images dropped.)"""
LOST_TRACE = 0.5
"""Seconds out of sight after which the motion of who comes back is another one."""
ENTERING = 0.5
"""Seconds at most for which somebody at the border waits for an id."""
SHORT = 0.2
UNSEEN_FACTOR = 0.67
SLOW = 0.25
"""Seconds between two images from which a track is confirmed at once."""
REACH = 1.5
"""Body heights per second that somebody out of sight may have moved."""
BUFFER_RATE, SLACK_RATE = 2.0, 8.0
"""Per second out of sight: growth of the boxes' buffer and of the poses' tolerance."""
HALF_HIDDEN = 0.5
COLOUR_MEMORY = 0.3
"""Time constant of the colours' moving average, seconds."""
THUMBNAIL = (32, 24)
CUT_CORRELATION = 0.5
LEFT_HIP, RIGHT_HIP = 11, 12


@dataclass
class TrackerState:
    """Everything a tracker knows; plain arrays and numbers, can be copied and pickled."""

    clock: StampClock
    tracks: Tracks
    image_size: tuple[int, int] = (0, 0)
    thumbnail: np.ndarray | None = None
    encounters: list[Encounter] = field(default_factory=list)
    fresh: bool = True
    resets: int = 0
    swaps: int = 0


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


@dataclass(frozen=True)
class _New:
    """The people of an image as the matching sees them."""

    people: People
    centres: np.ndarray
    scores: np.ndarray
    pixels: Pixels
    areas: np.ndarray
    colours: np.ndarray
    crowded: np.ndarray


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
        state = self._state
        step, dt = state.clock.step(stamp_s, arrival_s)
        joints = len(people.skeleton)
        changed = (people.image_size, joints) != (state.image_size, state.tracks.joints.shape[1])
        if step in (Step.START, Step.RESTART) or changed:
            self._restart(joints, people.image_size)
        new = _new_people(people, image)
        thumbnail = None if image is None else _thumbnail(image)
        if homography is not None and len(state.tracks):
            _move(state.tracks, homography)
        self._predict(dt)
        rows, columns, overlap = self._match(new, dt if step is Step.GAP else 0.0)
        if _is_cut(state, len(rows), len(people), thumbnail):
            self._restart(joints, people.image_size)
            rows, columns = rows[:0], columns[:0]
            overlap = None
        state.thumbnail = thumbnail
        self._see(new, rows, columns, dt)
        born = self._give_birth(new, rows, columns, overlap)
        self._end(rows, overlap)
        self._guard(new, rows, columns)
        ids = np.full(len(people), -1, np.int32)
        owners = np.concatenate([columns, born])
        tracks_of = np.concatenate([rows, len(state.tracks) - len(born) + np.arange(len(born))])
        self._confirm(dt)
        ids[owners] = state.tracks.ids[tracks_of]
        alive = self._alive()
        state.tracks = state.tracks.keep(alive)
        state.fresh = state.fresh and not len(people)
        return _with_ids(people, ids)

    def reset(self) -> None:
        """Forget everybody; ids go on counting."""
        size, joints = self._state.image_size, self._state.tracks.joints.shape[1]
        self._state = replace(self._empty(joints), image_size=size, resets=self._state.resets + 1)

    def report(self) -> TrackReport:
        """Everybody with an id, also those who were not seen in the last image."""
        tracks, now = self._state.tracks, self._state.clock.now
        tracks = tracks.keep(tracks.ids >= 0)
        return TrackReport(
            tracks.ids, tracks.state, now - tracks.first_s, now - tracks.seen_s,
            motion.to_corners(tracks.centres), tracks.mean[:, :, 1],
        )  # fmt: skip

    @property
    def counts(self) -> dict[str, int]:
        """Since the tracker was made: ``resets`` for gaps, steps back and cuts, and ``swaps``."""
        return {"resets": self._state.resets, "swaps": self._state.swaps}

    def save(self) -> dict[str, Any]:
        """A copy of all that the tracker knows, for `restore`; can be pickled."""
        return {"state": copy.deepcopy(self._state), "next_id": self.counter.next}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from what `save` gave. Ids given out since then are not given out again."""
        self._state = copy.deepcopy(saved["state"])
        self.counter.skip_to(saved["next_id"])

    def _empty(self, joints: int) -> TrackerState:
        return TrackerState(StampClock(SHORT_GAP), Tracks.none(joints))

    def _restart(self, joints: int, image_size: tuple[int, int]) -> None:
        state = self._state
        state.resets += len(state.tracks) > 0
        state.tracks, state.encounters = Tracks.none(joints), []
        state.image_size, state.fresh, state.thumbnail = image_size, True, None

    def _predict(self, dt: float) -> None:
        state = self._state
        if dt <= 0 or not len(state.tracks):
            return
        tracks = state.tracks
        half_lives = np.full(len(tracks), np.inf)
        half_lives[tracks.state == State.LOST] = motion.HALF_LIFE
        half_lives[tracks.state == State.OCCLUDED] = motion.HIDDEN_HALF_LIFE
        noise = self.settings.velocity_noise * tracks.heights**2
        before = tracks.mean[:, :, 0]
        tracks.mean, tracks.covariance = motion.predict(
            tracks.mean, tracks.covariance, dt, noise, half_lives
        )
        tracks.shift = tracks.shift + tracks.mean[:, :, 0] - before

    def _match(self, new: _New, gap: float) -> tuple[np.ndarray, np.ndarray, MaskOverlap | None]:
        """Rows of tracks and columns of people that are the same, and how their masks overlap.

        gap: seconds of a gap in which nobody knows how they moved, else 0.
        """
        tracks, settings = self._state.tracks, self.settings
        none = np.zeros(0, np.int64)
        if not len(tracks) or not len(new.people):
            return none, none, None
        unseen = self._state.clock.now - tracks.seen_s
        similarity, overlap, looks = self._similarity(new, unseen)
        free = np.ones(len(tracks), np.bool_)
        left = np.ones(len(new.people), np.bool_)
        matched: list[tuple[np.ndarray, np.ndarray]] = []

        def take(wanted: np.ndarray, columns: np.ndarray, values: np.ndarray, least: Any) -> None:
            table = np.where((wanted & free)[:, None] & (columns & left)[None], values, -1.0)
            pair = assign(table, least)
            free[pair[0]] = left[pair[1]] = False
            matched.append(pair)

        sure = tracks.state != State.TENTATIVE
        hidden = tracks.state == State.OCCLUDED
        recent = unseen <= np.where(hidden, settings.occluded_s, settings.lost_s)
        high = new.scores >= settings.high_score
        least = np.where(unseen > SHORT, UNSEEN_FACTOR, 1.0)[:, None] * settings.match_threshold
        if not gap:
            take(sure & recent, high, similarity, least)
            take(sure & recent, ~high, similarity, settings.low_match_threshold)
        again = self._recognition(new, unseen, looks, gap)
        take(sure, np.ones_like(high), again, 1e-6)
        if not gap:
            take(~sure, np.ones_like(high), similarity, least)
        rows, columns = (np.concatenate([pair[i] for pair in matched]) for i in (0, 1))
        return rows, columns, overlap

    def _similarity(
        self, new: _New, unseen: np.ndarray
    ) -> tuple[np.ndarray, MaskOverlap, np.ndarray]:
        """(T, N) in [0, 1]: the weighted mean of the cues that are known; -1 out of reach."""
        tracks, settings, people = self._state.tracks, self.settings, new.people
        overlap = mask_overlap(tracks.pixels, tracks.shift, new.pixels)
        boxes = box_similarity(
            tracks.centres, new.centres, settings.box_buffer * (1 + BUFFER_RATE * unseen)
        )
        joints = tracks.joints + tracks.shift[:, None]
        oks, sure = pose_similarity(
            joints, tracks.joint_scores, people, new.areas, 1 + SLACK_RATE * unseen
        )
        close = (tracks.hidden > 0.1)[:, None] | new.crowded[None]
        masks = np.where(close, np.fmax(overlap.iou, 0.8 * overlap.inside), overlap.iou)
        looks = appearance_similarity(tracks.colours, new.colours)
        # The shape of who was hidden says little when they come out again.
        mask_sure = (0.5 + 0.5 * people.mask_scores.astype(float))[None]
        mask_sure = mask_sure * np.exp(-np.maximum(unseen - SHORT, 0) / SHORT)[:, None]
        total = np.zeros(masks.shape)
        weights = np.zeros(masks.shape)
        for cue, weight in (
            (masks, settings.mask_weight * mask_sure),
            (oks, settings.pose_weight * sure),
            (boxes, np.asarray(settings.box_weight)),
            (looks, np.asarray(settings.appearance_weight)),
        ):
            known = np.isfinite(cue)
            total += np.where(known, cue, 0.0) * weight
            weights += known * weight
        similarity = total / np.maximum(weights, 1e-9)
        reachable = (boxes > 0) | (np.nan_to_num(overlap.iou) > 0)
        return np.where(reachable, similarity, -1.0), overlap, looks

    def _recognition(
        self, new: _New, unseen: np.ndarray, looks: np.ndarray, gap: float
    ) -> np.ndarray:
        """(T, N) > 0 where somebody out of sight may have come back: near enough, alike enough.

        Without colours only for ``lost_s``, not counting a ``gap``. Places are those last seen:
        nobody knows the motion.
        """
        tracks, settings = self._state.tracks, self.settings
        last = motion.to_centre(tracks.boxes)
        reach = np.maximum(last[:, 3], 1.0)[:, None] * (0.3 + REACH * unseen[:, None])
        distance = np.linalg.norm(last[:, None, :2] - new.centres[None, :, :2], axis=2)
        heights = np.maximum(new.centres[None, :, 3], 1) / np.maximum(last[:, None, 3], 1)
        ratio = np.abs(np.log2(heights))
        # At the border of the image any part of somebody may be seen.
        width = self._state.image_size[1]
        cut = _is_cut_off(tracks.boxes, width)[:, None] | _is_cut_off(new.people.boxes, width)
        ratio[cut] = 0.0
        near = (distance < reach) & (ratio < 0.5 + unseen[:, None])
        known = np.isfinite(looks)
        alike = np.where(known, looks, 0.0) >= settings.appearance_threshold + 0.1 * (gap > 0)
        blind = ~known & (unseen <= settings.lost_s + gap)[:, None]
        value = np.where(known, looks, 0.3) - 0.3 * distance / np.maximum(reach, 1)
        allowed = near & (alike | blind) & (unseen <= settings.memory_s)[:, None]
        return np.where(allowed, np.maximum(value, 1e-3), -1.0)

    def _see(self, new: _New, rows: np.ndarray, columns: np.ndarray, dt: float) -> None:
        """Take over what this image shows of the people who were matched."""
        if not len(rows):
            return
        state = self._state
        tracks, people = state.tracks, new.people
        back = tracks.state[rows] >= State.OCCLUDED
        lost_long = back & (state.clock.now - tracks.seen_s[rows] > LOST_TRACE)
        moved = motion.displacement(
            np.stack([tracks.joints[rows], people.keypoints[columns]]),
            np.stack([tracks.joint_scores[rows], people.keypoint_scores[columns]]),
            np.stack([tracks.boxes[rows], people.boxes[columns]]),
            JOINT_SCORE, LEAST_JOINTS,
        )  # fmt: skip
        anchor = tracks.anchor[rows] + moved
        heights = tracks.heights[rows]
        deviations = motion.POSITION_NOISE * heights * np.where(new.crowded[columns], 2.0, 1.0)
        mean, covariance = motion.correct(
            tracks.mean[rows], tracks.covariance[rows], anchor, deviations
        )
        first = motion.first_state(anchor, heights)
        tracks.mean[rows] = np.where(lost_long[:, None, None], first[0], mean)
        tracks.covariance[rows] = np.where(lost_long[:, None], first[1], covariance)
        tracks.anchor[rows] = anchor
        tracks.shift[rows] = 0.0
        tracks.boxes[rows] = people.boxes[columns]
        tracks.joints[rows] = people.keypoints[columns]
        tracks.joint_scores[rows] = people.keypoint_scores[columns]
        pixels = new.pixels.of_each()
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            tracks.pixels[row] = pixels[column]
        tracks.hits[rows] += dt > 0
        tracks.seen_s[rows] = state.clock.now
        tracks.state[rows] = np.maximum(
            np.minimum(tracks.state[rows], State.CONFIRMED), tracks.ids[rows] >= 0
        )
        self._remember_colours(new, rows, columns, dt)

    def _remember_colours(
        self, new: _New, rows: np.ndarray, columns: np.ndarray, dt: float
    ) -> None:
        tracks = self._state.tracks
        seen = new.colours[columns]
        visible = seen.max(axis=1, initial=0) > 0
        unknown = tracks.colours[rows].max(axis=1, initial=0) == 0
        clear = ~new.crowded[columns] & (new.scores[columns] >= self.settings.high_score)
        share = np.where(unknown, 1.0, np.where(clear, 1 - np.exp(-dt / COLOUR_MEMORY), 0.0))
        share = (share * visible)[:, None]
        tracks.colours[rows] = (1 - share) * tracks.colours[rows] + share * seen

    def _give_birth(
        self, new: _New, rows: np.ndarray, columns: np.ndarray, overlap: MaskOverlap | None
    ) -> np.ndarray:
        """Begin tracks for people who match nobody; returns their columns (B,)."""
        state = self._state
        free = np.ones(len(new.people), np.bool_)
        free[columns] = False
        free &= new.scores >= self.settings.birth_score
        if overlap is not None and len(rows):  # a part of somebody who was seen is nobody new
            free &= overlap.of_new[rows].max(axis=0) < self.settings.birth_overlap
        born = np.flatnonzero(free)
        if not len(born):
            return born
        people, count = new.people, len(born)
        anchor = new.centres[born, :2]
        mean, covariance = motion.first_state(anchor, np.maximum(new.centres[born, 3], 1.0))
        pixels = new.pixels.of_each()
        now = state.clock.now
        begun = Tracks(
            ids=np.full(count, -1, np.int32), state=np.zeros(count, np.int8),
            first_s=np.full(count, now), seen_s=np.full(count, now),
            hits=np.ones(count, np.int32), anchor=anchor, mean=mean, covariance=covariance,
            shift=np.zeros((count, 2)),
            boxes=people.boxes[born].astype(float), joints=people.keypoints[born].astype(float),
            joint_scores=people.keypoint_scores[born].astype(float), colours=new.colours[born],
            hidden=np.zeros(count), pixels=[pixels[column] for column in born.tolist()],
        )  # fmt: skip
        state.tracks = state.tracks.with_more(begun)
        return born

    def _end(self, rows: np.ndarray, overlap: MaskOverlap | None) -> None:
        """Say of everybody who was not seen whether another person hides them."""
        tracks = self._state.tracks
        tracks.hidden[:] = 0.0
        if overlap is not None:
            tracks.hidden[: len(overlap.covered)] = overlap.covered.sum(axis=1)
        missed = (tracks.seen_s < self._state.clock.now) & (tracks.state != State.TENTATIVE)
        missed[rows] = False
        hidden = tracks.hidden >= HALF_HIDDEN
        tracks.state[missed & hidden] = State.OCCLUDED
        tracks.state[missed & ~hidden] = State.LOST

    def _guard(self, new: _New, rows: np.ndarray, columns: np.ndarray) -> None:
        """Exchange the ids of people who came together and left with each other's."""
        state = self._state
        if not self.settings.swap_guard or len(state.tracks) < 2:
            return
        seen = np.zeros(len(state.tracks), np.bool_)
        seen[rows] = True
        colours = np.zeros((len(state.tracks), BINS))
        colours[rows] = new.colours[columns]
        state.encounters, swaps = judge(
            state.encounters, state.tracks, seen, colours, state.clock.now
        )
        for pair in swaps:
            for values in (state.tracks.ids, state.tracks.first_s, state.tracks.colours):
                values[list(pair)] = values[list(pair[::-1])]
            state.swaps += 1

    def _confirm(self, dt: float) -> None:
        """Give ids to those who were seen often enough."""
        state, settings = self._state, self.settings
        tracks, now = state.tracks, state.clock.now
        at_once = state.fresh or dt >= SLOW
        ready = (tracks.state == State.TENTATIVE) & (tracks.seen_s == now)
        ready &= (tracks.hits >= settings.confirm_hits) | at_once
        # Of somebody who comes in, the first part that is seen tells little: as long as it may be
        # somebody whose colours are remembered, they get a little time to be recognised.
        remembered = (tracks.state == State.LOST) & (tracks.colours.max(axis=1, initial=0) > 0)
        if remembered.any():
            entering = _is_cut_off(tracks.boxes, state.image_size[1])
            ready &= ~entering | (now - tracks.first_s >= ENTERING)
        tracks.ids[ready] = self.counter.take(int(ready.sum()))
        tracks.state[ready] = State.CONFIRMED

    def _alive(self) -> np.ndarray:
        tracks, settings = self._state.tracks, self.settings
        unseen = self._state.clock.now - tracks.seen_s
        known = tracks.colours.max(axis=1, initial=0) > 0
        patience = np.where(known, settings.memory_s, settings.lost_s)
        patience = np.where(
            tracks.state == State.OCCLUDED, np.maximum(patience, settings.occluded_s), patience
        )
        tentative = tracks.state == State.TENTATIVE
        age = self._state.clock.now - tracks.first_s
        young = (unseen == 0) | (age <= settings.confirm_s)
        return np.where(tentative, young, unseen <= patience)


def _new_people(people: People, image: np.ndarray | None) -> _New:
    centres = motion.to_centre(people.boxes)
    pixels = coarse_pixels(people)
    count = len(people)
    box_areas = np.maximum(centres[:, 2:], 1).prod(axis=1)
    colours = np.zeros((count, BINS))
    if image is not None and count:
        hips = people.keypoint_scores[:, [LEFT_HIP, RIGHT_HIP]].min(axis=1) > JOINT_SCORE
        middle = people.keypoints[:, [LEFT_HIP, RIGHT_HIP], 1].mean(axis=1)
        waists = np.where(hips, middle, centres[:, 1])
        colours = colour_histograms(image, pixels.stride, pixels.owners, pixels.points, waists)
    overlap = box_similarity(centres, centres, np.zeros(count))
    np.fill_diagonal(overlap, 0.0)
    return _New(
        people=people,
        centres=centres,
        scores=people.scores.astype(float),
        pixels=pixels,
        areas=np.maximum(pixels.areas * pixels.stride**2, 0.5 * box_areas),
        colours=colours,
        crowded=overlap.max(axis=1, initial=0.0) > 0.1,
    )


def _move(tracks: Tracks, homography: np.ndarray) -> None:
    """Put everything that is in pixels where the camera's motion has moved it."""
    last = motion.to_centre(tracks.boxes)
    boxes = motion.move_boxes(homography, tracks.boxes)
    moved = motion.to_centre(boxes)
    scale = (moved[:, 2:] / np.maximum(last[:, 2:], 1)).clip(0.5, 2)
    tracks.pixels = [
        ((part - last[row, :2]) * scale[row] + moved[row, :2]).astype(np.float32)
        for row, part in enumerate(tracks.pixels)
    ]
    tracks.joints = motion.move_points(homography, tracks.joints)
    tracks.boxes = boxes
    by = moved[:, :2] - last[:, :2]
    tracks.anchor = tracks.anchor + by
    tracks.mean[:, :, 0] += by


def _thumbnail(image: np.ndarray) -> np.ndarray:
    step = max(1, image.shape[1] // (4 * THUMBNAIL[0]))
    small = np.ascontiguousarray(image[::step, ::step])
    grey = cv2.cvtColor(
        cv2.resize(small, THUMBNAIL, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY
    )
    return grey.astype(np.float32)


def _is_cut_off(boxes: np.ndarray, width: int) -> np.ndarray:
    """(N,) bool, whose box (N, 4) ends at the left or right border of the image."""
    return np.asarray((boxes[:, 0] < 0.01 * width) | (boxes[:, 2] > 0.99 * width))


def _is_cut(state: TrackerState, matched: int, found: int, thumbnail: np.ndarray | None) -> bool:
    """Whether this image shows another place: two people or more, nobody matched, no likeness."""
    before = state.thumbnail
    if before is None or thumbnail is None or matched or not found or len(state.tracks) < 2:
        return False
    first, second = before - before.mean(), thumbnail - thumbnail.mean()
    size = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return size > 0 and float((first * second).sum()) / size < CUT_CORRELATION


def _with_ids(people: People, ids: np.ndarray) -> People:
    tracked = replace(people, track_ids=ids)
    if "mask_rectangles" in people.__dict__:  # computed once, of the same masks
        tracked.__dict__["mask_rectangles"] = people.__dict__["mask_rectangles"]
    return tracked
