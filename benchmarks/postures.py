# SPDX-License-Identifier: Apache-2.0
"""Precision and recall of postures and gestures per class, on people who are rendered.

    python benchmarks/postures.py --set test              # renders clips; tiny preset, tracker
    python benchmarks/postures.py --set tuning --truth    # true joints with noise, no rendering

Each clip shows three people, each in one posture with one gesture, at 10 Hz for 2 s, from cameras
of other heights; the later images count. The rules of bmp_ros/interaction/postures.py were chosen
with ``--set tuning``, whose people, clothes and places are others than those of ``--set test``.
People who lie are people who stand, in images that are turned by a quarter.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from bmp_ros.camera_tracking import CameraTracking
from bmp_ros.interaction.postures import Gesture, Joints, Posture, WaveWatch, gestures, postures
from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.synthetic.camera import Camera, look_camera
from bmp_ros.synthetic.clip import Actor, Track, film
from bmp_ros.synthetic.groups import facing
from bmp_ros.synthetic.people import Stance, make_person, pose_person
from bmp_ros.synthetic.poses import jitter, mirrored
from bmp_ros.synthetic.skeleton import Pose
from bmp_ros.synthetic.template import HANGING, Arm, posed
from bmp_ros.synthetic.walking import walk
from bmp_ros.tracking import IdCounter, SmoothingSettings, TrackerSettings

CODE = 71
FIRST_SEED = {"tuning": 0, "test": 1000}
ASSETS = {"tuning": "train", "test": "test"}
WIDTH, HEIGHT, FPS, SECONDS, FROM_S = 480, 360, 10.0, 2.0, 1.3
NOISE = 0.012
"""Standard deviation of true joints with ``--truth``, of the height of the box."""

Random = np.random.Generator
Motion = Callable[[float], Pose]


class Body(NamedTuple):
    """What a person does. pose: by time in seconds. flat: in an image turned by a quarter."""

    posture: Posture
    gesture: Gesture
    pose: Motion
    flat: bool = False


def body_of(random: Random, name: str) -> Body:
    """A person of one class, as ``name`` says, with joints that vary."""
    builders: dict[str, Callable[[Random], Body]] = {
        "standing": lambda r: Body(Posture.STANDING, Gesture.OTHER, _still(r, posed(*_arms(r)))),
        "walking": _walking,
        "bending": lambda r: Body(Posture.STANDING, Gesture.OTHER, _still(r, _bending(r))),
        "sitting": lambda r: Body(Posture.SITTING, Gesture.OTHER, _still(r, _sitting(r))),
        "crouching": lambda r: Body(Posture.CROUCHING, Gesture.OTHER, _still(r, _crouching(r))),
        "lying": lambda r: Body(Posture.LAYING, Gesture.OTHER, _still(r, posed(*_arms(r))), True),
        "one hand raised": _one_raised,
        "both hands raised": lambda r: Body(
            Posture.STANDING, Gesture.BOTH_HANDS_RAISED, _still(r, posed(_up(r), _up(r)), 0.5)
        ),
        "arms crossed": lambda r: Body(
            Posture.STANDING, Gesture.ARMS_CROSSED, _still(r, posed(_folded(r), _folded(r)), 0.3)
        ),
        "hand on face": lambda r: Body(
            Posture.STANDING, Gesture.HANDS_ON_FACE, _still(r, posed(_to_face(r), HANGING), 0.3)
        ),
        "waving": _waving,
    }  # fmt: skip
    return builders[name](random)


NAMES = (
    "standing", "walking", "bending", "sitting", "crouching", "lying", "one hand raised",
    "both hands raised", "arms crossed", "hand on face", "waving",
)  # fmt: skip


def _still(random: Random, pose: Pose, strength: float = 0.7) -> Motion:
    fixed = jitter(random, pose, strength)
    return lambda time: fixed


def _arms(random: Random) -> tuple[Arm, Arm]:
    """Arms that make no gesture: hanging, on the hips, before the body, carrying, pointing."""
    choices: tuple[tuple[Arm, Arm], ...] = (
        (HANGING, HANGING),
        ((0.75, 1.75, 1.5, 1.3, 0.3), (0.75, 1.75, 1.5, 1.3, 0.3)),
        ((0.2, 0.2, 0.75, 0.85, 0), (0.2, 0.2, 0.75, 0.85, 0)),
        ((0.35, 0.25, 1.35, 0.35, -0.6), (0.35, 0.25, 1.35, 0.35, -0.6)),
        ((1.3, 0.6, 0.15, 0, 0), HANGING),
    )
    return choices[random.integers(len(choices))]


def _walking(random: Random) -> Body:
    start, stride = random.uniform(0, 2 * np.pi), random.uniform(0.2, 0.4)
    return Body(
        Posture.STANDING, Gesture.OTHER, lambda time: walk(start + 2 * np.pi * 0.9 * time, stride)
    )


def _bending(random: Random) -> Pose:
    return posed(
        (1.2, 0.1, 0.3, 0.1, 0), (1.1, 0.15, 0.3, 0.1, 0),
        pelvis=[random.uniform(0.3, 0.7), 0, 0], spine=[random.uniform(0.3, 0.8), 0, 0],
        pelvis_height=random.uniform(0.9, 0.98), feet=[[0.14, 0.1], [0.14, 0.0]],
    )  # fmt: skip


def _sitting(random: Random) -> Pose:
    forward, wide = random.uniform(0.4, 0.62), random.uniform(0.08, 0.22)
    arms: tuple[tuple[Arm, Arm], ...] = (
        ((0.5, 0.2, 1.0, 0.4, 0), (0.5, 0.2, 1.0, 0.4, 0)),
        (HANGING, (0.5, 1.2, 1.4, 0.3, 0)),
        ((0.45, 0.15, 1.35, 0.25, 0), (0.45, 0.15, 1.35, 0.25, 0)),
    )
    return posed(
        *arms[random.integers(3)], pelvis_height=random.uniform(0.46, 0.56),
        pelvis=[-0.12, 0, 0], spine=[random.uniform(-0.2, 0.5), 0, 0],
        feet=[[wide, forward], [wide, forward]], knees_out=[wide, wide],
    )  # fmt: skip


def _crouching(random: Random) -> Pose:
    return posed(
        (0.9, 0.2, 0.7, 0.3, 0), (0.8, 0.3, 0.9, 0.3, 0),
        pelvis_height=random.uniform(0.28, 0.45), feet=[[0.16, 0.12], [0.16, 0.0]],
        pelvis=[0.3, 0, 0], spine=[random.uniform(0.2, 0.5), 0, 0], knees_out=[0.35, 0.35],
        foot_pitch=[0, 0.5], foot_lift=[0, 0.06],
    )  # fmt: skip


def _up(random: Random) -> Arm:
    return (random.uniform(2.2, 2.8), 1.2, random.uniform(0.1, 0.6), 0.0, 0.0)


def _one_raised(random: Random) -> Body:
    own_left = random.random() < 0.5
    pose = posed(_up(random), HANGING) if own_left else mirrored(posed(_up(random), HANGING))
    gesture = Gesture.LEFT_HAND_RAISED if own_left else Gesture.RIGHT_HAND_RAISED
    return Body(Posture.STANDING, gesture, lambda time: pose)


def _folded(random: Random) -> Arm:
    raised, across = random.uniform(0.35, 0.5), random.uniform(1.15, 1.45)
    return (raised, 0.35, random.uniform(1.55, 1.8), across, 0.2)


def _to_face(random: Random) -> Arm:
    """The wrist 0.12 to 0.2 m from the nose."""
    raised, azimuth = random.uniform(1.0, 1.2), random.uniform(0.0, 0.3)
    return (raised, azimuth, random.uniform(2.1, 2.45), random.uniform(0.2, 0.6), 0.0)


def _waving(random: Random) -> Body:
    raised, rate = random.uniform(1.3, 2.0), random.uniform(1.0, 1.8)
    phase, left = random.uniform(0, 2 * np.pi), random.random() < 0.5

    def pose(time: float) -> Pose:
        swing = 0.45 * np.sin(2 * np.pi * rate * time + phase)
        # The forearm upright at a swivel of 0 where the upper arm is level, and to both sides.
        posture = posed(
            (raised, 1.4, np.clip(np.pi - raised - 0.2 + swing, 0.1, 2.4), 0.0, 0), HANGING
        )
        return posture if left else mirrored(posture)

    return Body(Posture.STANDING, Gesture.WAVING, pose)


class _Moving(NamedTuple):
    """What `film` wants of an actor, with postures of our own."""

    actor: Actor
    body: Body
    heading: float
    track: Track

    @property
    def person(self) -> Any:
        return self.actor.person

    def stance(self, time: float) -> Stance:
        return Stance(self.body.pose(time), np.array([*self.track.points[0], 0.0]), self.heading)


class Clip(NamedTuple):
    cast: list[_Moving]
    camera: Camera
    flat: bool
    random: Random
    seed: int


def clips(set_name: str, count: int) -> Iterator[Clip]:
    """Clips of three people each, every class equally often."""
    random = np.random.default_rng((CODE, FIRST_SEED[set_name]))
    order = [name for _ in range(count) for name in NAMES if name != "lying"]
    order = [str(name) for name in random.permutation(order)]
    order += [""] * (-len(order) % 3)
    groups = [order[start : start + 3] for start in range(0, len(order), 3)]
    groups += [["lying"] * 3 for _ in range(-(-count // 3))]
    for number, names in enumerate(groups):
        seed = FIRST_SEED[set_name] + number
        flat = names[0] == "lying"
        yield Clip(
            _cast(random, [name or "standing" for name in names], ASSETS[set_name]),
            _camera(random, flat), flat, random, seed,
        )  # fmt: skip


def _camera(random: Random, flat: bool) -> Camera:
    size = (HEIGHT, WIDTH) if flat else (WIDTH, HEIGHT)
    return look_camera(
        *size, field_of_view=np.radians(60 if flat else 75),
        position=np.array([0, 0, random.uniform(0.6, 1.6)]), heading=0.0,
        tilt=np.radians(random.uniform(-8, 0)),
    )  # fmt: skip


def _cast(random: Random, names: Sequence[str], assets: str) -> list[_Moving]:
    cast = []
    for number, name in enumerate(names):
        person = make_person(number + 1, random, assets, (8, 85))
        distance = random.uniform(2.8, 4.2)
        place = np.array([(number - 1) * 0.42 * distance + random.normal(0, 0.08), distance])
        track = Track(np.array([0.0, SECONDS]), np.array([place, place]))
        # Facing the camera, or up to 50 degrees aside.
        heading = facing(-place / np.linalg.norm(place)) + random.uniform(-0.87, 0.87)
        body = body_of(random, name)
        cast.append(_Moving(Actor(person, track, (Pose(),), 3.0), body, heading, track))
    return cast


class Seen(NamedTuple):
    """People of one image: keypoints (N, 17, 2), scores (N, 17), ids (N,), rows (N,) of the cast,
    -1 for nobody of it."""

    keypoints: np.ndarray
    scores: np.ndarray
    ids: np.ndarray
    rows: np.ndarray


def of_truth(clip: Clip, times: Sequence[float]) -> Iterator[Seen]:
    """True joints with noise, smoothed as the node does."""
    tracking = CameraTracking(IdCounter())
    for time in times:
        found = []
        for actor in clip.cast:
            points, _ = clip.camera.project(
                pose_person(actor.person, actor.stance(time)).keypoints
            )
            found.append(_turned(points, clip))
        joints = np.array(found, np.float32)
        tall = np.ptp(joints, axis=1).max(axis=1)
        joints += clip.random.normal(0, NOISE, joints.shape) * tall[:, None, None]
        low, high = joints.min(axis=1), joints.max(axis=1)
        boxes = np.concatenate([low, high], axis=1).astype(np.float32)
        people = People.from_boxes(boxes, np.ones(len(boxes), np.float32), HEIGHT, WIDTH)
        people = replace(
            people, keypoints=joints, keypoint_scores=np.full(joints.shape[:2], 0.9, np.float32),
            track_ids=np.arange(1, len(boxes) + 1, dtype=np.int32),
        )  # fmt: skip
        tracked = replace(tracking.untracked(people, int((1 + time) * 1e9)), people=people)
        smooth = tracking.smooth(tracked, SmoothingSettings())
        yield Seen(
            smooth.keypoints, smooth.keypoint_scores, people.track_ids, np.arange(len(boxes))
        )


def _turned(points: np.ndarray, clip: Clip) -> np.ndarray:
    """Where points of the camera's image are in the one that is shown."""
    if not clip.flat:
        return points
    # As np.rot90: (x, y) of an image HEIGHT wide and WIDTH high comes to (y, HEIGHT - x).
    return np.stack([points[:, 1], HEIGHT - points[:, 0]], axis=1)


