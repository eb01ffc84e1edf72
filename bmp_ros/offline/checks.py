# SPDX-License-Identifier: Apache-2.0
"""What `infer` refuses before any work: outputs over inputs, images without times, other boxes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bmp_ros.image_files import shown_name
from bmp_ros.offline.box_file import BoxFile
from bmp_ros.offline.sources import ImageSource, Source


def refuse_images(sources: Sequence[Source]) -> None:
    """Raise ValueError for an image among ``sources``: nothing says when it was taken."""
    images = [source for source in sources if isinstance(source, ImageSource)]
    if images:
        raise ValueError(
            f"{shown_name(images[0].path)} is an image, and images have no times: tracking needs "
            "to know how fast they follow each other; give --rate in images per second"
        )


def refuse_foreign_boxes(boxes: BoxFile, sources: Sequence[Source]) -> None:
    """Raise ValueError where no box belongs to any source."""
    files = [source.path for source in sources if isinstance(source.path, Path)]
    if not files:
        raise ValueError(
            f"{shown_name(boxes.path)}: boxes belong to files, and the source is a camera or a "
            "stream"
        )
    if not any(boxes.knows(path) for path in files):
        raise ValueError(
            f"{shown_name(boxes.path)} has no boxes of {shown_name(files[0])} or any other "
            "source: its `file_name` or `image_id` must be names of these files (docs/offline.md)"
        )


def identities(sources: Iterable[Source | BoxFile]) -> dict[tuple[int, int], Path]:
    """The files that are read, by device and number: links and other spellings are the same."""
    return {
        _identity(source.path): source.path
        for source in sources
        if isinstance(source.path, Path) and source.path.is_file()
    }


def refuse_to_overwrite(
    names: Sequence[str], inputs: Mapping[tuple[int, int], Path], output: Path
) -> None:
    """Raise ValueError where a name in the folder ``output`` is an input, or is there twice.

    inputs: see `identities`.
    """
    for path in (output / name for name in names):
        if is_input(path, inputs):
            raise ValueError(
                f"{shown_name(path)} is the input {shown_name(inputs[_identity(path)])} itself "
                "and would be overwritten; choose another --output"
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"two inputs would both be written to {shown_name(output / twice[0])}; process them "
            "one by one"
        )


def is_input(path: Path, inputs: Mapping[tuple[int, int], Path]) -> bool:
    """Whether ``path`` is one of the `identities`, whatever its spelling."""
    try:
        return path.exists() and _identity(path) in inputs
    except OSError:  # such as a name that is too long, which cannot be there
        return False


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino
