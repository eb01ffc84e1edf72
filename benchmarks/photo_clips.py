# SPDX-License-Identifier: Apache-2.0
"""Clips of people cut out of photographs, who walk: sequences with known ids and real clothes.

    python benchmarks/photo_clips.py --people PEOPLE.json... --backgrounds EMPTY.json --output DIR

Both are COCO files, ``file_name`` relative to their folders. Taken are people of 130 pixels and
more who are seen from the shoulders to the knees, with masks. Six to ten of them walk, stop and
pass each other for six seconds at 25 Hz, with legs that swing (their image gets wider and narrower
below the hips), in other light and noise; in every second clip in pale colours. Written are
MOTChallenge folders. Boxes are of whole bodies, as there, also where somebody is hidden; who shows
less than 15 % counts neither way.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

WIDTH, HEIGHT, RATE, SECONDS = 640, 480, 25, 6
TALL = 130
LEAST_VISIBLE = 0.15
SWING = 0.22
"""By which share of their width legs get wider and narrower."""
LEFT_HIP, RIGHT_HIP = 11, 12


@dataclass(frozen=True)
class Cutout:
    """image (h, w, 3) BGR uint8, mask (h, w) float32 in [0, 1]; hips: share of the height."""

    image: np.ndarray
    mask: np.ndarray
    hips: float


@dataclass(frozen=True)
class Walker:
    """Somebody of ``height`` pixels whose feet are at ``feet`` (y), at ``place`` (x) at the second
    ``time``, with ``speed`` pixels per second but for the seconds from ``stop[0]`` on that
    ``stop[1]`` says. phase, gait (Hz): of the legs. drift: pixels downwards in the clip."""

    cutout: Cutout
    height: float
    feet: float
    speed: float
    time: float
    place: float
    stop: tuple[float, float] | None
    phase: float
    gait: float
    drift: float

    def walked(self, second: float) -> float:
        """Seconds of walking until ``second``."""
        if self.stop is None or second < self.stop[0]:
            return second
        return max(self.stop[0], second - self.stop[1])

    def at(self, second: float) -> tuple[float, float]:
        """x of the middle, y of the feet."""
        walked = self.walked(second) - self.walked(self.time)
        down = self.drift * (second - self.time) / SECONDS * 3
        return self.place + self.speed * walked, self.feet + down

    def draw(self, second: float) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
        """Image and mask, legs apart as they are at ``second``, and their left upper corner."""
        height, width = self.cutout.mask.shape
        pad = int(0.2 * width) + 2
        swings = abs(self.speed) > 0.2 * self.height
        phase = 2 * np.pi * self.gait * self.walked(second) + self.phase
        wider = SWING * np.sin(phase) if swings else 0.0
        rows = np.arange(height, dtype=np.float32)
        below = np.clip((rows / height - self.cutout.hips) / max(1 - self.cutout.hips, 0.1), 0, 1)
        columns = np.arange(width + 2 * pad, dtype=np.float32) - pad
        x = (columns - width / 2) / (1 + wider * below[:, None]) + width / 2
        y = np.repeat(rows[:, None], len(columns), axis=1)
        x = x.astype(np.float32)
        image = cv2.remap(
            self.cutout.image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        mask = cv2.remap(self.cutout.mask, x, y, cv2.INTER_LINEAR, borderValue=0)
        middle, feet = self.at(second)
        bob = 0.012 * self.height * np.sin(2 * phase - self.phase)
        return image, mask, (middle - width / 2 - pad, feet - height + bob)


def cutouts(files: list[Path]) -> list[Cutout]:
    """People whose masks and joints say that they are seen from the shoulders to the knees."""
    found = []
    for file in files:
        data = json.loads(file.read_text(encoding="utf-8"))
        images = {entry["id"]: entry for entry in data["images"]}
        for person in data["annotations"]:
            entry = images[person["image_id"]]
            if is_whole(person, entry):
                cutout = cut_out(file.parent, person, entry)
                if cutout is not None:
                    found.append(cutout)
    return found


def is_whole(person: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Whether a person stands, is tall enough, and is not cut off by the border."""
    x, y, width, height = person["bbox"]
    if not person.get("segmentation") or person.get("iscrowd") or person["num_keypoints"] < 12:
        return False
    inside = x >= 3 and y >= 3 and x + width <= entry["width"] - 3
    if not inside or y + height > entry["height"] - 2 or height < TALL or height < 1.6 * width:
        return False
    joints = np.array(person["keypoints"]).reshape(-1, 3)
    known = joints[:, 2] > 0
    if not (known[[15, 16]].all() or known[[13, 14]].all()):
        return False
    hips = [joint for joint in (LEFT_HIP, RIGHT_HIP) if known[joint]]
    return bool(hips) and joints[5:7, 1].max() <= joints[hips, 1].min()


