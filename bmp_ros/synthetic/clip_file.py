# SPDX-License-Identifier: Apache-2.0
"""Clips as files: a video and, beside it, what is true of every frame. Needs no renderer.

    for frame in open_clip():          # the demo clip that comes with the package
        frame.image, frame.people, frame.people.identities, frame.stamp

``python -m bmp_ros.synthetic.clip_file --output DIR`` renders the demo clip anew, which needs what
`bmp_ros.synthetic.clip` needs. ``people.mp4`` (MPEG-4) loses a little, ``people.npz`` nothing: it
is taken from the image before compression.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from bmp_ros.loop.masks import decode_runs, encode_runs
from bmp_ros.resources import resource_root
from bmp_ros.synthetic.ground_truth import PeopleTruth

if TYPE_CHECKING:
    from bmp_ros.synthetic.generator import Sample  # needs the renderer

DEMO_SEED, DEMO_SECONDS, DEMO_FPS = 35, 20.0, 12.0
"""The demo clip is rendered from the test assets, which training never sees."""
_FORMAT = 1


@dataclass(frozen=True)
class ClipFrame:
    """image: BGR uint8 (H, W, 3). stamp: seconds since the start. number: from 0."""

    image: np.ndarray
    people: PeopleTruth
    stamp: float
    number: int


@dataclass(frozen=True)
class Clip:
    """A clip that was opened; iterating decodes the video from its start, any number of times.

    path: the video. stamps: (F,) float64 seconds, rising. camera_matrix: (3, 3) intrinsics.
    size: (width, height) pixels. seed: of the renderer.
    """

    path: Path
    stamps: np.ndarray
    camera_matrix: np.ndarray
    size: tuple[int, int]
    seed: int
    _truth: dict[str, np.ndarray] = field(repr=False)

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def fps(self) -> float:
        """Frames per second."""
        return float((len(self) - 1) / (self.stamps[-1] - self.stamps[0]))

    @property
    def camera_rotations(self) -> np.ndarray | None:
        """(F, 3, 3) world to camera; None where the clip does not tell."""
        return self._truth.get("camera_rotations")

    def people(self, number: int) -> PeopleTruth:
        """What is true of frame ``number``. Raises IndexError beyond the last frame."""
        if not 0 <= number < len(self):
            raise IndexError(f"frame {number} of {self.path}, which has {len(self)} frames")
        truth = self._truth
        rows = slice(truth["first_person"][number], truth["first_person"][number + 1])
        rectangles = truth["rectangles"][rows].astype(np.int64)
        width, height = self.size
        masks = np.zeros((len(rectangles), height, width), np.bool_)
        for row, (mask, (x, y, w, h)) in enumerate(
            zip(masks, rectangles.tolist(), strict=True), start=rows.start
        ):
            runs = truth["runs"][truth["first_run"][row] : truth["first_run"][row + 1]]
            mask[y : y + h, x : x + w] = decode_runs(runs, w, h)
        boxes = np.concatenate([rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]], axis=1)
        return PeopleTruth(
            boxes=boxes.astype(np.float32),
            amodal_boxes=truth["amodal_boxes"][rows],
            masks=masks,
            keypoints=truth["keypoints"][rows],
            visibility=truth["visibility"][rows].astype(np.int64),
            joint_depths=truth["joint_depths"][rows],
            identities=truth["identities"][rows].astype(np.int64),
        )

    def __iter__(self) -> Iterator[ClipFrame]:
        """Raises OSError when the video cannot be decoded."""
        video = cv2.VideoCapture(str(self.path))
        try:
            for number, stamp in enumerate(self.stamps.tolist()):
                good, image = video.read()
                if not good:
                    raise OSError(
                        f"OpenCV {cv2.__version__} decoded {number} of {len(self)} frames of "
                        f"{self.path}; it needs a build with FFmpeg, such as pip's "
                        "opencv-python-headless or Debian's python3-opencv"
                    )
                yield ClipFrame(image, self.people(number), stamp, number)
        finally:
            video.release()


def demo_clip_path() -> Path:
    """The video of the demo clip that comes with the package."""
    return resource_root() / "models" / "demo" / "people.mp4"


def open_clip(path: Path | str | None = None) -> Clip:
    """Open a clip: its video, with the ground truth beside it in a .npz of the same name.

    path: of the video; the demo clip by default. Raises FileNotFoundError when either file is
    missing, ValueError when they do not belong together.
    """
    video = Path(path) if path is not None else demo_clip_path()
    answers = video.with_suffix(".npz")
    for file in (video, answers):
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} is missing: a clip is a video and a .npz of the same name; render the "
                "demo clip with python -m bmp_ros.synthetic.clip_file --output DIR"
            )
    with np.load(answers) as archive:
        truth = {name: archive[name] for name in archive.files}
    if int(truth.get("format", 0)) != _FORMAT:
        raise ValueError(f"{answers} is no ground truth of a clip in format {_FORMAT}")
    if str(truth["video_sha256"]) != _sha256(video):
        raise ValueError(
            f"{answers} belongs to another video than {video}; take both from one place, or "
            "render both with python -m bmp_ros.synthetic.clip_file"
        )
    width, height = truth["size"].tolist()
    return Clip(
        video, truth["stamps"], truth["camera_matrix"], (width, height), int(truth["seed"]), truth
    )


def write_clip(
    folder: Path, seed: int = DEMO_SEED, seconds: float = DEMO_SECONDS, fps: float = DEMO_FPS
) -> Path:
    """Render a clip of the test assets, 640x480, into ``people.mp4`` and ``people.npz``.

    Returns the video. Raises OSError when OpenCV cannot write MPEG-4.
    """
    from tqdm import tqdm

    from bmp_ros.synthetic.clip import render_clip

    samples = render_clip(seed, seconds, fps, assets="test")
    bar = tqdm(
        samples, "rendering", round(seconds * fps), unit="frame", disable=not sys.stderr.isatty()
    )
    return save_clip(folder / "people.mp4", bar, fps)


def save_clip(path: Path, samples: Iterable[Sample], fps: float) -> Path:
    """Write rendered frames, evenly spaced at ``fps``, to the video ``path`` and a .npz beside it.

    Returns the video. Raises OSError when OpenCV cannot write MPEG-4, ValueError without a frame.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    stamps: list[float] = []
    rotations: list[np.ndarray] = []
    people: list[PeopleTruth] = []
    for sample in samples:
        height, width = sample.image.shape[:2]
        if writer is None:
            code = cv2.VideoWriter_fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, fps, (width, height))
            if not writer.isOpened():
                raise OSError(f"OpenCV {cv2.__version__} cannot write MPEG-4 to {path}")
        writer.write(sample.image)
        stamps.append(sample.stamp)
        rotations.append(sample.camera.rotation)
        people.append(sample.people)
        camera, seed = sample.camera.matrix, sample.seed
    if writer is None:
        raise ValueError(f"{path} would have no frame")
    writer.release()
    np.savez_compressed(
        path.with_suffix(".npz"),
        format=np.int64(_FORMAT),
        video_sha256=np.array(_sha256(path)),
        seed=np.int64(seed),
        size=np.array([width, height]),
        stamps=np.array(stamps),
        camera_matrix=camera,
        camera_rotations=np.array(rotations),
        **_packed(people),
    )
    return path


