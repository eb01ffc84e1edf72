# SPDX-License-Identifier: Apache-2.0
"""How well people are lifted into space: synthetic scenes with exact 2D, depth exact or degraded.

``python benchmarks/depth_accuracy.py`` prints the tables of docs/depth.md; ``--inset`` prints what
``JOINT_INSET`` of bmp_ros/depth/people_3d.py is made of, from the training split.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields, replace

import cv2
import numpy as np

from bmp_ros.depth.camera_model import CameraModel
from bmp_ros.depth.people_3d import JOINT_INSET, People3D, lift_people
from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import COCO_17
from bmp_ros.machine import machine_line
from bmp_ros.synthetic.clip import render_clip
from bmp_ros.synthetic.generator import LEAST_AREA, Sample, generate
from bmp_ros.synthetic.ground_truth import VISIBLE, PeopleTruth

LATE_S = 0.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=60, help="images per split")
    parser.add_argument("--inset", action="store_true", help="print the joints' insets")
    args = parser.parse_args()
    if args.inset:
        print_insets(args.count)
        return
    print(machine_line())
    print(f"{args.count} images of each split; clips: {args.count} pairs of frames\n")
    print("| depth | scenes | visible joints | to the surface: median, 95 % | "
          "to the joint: median | with inset | of hidden joints, on somebody else | "
          "distance: median, 95 %, largest error |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    random = np.random.default_rng(0)
    for split in ("easy", "crowded", "heavy"):
        report("exact", split, ((s, s.depth) for s in generate(split, args.count)))
    for split in ("easy", "crowded", "heavy"):
        pairs = ((s, degraded(s.depth, random)) for s in generate(split, args.count))
        report("noise, holes, whole mm", split, pairs)
    report("the same, 30 ms late", "clip", late_pairs(args.count, random))


def report(depth: str, scenes: str, pairs: Iterator[tuple[Sample, np.ndarray]]) -> None:
    """One row of the table. The surface is the exact one at the joint's pixel."""
    rows: defaultdict[str, list[float]] = defaultdict(list)
    intruders = visible = 0
    for sample, image in pairs:
        people, camera = people_of(sample.people, sample.depth.shape), camera_of(sample)
        # As everywhere in the splits: nobody could label a person of fewer pixels.
        large = np.flatnonzero(people.masks.sum(axis=(1, 2)) >= LEAST_AREA)
        people, sample = people[large], replace(sample, people=only(sample.people, large))
        found = lift_people(people, image, camera)
        inside = lift_people(people, image, camera, joint_inset=True)
        truth = truth_points(sample, people, camera)
        own = truth["own"]
        shown = own & np.isfinite(found.keypoints[..., 2])
        visible += int(own.sum())
        rows["surface"] += distances(found.keypoints, truth["surface"], shown)
        rows["joint"] += distances(found.keypoints, truth["joints"], shown)
        rows["inset"] += distances(inside.keypoints, truth["joints"], shown)
        intruders += int((truth["taken"] & np.isfinite(found.keypoints[..., 2])).sum())
        rows["distance"] += distance_errors(found, sample, people, camera)
    surface, off = np.array(rows["surface"]), np.array(rows["distance"])
    print(
        f"| {depth} | {scenes} | {len(surface)} of {visible} | {100 * np.median(surface):.1f} cm, "
        f"{100 * np.quantile(surface, 0.95):.1f} cm | {100 * np.median(rows['joint']):.1f} cm | "
        f"{100 * np.median(rows['inset']):.1f} cm | {intruders} | "
        f"{100 * np.median(off):.2f} %, {100 * np.quantile(off, 0.95):.2f} %, "
        f"{100 * off.max():.1f} % |"
    )


def only(truth: PeopleTruth, rows: np.ndarray) -> PeopleTruth:
    return PeopleTruth(**{f.name: getattr(truth, f.name)[rows] for f in fields(PeopleTruth)})


def people_of(truth: PeopleTruth, size: tuple[int, ...]) -> People:
    """Ground truth as the loop would give it: pixel centres at integers."""
    people = People.from_boxes(
        truth.boxes, np.ones(len(truth), np.float32), size[0], size[1], masks=truth.masks
    )
    return replace(people, keypoints=(truth.keypoints - 0.5).astype(np.float32))


