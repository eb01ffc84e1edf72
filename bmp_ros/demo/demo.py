# SPDX-License-Identifier: Apache-2.0
"""The demo: a camera and ``bmp_node`` as processes, a recorder, and what is told in the end."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from bmp_ros.demo.camera_node import CLIP, SCENES
from bmp_ros.demo.processes import (
    IMAGE_TOPIC,
    NAMESPACE,
    NODE,
    NODE_COMMAND,
    ChildProcess,
    ProcessError,
    ProgressLine,
    await_active,
    camera_process,
    node_process,
    require_good_end,
    ros_of_its_own,
    spin_while_alive,
    with_last_words,
)
from bmp_ros.demo.recorder import Recorder, Result
from bmp_ros.demo.truth_messages import truth_from_message
from bmp_ros.drawing import draw_people
from bmp_ros.evaluation.clip_truth import clip_annotations
from bmp_ros.evaluation.coco_results import CollectedResults
from bmp_ros.evaluation.ground_truth import CATEGORY
from bmp_ros.evaluation.scores import ResultScores, score_results
from bmp_ros.image_files import shown_name
from bmp_ros.loop.box_nms import box_iou
from bmp_ros.machine import machine, machine_line
from bmp_ros.offline.gif import vivid_palette
from bmp_ros.offline.video import utf8_path
from bmp_ros.received_people import people_from_message

_SCENE_IMAGES = 200
_FIRST_IMAGE_S = 60.0
_LAST_RESULT_S = 120.0
_LABEL_WIDTH = 22
_FOUND_IOU = 0.5
SPREAD_PICTURES = 6
GIF_MAX_BYTES = 5_000_000
_GIF_FRAMES, _GIF_WIDTH, _GIF_COLORS = 100, 480, 128
_PALETTE_FRAMES = 6


@dataclass(frozen=True)
class DemoSettings:
    """preset, device: of the node. source: of the camera (see `camera_node.open_source`).

    images: show so many; None: the whole source. rate: so many a second; 0: as the source is
    meant. output: folder that is written to. domain: DDS domain; None: one of its own.
    start_s: patience with the node's start. node_command: arguments of Python that start it.
    """

    preset: str = "tiny"
    device: str = "auto"
    source: str = CLIP
    images: int | None = None
    rate: float = 0.0
    output: Path = Path("out/demo")
    domain: int | None = None
    start_s: float = 600.0
    node_command: Sequence[str] = NODE_COMMAND


def run_demo(settings: DemoSettings, say: Callable[[str], None] = print) -> Summary:
    """Run the demo and write its files; ``say`` gets the lines of the table.

    Raises ProcessError when nothing arrived or no one was found, KeyboardInterrupt on SIGINT and
    SIGTERM; both processes have ended by then.
    """
    settings.output.mkdir(parents=True, exist_ok=True)
    for old in [*settings.output.glob("debug_*.png"), *settings.output.glob("demo.gif")]:
        old.unlink()
    with ros_of_its_own(settings.domain):
        recorder = Recorder(image_topic=IMAGE_TOPIC, namespace=NAMESPACE, node_name=NODE)
        with _source_for_ros(settings.source) as source:
            _record(replace(settings, source=source), recorder)
    summary = summarize(recorder, settings.preset, shown_name(settings.source))
    results = recorder.results()
    files = [write_summary(settings.output, summary)]
    files += write_pictures(settings.output, results, recorder.first_stamp)
    gif = write_gif(settings.output / "demo.gif", results)
    files += [gif] if gif else []
    files += [settings.output / "node.log", settings.output / "camera.log"]
    for line in table(summary, files):
        say(line)
    if summary.people_mean == 0:
        raise ProcessError(
            f"{summary.results_received} results, and no person was found in any image; see "
            f"{settings.output / 'node.log'}"
        )
    return summary


@contextmanager
def _source_for_ros(source: str) -> Iterator[str]:
    """The source as a parameter can hold it: a path that is not UTF-8 by way of a link."""
    path = Path(source).expanduser()
    if source in (CLIP, SCENES) or not path.exists():
        yield shown_name(source)
        return
    with utf8_path(path) as text:
        yield text


def _record(settings: DemoSettings, recorder: Recorder) -> None:
    """Run both processes until the source is over and everything is answered."""
    node = node_process(
        settings.preset, settings.device, settings.output / "node.log", settings.node_command
    )
    camera = camera_process(
        settings.output / "camera.log",
        source=settings.source,
        loop=False,
        images=settings.images or (_SCENE_IMAGES if settings.source == SCENES else 0),
        rate=float(settings.rate),
        wait_for=2,  # the node and the recorder
    )
    with ProgressLine() as progress, node:
        await_active(
            recorder, recorder.diagnostics, node, settings.start_s,
            lambda: progress.show(f"bmp_node loads preset {settings.preset}"),
        )  # fmt: skip
        with camera:
            _play(recorder, node, camera, progress)
            require_good_end(camera)
        require_good_end(node)


def _play(
    recorder: Recorder, node: ChildProcess, camera: ChildProcess, progress: ProgressLine
) -> None:
    """Wait until the camera is over and its last image is answered."""
    start = last_result = time.monotonic()
    results = 0
    while not (recorder.diagnostics.camera_is_over and recorder.everything_is_answered):
        spin_while_alive(recorder, node, camera)
        now = time.monotonic()
        if recorder.count != results:
            results, last_result = recorder.count, now
        progress.show(f"{recorder.images} images shown, {results} results")
        if not recorder.images and now - start > _FIRST_IMAGE_S:
            raise ProcessError(with_last_words("no image arrived", camera))
        if recorder.images and now - last_result > _LAST_RESULT_S:
            silence = f"bmp_node gave no result for {_LAST_RESULT_S:.0f} s, {results} before"
            raise ProcessError(with_last_words(silence, node))
    if not results:
        received = recorder.diagnostics.received
        nothing = f"no result for {recorder.images} images, of which bmp_node got {received}"
        raise ProcessError(with_last_words(nothing, node))


@dataclass(frozen=True)
class Summary:
    """The figures of ``summary.json``; None where nothing is known.

    camera_rate: images per second that the camera sent; on a busy machine fewer than it should.
    people_mean: per result. age_ms: from the image's stamp to the result's arrival.
    stage_ms_median: of the last 100 frames, as the node's diagnostics say.
    box_ap50, mask_ap50, keypoint_ap: COCO's, over the frames that were processed; frames_scored
    of them. People of whom fewer than 150 pixels are to be seen count neither way.
    ids_given, id_switches: see `IdCounts`.
    """

    preset: str
    device: str
    source: str
    frames_sent: int
    camera_rate: float
    frames_received: int
    frames_processed: int
    results_received: int
    people_mean: float
    age_ms_p50: float | None
    age_ms_p95: float | None
    stage_ms_median: Mapping[str, float]
    frames_scored: int
    box_ap50: float | None
    mask_ap50: float | None
    keypoint_ap: float | None
    ids_given: int
    id_switches: int | None
    machine: Mapping[str, Any] = field(default_factory=machine)


def summarize(recorder: Recorder, preset: str, source: str) -> Summary:
    """Compute the figures. Raises ModuleNotFoundError without pycocotools."""
    results = recorder.results()
    said = recorder.diagnostics
    ages = [result.age_ms for result in results]
    known = [result for result in results if result.truth is not None]
    scored = scores(known)
    ids = count_ids(results)
    return Summary(
        preset=preset,
        device=said.engines.get("device", ""),
        source=source,
        frames_sent=said.sent,
        camera_rate=said.camera_rate,
        frames_received=said.received,
        frames_processed=said.processed,
        results_received=len(results),
        people_mean=float(np.mean([len(r.people.people) for r in results] or [0])),
        age_ms_p50=float(np.percentile(ages, 50)) if ages else None,
        age_ms_p95=float(np.percentile(ages, 95)) if ages else None,
        stage_ms_median=said.stages(),
        frames_scored=len(known),
        box_ap50=scored.boxes.ap50 if scored.boxes else None,
        mask_ap50=scored.masks.ap50 if scored.masks else None,
        keypoint_ap=scored.keypoints.ap if scored.keypoints else None,
        ids_given=ids.given,
        id_switches=ids.switches if known else None,
    )


@dataclass(frozen=True)
class IdCounts:
    """given: different ids. switches: how often a person had another id than when last found."""

    given: int
    switches: int


def count_ids(results: Sequence[Result]) -> IdCounts:
    """Count ids and identity switches in the order of the images, as CLEAR MOT does.

    Boxes of truth and result are assigned to each other with IoUs of at least 0.5; a pair of the
    image before comes first (Bernardin and Stiefelhagen 2008). Results without truth have no
    switches.
    """
    last: dict[int, int] = {}
    before: dict[int, int] = {}
    given: set[int] = set()
    switches = 0
    for result in sorted(results, key=lambda each: each.stamp_ns):
        found = people_from_message(result.people)
        found = found[found.track_ids >= 0]
        tracks = found.track_ids.tolist()
        given |= set(tracks)
        if result.truth is None:
            continue
        truth = people_from_message(result.truth)
        identities = truth.track_ids.tolist()
        iou = box_iou(truth.boxes, found.boxes)
        kept = [[before.get(identity) == track for track in tracks] for identity in identities]
        gain = np.where(iou >= _FOUND_IOU, iou + 1000 * np.reshape(kept, iou.shape), 0.0)
        pairs = zip(*linear_sum_assignment(-gain), strict=True)
        before = {identities[row]: tracks[column] for row, column in pairs if gain[row, column]}
        switches += sum(last.get(identity, track) != track for identity, track in before.items())
        last |= before
    return IdCounts(len(given), switches)


def scores(results: Sequence[Result]) -> ResultScores:
    """COCO's scores of results whose truth is known."""
    if not results:
        return ResultScores()
    found = CollectedResults()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, result in enumerate(results):
        assert result.truth is not None
        size = {"width": result.people.width, "height": result.people.height}
        images.append({"id": number, **size})
        annotations += clip_annotations(truth_from_message(result.truth), number)
        found.add(people_from_message(result.people), number)
    truth = {"images": images, "annotations": annotations, "categories": [CATEGORY]}
    return score_results(truth, boxes=found.boxes, masks=found.masks, keypoints=found.keypoints)


