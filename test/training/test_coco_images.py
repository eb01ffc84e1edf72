# SPDX-License-Identifier: Apache-2.0
"""Photographs with incomplete labels: what is missing teaches nothing, what is there stays so."""

from __future__ import annotations

import errno
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photographs import write_photographs

from bmp_ros.loop.frame import Frame
from bmp_ros.loop.protocols import Detections, Poses
from bmp_ros.training import coco_images
from bmp_ros.training.coco_images import NEVER_TRAINED, CocoImages, Entry, Person, Seen
from bmp_ros.training.cut_outs import CutOut, CutOuts, pasted
from bmp_ros.training.detections import add_poses, detect_people, write_seen
from bmp_ros.training.detector_samples import detector_sample
from bmp_ros.training.images import TrainingImage, ViewRange, mosaic, random_view
from bmp_ros.training.pose_samples import pose_samples
from bmp_ros.training.segmenter_samples import segmenter_sample

CROP, MAP = (144, 192), (36, 48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder)
    return folder


@pytest.fixture(scope="module")
def images(folder: Path) -> CocoImages:
    return CocoImages(folder, Path("people.json"), folder / "cache")


def test_labels_are_read_as_far_as_they_go(images: CocoImages) -> None:
    assert len(images) == 12 and images.coco_ids == list(range(100, 112))
    labelled = images[0]
    assert labelled.masked.tolist()[:2] == [True, False]
    assert not labelled.masks[1].any() and labelled.masks[0].any()
    assert (labelled.visibility[1] > 0).sum() == 5 and not labelled.joints_complete.any()
    assert labelled.ignore.tolist() == [[0, 0, 30, 20]], "a crowd is neither people nor background"
    assert images[1].ignore.tolist() == [[10, 10, 30, 40]]
    assert len(labelled) == 2, "a crowd is nobody"


def test_boxes_without_masks_are_the_annotated_ones(folder: Path, images: CocoImages) -> None:
    document = json.loads((folder / "people.json").read_text())
    box = next(a for a in document["annotations"] if not a["segmentation"])["bbox"]
    left, top, width, height = box
    assert np.allclose(images[0].boxes[1], [left, top, left + width, top + height], atol=1e-3)


def test_the_cache_is_read_again_and_survives_pickling(folder: Path, images: CocoImages) -> None:
    again = pickle.loads(pickle.dumps(CocoImages(folder, Path("people.json"), folder / "cache")))
    assert np.array_equal(again[3].image, images[3].image)
    assert np.array_equal(again[3].masks, images[3].masks)


def test_a_cache_of_an_earlier_version_is_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When these classes were in a module of another name."""
    name = "bmp_ros.training.coco_pictures"
    with monkeypatch.context() as earlier:
        earlier.setitem(sys.modules, name, coco_images)
        for kind in (Entry, Person, Seen):
            earlier.setattr(kind, "__module__", name)
        write_seen(CocoImages(folder, Path("people.json"), tmp_path), Everybody(), None)  # type: ignore[arg-type]
    files = sorted(tmp_path.glob("*-*.[ls]*"))
    assert len(files) == 2 and all(name.encode() in file.read_bytes() for file in files)
    images = CocoImages(folder, Path("people.json"), tmp_path)
    assert isinstance(images.entries[0], Entry)
    assert any(person for each in range(len(images)) for person in images[each].detected)


def test_a_cache_makes_nothing_but_labels(folder: Path, tmp_path: Path) -> None:
    CocoImages(folder, Path("people.json"), tmp_path)
    (file,) = tmp_path.glob("*.labels")
    file.write_bytes(pickle.dumps(Path("/")))
    with pytest.raises(ValueError, match=rf"{file.name} .* names pathlib\S*, .* delete it"):
        CocoImages(folder, Path("people.json"), tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
@pytest.mark.parametrize("kind", ["labels", "seen"])
def test_a_damaged_cache_is_named(folder: Path, tmp_path: Path, kind: str, kept: int) -> None:
    """Damaged files of before a file appeared only when it is whole, and of failing disks."""
    write_seen(CocoImages(folder, Path("people.json"), tmp_path), Everybody(), None)  # type: ignore[arg-type]
    (file,) = tmp_path.glob(f"*.{kind}")
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"{file.name} .* damaged .* delete it"):
        CocoImages(folder, Path("people.json"), tmp_path)
    file.unlink()
    assert len(CocoImages(folder, Path("people.json"), tmp_path).entries) == 12


def test_labels_appear_when_they_are_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            CocoImages(folder, Path("people.json"), tmp_path)
    assert len(CocoImages(folder, Path("people.json"), tmp_path).entries) == 12


def test_images_may_be_read_from_their_files_each_time(
    folder: Path, images: CocoImages, tmp_path: Path
) -> None:
    fresh = CocoImages(folder, Path("people.json"), tmp_path, longer_side=None)
    assert len(fresh) == len(images) and not list(tmp_path.glob("*.pixels"))
    for again in (fresh, pickle.loads(pickle.dumps(fresh))):
        for name in ("image", "masks", "keypoints", "visibility", "given_boxes", "ignore"):
            assert np.array_equal(getattr(again[3], name), getattr(images[3], name)), name
        assert again.with_joints == images.with_joints and again.image_ids == images.image_ids
    kept = pickle.loads(pickle.dumps(images))
    assert kept.with_joints == images.with_joints


def test_large_images_shrink_with_their_labels(
    folder: Path, images: CocoImages, tmp_path: Path
) -> None:
    small = CocoImages(folder, Path("people.json"), tmp_path, longer_side=64)
    assert small[2].image.shape == (48, 64, 3)
    assert np.abs(small[2].boxes - images[2].boxes / 2).max() <= 1
    seen = small[2].visibility > 0
    expected = (images[2].keypoints + 0.5) / 2 - 0.5
    assert np.allclose(small[2].keypoints[seen], expected[seen], atol=1e-3)


def test_kept_aside_and_forbidden_images(folder: Path, tmp_path: Path) -> None:
    file = Path("people.json")
    trained = CocoImages(folder, file, tmp_path, leave_out=[103, 104])
    kept = CocoImages(folder, file, tmp_path, only=[103, 104])
    assert len(trained) == 10 and kept.coco_ids == [103, 104]
    assert not set(trained.coco_ids) & set(kept.coco_ids)
    document = json.loads((folder / "people.json").read_text())
    document["images"][5]["coco_id"] = min(NEVER_TRAINED)
    (folder / "forbidden.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=str(min(NEVER_TRAINED))):
        CocoImages(folder, Path("forbidden.json"), tmp_path)
    with pytest.raises(ValueError, match="no images"):
        CocoImages(folder, file, tmp_path, only=[])
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        CocoImages(folder, Path("nowhere.json"), tmp_path)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_views_move_given_boxes_with_the_image(images: CocoImages, seed: int) -> None:
    random = np.random.default_rng(seed)
    labelled = images[int(random.integers(len(images)))]
    view = random_view(random, labelled, (96, 64), ViewRange())
    for row in np.flatnonzero(~view.masked):
        left, top, right, bottom = view.boxes[row]
        assert 0 <= left < right <= 96 and 0 <= top < bottom <= 64
        if min(left, top) == 0 or right == 96 or bottom == 64:
            continue  # cut
        # Joints keep their place relative to the box: row 1 is the one without a mask.
        before, box = labelled.keypoints[1, :5] + 0.5, labelled.boxes[1]
        there = (before - box[:2]) / (box[2:] - box[:2])
        mirrored = view.visibility[row][:5].tolist() != [2] * 5 or not np.allclose(
            (view.keypoints[row, 0] + 0.5 - [left, top])[0] / (right - left),
            there[0, 0],
            atol=0.05,
        )
        nose = (view.keypoints[row, 0] + 0.5 - [left, top]) / [right - left, bottom - top]
        expected = [1 - there[0, 0], there[0, 1]] if mirrored else there[0]
        assert np.allclose(nose, expected, atol=0.05)


def test_a_mosaic_keeps_everybody_in_their_part(images: CocoImages) -> None:
    random = np.random.default_rng(1)
    view = mosaic(random, [images[n] for n in range(4)], (128, 96))
    assert view.image.shape == (96, 128, 3) and len(view) >= 4
    bright = view.image.max(axis=2) > 90
    for row in np.flatnonzero(view.masked):
        assert bright[view.masks[row]].mean() > 0.8
        left, top, right, bottom = np.rint(view.boxes[row]).astype(int)
        assert view.masks[row, top:bottom, left:right].sum() == view.masks[row].sum()
    for left, top, right, bottom in view.boxes[~view.masked]:
        middle = bright[int((top + bottom) / 2), int((left + right) / 2)]
        assert middle or (right - left) < 12


def cut_out() -> CutOut:
    joints = np.column_stack([np.full((17, 2), 10.0), np.full(17, 2)])
    mask = np.ones((20, 20), bool)
    return CutOut(np.full((20, 20, 3), 250, np.uint8), mask, joints, all_joints=False)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_pasted_people_are_in_front(images: CocoImages, seed: int) -> None:
    random = np.random.default_rng(seed)
    labelled = images[seed % len(images)]
    view = pasted(random, labelled, cut_out())
    if len(view.masked) == len(labelled) and view is labelled:
        return  # no place was found
    assert view.masked[-1] and not view.joints_complete[-1]
    front = view.masks[-1]
    assert not (view.masks[:-1] & front).any()
    for row in range(len(view) - 1):
        cells = np.rint(view.keypoints[row]).astype(int).clip(0, [127, 95])
        assert not (front[cells[:, 1], cells[:, 0]] & (view.visibility[row] == 2)).any()


def test_cut_outs_are_the_people_with_masks(
    images: CocoImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bmp_ros.training.cut_outs.LEAST_HEIGHT", 10)
    monkeypatch.setattr("bmp_ros.training.cut_outs.LEAST_AREA", 100)
    people = CutOuts([images], share=1.0)
    assert len(people) == sum(int(images[n].masked.sum()) for n in range(len(images)))
    random = np.random.default_rng(0)
    cut = people.draw(random)
    assert cut.pixels[cut.mask].max(axis=1).min() > 60, "a bright disc"
    assert len(people.crowd(random, images[0])) >= len(images[0])


def test_images_without_masks_teach_the_segmenter_too(
    images: CocoImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bmp_ros.training.cut_outs.LEAST_HEIGHT", 10)
    monkeypatch.setattr("bmp_ros.training.cut_outs.LEAST_AREA", 100)
    people = CutOuts([images], share=0.0)
    maskless = images[0].only(np.flatnonzero(~images[0].masked))
    counts = [
        len(segmenter_sample(np.random.default_rng(n), maskless, (128, 96), cut_outs=people).masks)
        for n in range(20)
    ]
    assert np.mean(np.array(counts) > 0) > 0.8, "somebody is pasted in wherever there is room"


def test_samples_say_what_is_known(images: CocoImages) -> None:
    for number in range(20):
        random = np.random.default_rng(number)
        sample = detector_sample(random, images[number % 12], (128, 96))
        assert len(sample.masked) == len(sample.boxes) == len(sample.masks)
        assert not sample.masks[~sample.masked].any()
        segmented = segmenter_sample(random, images[number % 12], (128, 96))
        assert all(mask.any() for mask in segmented.masks)


def test_unlabelled_joints_have_no_weight(images: CocoImages) -> None:
    samples = pose_samples(np.random.default_rng(0), images[0], CROP, MAP, augment=False)
    assert samples.weights[0].min() > 0
    assert (samples.weights[1] > 0).sum() == 5
    assert samples.heatmaps[1][samples.weights[1] == 0].max() == 0


def test_rendered_is_who_knows_everything(images: CocoImages) -> None:
    assert not images[0].rendered
    blank = np.zeros((0, 4, 4), bool)
    nobody = TrainingImage(
        np.zeros((4, 4, 3), np.uint8), blank, np.zeros((0, 17, 2)), np.zeros((0, 17))
    )
    assert nobody.rendered


class Everybody:
    """Finds what is bright as one thing, and poses whoever it is shown."""

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        mask = frame.image.max(axis=2) > 100
        rows, columns = np.nonzero(mask)
        box = np.array(
            [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32
        )
        return Detections(box, np.array([0.9], np.float32), lambda chosen: mask[None][chosen])

    def estimate(self, frame: Frame, boxes: np.ndarray, masks: np.ndarray | None) -> Poses:
        assert masks is not None and masks.shape == (len(boxes), frame.height, frame.width)
        return Poses(np.repeat(boxes[:, None, :2], 17, axis=1), np.ones((len(boxes), 17)))


@pytest.mark.parametrize("poses", [True, False])
def test_what_networks_saw_is_kept_beside_the_images(
    folder: Path, tmp_path: Path, poses: bool
) -> None:
    opened = CocoImages(folder, Path("people.json"), tmp_path)
    assert opened[0].detected == ()
    found = write_seen(opened, Everybody(), Everybody() if poses else None)  # type: ignore[arg-type]
    again = CocoImages(folder, Path("people.json"), tmp_path)
    seen = [person for n in range(len(again)) for person in again[n].detected]
    people = [person for person in seen if person is not None]
    assert len(people) == found > 0 and len(seen) > found
    assert all(person.mask.shape == (96, 128) and person.mask.any() for person in people)
    for person in people:
        assert (person.keypoints is not None) == poses
        if person.keypoints is not None:
            assert np.allclose(person.keypoints[:, :2], person.box[:2])


def test_poses_are_added_to_people_with_masks(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no detector has looked"):
        add_poses(CocoImages(folder, Path("people.json"), tmp_path), Everybody())  # type: ignore[arg-type]
    write_seen(CocoImages(folder, Path("people.json"), tmp_path), Everybody(), None)  # type: ignore[arg-type]
    opened = CocoImages(folder, Path("people.json"), tmp_path)
    added = add_poses(opened, Everybody())  # type: ignore[arg-type]
    again = CocoImages(folder, Path("people.json"), tmp_path)
    posed = 0
    for number in range(len(again)):
        labelled = again[number]
        for person, masked in zip(labelled.detected, labelled.masked, strict=True):
            assert person is None or (person.keypoints is not None) == masked
            posed += person is not None and bool(masked)
    assert posed == added > 0


def test_people_without_masks_are_found_by_their_boxes(images: CocoImages) -> None:
    labelled = images[0].only([1])
    image = np.where(images[0].image > 60, 0, images[0].image).astype(np.uint8)
    left, top, right, bottom = np.rint(labelled.boxes[0]).astype(int)
    image[top:bottom, left:right] = 200
    (person,) = detect_people(
        Everybody(),
        image,
        labelled.masks,
        labelled.masked,
        labelled.boxes,  # type: ignore[arg-type]
    )
    assert person is not None and np.abs(person.box - labelled.boxes[0]).max() <= 1