def camera_of(sample: Sample) -> CameraModel:
    matrix = sample.camera.matrix.astype(np.float64).copy()
    matrix[:2, 2] -= 0.5
    return CameraModel(matrix, sample.camera.width, sample.camera.height)


def truth_points(sample: Sample, people: People, camera: CameraModel) -> dict[str, np.ndarray]:
    """surface, joints: (N, 17, 3). own: visible joints whose pixel shows their person, (N, 17).

    taken: joints whose pixel shows somebody else.
    """
    height, width = people.image_size
    cells = np.rint(people.keypoints).astype(int)
    x, y = cells[..., 0], cells[..., 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    each = np.arange(len(people))[:, None]
    own = people.masks[each, y, x] & inside
    taken = people.masks.any(axis=0)[y, x] & ~people.masks[each, y, x] & inside
    rays = camera.rays(people.keypoints)
    surface, joint = sample.depth[y, x], sample.people.joint_depths
    return {
        "surface": np.concatenate([rays * surface[..., None], surface[..., None]], axis=2),
        "joints": np.concatenate([rays * joint[..., None], joint[..., None]], axis=2),
        "own": own & (sample.people.visibility == VISIBLE),
        "taken": taken,
    }


def distances(points: np.ndarray, truth: np.ndarray, chosen: np.ndarray) -> list[float]:
    return np.linalg.norm(points - truth, axis=2)[chosen].tolist()


def distance_errors(
    found: People3D, sample: Sample, people: People, camera: CameraModel
) -> list[float]:
    """Relative errors of the distances, against the mean of every visible point of the person."""
    errors = []
    for row, mask in enumerate(people.masks):
        y, x = np.nonzero(mask)
        rays = camera.rays(np.stack([x, y], axis=1).astype(float))
        z = sample.depth[y, x]
        true = np.linalg.norm(np.column_stack([rays * z[:, None], z]).mean(axis=0))
        if np.isfinite(found.distances[row]):
            errors.append(abs(float(found.distances[row] - true)) / float(true))
    return errors


def degraded(depth: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """What a stereo camera gives: noise that grows with the square of the distance (0.2 % at 1 m),
    holes along edges and in patches, whole millimetres."""
    noise = random.normal(0, 0.002, depth.shape) * depth**2
    result = depth + noise.astype(np.float32)
    edges = cv2.morphologyEx(depth, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0.1 * depth
    patches = cv2.GaussianBlur(random.standard_normal(depth.shape), (0, 0), 3)
    holes = edges | (patches > 1.6 * patches.std()) | (random.random(depth.shape) < 0.02)
    result[holes] = 0
    return np.clip(np.rint(result * 1000), 0, 65535).astype(np.uint16)


def late_pairs(count: int, random: np.random.Generator) -> Iterator[tuple[Sample, np.ndarray]]:
    """Frames of moving people, each with the degraded depth of 30 ms before."""
    seconds = 12.0
    for seed in range(0, count, 10):
        moments = np.linspace(1, seconds - 1, min(10, count - seed))
        times = np.stack([moments - LATE_S, moments], axis=1).ravel().tolist()
        frames = render_clip(seed, seconds, 10, times=times)
        for before, sample in zip(frames, frames, strict=True):
            yield sample, degraded(before.depth, random)


def print_insets(count: int) -> None:
    insets: list[list[float]] = [[] for _ in COCO_17.names]
    for sample in generate("train", count):
        people, camera = people_of(sample.people, sample.depth.shape), camera_of(sample)
        if not len(people):
            continue
        found = lift_people(people, sample.depth, camera)
        offset = sample.people.joint_depths - found.keypoints[..., 2]
        shown = truth_points(sample, people, camera)["own"] & np.isfinite(offset)
        for joint in range(len(insets)):
            insets[joint] += offset[shown[:, joint], joint].tolist()
    for name, values, used in zip(COCO_17.names, insets, JOINT_INSET, strict=True):
        print(f"{name:15} {np.median(values):.3f} m of {len(values):4}, in use {used:.3f} m")


if __name__ == "__main__":
    main()