def write_summary(folder: Path, summary: Summary) -> Path:
    path = folder / "summary.json"
    path.write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
    return path


def table(summary: Summary, files: Sequence[Path]) -> list[str]:
    """Lines for the terminal."""
    rows: list[tuple[str, str]] = [
        ("preset", f"{summary.preset} on {summary.device}"),
        ("frames", f"{summary.frames_sent} sent at {summary.camera_rate:.1f} Hz, "
         f"{summary.frames_received} arrived, {summary.frames_processed} processed (the newest "
         "each time)"),
        ("results received", f"{summary.results_received}, {summary.people_mean:.1f} people each"),
        ("age of results", f"{summary.age_ms_p50:.0f} ms median, {summary.age_ms_p95:.0f} ms p95"
         if summary.age_ms_p50 is not None and summary.age_ms_p95 is not None else "-"),
        ("stages, median", ", ".join(
            f"{stage} {milliseconds:.1f} ms"
            for stage, milliseconds in summary.stage_ms_median.items()
        )),
        ("box AP50", _known(summary.box_ap50)),
        ("mask AP50", _known(summary.mask_ap50)),
        ("keypoint AP", _known(summary.keypoint_ap)),
        ("ids", f"{summary.ids_given} given"
         + ("" if summary.id_switches is None else f", {summary.id_switches} switches")),
        ("machine", machine_line()),
    ]  # fmt: skip
    lines = [f"{label:<{_LABEL_WIDTH}}{text}" for label, text in rows]
    return [*lines, "", *(f"wrote {path}" for path in files)]


