# SPDX-License-Identifier: Apache-2.0
"""People in motion: walking across the view, meeting and hugging, standing about, over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bmp_ros.synthetic.camera import Camera, look_camera
from bmp_ros.synthetic.furniture import ThingBuilder
from bmp_ros.synthetic.generator import Sample, shared_renderer
from bmp_ros.synthetic.ground_truth import people_truth
from bmp_ros.synthetic.groups import chest_depth, facing
from bmp_ros.synthetic.people import (
    Person,
    PosedPerson,
    Stance,
    joint_position,
    make_person,
    pose_person,
)
from bmp_ros.synthetic.photograph import photograph, sample_optics
from bmp_ros.synthetic.places import build_place
from bmp_ros.synthetic.poses import sample_pose
from bmp_ros.synthetic.rotations import bend
from bmp_ros.synthetic.scene import Scene, draw_scene
from bmp_ros.synthetic.skeleton import HandTarget, Pose
from bmp_ros.synthetic.walking import walk

CLIP_CODE = 31
"""Keeps the random numbers of clips apart from those of the splits."""
STRIDE, PACE = 0.30, 1.2
"""Of the leg's length; the walking speed in m/s at which strides have that length."""
ARMS_CLOSE = 0.9
"""Seconds that arms take to close around a partner, and to open."""


@dataclass(frozen=True)
class Track:
    """A way over the ground: at ``times`` (n,) seconds, rising, at ``points`` (n, 2) metres."""

    times: np.ndarray
    points: np.ndarray

    def place(self, time: float) -> np.ndarray:
        """(2,) position; corners in the way are rounded over about a second."""
        around = time + np.linspace(-0.5, 0.5, 11)
        return np.array([np.interp(around, self.times, self.points[:, i]).mean() for i in (0, 1)])

    def velocity(self, time: float) -> np.ndarray:
        """(2,) metres per second."""
        return (self.place(time + 0.1) - self.place(time - 0.1)) / 0.2

    def walked(self, time: float) -> float:
        """Metres walked since the first point, corners not rounded."""
        legs = np.linalg.norm(np.diff(self.points, axis=0), axis=1)
        return float(np.interp(time, self.times, np.concatenate([[0], np.cumsum(legs)])))


@dataclass(frozen=True)
class Actor:
    """A person with a track, and the postures held while standing, changing every few seconds."""

    person: Person
    track: Track
    standing: tuple[Pose, ...]
    rhythm: float
    """Seconds from one standing posture to the next."""

    def stance(
        self, time: float, look_at: np.ndarray | None = None, attention: float = 0.0
    ) -> Stance:
        """Stance at ``time``; ``attention`` (0..1) turns the person towards ``look_at``."""
        velocity = self.track.velocity(time)
        speed = float(np.linalg.norm(velocity))
        leg = self.person.skeleton.leg_length
        cycle = 4 * STRIDE * leg  # two steps
        stride = STRIDE * float(np.clip(speed / PACE, 0.4, 1.3))
        walking = walk(2 * np.pi * self.track.walked(time) / cycle, stride)
        pose = self._standing_pose(time).blend(walking, float(np.clip(speed / 0.5, 0, 1)))
        place = self.track.place(time)
        direction = velocity if speed > 0.05 else self._resting_direction(time)
        direction = direction / max(float(np.linalg.norm(direction)), 1e-6)
        if look_at is not None:
            towards = look_at - place
            towards = towards / max(float(np.linalg.norm(towards)), 1e-6)
            direction = (1 - attention) * direction + attention * towards
        return Stance(pose, np.array([*place, 0.0]), facing(direction))

    def _standing_pose(self, time: float) -> Pose:
        count = time / self.rhythm
        first = self.standing[int(count) % len(self.standing)]
        second = self.standing[(int(count) + 1) % len(self.standing)]
        share = np.clip((count % 1 - 0.6) / 0.4, 0, 1)
        return first.blend(second, float(share * share * (3 - 2 * share)))

    def _resting_direction(self, time: float) -> np.ndarray:
        """A standing person goes on looking the way they came."""
        for earlier in np.arange(0.2, 6.0, 0.4):
            velocity = self.track.velocity(time - earlier)
            if np.linalg.norm(velocity) > 0.05:
                return velocity
        return -self.track.place(time)