def _packed(people: Sequence[PeopleTruth]) -> dict[str, np.ndarray]:
    """All people of all frames in one row each, masks as run lengths inside of their boxes."""
    encoded = [encode_runs(mask) for frame in people for mask in frame.masks]
    runs = [counts for _, counts in encoded]
    rectangles = np.array([rectangle for rectangle, _ in encoded], np.uint16).reshape(-1, 4)
    return {
        "first_person": np.cumsum([0, *map(len, people)]),
        "rectangles": rectangles,
        "first_run": np.cumsum([0, *map(len, runs)]),
        "runs": np.concatenate([np.zeros(0, np.uint32), *runs]),
        "amodal_boxes": np.concatenate([frame.amodal_boxes for frame in people]),
        "keypoints": np.concatenate([frame.keypoints for frame in people]),
        "visibility": np.concatenate([frame.visibility for frame in people]).astype(np.uint8),
        "joint_depths": np.concatenate([frame.joint_depths for frame in people]),
        "identities": np.concatenate([frame.identities for frame in people]).astype(np.uint8),
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bmp_ros.synthetic.clip_file",
        description="Renders a clip with its ground truth; by default the demo clip.",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--seed", type=int, default=DEMO_SEED)
    parser.add_argument("--seconds", type=float, default=DEMO_SECONDS)
    parser.add_argument("--fps", type=float, default=DEMO_FPS)
    args = parser.parse_args(arguments)
    if args.seconds <= 0 or args.fps <= 0 or args.seed < 0:
        parser.error("--seconds and --fps must be above 0, --seed at least 0")
    path = write_clip(args.output, args.seed, args.seconds, args.fps)
    for file in (path, path.with_suffix(".npz")):
        print(f"{file}: {os.path.getsize(file) / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
