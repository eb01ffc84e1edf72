# SPDX-License-Identifier: Apache-2.0
"""The demo clip that comes with the package, and clips written and read again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from bmp_ros.loop.box_nms import box_iou
from bmp_ros.synthetic.clip_file import DEMO_FPS, DEMO_SECONDS, DEMO_SEED, open_clip, write_clip
from bmp_ros.synthetic.ground_truth import mask_box

MEGABYTE = 1e6


def test_demo_clip_is_what_its_readme_says() -> None:
    clip = open_clip()
    assert len(clip) == 240 and clip.size == (640, 480) and clip.fps == pytest.approx(12)
    assert clip.seed == DEMO_SEED
    files = [clip.path, clip.path.with_suffix(".npz")]
    assert sum(file.stat().st_size for file in files) <= 3 * MEGABYTE


def test_every_frame_decodes_with_its_truth() -> None:
    clip = open_clip()
    frames = list(clip)
    assert [frame.number for frame in frames] == list(range(240))
    np.testing.assert_allclose([frame.stamp for frame in frames], np.arange(240) / 12)
    for frame in frames:
        people = frame.people
        assert frame.image.shape == (480, 640, 3) and frame.image.dtype == np.uint8
        assert people.masks.shape == (len(people), 480, 640)
        assert (people.masks.sum(axis=0) <= 1).all(), "masks are disjoint"
        for mask, box in zip(people.masks, people.boxes, strict=True):
            np.testing.assert_array_equal(mask_box(mask), box)
        assert len(set(people.identities.tolist())) == len(people)
        assert set(np.unique(people.visibility)) <= {0, 1, 2}
        inside = ((people.keypoints >= 0) & (people.keypoints < clip.size)).all(axis=2)
        assert inside[people.visibility > 0].all()


def test_demo_clip_shows_a_hug_and_people_who_cross() -> None:
    clip = open_clip()
    overlaps = []
    for number in range(len(clip)):
        people = clip.people(number)
        iou = np.triu(box_iou(people.boxes, people.boxes), 1)
        row, column = np.unravel_index(iou.argmax(), iou.shape)
        overlaps.append((iou.max(), *people.identities[[row, column]].tolist()))
    pairs = [(first, second) for iou, first, second in overlaps if iou > 0.5]
    hugging = max(set(pairs), key=pairs.count)
    assert pairs.count(hugging) > 3 * clip.fps, "three seconds at a box IoU above 0.5"
    assert len(set(pairs)) >= 3, "others overlap as well"


def test_demo_clip_needs_no_renderer() -> None:
    code = (
        "import sys\n"
        "for name in ('moderngl', 'torch', 'tqdm', 'pycocotools', 'onnxruntime'):\n"
        "    sys.modules[name] = None\n"
        "from bmp_ros.synthetic.clip_file import open_clip\n"
        "print(sum(len(frame.people) for frame in open_clip()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 240


def test_frames_beyond_the_end() -> None:
    clip = open_clip()
    with pytest.raises(IndexError, match="frame 240 .* has 240 frames"):
        clip.people(240)


def test_truth_of_another_video_is_refused(tmp_path: Path) -> None:
    clip = open_clip()
    shutil.copy(clip.path.with_suffix(".npz"), tmp_path)
    video = tmp_path / clip.path.name
    with pytest.raises(FileNotFoundError, match="people.mp4 is missing"):
        open_clip(video)
    video.write_bytes(clip.path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="belongs to another video"):
        open_clip(video)


@pytest.mark.usefixtures("renderer")
def test_demo_clip_is_the_render_of_its_seed(renderer: object) -> None:
    """Truth is that of the renderer; the pictures differ by the compression only."""
    from bmp_ros.synthetic.clip import render_clip

    rendered = render_clip(DEMO_SEED, DEMO_SECONDS, DEMO_FPS)
    for sample, frame in islice(zip(rendered, open_clip(), strict=False), 3):
        assert cv2.PSNR(sample.image, frame.image) > 30
        assert sample.people.identities.tolist() == frame.people.identities.tolist()
        np.testing.assert_allclose(sample.people.keypoints, frame.people.keypoints, atol=0.01)
        # Another OpenGL driver may decide some pixels of an outline differently.
        different = (sample.people.masks != frame.people.masks).sum()
        assert different <= 0.02 * frame.people.masks.sum()


@pytest.mark.usefixtures("renderer")
def test_clip_written_and_read_again(tmp_path: Path) -> None:
    from bmp_ros.synthetic.clip import render_clip

    clip = open_clip(write_clip(tmp_path / "new", seed=3, seconds=0.5, fps=8))
    assert clip.fps == pytest.approx(8)
    for sample, frame in zip(render_clip(3, 0.5, 8), clip, strict=True):
        assert sample.stamp == frame.stamp
        for name in ("boxes", "amodal_boxes", "masks", "keypoints", "visibility", "identities"):
            expected, read = getattr(sample.people, name), getattr(frame.people, name)
            np.testing.assert_array_equal(read, expected, err_msg=name)
            assert read.dtype == expected.dtype
