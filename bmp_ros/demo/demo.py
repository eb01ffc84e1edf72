# SPDX-License-Identifier: Apache-2.0
"""The demo: a camera and ``bmp_node`` as processes, and a recorder that scores what was said."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bmp_ros.demo.camera_sources import CLIP, SCENES
from bmp_ros.demo.child_process import ChildProcess
from bmp_ros.demo.node_process import (
    IMAGE_TOPIC,
    NAMESPACE,
    NODE,
    NODE_COMMAND,
    ProcessError,
    await_active,
    camera_process,
    node_process,
    require_good_end,
    ros_of_its_own,
    spin_while_alive,
    with_last_words,
)
from bmp_ros.demo.pictures import write_gif, write_pictures
from bmp_ros.demo.progress_line import ProgressLine
from bmp_ros.demo.recorder import Recorder
from bmp_ros.demo.report import Summary, summarize, table, write_summary

_SCENE_IMAGES = 200
_FIRST_IMAGE_S = 60.0
_LAST_RESULT_S = 120.0


@dataclass(frozen=True)
class DemoSettings:
    """preset, device: of the node. source: of the camera (see `camera_sources.open_source`).

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

    Raises ProcessError when nothing arrived or nobody was found, KeyboardInterrupt on SIGINT and
    SIGTERM; both processes have ended by then.
    """
    settings.output.mkdir(parents=True, exist_ok=True)
    for old in [*settings.output.glob("debug_*.png"), *settings.output.glob("demo.gif")]:
        old.unlink()
    with ros_of_its_own(settings.domain):
        recorder = Recorder(image_topic=IMAGE_TOPIC, namespace=NAMESPACE, node_name=NODE)
        _record(settings, recorder)
    summary = summarize(recorder, settings.preset, settings.source)
    results = recorder.results()
    files = [write_summary(settings.output, summary)]
    files += write_pictures(settings.output, results)
    gif = write_gif(settings.output / "demo.gif", results)
    files += [gif] if gif else []
    files += [settings.output / "node.log", settings.output / "camera.log"]
    for line in table(summary, files):
        say(line)
    if summary.people_mean == 0:
        raise ProcessError(
            f"{summary.results_received} results, and nobody was found in any image; see "
            f"{settings.output / 'node.log'}"
        )
    return summary


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
