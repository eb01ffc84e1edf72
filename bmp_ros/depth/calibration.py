# SPDX-License-Identifier: Apache-2.0
"""Calibrations: which camera of a camera_info belongs to which image; without ROS.

An image as the sensor took it has the matrix K and the distortion D; a rectified one has P and no
distortion. Both have the same camera_info beside them, so it has to be said which they are. What
is called ``info`` here is any object with the fields of sensor_msgs/CameraInfo.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from bmp_ros.depth.camera_model import CameraModel

COMPRESSED_SUFFIX = "/compressed"
DEPTH_SUFFIX = "/compressedDepth"
ASPECT = 0.03
"""Share by which proportions of an image and a depth image of the same view may differ: sizes are
rounded (848x480 is 16:9 to a RealSense)."""
_RECTIFIED = re.compile(r"(?<!di)(?<!cor)(?<!un)rect(?!ang)", re.IGNORECASE)


def without_transport(topic: str) -> str:
    """The base topic: without what image_transport appends to it."""
    for suffix in (COMPRESSED_SUFFIX, DEPTH_SUFFIX):
        topic = topic.removesuffix(suffix)
    return topic


def info_beside(topic: str) -> str:
    """The topic of the calibration beside a topic of images."""
    return f"{without_transport(topic).rpartition('/')[0]}/camera_info"


class CalibrationError(ValueError):
    """A calibration is missing or cannot be used; the message names its topic and why.

    kind: what the reason has in common with others of its kind, whose words may differ.
    """

    def __init__(self, text: str, kind: str = "") -> None:
        super().__init__(text)
        self.kind = kind or text


def is_rectified(setting: str, topic: str) -> bool:
    """Whether the images of a topic are rectified. setting: ``auto``, ``true`` or ``false``.

    ``auto`` goes by the last part of the topic's name, transport aside: ``image_rect``,
    ``image_rect_color`` and ``left_rectified`` are, ``image_raw`` and ``direct`` are not.
    """
    if setting != "auto":
        return setting == "true"
    return _RECTIFIED.search(without_transport(topic).rpartition("/")[2]) is not None


def camera_model(info: Any, *, rectified: bool = False) -> CameraModel:
    """The camera that took the images beside ``info``, binning and region of interest applied.

    rectified: the images are, so P counts; else K and D. Where P is all 0 and D as well, K does
    for both. Region and K are of the full resolution, the region is cut out before the binning
    (sensor_msgs/CameraInfo). Of pixels that were binned, centres lie between those of the full
    resolution: ``(centre + 0.5) / binning - 0.5``.
    Raises ValueError for what `CameraModel` refuses, and for sizes that contradict each other.
    """
    k = np.array(info.k, np.float64).reshape(3, 3)
    p = np.array(info.p, np.float64).reshape(3, 4)[:, :3]
    distortion, model = np.array(info.d, np.float64), info.distortion_model
    if is_blank(info):
        raise ValueError("it is blank, K and P are 0: the camera is not calibrated")
    matrix = k
    if rectified and (p.any() or distortion.any()):
        if not p[0, 0]:
            raise ValueError(
                "the images are rectified, but P is 0 while D is not: calibrate again"
            )
        matrix, distortion, model = p, np.zeros(0), ""
    elif not k[0, 0] and p[0, 0]:
        raise ValueError(
            "K is 0, so the camera is not calibrated, but P is there: if the images are "
            "rectified, set rectified (or depth_rectified) to true"
        )
    matrix, size = _cut_and_binned(matrix, info)
    return CameraModel(matrix, size[0], size[1], distortion, model)


def is_blank(info: Any) -> bool:
    """Whether there is no calibration in it at all, as drivers send of cameras without one."""
    return not (info.k[0] or info.k[4] or info.p[0] or info.p[5])


def _cut_and_binned(matrix: np.ndarray, info: Any) -> tuple[np.ndarray, tuple[int, int]]:
    """The matrix (3, 3) and the size (width, height) of the images that come out."""
    if not info.width or not info.height:
        raise ValueError(
            f"it is of images of {info.width}x{info.height} pixels: who publishes it has to give "
            "width and height of the camera's full resolution"
        )
    roi = info.roi
    left, top, width, height = roi.x_offset, roi.y_offset, roi.width, roi.height
    binning = np.array([max(info.binning_x, 1), max(info.binning_y, 1)], np.int64)
    if not width and not height:
        width, height = info.width - left, info.height - top
    size = (int(width // binning[0]), int(height // binning[1]))
    if min(size) <= 0 or left + width > info.width or top + height > info.height:
        raise ValueError(
            f"it is of {info.width}x{info.height} pixels, with a region of interest of "
            f"{roi.width}x{roi.height} at {left}, {top} and a binning of "
            f"{info.binning_x}x{info.binning_y}"
        )
    result = np.array(matrix, np.float64)
    centre = result[:2, 2] - [left, top]
    result[:2] /= binning[:, None]
    result[:2, 2] = (centre + 0.5) / binning - 0.5
    return result, size


def _how_cut(info: Any) -> str:
    """How images of the calibrated size become smaller ones; empty where they do not."""
    roi, parts = info.roi, []
    if roi.width and roi.height and (roi.width, roi.height) != (info.width, info.height):
        parts.append(f"region {roi.width}x{roi.height} at {roi.x_offset}, {roi.y_offset}")
    if max(info.binning_x, info.binning_y) > 1:
        parts.append(f"binning {info.binning_x}x{info.binning_y}")
    return f" ({info.width}x{info.height}, {', '.join(parts)})" if parts else ""


class Calibration:
    """The camera of a topic of images, by the last camera_info that came on the topic beside it.

    topic: of camera_info. rectified: whether the images beside it are. parameter: that says what
    topic it is, for messages. deserialise: makes a camera_info of bytes, or raises.

    `model`, `is_blank` and `has_come` are for one thread, which may be another than that of
    `keep`. What arrives is deserialised when it is asked for: drivers send one with each image.
    """

    def __init__(
        self, topic: str, *, rectified: bool, parameter: str, deserialise: Callable[[bytes], Any]
    ) -> None:
        self.topic = topic
        self.rectified = rectified
        self.parameter = parameter
        self._deserialise = deserialise
        self._received: bytes | None = None
        self._read: bytes | None = None
        self._key: Any = None
        self._is_blank = False
        self._cut = self._frame = ""
        self._result: CameraModel | CalibrationError | None = None

    def keep(self, serialised: bytes) -> None:
        """Let this camera_info count from now on."""
        self._received = serialised

    @property
    def has_come(self) -> bool:
        return self._received is not None

    @property
    def is_blank(self) -> bool:
        """Whether the last one that came has no calibration in it."""
        self._update()
        return self._is_blank

    def model(self) -> CameraModel:
        """The camera of the images, by the last calibration that came; the same object for each.

        Raises CalibrationError, which names the topic, when none came or it cannot be used.
        """
        self._update()
        if self._result is None:
            raise CalibrationError(self._missing(), "no calibration")
        if isinstance(self._result, CalibrationError):
            raise CalibrationError(str(self._result))
        return self._result

    def why_foreign(self, frame: str) -> str:
        """Say why the last one that came may be another camera's than that of images in a frame.

        Both have to name the same one (sensor_msgs/CameraInfo). Empty where they do, and where one
        is not named.
        """
        self._update()
        own, frame = self._frame.lstrip("/"), frame.lstrip("/")
        if not own or not frame or own == frame:
            return ""
        return (
            f"the calibration on {self.topic} is of the frame {own!r}, the images are in "
            f"{frame!r}: set {self.parameter} to the topic that belongs to them, or let the "
            "driver name one frame in both"
        )

    def fitting(self, size: tuple[int, ...], what: str) -> CameraModel:
        """`model`, or CalibrationError when images of ``size`` (height, width) are not its own."""
        camera = self.model()
        if (camera.height, camera.width) != tuple(size):
            is_turned = (camera.width, camera.height) == tuple(size)
            advice = "publish one of the turned images, or " if is_turned else ""
            raise CalibrationError(
                f"the calibration on {self.topic} is of images of {camera.width}x{camera.height} "
                f"pixels{self._cut}, {what} has {size[1]}x{size[0]}; {advice}set "
                f"{self.parameter} to the topic that belongs to it"
            )
        return camera

    def _update(self) -> None:
        received = self._received
        if received is None or received is self._read:
            return
        self._read = received
        key = None  # of what cannot be read: the next one counts even if it came before
        try:
            info = self._deserialise(received)
            key = _content(info)
            if key == self._key:
                return
            self._is_blank, self._cut = is_blank(info), _how_cut(info)
            self._frame = info.header.frame_id
            self._result = camera_model(info, rectified=self.rectified)
        except Exception as error:  # of the library that reads it, or ValueError
            self._result = CalibrationError(f"the calibration on {self.topic}: {error}")
        self._key = key

    def _missing(self) -> str:
        """Why no calibration has come."""
        return f"no calibration has come on {self.topic}; set {self.parameter}"


def depth_camera(
    of_depth: Calibration,
    of_image: Calibration,
    depth_size: tuple[int, ...],
    image_size: tuple[int, int],
) -> CameraModel | None:
    """The calibration of a registered depth image; None: it shows what the image shows.

    That holds where nothing says otherwise: where no calibration of the depth images comes, where
    it is that of the images, and where it is blank and the two are of one size.
    Raises CalibrationError where it cannot hold, as the two differ in their proportions by more
    than `ASPECT` and a pixel, and for a calibration that does not fit.
    """
    is_same = of_depth.topic == of_image.topic and of_depth.rectified == of_image.rectified
    if is_same or not of_depth.has_come or (of_depth.is_blank and depth_size == image_size):
        (height, width), (rows, columns) = image_size, depth_size
        if abs(columns * height / width - rows) > max(ASPECT * rows, 1.0):
            raise CalibrationError(
                f"the depth image has {columns}x{rows} pixels, the image {width}x{height}: they "
                "cannot show the same view, and no calibration of the depth images says which "
                "part of it they show; publish theirs beside them, or name its topic in "
                f"{of_depth.parameter}",
                "other proportions",
            )
        return None
    return of_depth.fitting(depth_size, "the depth image")


def _content(info: Any) -> tuple[Any, ...]:
    """All that is read of it, comparable: NaN equals itself as bytes."""
    roi = info.roi
    numbers = np.concatenate([info.k, info.p, info.d]).astype(np.float64)
    return (
        info.header.frame_id, numbers.tobytes(), info.distortion_model, info.width, info.height,
        info.binning_x, info.binning_y, roi.x_offset, roi.y_offset, roi.width, roi.height,
    )  # fmt: skip