def rendered(clip: Clip, times: Sequence[float], assets: str, loop: Any) -> Iterator[Seen]:
    """What the loop, the tracker and the smoothing of the node make of rendered images."""
    tracking = CameraTracking(IdCounter())
    actors: Any = clip.cast
    samples = film(
        clip.random, clip.seed, actors, [], lambda: lambda _: clip.camera, times, assets
    )
    for time, sample in zip(times, samples, strict=True):
        image = np.ascontiguousarray(np.rot90(sample.image)) if clip.flat else sample.image
        people = loop(image)
        tracked = tracking.track(
            people, int((1 + time) * 1e9), image, arrival_s=time, settings=TrackerSettings(),
            ego_motion=None,
        )  # fmt: skip
        smooth = tracking.smooth(tracked, SmoothingSettings())
        truth = np.array([_turned(points, clip) for points in sample.people.keypoints])
        rows = _matched(people, truth, sample.people.identities)
        yield Seen(smooth.keypoints, smooth.keypoint_scores, tracked.people.track_ids, rows)


def _matched(people: People, truth: np.ndarray, identities: np.ndarray) -> np.ndarray:
    """(N,) rows of the cast: whose true joints lie within the box, most of all people."""
    rows = np.full(len(people), -1)
    for number, box in enumerate(people.boxes):
        inside = ((truth >= box[:2]) & (truth <= box[2:])).all(axis=2).mean(axis=1)
        if len(inside) and inside.max() > 0.6:
            rows[number] = identities[inside.argmax()] - 1
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--set", choices=tuple(ASSETS), required=True)
    parser.add_argument("--people", type=int, default=6, help="of every kind")
    parser.add_argument("--truth", action="store_true", help="true joints with noise")
    parser.add_argument("--preset", default="tiny")
    args = parser.parse_args(arguments)
    loop = None
    if not args.truth:
        from bmp_ros.engines import build_loop

        loop = build_loop(args.preset)
    times = [number / FPS for number in range(round(SECONDS * FPS))]
    pairs: dict[type, list[tuple[int, int]]] = {Posture: [], Gesture: []}
    seen_people = expected = 0
    for clip in clips(args.set, args.people):
        watch = WaveWatch()
        frames = (
            of_truth(clip, times) if args.truth else rendered(clip, times, ASSETS[args.set], loop)
        )
        for time, seen in zip(times, frames, strict=True):
            joints = Joints(seen.keypoints, seen.scores, COCO_17)
            waving = watch.update(seen.ids, joints, time)
            if time < FROM_S:
                continue
            expected += len(clip.cast)
            postured = postures(joints)
            gestured = gestures(joints, waving)
            for number, row in enumerate(seen.rows.tolist()):
                if row < 0:
                    continue
                seen_people += 1
                body = clip.cast[row].body
                pairs[Posture].append((body.posture, int(postured[number])))
                if not body.flat:
                    pairs[Gesture].append((body.gesture, int(gestured[number])))
    print(f"{args.set}, {'true joints' if args.truth else args.preset}: {seen_people} of "
          f"{expected} people in images that count were found")  # fmt: skip
    for kind, found in pairs.items():
        print_table(kind, np.array(found))
    return 0


def print_table(kind: type, found: np.ndarray) -> None:
    """Rows: true classes; precision, recall, and what was said instead."""
    print(f"\n| {kind.__name__.lower()} | people in images | precision | recall | taken for |")
    print("|---|---|---|---|---|")
    true, said = found.T
    for each in kind:  # type: ignore[attr-defined]
        number = int((true == each).sum())
        named = said == each
        precision = (true[named] == each).mean() if named.any() else np.nan
        recall = (said[true == each] == each).mean() if number else np.nan
        wrong = [
            f"{kind(other).name} {count}"
            for other in np.unique(said[true == each])
            if other != each and (count := int(((true == each) & (said == other)).sum()))
        ]
        if number or named.any():
            print(
                f"| {each.name} | {number} | {precision:.2f} | {recall:.2f} | {', '.join(wrong)} |"
            )


if __name__ == "__main__":
    sys.exit(main())
