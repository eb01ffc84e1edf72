# SPDX-License-Identifier: Apache-2.0
"""Clips in which it is hard to say who is who, for choosing a tracker's settings and testing it.

    python -m bmp_ros.synthetic.tracking_clips --output DIR --set tuning

The clips of "tuning" are made of the train assets, those of "test" of the test assets and with
other seeds: people, clothes and places of the two are disjoint.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from bmp_ros.synthetic.camera import Camera, look_camera
from bmp_ros.synthetic.clip import (
    Actor,
    Meeting,
    Track,
    crossing_track,
    film,
    meeting_cast,
    standing_camera,
)
from bmp_ros.synthetic.clip_file import save_clip
from bmp_ros.synthetic.generator import Sample
from bmp_ros.synthetic.looks import sample_look
from bmp_ros.synthetic.people import make_person
from bmp_ros.synthetic.skeleton import Pose

CODE = 57
"""Keeps the random numbers of these clips apart from those of the splits and other clips."""
FIRST_SEED = {"tuning": 0, "test": 1000}
ASSETS = {"tuning": "train", "test": "test"}
SCENARIOS = ("crossing", "hugging", "leaving", "uniform", "turning", "street")
HALF_VIEW = np.tan(np.radians(75 / 2))
"""Of the camera: half its width at a distance of 1."""

Cast = tuple[list[Actor], list[Meeting]]


def render_scenario(
    scenario: str,
    seed: int,
    seconds: float,
    fps: float,
    *,
    assets: str,
    width: int = 480,
    height: int = 360,
) -> Iterator[Sample]:
    """Frames of a moving scene; identities stay the same over the clip.

    crossing: five people walk past each other at other distances. hugging: two meet, others pass.
    leaving: people go out of the view, for 0.3 to 3 seconds, and come back. uniform: as crossing,
    all in the same clothes. turning: as crossing, the camera turns to and fro by 40 degrees, up to
    30 degrees per second, and moves 0.6 m sideways. street: ten walk past, each once; who is gone
    does not come back, who comes is somebody new. assets: "train" or "test".
    """
    if scenario not in SCENARIOS:
        raise ValueError(f"scenario {scenario!r} is unknown; there are {', '.join(SCENARIOS)}")
    random = np.random.default_rng((CODE, SCENARIOS.index(scenario), seed))
    actors, meetings = _cast(scenario, random, assets, seconds)

    def camera_path() -> Callable[[float], Camera]:
        if scenario == "turning":
            return lambda time: _turning_camera(width, height, time)
        return lambda time: standing_camera(width, height, 0.0)

    times = [number / fps for number in range(round(seconds * fps))]
    yield from film(random, seed, actors, meetings, camera_path, times, assets)


def _cast(scenario: str, random: np.random.Generator, assets: str, seconds: float) -> Cast:
    if scenario == "hugging":
        actors, meeting = meeting_cast(random, assets, seconds)
        return actors, [meeting]
    look = sample_look(random, assets, False, 30.0) if scenario == "uniform" else None
    actors = []
    for number in range(10 if scenario == "street" else 5):
        ages = (16.0, 70.0) if scenario == "uniform" else (5.0, 90.0)
        person = make_person(number + 1, random, assets, ages, look)
        if scenario == "leaving" and number < 4:
            track = _leaving(random, seconds, (0.3, 0.8) if number % 2 else (1.2, 3.0))
        elif scenario == "street":
            track = _passing(random, seconds * (number / 9 - 0.25), seconds)
        else:
            track = crossing_track(random, number, seconds)
        actors.append(Actor(person, track, (Pose(),), 3.0))
    return actors, []


def _leaving(random: np.random.Generator, seconds: float, away: tuple[float, float]) -> Track:
    """From inside the view out of one of its sides, gone for about ``away`` seconds, and back."""
    speed = random.uniform(0.9, 1.3)
    distance = random.uniform(2.2, 4.5)
    side = float(random.choice([-1.0, 1.0]))
    edge = side * (HALF_VIEW * distance + 0.35)  # from here on nothing of the body is seen
    inside = edge - side * speed * random.uniform(0.25, 0.4) * seconds
    leave = abs(edge - inside) / speed
    gone = random.uniform(*away)
    turn = edge + side * speed * max(gone - 0.3, 0.0) / 2
    back = np.array([edge - side * 4.0 * random.uniform(0.6, 1.0), distance + 0.6])
    times = [0.0, leave, leave + gone / 2, leave + gone]
    times.append(times[-1] + float(np.linalg.norm(back - [edge, distance])) / speed)
    points = [[inside, distance], [edge, distance], [turn, distance], [edge, distance], back]
    return Track(np.array(times), np.array(points, float))


def _passing(random: np.random.Generator, start: float, seconds: float) -> Track:
    """Across the whole view, from about ``start`` on; out of it before and after."""
    speed, distance = random.uniform(0.9, 1.4), random.uniform(2.0, 5.0)
    side = float(random.choice([-1.0, 1.0]))
    edge = HALF_VIEW * distance + 0.4
    ends = np.array([[side * edge, distance], [-side * edge, distance * random.uniform(0.9, 1.1)]])
    first = start + random.uniform(-0.3, 0.3)
    last = first + float(np.linalg.norm(ends[1] - ends[0])) / speed
    # The way goes on to where nobody sees it.
    beyond = ends + (ends - ends[::-1]) * 0.5
    times = [first - (last - first) / 2, first, last, last + (last - first) / 2]
    return Track(np.array(times), np.array([beyond[0], *ends, beyond[1]]))


def _turning_camera(width: int, height: int, time: float) -> Camera:
    phase = 2 * np.pi * time / 4.2
    return look_camera(
        width, height, field_of_view=np.radians(75),
        position=np.array([0.3 * np.sin(phase / 1.7), 0, 1.15]),
        heading=np.radians(20) * np.sin(phase), tilt=np.radians(-3 + np.sin(1.3 * phase)),
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bmp_ros.synthetic.tracking_clips", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--set", choices=tuple(ASSETS), required=True)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--clips", type=int, default=2, help="of every scenario")
    parser.add_argument("--first", type=int, default=0, help="number of the first of them")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--fps", type=float, default=30.0)
    args = parser.parse_args(arguments)
    if args.seconds <= 0 or args.fps <= 0 or args.clips < 1 or args.first < 0:
        parser.error("--seconds, --fps and --clips must be above 0, --first at least 0")
    for number in range(args.first, args.first + args.clips):
        for scenario in args.scenarios:
            path = args.output / f"{scenario}_{number}.mp4"
            if path.with_suffix(".npz").is_file():  # written last: the clip is complete
                continue
            seed = FIRST_SEED[args.set] + number
            samples = render_scenario(
                scenario, seed, args.seconds, args.fps, assets=ASSETS[args.set]
            )
            print(save_clip(path, samples, args.fps), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