def _known(score: float | None) -> str:
    return "no ground truth" if score is None else f"{score:.3f}"


def write_pictures(folder: Path, results: Sequence[Result], start_ns: int) -> list[Path]:
    """Draw results as PNGs: some spread over the time, and the one of the closest two people.

    start_ns: stamp of the first image, from which the seconds in their names count.
    """
    shown = [result for result in results if result.jpeg is not None]
    if not shown:
        return []
    rows = np.linspace(0, len(shown) - 1, min(SPREAD_PICTURES, len(shown))).round().astype(int)
    names = {int(row): "spread" for row in rows}
    closest = max(range(len(shown)), key=lambda row: closeness(shown[row]))
    while closest in names and closest + 1 < len(shown):
        closest += 1  # one more picture of it, rather than another name for one
    names[closest] = "closest"
    paths = []
    for row, name in sorted(names.items()):
        seconds = (shown[row].stamp_ns - start_ns) / 1e9
        paths.append(folder / f"debug_{seconds:04.1f}s_{name}.png")
        cv2.imwrite(str(paths[-1]), drawn(shown[row]))
    return paths


def closeness(result: Result) -> float:
    """Highest IoU of two boxes: of the people there are where that is known, else of those found.

    0 for fewer than two people.
    """
    people = people_from_message(result.truth or result.people)
    return float(np.triu(box_iou(people.boxes, people.boxes), 1).max(initial=0.0))


