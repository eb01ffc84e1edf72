# SPDX-License-Identifier: Apache-2.0
"""``RerunLog``: moments into the Rerun viewer: a window, a browser, or a ``.rrd`` file.

Entities: ``world/camera`` (the lens, and where it is), below it ``image`` with ``masks``,
``boxes``, ``limbs`` and ``joints``; ``world/people`` (joints in metres); ``plots``.
Timelines: ``image`` (number), ``stamp`` (time of day) or ``time`` (seconds of a video).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from bmp_ros.depth.camera_model import CameraModel
from bmp_ros.drawing import person_colors
from bmp_ros.loop.people import People
from bmp_ros.viewing.moment import Moment, PeopleInSpace

APPLICATION = "bmp_ros"
INSTALL = "bmp view needs the Rerun viewer: `pip install -r requirements/view.txt`"
VIEWER_PORT = 9876
"""On which Rerun's viewer takes what is to be shown, by default."""
SCORE_THRESHOLD = 0.3
"""Keypoints up to this score are not shown, as in drawn images."""
_MASK_ALPHA = 110
_IMAGE_PLANE_M = 1.0
_CAMERA, _PEOPLE, _PLOTS = "world/camera", "world/people", "plots"
_IMAGE = f"{_CAMERA}/image"


def import_rerun() -> ModuleType:
    """Import rerun. Raises ModuleNotFoundError that says what to install."""
    try:
        import rerun
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{INSTALL} ({error})", name="rerun") from error
    return rerun


@dataclass(frozen=True)
class WebView:
    """A viewer that is served. page: its address for the browser; data: of what it shows."""

    page: str
    data: str


