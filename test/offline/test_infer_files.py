# SPDX-License-Identifier: Apache-2.0
"""Files in, drawings and results out; what cannot be read, and what must not be overwritten."""

from __future__ import annotations

import gc
import json
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numbered import HEIGHT, WIDTH, NumberedEngines, numbered_image, numbered_loop
from scripted import Actor, rectangle_mask

from bmp_ros.drawing import draw_people
from bmp_ros.image_files import read_image, write_image
from bmp_ros.loop import BMPLoop, Frame, LoopSettings
from bmp_ros.loop.protocols import Detections
from bmp_ros.offline.infer_files import Outcome, Wanted, _interruptible, infer
from bmp_ros.offline.sources import VideoSource, open_source
from bmp_ros.offline.video import VideoFile, VideoFrames
from bmp_ros.tracking import PersonTracker
from bmp_ros.writing import BeingWrittenError

LEFT = Actor((10, 10, 60, 110), score=0.9)
RIGHT = Actor((120, 10, 180, 110), score=0.8)
# Numbers far apart, since videos lose a little: nobody, one person, two.
SCRIPTS: dict[int, Any] = {60: [[]], 120: [[LEFT]], 180: [[LEFT], [RIGHT]]}
JSON_ONLY = Wanted(draw=False, json=True)


def run(
    source: Path,
    output: Path,
    wanted: Wanted = JSON_ONLY,
    loop: BMPLoop | None = None,
    **more: Any,
) -> Outcome:
    loop = loop or numbered_loop(SCRIPTS)
    return infer(loop, open_source(str(source)), output, wanted, **more)


def write_images(folder: Path, numbers: dict[str, int]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, number in numbers.items():
        write_image(folder / name, numbered_image(number))
    return folder


def write_walk(path: Path) -> Path:
    """A video, and a loop's script of it is `walk_loop`."""
    return write_video(path, [30 * (step + 1) for step in range(8)])


def walk_loop() -> BMPLoop:
    """Two people who walk; the second one comes in the third frame."""
    scripts = {}
    for step in range(8):
        left = Actor((10 + 4 * step, 10, 60 + 4 * step, 110), score=0.9)
        right = Actor((130, 10, 180, 110), score=0.8)
        scripts[30 * (step + 1)] = [[left, right] if step >= 2 else [left]]
    return numbered_loop(scripts)


def write_video(path: Path, numbers: Sequence[int], fps: float = 10.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    video = VideoFile(path, fps, WIDTH, HEIGHT)
    for number in numbers:
        video.write(numbered_image(number))
    video.close()
    return path


def results(output: Path) -> dict[str, Any]:
    document = json.loads((output / "results.json").read_text(encoding="utf-8"))
    assert not (output / "results.json.part").exists()
    return document


def people_by_image(document: dict[str, Any]) -> list[int]:
    ids = [item["image_id"] for item in document["annotations"]]
    return [ids.count(image["id"]) for image in document["images"]]


def test_drawn_image_is_the_drawing_of_the_people(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "Bilder 人", {"zwei – ö.png": 180})
    outcome = run(folder / "zwei – ö.png", tmp_path / "aus", Wanted())
    assert (outcome.images, outcome.frames, outcome.people) == (1, 0, 2)
    assert outcome.failures == []
    image = numbered_image(180)
    expected = draw_people(image, numbered_loop(SCRIPTS)(image))
    np.testing.assert_array_equal(read_image(tmp_path / "aus" / "zwei – ö.png"), expected)
    assert [path.name for path in (tmp_path / "aus").iterdir()] == ["zwei – ö.png"]


@pytest.mark.parametrize("part", ["boxes", "masks", "keypoints"])
def test_parts_of_the_drawing_can_be_left_out(tmp_path: Path, part: str) -> None:
    folder = write_images(tmp_path / "in", {"a.png": 120})
    run(folder, tmp_path / "out", Wanted(**{part: False}))
    image = numbered_image(120)
    expected = draw_people(image, numbered_loop(SCRIPTS)(image), **{part: False})
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "a.png"), expected)