def write_gif(
    path: Path, results: Sequence[Result], max_bytes: int = GIF_MAX_BYTES
) -> Path | None:
    """Write what was seen at the pace at which it was: up to 100 drawn results.

    Returns None when no image of a result is known. Raises ModuleNotFoundError without Pillow.
    """
    shown = [result for result in results if result.jpeg is not None]
    if not shown:
        return None
    rows = np.linspace(0, len(shown) - 1, min(_GIF_FRAMES, len(shown))).round().astype(int)
    pictures = [drawn(shown[row]) for row in rows]
    stamps = np.array([shown[row].stamp_ns for row in rows], np.int64)
    pauses_ms = (np.diff(stamps, append=stamps[-1] + 10**9) // 10**6).tolist()
    width = min(_GIF_WIDTH, pictures[0].shape[1])
    while len(film := _encode(pictures, pauses_ms, width)) > max_bytes and width > 32:
        width = int(width * min(0.9, 0.95 * (max_bytes / len(film)) ** 0.5))
    path.write_bytes(film)
    return path


def drawn(result: Result) -> np.ndarray:
    """The image (H, W, 3) with the people that the node found on it."""
    image = result.image
    assert image is not None
    return draw_people(image, people_from_message(result.people))


def _encode(pictures: Sequence[np.ndarray], pauses_ms: list[int], width: int) -> bytes:
    """Pictures of one palette, ``width`` pixels wide. What does not change costs nothing then."""
    from PIL import Image

    height = round(pictures[0].shape[0] * width / pictures[0].shape[1])
    small = [
        cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)[..., ::-1]
        for picture in pictures
    ]
    some = small[:: max(1, len(small) // _PALETTE_FRAMES)]
    palette = vivid_palette(np.concatenate(some), _GIF_COLORS)
    frames: list[Any] = [
        Image.fromarray(np.ascontiguousarray(frame)).quantize(
            palette=palette, dither=Image.Dither.NONE
        )
        for frame in small
    ]
    film = io.BytesIO()
    frames[0].save(
        film, "GIF", save_all=True, append_images=frames[1:], loop=0, duration=pauses_ms
    )
    return film.getvalue()