class RerunLog:
    """Writes moments to one of: `spawn`, `serve_web`, `save`; chosen once, before the first.

    memory: how much a viewer, or the server for those that connect later, keeps, such as ``1GB``;
    the oldest goes first. with_space: whether there is a view of people in metres.
    """

    def __init__(self, title: str, memory: str = "1GB", *, with_space: bool = True) -> None:
        self._rerun = import_rerun()
        self._layout = _blueprint(self._rerun, with_space)
        self._memory = memory
        # By default all recordings of a process have one id. A second one then takes the place of
        # the first, whose threads Rerun awaits with Python's lock held, which they may need.
        self._stream = self._rerun.RecordingStream(APPLICATION, recording_id=uuid.uuid4())
        self._title = title
        self._camera: CameraModel | None = None
        self._frame: str | None = None
        self._series: set[str] = set()

    def spawn(self, port: int = VIEWER_PORT) -> None:
        """Open the viewer's window, or send to the one that is open on that port."""
        self._stream.spawn(port=port, memory_limit=self._memory, default_blueprint=self._layout)
        self._stream.send_recording_name(self._title)

    def save(self, path: Path) -> None:
        """Write a ``.rrd`` file; ``rerun FILE`` opens it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream.save(path, default_blueprint=self._layout)
        self._stream.send_recording_name(self._title)

    def serve_web(self, page_port: int, data_port: int, host: str = "127.0.0.1") -> WebView:
        """Serve the viewer to browsers. host: of this machine, as the browser names it.

        Raises OSError when a port is taken.
        """
        for port in (page_port, data_port):
            _require_free(port)
        # serve_grpc waits, with Python's lock held, until what was sent has been served; freeing
        # that needs the lock where NumPy made it. So nothing is sent before, and the layout after.
        self._stream.serve_grpc(grpc_port=data_port, server_memory_limit=self._memory)
        self._stream.send_recording_name(self._title)
        self._stream.send_blueprint(self._layout)
        data = f"rerun+http://{host}:{data_port}/proxy"
        self._rerun.serve_web_viewer(web_port=page_port, open_browser=False, connect_to=data)
        address = f"http://{host}:{page_port}/?url={quote(data, safe='')}"
        return WebView(address, data)

    def show(self, moment: Moment) -> None:
        """Log one moment; what it does not have is left as it was or, of people, taken away."""
        self._set_time(moment)
        people = moment.people
        colors = [(red, green, blue) for blue, green, red in person_colors(people.track_ids)]
        self._show_camera(moment)
        if moment.image is not None:
            self._log(
                _IMAGE,
                self._rerun.EncodedImage(
                    contents=moment.image.contents, media_type=moment.image.media_type
                ),
            )
        self._show_people(people, colors)
        self._show_in_space(moment.in_space, people, colors)
        self._plot("people", len(people))
        self._plot_scores(people, colors)
        for name, value in moment.times_ms.items():
            self._plot(f"milliseconds/{_part(name)}", value)

    def show_times(self, moment: Moment, times_ms: Mapping[str, float]) -> None:
        """Plot milliseconds that came to be known after the moment was shown."""
        self._set_time(moment)
        for name, value in times_ms.items():
            self._plot(f"milliseconds/{_part(name)}", value)

    def close(self) -> None:
        """Send what waits; a ``.rrd`` file is complete then."""
        self._stream.flush(blocking=True)
        self._stream.disconnect()

    def _log(self, path: str, *what: Any, static: bool = False) -> None:
        self._stream.log(path, *what, static=static)

    def _set_time(self, moment: Moment) -> None:
        self._stream.set_time("image", sequence=moment.number)
        if moment.stamp_ns is not None:
            self._stream.set_time("stamp", timestamp=np.datetime64(moment.stamp_ns, "ns"))
        if moment.seconds is not None:
            self._stream.set_time("time", duration=moment.seconds)

    def _show_camera(self, moment: Moment) -> None:
        rerun, camera = self._rerun, moment.camera
        if camera is not None and camera is not self._camera:
            self._camera = camera
            self._log(
                _CAMERA,
                rerun.Pinhole(
                    image_from_camera=camera.matrix,
                    resolution=[camera.width, camera.height],
                    camera_xyz=rerun.ViewCoordinates.RDF,
                    image_plane_distance=_IMAGE_PLANE_M,
                ),
            )
        pose = None if moment.in_space is None else moment.in_space.camera_pose
        frame = "" if pose is None or moment.in_space is None else moment.in_space.frame
        if frame != self._frame and (moment.in_space is not None or self._frame is None):
            self._frame = frame
            # Optical frames look along z with y down; frames of robots have z up (REP 103).
            up = rerun.ViewCoordinates.RIGHT_HAND_Z_UP if frame else rerun.ViewCoordinates.RDF
            self._log("world", up, static=True)
        if pose is not None:
            self._log(_CAMERA, rerun.Transform3D(mat3x3=pose[0], translation=pose[1]))

    def _show_people(self, people: People, colors: list[tuple[int, int, int]]) -> None:
        rerun = self._rerun
        if people.masks.any():
            png = mask_png(people.masks, colors)
            self._log(
                f"{_IMAGE}/masks",
                rerun.EncodedImage(contents=png, media_type="image/png", draw_order=1.0),
            )
        else:
            self._log(f"{_IMAGE}/masks", rerun.Clear(recursive=False))
        self._log(
            f"{_IMAGE}/boxes",
            rerun.Boxes2D(
                array=people.boxes,
                array_format=rerun.Box2DFormat.XYXY,
                colors=colors,
                labels=labels(people),
                draw_order=2.0,
            ),
        )
        found = people.keypoint_scores > SCORE_THRESHOLD
        lines, line_colors = limbs(people.keypoints, found, people, colors)
        self._log(
            f"{_IMAGE}/limbs",
            rerun.LineStrips2D(lines, colors=line_colors, radii=-1.5, draw_order=3.0),
        )
        rows, joints = np.nonzero(found)
        self._log(
            f"{_IMAGE}/joints",
            rerun.Points2D(
                people.keypoints[rows, joints],
                colors=[colors[row] for row in rows],
                radii=-2.5,
                draw_order=4.0,
            ),
        )

    def _show_in_space(
        self, space: PeopleInSpace | None, people: People, colors: list[tuple[int, int, int]]
    ) -> None:
        rerun = self._rerun
        if space is None or len(space.keypoints) == 0:
            self._log(_PEOPLE, rerun.Clear(recursive=True))
            return
        found = np.isfinite(space.keypoints).all(axis=-1) & (
            people.keypoint_scores > SCORE_THRESHOLD
        )
        lines, line_colors = limbs(space.keypoints, found, people, colors)
        self._log(f"{_PEOPLE}/limbs", rerun.LineStrips3D(lines, colors=line_colors, radii=0.015))
        rows, joints = np.nonzero(found)
        self._log(
            f"{_PEOPLE}/joints",
            rerun.Points3D(
                space.keypoints[rows, joints], colors=[colors[row] for row in rows], radii=0.03
            ),
        )
        known = np.flatnonzero(np.isfinite(space.centroids).all(axis=-1))
        self._log(
            f"{_PEOPLE}/places",
            rerun.Points3D(
                space.centroids[known], colors=[colors[row] for row in known], radii=0.06
            ),
        )
        # The viewer writes below a point: below the joint that is lowest in the image, a label
        # hides nothing of the person, whichever way is down in this frame.
        seen = np.flatnonzero(found.any(axis=1))
        lowest = np.where(found[seen], people.keypoints[seen, :, 1], -np.inf).argmax(axis=1)
        names = labels(people)
        self._log(
            f"{_PEOPLE}/labels",
            rerun.Points3D(
                space.keypoints[seen, lowest],
                colors=[colors[row] for row in seen],
                labels=[names[row].partition(":")[0] for row in seen],
                radii=0.03,
            ),
        )

    def _plot(self, name: str, value: float, color: tuple[int, int, int] | None = None) -> None:
        path = f"{_PLOTS}/{name}"
        if path not in self._series:
            self._series.add(path)
            style = {} if color is None else {"colors": [color]}
            label = name.rpartition("/")[2].replace("_", " ")
            self._log(path, self._rerun.SeriesLines(names=[label], **style), static=True)
        self._log(path, self._rerun.Scalars([float(value)]))

    def _plot_scores(self, people: People, colors: list[tuple[int, int, int]]) -> None:
        if len(people):
            self._plot("scores/mean", float(people.scores.mean()), (200, 200, 200))
        for row, track in enumerate(people.track_ids.tolist()):
            if track >= 0:
                self._plot(f"scores/id_{track}", float(people.scores[row]), colors[row])


def labels(people: People) -> list[str]:
    """``3: 0.91`` of everyone: the id, where there is one, and the detector's score."""
    return [
        f"{score:.2f}" if track < 0 else f"{track}: {score:.2f}"
        for track, score in zip(people.track_ids.tolist(), people.scores.tolist(), strict=True)
    ]


