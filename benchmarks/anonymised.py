# SPDX-License-Identifier: Apache-2.0
"""How much of people stays visible in anonymised recordings, on clips whose truth is known.

    python -m bmp_ros.synthetic.tracking_clips \
        --output DIR --set test --clips 2 --seconds 4 --fps 15
    python benchmarks/anonymised.py DIR [--preset tiny]

Detections are the truth, masks, boxes and joints shifted by up to ``--shift`` pixels, some of them
missing, and then, with ``--preset``, those of real networks. They are tracked and covered by the
code of ``bmp bag --anonymise``. Of each frame in which people are visible, the share of their true
pixels that stays uncovered is taken: the mean over all frames, and the worst of them. Faces: the
share of visible noses, eyes and ears that stays uncovered.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from bmp_ros.bags.anonymise import WaitingFrames
from bmp_ros.camera_tracking import CameraTracking
from bmp_ros.covering import KINDS, person_patches
from bmp_ros.loop.people import People
from bmp_ros.machine import machine_line
from bmp_ros.synthetic.clip_file import Clip, ClipFrame, open_clip
from bmp_ros.synthetic.ground_truth import VISIBLE, PeopleTruth
from bmp_ros.tracking import IdCounter, TrackerSettings

FACE = slice(0, 5)
LEAST_AREA = 150
"""Visible pixels of all people, at 640x480, from which a frame counts."""


@dataclass
class Shares:
    """visible: share of person pixels uncovered, frame by frame. covered_rest: share of all other
    pixels that is covered. faces: uncovered and all visible joints of faces."""

    visible: list[float] = field(default_factory=list)
    covered_rest: list[float] = field(default_factory=list)
    faces: list[tuple[int, int]] = field(default_factory=list)

    def line(self, kind: str) -> str:
        open_joints, joints = np.array(self.faces).sum(axis=0).tolist()
        face = f"{open_joints / max(joints, 1):.2%} of {joints} joints of faces"
        if kind == "faces":
            return f"visible: {face}"
        visible = np.array(self.visible)
        return (
            f"visible: mean {visible.mean():.2%}, worst {visible.max():.1%}, above 2 % in "
            f"{(visible > 0.02).mean():.1%} of {len(visible)} frames; {face}; covered of what is "
            f"no person: {np.mean(self.covered_rest):.0%}"
        )


def disturbed(truth: PeopleTruth, rng: np.random.Generator, shift: int, missing: float) -> People:
    """People as a detector that is right but for a shift and for those whom it misses."""
    rows = np.flatnonzero((rng.random(len(truth.boxes)) >= missing) & truth.masks.any(axis=(1, 2)))
    height, width = truth.masks.shape[1:]
    moves = rng.integers(-shift, shift + 1, (len(rows), 2))
    masks = np.zeros((len(rows), height, width), np.bool_)
    for mask, row, (dx, dy) in zip(masks, rows, moves.tolist(), strict=True):
        y, x = np.nonzero(truth.masks[row])
        y, x = y + dy, x + dx
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        mask[y[inside], x[inside]] = True
    limits = np.array([width, height, width, height])
    boxes = (truth.boxes[rows] + np.tile(moves, 2)).clip(0, limits).astype(np.float32)
    scores = np.ones(len(rows), np.float32)
    joint_scores = np.where(truth.visibility[rows] == VISIBLE, 0.9, 0.1).astype(np.float32)
    return People(
        boxes=boxes, scores=scores, pose_scores=scores, mask_scores=scores,
        keypoints=(truth.keypoints[rows] + moves[:, None]).astype(np.float32),
        keypoint_scores=joint_scores, visibility=joint_scores, presence=joint_scores,
        masks=masks, raw_masks=masks, has_mask=masks.any(axis=(1, 2)),
        iterations=np.ones(len(rows), np.int32), track_ids=np.full(len(rows), -1, np.int32),
    )  # fmt: skip


def measure(clip: Clip, find: Callable[[ClipFrame], People], kind: str, shares: Shares) -> None:
    """Add the frames of one clip."""
    tracking = CameraTracking(IdCounter())
    frames: WaitingFrames[PeopleTruth] = WaitingFrames()

    def through() -> Iterator[tuple[PeopleTruth, np.ndarray]]:
        for frame in clip:
            stamp_ns = int(frame.stamp * 1e9) + 1
            people = tracking.track(
                find(frame), stamp_ns, frame.image, arrival_s=frame.stamp,
                settings=TrackerSettings(), ego_motion=None,
            ).people  # fmt: skip
            yield from frames.add(
                stamp_ns, frame.people, people.image_size, person_patches(people, kind),
                people.track_ids.tolist(),
            )  # fmt: skip
        yield from frames.rest()

    width, height = clip.size
    for truth, covered in through():
        person = truth.masks.any(axis=0)
        if person.sum() < LEAST_AREA * width * height / (640 * 480):
            continue
        shares.visible.append(float((person & ~covered).sum() / person.sum()))
        shares.covered_rest.append(float(covered[~person].mean()))
        seen = truth.visibility[:, FACE] == VISIBLE
        x, y = np.rint(truth.keypoints[:, FACE][seen]).astype(int).T
        open_joints = ~covered[y.clip(0, height - 1), x.clip(0, width - 1)]
        shares.faces.append((int(open_joints.sum()), int(seen.sum())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, help="clips; default: the demo clip")
    parser.add_argument("--shift", type=int, default=4, help="pixels at most (%(default)s)")
    parser.add_argument("--missing", type=float, nargs="+", default=[0.0, 0.1, 0.3])
    parser.add_argument("--preset", help="also the detections of a preset, such as tiny")
    args = parser.parse_args()
    paths = [path for folder in args.folders for path in sorted(folder.glob("*.mp4"))]
    clips = [open_clip(path) for path in paths] or [open_clip()]
    print(f"{', '.join(clip.path.stem for clip in clips)}: {sum(map(len, clips))} frames")
    for missing in args.missing:
        for kind in KINDS:
            rng, shares = np.random.default_rng(0), Shares()
            find = partial(disturbed, rng=rng, shift=args.shift, missing=missing)
            for clip in clips:
                measure(clip, lambda f, find=find: find(f.people), kind, shares)
            print(
                f"truth shifted by up to {args.shift} pixels, {missing:.0%} missing, {kind}: "
                f"{shares.line(kind)}", flush=True,
            )  # fmt: skip
    if args.preset:
        from bmp_ros.engines import build_loop

        loop = build_loop(args.preset)
        found = {(clip.path, frame.number): loop(frame.image) for clip in clips for frame in clip}
        for kind in KINDS:
            shares = Shares()
            for clip in clips:
                measure(clip, lambda f, p=clip.path: found[p, f.number], kind, shares)
            print(f"{args.preset}, {kind}: {shares.line(kind)}", flush=True)
        print(machine_line())


if __name__ == "__main__":
    main()