def test_results_are_in_coco_style(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", {"a.png": 60, "b ö.png": 180, "c.png": 120})
    outcome = run(folder, tmp_path / "out", info={"preset": "mine"})
    document = results(tmp_path / "out")
    assert (outcome.images, outcome.people) == (3, 3)
    assert document["info"] == {"preset": "mine"}
    assert document["images"][1] == {
        "id": 2, "file_name": "b ö.png", "width": WIDTH, "height": HEIGHT,
    }  # fmt: skip
    assert people_by_image(document) == [0, 2, 1]
    first, second, _ = document["annotations"]
    assert [item["id"] for item in document["annotations"]] == [1, 2, 3]
    assert first["bbox"] == [10, 10, 50, 100] and second["bbox"] == [120, 10, 60, 100]
    assert (first["score"], first["pose_score"], first["mask_score"]) == (0.9, 0.9, 0.8)
    assert (first["iteration"], second["iteration"]) == (1, 2)
    assert first["area"] == 50 * 100 and first["category_id"] == 1
    assert "visibility" not in first and "presence" not in first, "the network has none"
    keypoints = np.reshape(first["keypoints"], (17, 3))
    np.testing.assert_allclose(keypoints[:, :2], LEFT.pose(17), atol=0.0006)
    np.testing.assert_allclose(keypoints[:, 2], 0.9)
    category = document["categories"][0]
    assert category["keypoints"][0] == "nose" and [16, 14] in category["skeleton"]


def test_pycocotools_reads_the_results(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    folder = write_images(tmp_path / "in", {"a.png": 60, "b.png": 180})
    run(folder, tmp_path / "out")
    document = coco.COCO(str(tmp_path / "out" / "results.json"))
    given = document.loadRes(document.dataset["annotations"])
    annotations = given.loadAnns(given.getAnnIds(imgIds=[2]))
    assert len(annotations) == 2
    mask = given.annToMask(annotations[0]).astype(bool)
    np.testing.assert_array_equal(mask, rectangle_mask(HEIGHT, WIDTH, LEFT.box))


def test_unreadable_files_are_named_and_skipped(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", {"a.png": 120, "d.png": 120})
    (folder / "b – kaputt.png").write_bytes(b"no image")
    (folder / "c.mp4").write_bytes(b"no video")
    outcome = run(folder, tmp_path / "out", Wanted(json=True))
    assert outcome.images == 2
    assert len(outcome.failures) == 2
    assert "b – kaputt.png (8 bytes) is no whole image" in outcome.failures[0]
    assert "c.mp4 (8 bytes) is no video" in outcome.failures[1]
    assert [image["file_name"] for image in results(tmp_path / "out")["images"]] == [
        "a.png", "d.png",
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.png", "d.png", "results.json",
    ]  # fmt: skip


def test_names_that_leave_no_room_for_those_of_outputs(tmp_path: Path) -> None:
    """255 bytes are the most in usual file systems: each costs itself only."""
    names = {"a.png": 120, "i" * 251 + ".png": 120, "z.png": 180}
    folder = write_images(tmp_path / "in", names)
    video = write_video(tmp_path / "v.avi", [60, 120])
    video.rename(folder / ("v" * 251 + ".avi"))
    tracked = {"rate": 1.0, "tracker": PersonTracker()}
    for wanted, lost in ((Wanted(gif=True, json=True), 2), (Wanted(draw=False, mot=True), 1)):
        outcome = run(folder, tmp_path / "out", wanted, **tracked)
        assert outcome.images == (2 if wanted.gif else 3) and len(outcome.failures) == lost
        assert all("names that are too long" in failure for failure in outcome.failures)
    assert {"a.png.gif", "z.png.gif"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """Of images, videos and folders; the file of results is plain UTF-8."""
    folder = write_images(tmp_path / os.fsdecode(b"in\xfc"), {os.fsdecode(b"caf\xe9.png"): 120})
    write_video(folder / os.fsdecode(b"v\xefd.mp4"), [60, 120])
    (folder / os.fsdecode(b"broken\xe9.jpg")).write_bytes(b"x")
    (folder / os.fsdecode(b"broken\xe9.mp4")).write_bytes(b"x")
    write_images(folder, {"z.png": 120})
    output = tmp_path / os.fsdecode(b"out\xfc")
    outcome = run(folder, output, Wanted(json=True), info={"source": str(folder)})
    assert (outcome.images, outcome.frames, outcome.people) == (2, 2, 3)
    document = results(output)
    assert [image["file_name"] for image in document["images"]] == [
        "caf\\xe9.png", "v\\xefd.mp4", "v\\xefd.mp4", "z.png",
    ]  # fmt: skip
    assert sorted(os.listdir(os.fsencode(output))) == [
        b"caf\xe9.png", b"results.json", b"v\xefd.mp4", b"z.png",
    ]  # fmt: skip
    assert len(outcome.failures) == 2
    "".join(outcome.failures).encode("utf-8")
    with pytest.raises(ValueError, match="is the input") as error:
        run(folder, folder, Wanted())
    str(error.value).encode("utf-8")


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (1, 5000), (3, 20000), (101, 33)])
def test_tall_and_tiny_images_and_videos(tmp_path: Path, size: tuple[int, int]) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    folder = tmp_path / "in"
    folder.mkdir()
    image = np.full((*size, 3), 120, np.uint8)
    for name in ("a.png", "b.webp", "c.jpg"):
        path = folder / name
        write_image(path if max(size) < 16000 else path.with_suffix(".png"), image)
    video = cv2.VideoWriter(
        str(folder / "d.avi"), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"MJPG"), 10, (16, 16)
    )  # fmt: skip
    assert video.isOpened()
    for _ in range(2):
        video.write(np.full((16, 16, 3), 120, np.uint8))
    video.release()
    outcome = run(folder, tmp_path / "out", Wanted(json=True, gif=True), loop=Somebody.loop())
    inputs = len(list(folder.iterdir()))
    assert outcome.failures == outcome.notes == [] and outcome.images == inputs - 1
    assert len(list((tmp_path / "out").iterdir())) == 2 * inputs + 1
    document = results(tmp_path / "out")
    assert people_by_image(document) == [1] * (inputs + 1)
    for path in (tmp_path / "out").glob("?.png"):
        assert read_image(path).shape == image.shape
    for path in (tmp_path / "out").glob("*.gif"):
        with VideoFrames(path) as gif:
            assert max(next(iter(gif)).shape) <= 2000


class Somebody(NumberedEngines):
    """One person who fills images of any size."""

    @staticmethod
    def loop() -> BMPLoop:
        engines = Somebody({})
        return BMPLoop(engines, engines, engines, LoopSettings(iterations=1))

    def _acts(self, frame: Frame) -> Any:
        return [[Actor((0, 0, frame.width, frame.height))]]


def test_an_image_that_its_format_cannot_hold_is_written_as_png(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WebP ends at 16383 pixels, so such an input has another content than its name says."""
    folder = tmp_path / "in"
    folder.mkdir()
    wide = np.full((3, 20000, 3), 120, np.uint8)
    (folder / "a.webp").write_bytes(cv2.imencode(".png", wide)[1])
    outcome = run(folder, tmp_path / "out", Wanted(), loop=Somebody.loop())
    (note,) = outcome.notes
    assert "at most 16383" in note and "written as a.webp.png" in note
    assert read_image(tmp_path / "out" / "a.webp.png").shape == wide.shape
    assert outcome.failures == []
    again = run(folder, tmp_path / "out", Wanted(), loop=Somebody.loop())
    assert (again.failures, again.images) == ([], 1), "an earlier output is replaced"


def test_frames_before_a_change_of_resolution_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "in.mjpeg"
    content = b""
    for number in range(10):
        image = numbered_image(120) if number < 5 else numbered_image(120, 300, 500)
        image[-8:] = 20 * number + 20  # black would be painted out
        content += cv2.imencode(".jpg", image)[1].tobytes()
    path.write_bytes(content)
    pytest.importorskip("PIL", reason="Pillow is not installed")
    outcome = run(path, tmp_path / "out", Wanted(json=True, gif=True))
    assert outcome.frames == 5
    (failure,) = outcome.failures
    assert f"in.mjpeg changes from {WIDTH}x{HEIGHT} to 500x300 pixels after 5 frames" in failure
    assert people_by_image(results(tmp_path / "out")) == [1] * 5
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "in.mjpeg.gif", "in.mjpeg.mp4", "results.json",
    ]  # fmt: skip


def test_a_failure_of_the_loop_is_no_unreadable_file(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", {"a.png": 120})
    with pytest.raises(AssertionError, match="no script"):
        run(folder, tmp_path / "out", loop=numbered_loop({1: [[]]}))
    assert results(tmp_path / "out")["images"] == [], "what there was until then"


def test_input_is_never_overwritten(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", {"a.png": 120, "b.png": 60})
    before = (folder / "a.png").read_bytes()
    linked = tmp_path / "linked"
    linked.symlink_to(folder, target_is_directory=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "b.png").hardlink_to(folder / "a.png")
    for output in (folder, folder / ".." / "in", linked, elsewhere):
        with pytest.raises(ValueError, match="is the input .* choose another --output"):
            run(folder, output, Wanted())
    assert (folder / "a.png").read_bytes() == before
    video = write_video(tmp_path / "clips" / "a.mp4", [60])
    with pytest.raises(ValueError, match="is the input"):
        run(video, video.parent, Wanted())
    run(folder, folder, JSON_ONLY)
    assert len(results(folder)["images"]) == 2, "beside the input is fine, results are no input"


def test_an_output_is_not_written_twice(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", {"a.ppm": 120})
    (folder / "b.mov").write_bytes(b"x")
    (folder / "b.mov.mp4").write_bytes(b"x")
    with pytest.raises(ValueError, match="two inputs would both be written to .*b.mov.mp4"):
        run(folder, tmp_path / "out", Wanted())


def test_two_runs_do_not_write_into_one_file(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", {"a.png": 120, "b.png": 180})
    output = tmp_path / "out"
    tried: list[Any] = []

    def meanwhile(*_: Any) -> None:
        for wanted in (JSON_ONLY, Wanted(draw=False, mot=True)):
            with pytest.raises(BeingWrittenError, match="another run writes .* another --output"):
                run(folder, output, wanted, rate=1.0, tracker=PersonTracker())
            tried.append(wanted)

    both = Wanted(draw=False, json=True, mot=True)
    run(folder, output, both, rate=1.0, tracker=PersonTracker(), watch=meanwhile)
    assert len(tried) == 4 and people_by_image(results(output)) == [1, 2]
    assert len((output / "images.txt").read_text().splitlines()) >= 1
    run(folder, output)
    assert sorted(path.name for path in output.iterdir()) == ["images.txt", "results.json"]


def test_earlier_outputs_are_replaced(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", {"a.png": 120})
    for _ in range(2):
        run(folder, tmp_path / "out", Wanted(json=True))
    assert people_by_image(results(tmp_path / "out")) == [1]


def test_video_becomes_a_drawn_video(tmp_path: Path) -> None:
    numbers = [60, 120, 180, 180, 120, 60]
    video = write_video(tmp_path / "in" / "Zwei Leute 人.avi", numbers, fps=12.5)
    outcome = run(video, tmp_path / "out", Wanted(json=True))
    assert (outcome.images, outcome.frames, outcome.people) == (0, 6, 6)
    document = results(tmp_path / "out")
    assert people_by_image(document) == [0, 1, 2, 2, 1, 0]
    assert [image["frame"] for image in document["images"]] == list(range(6))
    assert [image["seconds"] for image in document["images"][:3]] == [0, 0.08, 0.16]
    assert {image["file_name"] for image in document["images"]} == {"Zwei Leute 人.avi"}
    with VideoFrames(tmp_path / "out" / "Zwei Leute 人.avi.mp4") as drawn:
        assert drawn.fps == 12.5
        changed = [int((np.abs(f.astype(int) - 127).max(axis=2) > 60).sum()) for f in drawn]
    assert len(changed) == 6 and changed[0] < changed[1] < changed[2]


class Watching(NumberedEngines):
    """Counts how many pictures are alive when the detector is asked for the next one."""

    def __init__(self) -> None:
        super().__init__(SCRIPTS)
        self.seen: list[weakref.ref] = []
        self.alive: list[int] = []

    def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
        gc.collect()
        self.alive.append(sum(reference() is not None for reference in self.seen))
        self.seen.append(weakref.ref(frame.image))
        return super().detect(frame, score_threshold=score_threshold)


@pytest.mark.parametrize("wanted", [Wanted(json=True), Wanted(gif=True)], ids=["plain", "gif"])
def test_video_is_streamed(tmp_path: Path, wanted: Wanted) -> None:
    if wanted.gif:
        pytest.importorskip("PIL", reason="Pillow is not installed")
    video = write_video(tmp_path / "a.mp4", [120] * 12)
    engines = Watching()
    loop = BMPLoop(engines, engines, engines, LoopSettings(iterations=1))
    assert run(video, tmp_path / "out", wanted, loop).frames == 12
    # With a GIF the fullest frame so far is kept as well. The thread that detects may be ahead of
    # the one that lets go of the frame before.
    assert max(engines.alive) <= (3 if wanted.gif else 2)


def test_interrupted_video_leaves_whole_files(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", [120] * 6)

    class Interrupted(NumberedEngines):
        asked = 0

        def detect(self, frame: Frame, *, score_threshold: float) -> Detections:
            self.asked += 1
            if self.asked == 4:
                raise KeyboardInterrupt
            return super().detect(frame, score_threshold=score_threshold)

    engines = Interrupted(SCRIPTS)
    loop = BMPLoop(engines, engines, engines, LoopSettings(iterations=1))
    with pytest.raises(KeyboardInterrupt):
        run(video, tmp_path / "out", Wanted(json=True), loop)
    assert people_by_image(results(tmp_path / "out")) == [1, 1, 1]
    with VideoFrames(tmp_path / "out" / "a.mp4") as drawn:
        assert len(list(drawn)) == 3


def test_ctrl_c_ends_a_camera_and_interrupts_a_file() -> None:
    with _interruptible(VideoSource(0)):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), _interruptible(VideoSource(Path("a.mp4"))):
        raise KeyboardInterrupt


def test_broken_off_video_is_named(tmp_path: Path) -> None:
    """An AVI whose index promises 40 frames and whose data ends early."""
    random = np.random.default_rng(0)
    writer = VideoFile(tmp_path / "whole.avi", 10, WIDTH, HEIGHT)
    for _ in range(40):  # noise, so that the file is more than its header
        image = random.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        image[:16, :16] = numbered_image(60)[:16, :16]
        image[:8, 8:16, 0] = image[8:16, :16, 0] = 60
        writer.write(image)
    writer.close()
    content = (tmp_path / "whole.avi").read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(content[: len(content) // 2])
    with VideoFrames(cut) as video:
        expected, read = video.expected, len(list(video))
    if expected is None or read >= 0.9 * expected:
        pytest.skip(f"this FFmpeg promises {expected} frames of a cut file and reads {read}")
    outcome = run(cut, tmp_path / "out")
    assert outcome.frames == read
    (failure,) = outcome.failures
    assert f"cut.avi broke off after {read} of {expected} frames" in failure


def test_count_limits_images_and_frames_together(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", {"a.png": 120, "b.png": 120})
    write_video(folder / "c.mp4", [120] * 6)
    outcome = run(folder, tmp_path / "out", Wanted(json=True), count=5)
    assert (outcome.images, outcome.frames, outcome.failures) == (2, 3, [])
    with VideoFrames(tmp_path / "out" / "c.mp4") as drawn:
        assert len(list(drawn)) == 3


def test_gifs_of_images_and_videos(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    from PIL import Image

    folder = write_images(tmp_path / "in", {"a.png": 120})
    write_video(folder / "b.mp4", [60, 180, 120])
    run(folder, tmp_path / "out", Wanted(draw=False, gif=True))
    frames = {}
    for name in ("a.png.gif", "b.mp4.gif"):
        with Image.open(tmp_path / "out" / name) as gif:
            frames[name] = gif.n_frames
    # One person: four stages, a second look at an empty picture in two, the end. Two: 4 + 4 + 1.
    assert frames == {"a.png.gif": 7, "b.mp4.gif": 9}
    assert len(list((tmp_path / "out").iterdir())) == 2


TRACKS = Wanted(draw=False, json=True, mot=True)


def test_tracks_of_a_video(tmp_path: Path) -> None:
    source = write_walk(tmp_path / "in" / "walk.mp4")
    run(source, tmp_path / "out", TRACKS, walk_loop(), tracker=PersonTracker())
    document = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    frames = [
        [person.get("track_id") for person in document["annotations"] if person["image_id"] == i]
        for i in range(1, 9)
    ]
    assert frames == [[1], [1], [1, None], *[[1, 2]] * 5]
    rows = (tmp_path / "out" / "walk.mp4.txt").read_text(encoding="ascii").splitlines()
    assert rows[0].startswith("1,1,10.00,10.00,50.00,100.00,0.9")
    assert [row.split(",")[:2] for row in rows[-2:]] == [["8", "1"], ["8", "2"]]
    assert all(len(row.split(",")) == 10 for row in rows) and len(rows) == 8 + 5


@pytest.mark.parametrize("tracker", [None, PersonTracker()])
def test_with_ids_nobody_is_expected_to_be_hidden(
    tmp_path: Path, tracker: PersonTracker | None
) -> None:
    """Images go through the networks side by side, before it is known who was in the last one."""
    loop, told = walk_loop(), []
    ask = loop.run

    def told_run(*given: object, **more: object) -> object:
        told.append(more["tracked"])
        return ask(*given, **more)  # type: ignore[arg-type]

    loop.run = told_run  # type: ignore[assignment, method-assign]
    source = write_walk(tmp_path / "in" / "walk.mp4")
    run(source, tmp_path / "out", TRACKS if tracker else Wanted(json=True), loop, tracker=tracker)
    assert [None if each is None else each.shape for each in told] == [tracker and (0, 4)] * 8


def test_every_video_begins_anew(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_walk(tmp_path / "in" / name)
    run(tmp_path / "in", tmp_path / "out", TRACKS, walk_loop(), tracker=PersonTracker())
    ids = [
        {
            line.split(",")[1]
            for line in (tmp_path / "out" / f"{name}.txt").read_text().splitlines()
        }
        for name in ("a.mp4", "b.mp4")
    ]
    assert ids == [{"1", "2"}, {"3", "4"}]


def test_images_with_a_rate_are_one_sequence(tmp_path: Path) -> None:
    numbers = {f"{step}.png": 30 * (step + 1) for step in range(8)}
    folder = write_images(tmp_path / "in", numbers)
    run(folder, tmp_path / "out", TRACKS, walk_loop(), tracker=PersonTracker(), rate=10)
    rows = (tmp_path / "out" / "images.txt").read_text(encoding="ascii").splitlines()
    assert {row.split(",")[1] for row in rows} == {"1", "2"}
    assert rows[-1].split(",")[0] == "8"


def test_a_video_between_images_has_ids_of_its_own(tmp_path: Path) -> None:
    numbers = {f"{step}.png": 30 * (step + 1) for step in (0, 1, 6, 7)}
    folder = write_images(tmp_path / "in", numbers)
    write_walk(folder / "5.mp4")
    run(folder, tmp_path / "out", TRACKS, walk_loop(), tracker=PersonTracker(), rate=10)

    def ids(name: str) -> list[str]:
        rows = (tmp_path / "out" / name).read_text(encoding="ascii").splitlines()
        return [row.split(",")[1] for row in rows]

    assert set(ids("images.txt")[:4]) & set(ids("images.txt")[-2:]), "the images are one sequence"
    assert not set(ids("images.txt")) & set(ids("5.mp4.txt"))


def test_images_without_a_rate_are_refused_in_words(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", {"a.png": 120})
    with pytest.raises(ValueError, match="images have no times.*give --rate"):
        run(folder, tmp_path / "out", TRACKS, tracker=PersonTracker())
    assert not (tmp_path / "out").exists()


def failing_on(number: int, loop: BMPLoop | None = None) -> BMPLoop:
    """A loop whose detector runs out of memory in images of a number."""
    loop = loop or numbered_loop(SCRIPTS)
    detect = loop.detector.detect

    def limited(frame: Frame, **options: Any) -> Detections:
        if abs(int(frame.image[0, 0, 0]) - number) < 20:
            raise RuntimeError("CUDA out of memory\nof 3 GiB")
        return detect(frame, **options)

    loop.detector.detect = limited  # type: ignore[method-assign]
    return loop


def test_an_image_on_which_the_networks_fail_costs_itself_only(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"a.png": 60, "b.png": 120, "c.png": 180})
    outcome = run(source, tmp_path / "out", loop=failing_on(120))
    assert outcome.images == 2 and len(outcome.failures) == 1
    (failure,) = outcome.failures
    assert "b.png: the networks failed: RuntimeError: CUDA out of memory" in failure
    assert "3 GiB" not in failure
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [each["file_name"] for each in document["images"]] == ["a.png", "c.png"]


def test_frames_on_which_the_networks_fail(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", [60, 120, 180, 120, 180])
    outcome = run(video, tmp_path / "out", loop=failing_on(120))
    assert outcome.frames == 3
    assert outcome.failures == [
        "v.mp4: 2 frames have no result: the networks failed: RuntimeError: CUDA out of memory"
    ]
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [each["frame"] for each in document["images"]] == [0, 2, 4]


@pytest.mark.parametrize("at_once", [2, 5])
def test_several_images_at_once_give_the_same(tmp_path: Path, at_once: int) -> None:
    """Ids, failures, results and the tracks' text of two videos and of images between them."""
    folder = write_images(tmp_path / "in", {f"b{number}.png": 30 * number for number in (1, 2, 3)})
    (folder / "b4.png").write_bytes(b"no image")
    write_walk(folder / "a.mp4")
    write_video(folder / "c.mp4", [30, 60, 150, 210, 120])
    wanted = Wanted(json=True, mot=True)
    outcomes = [
        run(
            folder, tmp_path / str(number), wanted, failing_on(150, walk_loop()),
            tracker=PersonTracker(), rate=10.0, at_once=number,
        )
        for number in (1, at_once)
    ]  # fmt: skip
    assert outcomes[0] == outcomes[1] and outcomes[0].images == 3 and outcomes[0].frames == 11
    assert len(outcomes[0].failures) == 3
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert names == sorted(path.name for path in (tmp_path / str(at_once)).iterdir())
    for name in ("results.json", "a.mp4.txt", "c.mp4.txt", "images.txt"):
        texts = [(tmp_path / str(number) / name).read_bytes() for number in (1, at_once)]
        assert texts[0] == texts[1], name


@pytest.mark.parametrize("at_once", [1, 3])
def test_no_image_is_computed_for_nothing(tmp_path: Path, at_once: int) -> None:
    """--count 3 of images of which the second fails: four are looked at."""
    names = {f"{place}.png": number for place, number in enumerate([60, 120, 60, 180, 60, 60])}
    source = write_images(tmp_path / "in", names)
    loop, asked = failing_on(120), []
    detect = loop.detector.detect

    def counted(frame: Frame, **options: Any) -> Detections:
        asked.append(int(frame.image[2, 2, 0]))
        return detect(frame, **options)

    loop.detector.detect = counted  # type: ignore[method-assign]
    outcome = run(source, tmp_path / "out", loop=loop, count=3, at_once=at_once)
    assert outcome.images == 3 and len(outcome.failures) == 1
    assert asked.count(60) == 2 and 120 in asked and 180 in asked