def cut_out(folder: Path, person: dict[str, Any], entry: dict[str, Any]) -> Cutout | None:
    """The pixels of a person; None where the mask is a small part of the box."""
    shape = person["segmentation"]
    if isinstance(shape, list) or isinstance(shape["counts"], list):
        shape = coco_mask.frPyObjects(shape, entry["height"], entry["width"])
    mask = coco_mask.decode(coco_mask.merge(shape) if isinstance(shape, list) else shape) > 0
    y, x = mask.nonzero()
    if len(y) < 0.25 * person["bbox"][2] * person["bbox"][3]:
        return None
    window = np.s_[y.min() : y.max() + 1, x.min() : x.max() + 1]
    joints = np.array(person["keypoints"]).reshape(-1, 3)[[LEFT_HIP, RIGHT_HIP]]
    hips = (joints[joints[:, 2] > 0, 1].mean() - y.min()) / (y.max() + 1 - y.min())
    image = cv2.imread(str(folder / entry["file_name"]))
    if image is None:
        raise SystemExit(f"{folder / entry['file_name']} is missing or no image")
    return Cutout(image[window], mask[window].astype(np.float32), float(hips))


def pale(image: np.ndarray) -> np.ndarray:
    """With the colours of clothes on a grey winter's day."""
    hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2HSV).astype(np.float32)
    hsv[..., 1] *= 0.4
    hsv[..., 2] = hsv[..., 2] * 0.6 + 20
    return cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2BGR)


def walker(cutout: Cutout, random: np.random.Generator, *, faded: bool) -> Walker:
    """Somebody nearer the lower the feet are; most walk, some slowly, some stop on the way."""
    height = float(random.uniform(150, 330))
    feet = 0.62 * height + 220 + random.uniform(-12, 12)
    scale = height / cutout.image.shape[0]
    size = max(2, round(cutout.image.shape[1] * scale)), round(height)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image = cv2.resize(cutout.image, size, interpolation=method)
    mask = cv2.resize(cutout.mask, size, interpolation=cv2.INTER_AREA)
    mask = cv2.GaussianBlur(cv2.erode(mask, np.ones((3, 3))), (0, 0), 0.8)
    direction = int(random.choice([-1, 1]))
    if random.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if faded:
        image = pale(image)
    kind = random.choice(["walk", "walk", "walk", "slow", "stop"])
    speed = direction * height * random.uniform(0.35, 0.8) * (0.15 if kind == "slow" else 1.0)
    time, place = random.uniform(0, SECONDS), random.uniform(80, WIDTH - 80)
    stop = (random.uniform(0.5, 4), random.uniform(1, 3)) if kind == "stop" else None
    drawn = Cutout(np.ascontiguousarray(image), np.ascontiguousarray(mask), cutout.hips)
    return Walker(
        drawn, height, feet, speed, time, place, stop,
        phase=random.uniform(0, 6.3), gait=random.uniform(0.8, 1.1), drift=random.uniform(-6, 6),
    )  # fmt: skip