@dataclass(frozen=True)
class Meeting:
    """Two actors who hug from ``start`` to ``end`` seconds."""

    first: Actor
    second: Actor
    start: float
    end: float

    @property
    def actors(self) -> tuple[Actor, Actor]:
        return self.first, self.second

    def bodies(self, time: float) -> list[PosedPerson]:
        """Both at ``time``, arms closing around each other while they meet."""
        attention = _ramp(time, self.start - 0.8, self.end + 0.4, 0.8)
        places = [actor.track.place(time) for actor in (self.first, self.second)]
        bodies = [
            pose_person(actor.person, actor.stance(time, other, attention))
            for actor, other in ((self.first, places[1]), (self.second, places[0]))
        ]
        closed = _ramp(time, self.start, self.end, ARMS_CLOSE)
        if closed <= 0:
            return bodies
        return [_embrace(bodies[0], bodies[1], closed), _embrace(bodies[1], bodies[0], closed)]


def render_clip(
    seed: int,
    seconds: float,
    fps: float,
    *,
    times: Sequence[float] | None = None,
    assets: str = "test",
    width: int = 640,
    height: int = 480,
) -> Iterator[Sample]:
    """Frames of a moving scene: two people meet and hug, others cross and stand about.

    Identities stay the same over the clip; ``Sample.stamp`` is the time in seconds.
    times: seconds at which frames are wanted, instead of all of ``fps``.
    assets: "train" or "test" people, clothes and textures.
    """
    random = np.random.default_rng((CLIP_CODE, seed))
    actors, meeting = meeting_cast(random, assets, seconds)
    if times is None:
        times = [number / fps for number in range(round(seconds * fps))]

    def panning() -> Callable[[float], Camera]:
        pan = random.uniform(0.0, 0.05)
        return lambda time: standing_camera(width, height, pan * np.sin(time * 0.5))

    yield from film(random, seed, actors, [meeting], panning, times, assets)


def film(
    random: np.random.Generator,
    seed: int,
    actors: Sequence[Actor],
    meetings: Sequence[Meeting],
    camera_path: Callable[[], Callable[[float], Camera]],
    times: Sequence[float],
    assets: str,
) -> Iterator[Sample]:
    """Frames at ``times`` of actors, and of those who meet, in a place of ``assets``.

    camera_path: called once, after the place is drawn from ``random``; gives the camera by time.
    """
    everyone = [*actors, *(actor for meeting in meetings for actor in meeting.actors)]
    taken = np.concatenate([actor.track.points for actor in everyone])
    things = ThingBuilder()
    light = build_place(random, assets, things, taken[np.abs(taken[:, 0]) < 0.9 * taken[:, 1]])
    optics = sample_optics(random)  # a clip is for looking at: only the mild faults
    optics = replace(
        optics, motion=(0.0, 0.0), noise=min(optics.noise, 2.5), small=1.0, jpeg_quality=92
    )
    drawn, materials = things.finish(), tuple(things.materials)
    camera_at = camera_path()
    for number, time in enumerate(times):
        bodies = [pose_person(actor.person, actor.stance(time)) for actor in actors]
        bodies += [body for meeting in meetings for body in meeting.bodies(time)]
        camera = camera_at(time)
        scene = Scene(tuple(bodies), drawn, materials, light, camera, optics)
        raster = draw_scene(shared_renderer(), scene)
        noise = np.random.default_rng((CLIP_CODE, seed, number))
        image = photograph(raster.color, raster.depth, optics, noise)
        truth = people_truth(bodies, raster, camera)
        yield Sample(image, truth, raster.depth, camera, assets, seed, time)


def standing_camera(width: int, height: int, heading: float) -> Camera:
    """A camera 1.15 m above the origin; ``heading`` to the left, radians."""
    return look_camera(
        width, height, field_of_view=np.radians(75), position=np.array([0, 0, 1.15]),
        heading=heading, tilt=np.radians(-3),
    )  # fmt: skip


