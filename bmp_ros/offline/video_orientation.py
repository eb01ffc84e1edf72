# SPDX-License-Identifier: Apache-2.0
"""How a video stands: the display matrix of its container."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

Matrix = tuple[int, int, int, int]
_ORIENTATION_OF_ANGLE = {90: 6, 180: 3, 270: 8}
_ORIENTATION_OF_MATRIX: dict[Matrix, int] = {
    (1, 0, 0, 1): 1, (-1, 0, 0, 1): 2, (-1, 0, 0, -1): 3, (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5, (0, 1, -1, 0): 6, (0, -1, -1, 0): 7, (0, -1, 1, 0): 8,
}  # fmt: skip
"""EXIF's orientation by the signs of a display matrix (a, b, c, d): x' = ax + cy, y' = bx + dy."""
_MOST_BOX = 1 << 28
"""Bytes of the box with all tables of an MP4 above which it is not read."""


def video_orientation(path: Path, capture: cv2.VideoCapture) -> int:
    """How the frames of an open file stand, as EXIF says it (1 to 8).

    ``capture`` gives them as stored from then on.
    """
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # builds differ in what they do by themselves
    matrix = _display_matrix(path)
    if matrix is not None:
        return _ORIENTATION_OF_MATRIX.get(matrix, 1)
    return _ORIENTATION_OF_ANGLE.get(round(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360, 1)


def _display_matrix(path: Path) -> Matrix | None:
    """Signs of the display matrix of an MP4's first video track (ISO 14496-12, 8.3.2 and 8.2.2).

    OpenCV tells its angle only, and takes a mirror image for a turned one. None where there is no
    such matrix.
    """
    try:
        with path.open("rb") as file:
            movie = next((file.read(size) for kind, size in _boxes(file) if kind == b"moov"), b"")
        tracks, whole = [], np.eye(2)
        for kind, content in _inside(movie):
            if kind == b"mvhd":
                whole = _matrix_at(content, 36 if content[0] == 0 else 48)
            elif kind == b"trak":
                tracks.append(dict(_inside(content)))
        for track in tracks:
            handler = dict(_inside(track.get(b"mdia", b""))).get(b"hdlr", b"")
            if handler[8:12] == b"vide":
                header = track[b"tkhd"]
                matrix = _matrix_at(header, 40 if header[0] == 0 else 52) @ whole
                a, b, c, d = np.sign(matrix).astype(int).ravel().tolist()
                return a, b, c, d
    except (struct.error, KeyError, IndexError):  # no MP4, or a damaged one
        pass
    return None


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Kind and size of the content of an MP4's boxes; the file stands at the content."""
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        size -= 8
        if size == 1 - 8:
            size = struct.unpack(">Q", file.read(8))[0] - 16
        start = file.tell()
        # Too long for its file: damaged, or no MP4 at all.
        if not 0 <= size <= end - start or (kind == b"moov" and size > _MOST_BOX):
            return
        yield kind, size
        file.seek(start + size)


def _inside(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the boxes of a box."""
    file = io.BytesIO(content)
    for kind, size in _boxes(file):
        yield kind, file.read(size)


def _matrix_at(header: bytes, place: int) -> np.ndarray:
    """The 2x2 part, rows (a, b) and (c, d), of a matrix of 16.16 and 2.30 numbers."""
    a, b, _, c, d = struct.unpack_from(">5i", header, place)
    return np.array([[a, b], [c, d]], np.float64)