def write_clip(folder: Path, people: list[Cutout], backgrounds: list[Path], number: int) -> None:
    """One sequence in MOTChallenge's layout; ``number`` is the seed."""
    random = np.random.default_rng(number)
    count = int(random.integers(6, 11))
    background = cv2.imread(str(backgrounds[random.integers(len(backgrounds))]))
    scale = max(WIDTH / background.shape[1], HEIGHT / background.shape[0])
    background = cv2.resize(background, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    background = background[:HEIGHT, :WIDTH].astype(np.float32)
    chosen = random.permutation(len(people))[:count]
    walkers = [walker(people[i], random, faded=number % 2 == 1) for i in chosen]
    across, down = random.uniform(-0.2, 0.2), random.uniform(-0.1, 0.1)
    light = 1 + across * np.linspace(-1, 1, WIDTH)[:, None]
    light = light + down * np.linspace(-1, 1, HEIGHT)[:, None, None]
    (folder / "img1").mkdir(parents=True, exist_ok=True)
    (folder / "gt").mkdir(exist_ok=True)
    rows: list[tuple[float, ...]] = []
    for frame in range(RATE * SECONDS):
        image, found = compose(background, walkers, frame / RATE)
        image = image * light + random.normal(0, 3, image.shape)
        path = folder / "img1" / f"{frame + 1:06d}.jpg"
        cv2.imwrite(str(path), np.clip(image, 0, 255).astype(np.uint8), [1, 88])
        rows += [(frame + 1, *row) for row in found]
    np.savetxt(folder / "gt" / "gt.txt", np.array(rows), delimiter=",", fmt="%.2f")
    (folder / "seqinfo.ini").write_text(
        f"[Sequence]\nname={folder.name}\nimDir=img1\nframeRate={RATE}\n"
        f"seqLength={RATE * SECONDS}\nimWidth={WIDTH}\nimHeight={HEIGHT}\nimExt=.jpg\n",
        encoding="utf-8",
    )


def compose(
    background: np.ndarray, walkers: list[Walker], second: float
) -> tuple[np.ndarray, list[tuple[float, ...]]]:
    """The image (H, W, 3) float32 and the rows of gt.txt without the frame."""
    image, labels = background.copy(), np.zeros((HEIGHT, WIDTH), np.int32)
    boxes = {}
    for i in sorted(range(len(walkers)), key=lambda i: walkers[i].feet):
        person, mask, (left, top) = walkers[i].draw(second)
        shift = np.array([[1, 0, left], [0, 1, top]], np.float32)
        person = cv2.warpAffine(
            person.astype(np.float32), shift, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE
        )
        drawn = cv2.warpAffine(mask, shift, (WIDTH, HEIGHT))
        image = image * (1 - drawn[..., None]) + person * drawn[..., None]
        labels[drawn > 0.5] = i + 1
        columns = np.flatnonzero((mask > 0.5).any(axis=0))
        boxes[i] = (left + columns.min(), top, columns.max() + 1 - columns.min(), len(mask))
    rows = []
    for i, (x, y, width, height) in boxes.items():
        visible = (labels == i + 1).sum() / (walkers[i].cutout.mask > 0.5).sum()
        if visible or (x + width >= 0 and x <= WIDTH):
            rows.append((i + 1, x, y, width, height, float(visible >= LEAST_VISIBLE), -1, -1, -1))
    return image, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--people", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--backgrounds", type=Path, required=True, metavar="FILE")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=12)
    args = parser.parse_args()
    people = cutouts(args.people)
    if len(people) < 10:
        raise SystemExit(f"{len(people)} people can be cut out, at least 10 are needed")
    entries = json.loads(args.backgrounds.read_text(encoding="utf-8"))["images"]
    backgrounds = [args.backgrounds.parent / entry["file_name"] for entry in entries]
    for number in range(args.clips):
        write_clip(args.output / f"photo_{number}", people, backgrounds, number)
        print(f"photo_{number}", flush=True)


if __name__ == "__main__":
    main()
