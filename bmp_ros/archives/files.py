# SPDX-License-Identifier: Apache-2.0
"""The files of an archive: bags, videos and images of a folder and all folders below it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bmp_ros.image_files import IMAGE_SUFFIXES, natural_key, shown_name
from bmp_ros.offline.sources import VIDEO_SUFFIXES

BAG_SUFFIXES = (".mcap", ".db3")
IMAGE, VIDEO, BAG = "image", "video", "bag"


@dataclass(frozen=True)
class ArchiveFile:
    """One piece of work. path: of the file, or of a bag's folder. name: below the archive's
    folder, with slashes; outputs go to a folder of that name. bytes, changed_ns: its size and when
    it was changed last (of a bag's folder: of its storage files together)."""

    path: Path
    name: str
    kind: str
    bytes: int
    changed_ns: int


def find_files(folder: Path, leave_out: Path) -> tuple[list[ArchiveFile], str]:
    """Everything to process below ``folder``, in natural order, and in words what else is there.

    A folder with ``metadata.yaml`` and storage files is one bag. Hidden files and folders, and
    what lies below ``leave_out`` (the outputs), do not count; links to folders are not followed.
    """
    found: list[ArchiveFile] = []
    others: Counter[str] = Counter()
    kinds = dict.fromkeys(IMAGE_SUFFIXES, IMAGE) | dict.fromkeys(VIDEO_SUFFIXES, VIDEO)
    kinds |= dict.fromkeys(BAG_SUFFIXES, BAG)

    def unreadable(error: OSError) -> None:
        others["folder that cannot be read"] += 1

    for where, folders, names in os.walk(folder, onerror=unreadable):
        here = Path(where)
        if _is_bag(names):
            found.append(_bag(folder, here, names))
            folders.clear()
            continue
        links = [name for name in folders if (here / name).is_symlink()]
        others["link to a folder"] += len(links)
        folders[:] = sorted(
            name
            for name in folders
            if name not in links
            and not name.startswith(".")
            and not _is_same(here / name, leave_out)
        )
        for name in names:
            if name.startswith("."):
                continue
            path = here / name
            kind = kinds.get(path.suffix.lower())
            if kind is None or not (path.is_file() or path.is_symlink()):
                others[f"*{shown_name(path.suffix)}" if path.suffix else "without suffix"] += 1
                continue
            found.append(_file(folder, path, kind))
    words = [f"{count} {kind}" for kind, count in sorted(others.items()) if count]
    return sorted(found, key=lambda each: natural_key(each.path)), ", ".join(words)


def _is_bag(names: list[str]) -> bool:
    return "metadata.yaml" in names and any(
        Path(name).suffix in BAG_SUFFIXES or name.endswith(".zstd") for name in names
    )


def _bag(root: Path, folder: Path, names: list[str]) -> ArchiveFile:
    parts = [_file(root, folder / name, BAG) for name in names if not name.startswith(".")]
    return ArchiveFile(
        folder, _name(root, folder), BAG, sum(each.bytes for each in parts),
        max(each.changed_ns for each in parts),
    )  # fmt: skip


def _file(root: Path, path: Path, kind: str) -> ArchiveFile:
    try:
        stat = path.stat()
    except OSError:  # a link whose target is gone: reading it says so
        return ArchiveFile(path, _name(root, path), kind, 0, 0)
    return ArchiveFile(path, _name(root, path), kind, stat.st_size, stat.st_mtime_ns)


def _name(root: Path, path: Path) -> str:
    return path.name if path == root else path.relative_to(root).as_posix()


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False
