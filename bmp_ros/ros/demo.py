# SPDX-License-Identifier: Apache-2.0
"""The demo: a camera and ``bmp_node`` as processes, and a recorder that scores what was said."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import rclpy
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.signals import SignalHandlerOptions

from bmp_ros.ros.camera_sources import CLIP, SCENES
from bmp_ros.ros.child_process import ChildProcess, private_domain
from bmp_ros.ros.demo_pictures import write_gif, write_pictures
from bmp_ros.ros.demo_report import Summary, summarize, table, write_summary
from bmp_ros.ros.recorder import Recorder

NAMESPACE, NODE = "/bmp", "bmp_node"
IMAGE_TOPIC = "/camera/image_raw"
NODE_COMMAND = ("-m", "bmp_ros.ros.bmp_node")
CAMERA_COMMAND = ("-m", "bmp_ros.ros.camera_node")
_SCENE_IMAGES = 200
_FIRST_IMAGE_S = 60.0
_LAST_RESULT_S = 120.0
_TICK_S = 0.1


class DemoError(RuntimeError):
    """The demo showed nothing; the message says why, with the node's last words."""


@dataclass(frozen=True)
class DemoSettings:
    """preset, device: of the node. source: of the camera (see `camera_sources.open_source`).

    images: show so many; None: the whole source. rate: so many a second; 0: as the source is
    meant. output: folder that is written to.
    domain: DDS domain; None: one of its own. start_s: patience with the node's start.
    node_command: arguments of Python that start the node.
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

    Raises DemoError when nothing arrived or nobody was found, KeyboardInterrupt on SIGINT and
    SIGTERM; both processes have ended by then.
    """
    settings.output.mkdir(parents=True, exist_ok=True)
    for old in [*settings.output.glob("debug_*.png"), *settings.output.glob("demo.gif")]:
        old.unlink()
    with private_domain(settings.domain) as domain, _sigterm_interrupts():
        rclpy.init(domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        try:
            recorder = Recorder(image_topic=IMAGE_TOPIC, namespace=NAMESPACE, node_name=NODE)
            _record(settings, recorder)
        finally:
            rclpy.try_shutdown()
    summary = summarize(recorder, settings.preset, settings.source)
    files = [write_summary(settings.output, summary)]
    files += write_pictures(settings.output, recorder.results())
    gif = write_gif(settings.output / "demo.gif", recorder.results())
    files += [gif] if gif else []
    files += [settings.output / "node.log", settings.output / "camera.log"]
    for line in table(summary, files):
        say(line)
    if summary.people_mean == 0:
        raise DemoError(
            f"{summary.results_received} results, and nobody was found in any image; see "
            f"{settings.output / 'node.log'}"
        )
    return summary


def _record(settings: DemoSettings, recorder: Recorder) -> None:
    """Run both processes until the source is over and everything is answered."""
    node = ChildProcess(
        "bmp_node",
        [
            *settings.node_command, "--ros-args", "-r", f"__ns:={NAMESPACE}",
            "-p", f"preset:={settings.preset}", "-p", f"device:={settings.device}",
            "-p", f"image_topic:={IMAGE_TOPIC}", "-p", "image_timeout:=3600.0",
        ],
        settings.output / "node.log",
    )  # fmt: skip
    images = settings.images or (_SCENE_IMAGES if settings.source == SCENES else 0)
    camera = ChildProcess(
        "the camera",
        [
            *CAMERA_COMMAND, "--ros-args", "-p", f"source:={settings.source}",
            "-p", "loop:=false", "-p", f"images:={images}", "-p", f"rate:={settings.rate}",
            "-p", "wait_for:=2",
        ],
        settings.output / "camera.log",
    )  # fmt: skip
    with Progress() as progress, node:
        _await_node(settings, recorder, node, progress)
        with camera:
            _play(recorder, node, camera, progress)
            _require_good_end(camera)
        _require_good_end(node)


def _await_node(
    settings: DemoSettings, recorder: Recorder, node: ChildProcess, progress: Progress
) -> None:
    """Wait until the node is active."""
    client = recorder.create_client(GetState, f"{NAMESPACE}/{NODE}/get_state")
    until = time.monotonic() + settings.start_s
    answer = None
    while True:
        progress.show(f"bmp_node loads preset {settings.preset}")
        _spin(recorder, node)
        if recorder.problem:
            raise DemoError(_with_last_words(f"bmp_node {recorder.problem.splitlines()[0]}", node))
        if time.monotonic() > until:
            raise DemoError(
                _with_last_words(f"bmp_node was not active after {settings.start_s:.0f} s", node)
            )
        if answer is None:
            answer = client.call_async(GetState.Request()) if client.service_is_ready() else None
        elif answer.done():
            if answer.result().current_state.id == State.PRIMARY_STATE_ACTIVE:
                return
            answer = None


def _play(
    recorder: Recorder, node: ChildProcess, camera: ChildProcess, progress: Progress
) -> None:
    """Wait until the camera is over and its last image is answered."""
    start = last_result = time.monotonic()
    results = 0
    while not (recorder.camera_is_over and recorder.everything_is_answered):
        _spin(recorder, node, camera)
        now = time.monotonic()
        if recorder.count != results:
            results, last_result = recorder.count, now
        progress.show(f"{recorder.images} images shown, {results} results")
        if not recorder.images and now - start > _FIRST_IMAGE_S:
            raise DemoError(_with_last_words("no image arrived", camera))
        if recorder.images and now - last_result > _LAST_RESULT_S:
            raise DemoError(
                _with_last_words(
                    f"bmp_node gave no result for {_LAST_RESULT_S:.0f} s, {results} before", node
                )
            )
    if not recorder.count:
        text = f"no result for {recorder.images} images, of which bmp_node got {recorder.received}"
        raise DemoError(_with_last_words(text, node))


def _spin(recorder: Recorder, *processes: ChildProcess) -> None:
    """Take what has arrived. Raises DemoError when a process has ended."""
    until = time.monotonic() + _TICK_S
    while (left := until - time.monotonic()) > 0:
        rclpy.spin_once(recorder, timeout_sec=left)
    for process in processes:
        if process.exit_code is not None:
            ended = f"{process.name} ended with exit code {process.exit_code}"
            raise DemoError(_with_last_words(ended, process))


def _require_good_end(process: ChildProcess) -> None:
    code = process.end()
    if code != 0:
        ended = f"{process.name} ended with exit code {code} when it was asked to end"
        raise DemoError(_with_last_words(ended, process))


def _with_last_words(text: str, process: ChildProcess) -> str:
    return f"{text}. The last lines of {process.log}:\n{process.last_words()}"


class Progress:
    """One line on stderr that changes; where that is no terminal, a line every few seconds."""

    def __init__(self, every_s: float = 5.0) -> None:
        self._start = time.monotonic()
        self._live = sys.stderr.isatty()
        self._every_s = every_s
        self._shown = -every_s

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live and self._shown >= 0:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def show(self, text: str) -> None:
        seconds = time.monotonic() - self._start
        if not self._live and seconds - self._shown < self._every_s:
            return
        self._shown = seconds
        line = f"{seconds:5.1f} s  {text}"
        sys.stderr.write(f"\r\033[K{line}" if self._live else f"{line}\n")
        sys.stderr.flush()


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as SIGINT does, so that both processes are ended."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
