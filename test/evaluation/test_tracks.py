# SPDX-License-Identifier: Apache-2.0
"""Sequences with identities, and their scores by TrackEval."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("trackeval", reason="TrackEval is not installed")
sys.path.insert(0, str(Path(__file__).parents[1] / "tracking"))

from walkers import HEIGHT, WIDTH, walkers  # noqa: E402

import bmp_ros.engines  # noqa: E402
from bmp_ros.cli.main import main  # noqa: E402
from bmp_ros.evaluation.evaluate_tracks import (  # noqa: E402
    Timing,
    TimingScores,
    evaluate_tracks,
    longest_absence,
    report_lines,
    true_people,
)
from bmp_ros.evaluation.people_file import load_people, save_people  # noqa: E402
from bmp_ros.evaluation.sequences import FrameTruth, SequenceFrame, open_sequences  # noqa: E402
from bmp_ros.evaluation.tracking_scores import (  # noqa: E402
    FrameTracks,
    TrackScorer,
    TrackScores,
    block_bootstrap,
    compare,
    interval,
    recognised,
    sequence_bootstrap,
)
from bmp_ros.fields import SettingsError  # noqa: E402
from bmp_ros.loop.people import People  # noqa: E402

FRAMES, RATE = 20, 10


def places(number: int) -> list[tuple[float, float]]:
    return [(60 + 3.0 * number, 120), (260 - 3.0 * number, 122)]


def truth_of(people: People, ids: list[int], ignored: list[bool] | None = None) -> FrameTruth:
    none = np.zeros(len(people), np.bool_)
    return FrameTruth(
        np.array(ids), people.boxes, people.masks, none if ignored is None else np.array(ignored)
    )


def tracks_of(people: People, ids: list[int]) -> FrameTracks:
    return FrameTracks(np.array(ids), people.boxes, people.masks)


@pytest.fixture
def mot_folder(tmp_path: Path) -> Path:
    """Two sequences in MOTChallenge's layout, 20 images of two people who cross."""
    for name in ("A-01", "B-02"):
        folder = tmp_path / "Spuren" / name
        (folder / "img1").mkdir(parents=True)
        (folder / "gt").mkdir()
        rows = []
        for number in range(FRAMES):
            image = np.full((HEIGHT, WIDTH, 3), number, np.uint8)
            cv2.imwrite(str(folder / "img1" / f"{number + 1:06d}.png"), image)
            for identity, (x0, y0, x1, y1) in enumerate(walkers(places(number)).boxes, start=1):
                rows.append(f"{number + 1},{identity},{x0},{y0},{x1 - x0},{y1 - y0},1,-1,-1,-1")
            rows.append(f"{number + 1},9,1,1,20,20,0,-1,-1,-1")  # counts neither way
        (folder / "gt" / "gt.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
        (folder / "seqinfo.ini").write_text(
            f"[Sequence]\nname={name}\nimDir=img1\nframeRate={RATE}\nseqLength={FRAMES}\n"
            f"imWidth={WIDTH}\nimHeight={HEIGHT}\nimExt=.png\n",
            encoding="utf-8",
        )
    return tmp_path / "Spuren"


def find(name: str, frame: SequenceFrame) -> People:
    """What a perfect network would find; the picture's grey value says which frame it is."""
    return walkers(places(int(frame.image[0, 0, 0])))


def test_perfect_ids_and_a_swap_in_the_middle() -> None:
    """By hand: in each half a track fits one identity, so IDF1 and AssA at every IoU are a half
    of what they could be (AssA: 10 of 30 images in which either is there)."""
    frames = [walkers([(60, 120), (200, 120)]) for _ in range(20)]
    truth = [truth_of(people, [4, 8]) for people in frames]
    right = TrackScorer().add(
        "a", [compare(t, tracks_of(p, [1, 2])) for t, p in zip(truth, frames, strict=True)]
    )
    assert (right.hota, right.deta, right.assa, right.idf1, right.mota) == (1, 1, 1, 1, 1)
    assert right.switches == 0
    swapped = TrackScorer().add(
        "a",
        [
            compare(t, tracks_of(p, [1, 2] if i < 10 else [2, 1]))
            for i, (t, p) in enumerate(zip(truth, frames, strict=True))
        ],
    )
    assert swapped.deta == 1 and swapped.idf1 == pytest.approx(0.5)
    assert swapped.assa == pytest.approx(1 / 3) and swapped.hota == pytest.approx(3**-0.5)
    assert swapped.switches == 2 and swapped.mota == pytest.approx(1 - 2 / 40)


def test_tracks_on_ignored_people_count_neither_way() -> None:
    people = walkers([(60, 120), (200, 120)])
    comparison = compare(truth_of(people, [1, 2], [False, True]), tracks_of(people, [5, 6]))
    assert comparison.true_ids.tolist() == [1] and comparison.track_ids.tolist() == [5]
    elsewhere = walkers([(60, 120), (280, 120)])
    comparison = compare(truth_of(people, [1, 2], [False, True]), tracks_of(elsewhere, [5, 6]))
    assert comparison.track_ids.tolist() == [5, 6], "a false track stays one"


def test_masks_tell_apart_what_boxes_do_not() -> None:
    near, far = (150.0, 120.0), (165.0, 120.0)
    truth = truth_of(walkers([near, far]), [1, 2])
    wrong = walkers([far, near])[[1, 0]]
    assert compare(truth, tracks_of(wrong, [1, 2])).iou[1, 1] > 0.5
    assert compare(truth, tracks_of(wrong, [1, 2]), masks=True).iou[1, 1] < 0.5


def test_nobody_in_a_sequence() -> None:
    nobody = walkers([])
    scores = TrackScorer().add("a", [compare(truth_of(nobody, []), tracks_of(nobody, []))])
    assert scores.switches == 0


def test_recognised_after_an_absence() -> None:
    both, one = walkers([(60, 120), (200, 120)]), walkers([(60, 120)])

    def frames(after: list[int]) -> list:
        early = [compare(truth_of(both, [1, 2]), tracks_of(both, [5, 6]))] * 3
        gone = [compare(truth_of(one, [1]), tracks_of(one, [5]))] * 4
        return early + gone + [compare(truth_of(both, [1, 2]), tracks_of(both, after))] * 2

    stamps = (np.arange(9) / 2).tolist()
    assert recognised(frames([5, 6]), stamps, 1.0) == (1, 1)
    assert recognised(frames([5, 7]), stamps, 1.0) == (1, 0)
    assert recognised(frames([5, 6]), stamps, 5.0) == (0, 0)


def test_longest_absence() -> None:
    frames = [[1, 2], [1], [1], [1, 2, 3], [3]]
    assert longest_absence(frames, [0.0, 0.5, 1.0, 1.5, 9.0]) == 7.5
    assert longest_absence(frames[:4], [0.0, 0.5, 1.0, 1.5]) == 1.5
    assert longest_absence([], []) == 0


def test_scores_where_nobody_is_away_for_long_are_kept_apart(mot_folder: Path) -> None:
    """In A-01 somebody is missing from the truth for a while."""
    truth = mot_folder / "A-01/gt/gt.txt"
    rows = [row for row in truth.read_text().splitlines()
            if not (row.split(",")[1] == "1" and 5 <= int(row.split(",")[0]) < 17)]  # fmt: skip
    truth.write_text("\n".join(rows) + "\n", encoding="utf-8")
    (result,) = evaluate_tracks(find, open_sequences(mot_folder), [Timing()])
    assert result.short_absences == result.sequences["B-02"] != result.boxes
    (mot_folder / "B-02/gt/gt.txt").write_text(truth.read_text(), encoding="utf-8")
    (result,) = evaluate_tracks(find, open_sequences(mot_folder), [Timing()])
    assert result.short_absences is None


def test_the_tracker_is_told_how_the_camera_of_a_clip_turned() -> None:
    """The rotation from the last image that it saw, not from the last one of the clip."""
    turns, truth = {}, truth_of(walkers([(60, 120)]), [1])

    class Turning:
        name, has_masks, stamps = "a", False, np.arange(6) / 10

        def ego_motion(self, before: int, after: int) -> np.ndarray:
            return np.eye(3) * (10 * before + after)

        def __iter__(self):  # noqa: ANN204
            image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            return (SequenceFrame(image, truth, i / 10, i) for i in range(6))

    for told in (True, False):
        turns[told] = []

        def update(people, stamp, image, turn, seen=turns[told]):  # noqa: ANN001, ANN202
            seen.append(None if turn is None else int(turn[0, 0]))
            return people

        evaluate_tracks(
            lambda *_: walkers([(60, 120)]), [Turning()], [Timing(5)], lambda: update,
            ego_motion=told,
        )  # fmt: skip
    assert turns == {True: [None, 2, 24], False: [None, None, None]}


def test_block_bootstrap() -> None:
    """A tracker that swaps ids half way is surely worse; no tracker is better than itself."""
    people = walkers([(60, 120), (200, 120)])
    truth = truth_of(people, [1, 2])
    right = [compare(truth, tracks_of(people, [5, 6]))] * 40
    swapped = right[:20] + [compare(truth, tracks_of(people, [6, 5]))] * 20
    stamps = {"a": (np.arange(40) / 10).tolist()}
    leads = block_bootstrap({"a": right}, {"a": swapped}, stamps, samples=20)
    low, high = interval(leads, "hota")
    assert 0 <= low < high <= 1 and high > 0.2, "4 blocks; some samples have those of one half"
    none = block_bootstrap({"a": right}, {"a": right}, stamps, samples=3)
    assert {value for each in none for value in astuple(each)} == {0.0}
    again = block_bootstrap({"a": right}, {"a": swapped}, stamps, samples=20)
    assert again == leads, "the same every time"


def test_sequence_bootstrap() -> None:
    """Of two sequences the one tracker swaps ids in one: its samples hold none, one or two."""
    people = walkers([(60, 120), (200, 120)])
    truth = truth_of(people, [1, 2])
    right = [compare(truth, tracks_of(people, [5, 6]))] * 10
    swapped = right[:5] + [compare(truth, tracks_of(people, [6, 5]))] * 5
    good, bad = TrackScorer(), TrackScorer()
    for name, frames in (("a", right), ("b", swapped)):
        good.add(name, right)
        bad.add(name, frames)
    leads = sequence_bootstrap([good, good], [bad, bad], ["a", "b"], samples=40)
    assert {each.switches for each in leads} == {0.0, -2.0, -4.0}
    assert interval(leads, "switches") == (-4, 0)
    assert interval(leads, "hota")[0] == 0 < interval(leads, "hota")[1]


def test_sequences_of_a_folder(mot_folder: Path) -> None:
    results = evaluate_tracks(find, open_sequences(mot_folder), [Timing(), Timing(5, 0.2)])
    for result in results:
        assert result.boxes.hota > 0.9 and result.boxes.switches == 0
        assert result.masks is None, "MOTChallenge's boxes have no masks"
        assert sorted(result.sequences) == ["A-01", "B-02"]


def test_images_are_in_the_order_of_their_numbers(mot_folder: Path) -> None:
    """Whatever their names and what lies beside them, as copies of macOS do; files of Windows."""
    (sequence,) = open_sequences(mot_folder / "A-01")
    expected = [frame.image[0, 0, 0] for frame in sequence]
    for path in sorted((mot_folder / "A-01" / "img1").iterdir()):
        path.rename(path.with_name(f"{int(path.stem)}.png"))  # type: ignore[attr-defined]
        path.with_name(f"._{path.name}").write_bytes(b"no image")
    for name in ("seqinfo.ini", "gt/gt.txt"):
        file = mot_folder / "A-01" / name
        text = file.read_text().replace("name=A-01", "name=100 % A-01")
        file.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    (again,) = open_sequences(mot_folder / "A-01")
    assert [frame.image[0, 0, 0] for frame in again] == expected == list(range(FRAMES))
    assert again.name == "100 % A-01" and np.array_equal(again.rows, sequence.rows)


def test_one_sequence_by_its_own_folder(mot_folder: Path) -> None:
    (sequence,) = open_sequences(mot_folder / "A-01")
    assert len(sequence) == FRAMES and sequence.stamps[1] == pytest.approx(1 / RATE)
    assert sequence.truth(0).ignored.tolist() == [False, False, True]


def test_sequences_of_one_name_have_that_of_their_folder(mot_folder: Path) -> None:
    """Else one took the place of the other: copies of a sequence keep their seqinfo.ini."""
    from bmp_ros.synthetic.clip_file import demo_clip_path

    info = mot_folder / "B-02" / "seqinfo.ini"
    info.write_text(info.read_text().replace("name=B-02", "name=A-01"), encoding="utf-8")
    sequences = open_sequences(mot_folder)
    assert [each.name for each in sequences] == ["A-01", "B-02"]
    (result,) = evaluate_tracks(find, sequences, [Timing()])
    assert sorted(result.sequences) == ["A-01", "B-02"]
    for suffix in (".mp4", ".npz"):
        (mot_folder / f"A-01{suffix}").symlink_to(demo_clip_path().with_suffix(suffix))
    names = [each.name for each in open_sequences(mot_folder)]
    assert names == ["A-01", "A-01.mp4", "B-02"], "a clip beside a folder"


def test_a_name_is_scored_once() -> None:
    scorer, nobody = TrackScorer(), walkers([])
    frames = [compare(truth_of(nobody, []), tracks_of(nobody, []))]
    scorer.add("a", frames)
    with pytest.raises(ValueError, match="called 'a' was scored before; give each a name"):
        scorer.add("a", frames)


def test_rows_after_the_end_of_a_sequence_are_told(mot_folder: Path) -> None:
    truth_row("21,1,1,1,9,9,1")(mot_folder / "A-01")
    truth_row("35,1,1,1,9,9,1")(mot_folder / "A-01")
    told: list[object] = []
    open_sequences(mot_folder, told.append)
    (line,) = told
    assert "gt.txt: 2 of 62 rows are ignored: their frames, up to 35, come after" in str(line)
    assert str(line).endswith("seqinfo.ini, 20")


def test_timings() -> None:
    stamps = np.arange(60) / 30
    assert Timing().choose(stamps).all()
    assert np.flatnonzero(Timing(7.5).choose(stamps)).tolist() == list(range(0, 60, 4))
    dropped = Timing(15, 0.2).choose(stamps)
    assert np.array_equal(dropped, Timing(15, 0.2).choose(stamps))
    assert 15 <= dropped.sum() < 30
    # The fast ones would take all memory for times that no image has.
    for bad in (Timing(0), Timing(-5), Timing(1e9), Timing(float("inf"))):
        with pytest.raises(SettingsError, match="must be above 0 and at most 1000 images"):
            bad.choose(stamps)
    for drop in (-0.1, 0.999, 1.0, float("nan")):
        with pytest.raises(
            SettingsError, match=f"is {drop:g}, must be at least 0 and at most 0.9"
        ):
            Timing(30, drop).choose(stamps)
    assert str(Timing(30, 0.899)) == "30 Hz, 89.9% dropped"


def test_timings_that_do_not_fit_a_sequence_are_refused(mot_folder: Path) -> None:
    """Their rows would be of other images than they say, or of one image, in which no id errs."""
    sequences = open_sequences(mot_folder)
    for timing, message in (
        (Timing(0.1), "0.1 Hz: of the 20 images of A-01 1 would be used, .* at least 2: give a"),
        (Timing(1, 0.9), "1 Hz, 90% dropped: of the 20 images of A-01 [01] would be used"),
    ):
        with pytest.raises(SettingsError, match=message):
            evaluate_tracks(find, sequences, [timing])
    assert Timing(11).choose_of(sequences[0]).sum() >= 19
    assert Timing(11).too_fast_for(sequences[0]).startswith("11 Hz: A-01 has 10 images per second")
    assert not Timing(10.4).too_fast_for(sequences[0]), "as 30 Hz of 29.97"
    assert Timing(1).choose_of(sequences[0]).sum() == 2


def test_columns_do_not_run_together() -> None:
    scores = TrackScores(0.0, 0.0, 0.0, 0.0, -32.0, 123456)
    timing = Timing(29.97, 0.125)
    result = TimingScores(timing, scores, None, {}, None, 0, 0)
    head, row = report_lines([result])[:2]
    numbers = ["0.000", "0.000", "0.000", "0.000", "-32.000", "123456"]
    assert row.split() == ["29.97", "Hz,", "12.5%", "dropped", "boxes", *numbers]
    assert len(head) == len(row)


def test_a_clip_from_its_truth(tmp_path: Path) -> None:
    """The demo clip knows identities, masks and joints."""
    from bmp_ros.synthetic.clip_file import demo_clip_path

    for suffix in (".mp4", ".npz"):
        file = demo_clip_path().with_suffix(suffix)
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (sequence,) = open_sequences(tmp_path)
    frames = [frame for frame in sequence if frame.number < 40]

    class Beginning:
        name, has_masks, stamps = sequence.name, True, sequence.stamps[:40]

        ego_motion = sequence.ego_motion

        def __iter__(self):  # noqa: ANN204
            return iter(frames)

    results = evaluate_tracks(lambda _, frame: true_people(frame), [Beginning()], [Timing(12)])
    assert results[0].boxes.assa > 0.95
    assert results[0].masks is not None and results[0].masks.assa > 0.95


def test_saved_people_come_back(tmp_path: Path) -> None:
    frames = [walkers(places(number)) for number in (0, 30)] + [walkers([])]
    save_people(tmp_path / "a.npz", frames, [0.0, 0.5, 1.0])
    loaded, stamps = load_people(tmp_path / "a.npz")
    assert stamps.tolist() == [0.0, 0.5, 1.0]
    for before, after in zip(frames, loaded, strict=True):
        for name in ("boxes", "scores", "keypoints", "keypoint_scores", "masks", "mask_scores"):
            assert np.array_equal(getattr(before, name), getattr(after, name)), name


def truth_row(row: str) -> Callable[[Path], object]:
    """Adds a row to the ground truth of a sequence."""

    def add(folder: Path) -> None:
        with (folder / "gt" / "gt.txt").open("a") as file:
            file.write(row + ",-1,-1,-1\n")

    return add


@pytest.mark.parametrize(
    "change, error, message",
    [
        (lambda folder: (folder / "gt/gt.txt").unlink(), FileNotFoundError, "who is who"),
        (lambda folder: (folder / "gt/gt.txt").write_text("a,b"), ValueError, "gt.txt is not in"),
        (lambda folder: (folder / "gt/gt.txt").write_text("1,2,3"), ValueError, "3 columns"),
        (lambda folder: (folder / "seqinfo.ini").write_text("x"), ValueError, "seqinfo.ini is no"),
        (lambda folder: (folder / "img1/000001.png").unlink(), FileNotFoundError, "19 images"),
        (
            lambda folder: (folder / "img1/000003.png").rename(folder / "img1/000029.png"),
            ValueError,
            "no image 3 between 2 and 4",
        ),
        (truth_row("0,1,1,1,9,9,1"), ValueError, "has the frame 0; frames are counted from 1"),
        (truth_row("1.5,1,1,1,9,9,1"), ValueError, "has the frame 1.5, needs whole numbers"),
        (truth_row("3,-1,1,1,9,9,1"), ValueError, "has the id -1, as files of detections have"),
        (truth_row("3,1,1,1,9,9,1"), ValueError, "has the id 1 twice in frame 3"),
        (lambda folder: (folder / "gt/gt.txt").write_text(""), ValueError, "gt.txt has no rows"),
        (
            lambda folder: (folder / "gt/gt.txt").write_text("21,1,1,1,9,9,1,-1,-1,-1"),
            ValueError,
            "rows of frame 21 and later only, seqLength of .* is 20",
        ),
        (
            truth_row("3,7,1,1,-9,9,1"),
            ValueError,
            r"row 61 \(frame 3, id 7\): the box is -9 wide and 9 high, both must be above 0",
        ),
        (truth_row("3,7,1,1,9,0,1"), ValueError, "the box is 9 wide and 0 high"),
        (truth_row("3,7,1,1,nan,9,1"), ValueError, "values that are no finite numbers"),
        (truth_row("3;7;1;1;9;9;1"), ValueError, "gt.txt is not in MOTChallenge's format"),
    ],
)
def test_broken_folders_are_named(mot_folder: Path, change, error, message) -> None:  # noqa: ANN001
    change(mot_folder / "A-01")
    with pytest.raises(error, match=message):
        open_sequences(mot_folder)


def test_command(
    mot_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build_loop(preset: str, device: str, **options: object) -> object:
        def run(image: np.ndarray, *, tracked: np.ndarray) -> tuple[People, SimpleNamespace]:
            assert tracked.shape == (0, 4), "no tracker says who is hidden"
            return walkers(places(int(image[0, 0, 0]))), SimpleNamespace(stage_ms={"total": 1.0})

        return SimpleNamespace(run=run)

    monkeypatch.setattr(bmp_ros.engines, "build_loop", build_loop)
    json_file = mot_folder / "scores.json"
    assert main(["evaluate", "--tracks", str(mot_folder), "--rates", "60,5", "--drop", "0.2",
                 "--json", str(json_file)]) == 0  # fmt: skip
    printed, told = capsys.readouterr()
    assert "60 Hz: A-01 has 10 images per second only" in told
    assert "40 images of 2 sequences: A-01, B-02" in printed
    assert "5 Hz, 20% dropped" in printed and "HOTA" in printed
    assert "nobody is away for more than 1 s" in printed
    assert json_file.read_text(encoding="utf-8").count('"hota"') == 4 * 4
    monkeypatch.setattr(bmp_ros.engines, "build_loop", None)  # refused before networks are loaded
    for wrong, message in (
        (["--rates", "0.1"], "0.1 Hz: of the 20 images of A-01 1 would be used"),
        (["--drop", "0.999"], "the share of dropped images is 0.999, must be at least 0"),
    ):
        assert main(["evaluate", "--tracks", str(mot_folder), *wrong]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--tracks", "missing"], "is no folder"),
        (["--tracks", ".", "--iterations", "2"], "--iterations is for --dataset"),
        (["--dataset", "easy", "--rates", "5"], "--rates is for --tracks"),
        (["--dataset", "easy", "--from-truth"], "--from-truth is for --tracks"),
        (["--dataset", "easy", "--no-ego-motion"], "--no-ego-motion is for --tracks"),
    ],
)
def test_refusals(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *arguments]) != 0
    assert message in capsys.readouterr().err