def meeting_cast(
    random: np.random.Generator, assets: str, seconds: float
) -> tuple[list[Actor], Meeting]:
    """Who is there and where they go: a meeting in the middle, two who cross, one who stands."""
    hug = (0.3 * seconds, 0.3 * seconds + max(2.5, 0.2 * seconds))
    middle = np.array([random.uniform(-0.5, 0.5), random.uniform(2.8, 3.6)])
    pair = [make_person(number, random, assets, (16, 80)) for number in (1, 2)]
    gap = chest_depth(pair[0])[0] + chest_depth(pair[1])[0]
    actors = []
    for person, side in zip(pair, (-1.0, 1.0), strict=True):
        met = middle + [side * gap / 2, 0]
        come = met + [side * PACE * hug[0] * 0.8, random.uniform(-0.3, 0.8)]
        leave = met + [side * 0.3, 0.9], met + [-side * PACE * 0.8 * (seconds - hug[1]), 1.2]
        times = np.array([0, hug[0], hug[1], hug[1] + 1.2, seconds])
        track = Track(times, np.array([come, met, met, *leave]))
        actors.append(Actor(person, track, (Pose(),), 3.0))
    others = []
    for number in range(int(random.integers(2, 4))):
        person = make_person(3 + number, random, assets)
        others.append(Actor(person, crossing_track(random, number, seconds), (Pose(),), 3.0))
    person = make_person(3 + len(others), random, assets, (14, 90))
    spot = np.array([random.choice([-1.6, 1.6]), random.uniform(3.8, 4.8)])
    postures: list[Pose] = []
    while len(postures) < 4:
        template, pose = sample_pose(random, assets)
        if not template.seat and pose.pelvis_height > 0.93 and pose.foot_lift.max() == 0:
            postures.append(pose)
    still = Track(np.array([0.0, seconds]), np.array([spot, spot]))
    others.append(Actor(person, still, tuple(postures), random.uniform(2.5, 4.0)))
    return others, Meeting(actors[0], actors[1], *hug)


def crossing_track(random: np.random.Generator, number: int, seconds: float) -> Track:
    """To and fro across the view, at another distance each way."""
    speed = random.uniform(0.8, 1.3)
    side = float(random.choice([-1.0, 1.0]))
    points = [np.array([side * random.uniform(0.5, 4.0), random.uniform(2.0, 5.5) + 0.3 * number])]
    times = [0.0]
    while times[-1] < seconds:
        side = -side
        far = np.array([side * random.uniform(2.5, 4.5), random.uniform(1.9, 5.5)])
        times.append(times[-1] + float(np.linalg.norm(far - points[-1])) / speed)
        points.append(far)
    return Track(np.array(times), np.array(points))


def _ramp(time: float, start: float, end: float, rise: float) -> float:
    """0 before ``start`` and after ``end``, 1 in between, smooth over ``rise`` seconds inside."""
    share = np.clip(min((time - start) / rise, (end - time) / rise), 0, 1)
    return float(share * share * (3 - 2 * share))


def _embrace(body: PosedPerson, partner: PosedPerson, closed: float) -> PosedPerson:
    """``body`` with its wrists ``closed`` (0..1) of the way from hanging to the partner's back."""
    turn = bend(0, 0, partner.stance.heading)
    own = bend(0, 0, body.stance.heading)
    behind = chest_depth(partner.person)[1] + 0.03
    hands = []
    for side, name, bone in ((1.0, "L", "spine01"), (-1.0, "R", "spine03")):
        local = np.array([-side * 0.04 * partner.person.scale, behind, 0.0])
        goal = joint_position(partner, bone) + turn @ local
        # Around the partner, not through: half way the hands are wide apart.
        wide = own @ np.array([side, 0, 0]) * 0.35 * np.sin(np.pi * closed)
        wrist = (1 - closed) * joint_position(body, f"wrist.{name}") + closed * goal + wide
        elbow = own @ np.array([side, 0.2 - 0.3 * closed, -0.5])
        across = turn @ np.array([side, -0.4, 0.1])
        hands.append(HandTarget(wrist, elbow, across if closed > 0.6 else None))
    return pose_person(body.person, replace(body.stance, hands=(hands[0], hands[1])))