def limbs(
    points: np.ndarray, found: np.ndarray, people: People, colors: list[tuple[int, int, int]]
) -> tuple[list[np.ndarray], list[tuple[int, int, int]]]:
    """Lines (2, D) between joints that are both found, and their colours.

    points: (N, K, D). found: (N, K) bool. colors: of the N people.
    """
    lines, line_colors = [], []
    for row in range(len(points)):
        for first, second in people.skeleton.edges:
            if found[row, first] and found[row, second]:
                lines.append(points[row, [first, second]])
                line_colors.append(colors[row])
    return lines, line_colors


def mask_png(masks: np.ndarray, colors: list[tuple[int, int, int]]) -> bytes:
    """Masks (N, H, W) bool as one PNG with an alpha channel: transparent where no person is."""
    painted = np.zeros((*masks.shape[1:], 4), np.uint8)
    for mask, (red, green, blue) in zip(masks, colors, strict=True):
        painted[mask] = blue, green, red, _MASK_ALPHA
    # The least compression: fast, and runs of one colour are small all the same.
    _, data = cv2.imencode(".png", painted, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return bytes(data.tobytes())


def _part(name: str) -> str:
    """A name as a part of an entity's path."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _blueprint(rerun: ModuleType, with_space: bool) -> Any:
    import rerun.blueprint as layout

    def plot(name: str, **options: Any) -> Any:
        return layout.TimeSeriesView(name=name, origin=f"{_PLOTS}/{name}", **options)

    scores = plot("scores", axis_y=layout.ScalarAxis(range=(0.0, 1.0)))
    space = [layout.Spatial3DView(name="space", origin="world")] if with_space else []
    return layout.Blueprint(
        layout.Horizontal(
            layout.Spatial2DView(name="image", origin=_IMAGE),
            layout.Vertical(
                *space,
                layout.Tabs(scores, plot("milliseconds")),
                plot("people"),
                row_shares=[3] * len(space) + [2, 1],
            ),
            column_shares=[3, 2],
        ),
        layout.SelectionPanel(state="hidden"),
        layout.BlueprintPanel(state="collapsed"),
        layout.TimePanel(state="collapsed"),
    )


def _require_free(port: int) -> None:
    """Rerun's servers fail in the background where a port is taken: found out here."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise OSError(
                f"port {port} is taken ({error.strerror}); end the other viewer, or choose other "
                "ports with --port"
            ) from error
