# SPDX-License-Identifier: Apache-2.0
"""Tracks as MOTChallenge's text: frame,id,left,top,width,height,score,-1,-1,-1."""

from __future__ import annotations

from pathlib import Path

from bmp_ros.loop.people import People
from bmp_ros.writing import open_part, part_of


class MotFile:
    """One line per tracked person and image; frames count from 1, pixels as everywhere here.

    The file appears when the ``with`` block ends, also through an exception: with what there was
    until then. Raises BeingWrittenError while another run writes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = open_part(path, encoding="ascii")

    def add(self, people: People, frame: int) -> None:
        """Append those of ``people`` who have an id; ``frame`` counts from 0."""
        for track, (x0, y0, x1, y1), score in zip(
            people.track_ids.tolist(), people.boxes.tolist(), people.scores.tolist(), strict=True
        ):
            if track >= 0:
                box = f"{x0:.2f},{y0:.2f},{x1 - x0:.2f},{y1 - y0:.2f}"
                self._stream.write(f"{frame + 1},{track},{box},{score:.4f},-1,-1,-1\n")

    def __enter__(self) -> MotFile:
        return self

    def __exit__(self, *_: object) -> None:
        with self._stream:
            self._stream.flush()
            part_of(self._path).replace(self._path)
