# SPDX-License-Identifier: Apache-2.0
"""Images with ground truth, one after the other: rendered splits, folders, the demo clip."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bmp_ros.evaluation.ground_truth import CATEGORY

SPLIT_NAMES = ("easy", "crowded", "heavy", "train")
DEMO = "demo"
DEFAULT_COUNT = 300


@dataclass(frozen=True)
class LabelledImage:
    """One image with its answers.

    image: BGR uint8 (H, W, 3). entry: as under ``images`` of a COCO file (id, file_name, width,
    height). annotations: those of this image, as under ``annotations`` of a COCO file.
    """

    image: np.ndarray
    entry: Mapping[str, Any]
    annotations: Sequence[Mapping[str, Any]]


class Dataset(Protocol):
    """A source of images that can be gone through again; each is made when it is asked for."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def categories(self) -> Sequence[Mapping[str, Any]]:
        """As under ``categories`` of a COCO file."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[LabelledImage]: ...


@dataclass(frozen=True)
class RenderedSplit:
    """The images 0 .. ``count - 1`` of a split of `bmp_ros.synthetic`, rendered as they go."""

    name: str
    count: int
    categories: Sequence[Mapping[str, Any]] = (CATEGORY,)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[LabelledImage]:
        from bmp_ros.synthetic.dataset import annotations_of
        from bmp_ros.synthetic.generator import generate

        for sample in generate(self.name, self.count):
            height, width = sample.image.shape[:2]
            entry = {"id": sample.seed, "width": width, "height": height}
            yield LabelledImage(sample.image, entry, annotations_of(sample.people, sample.seed))


def open_dataset(
    name: str,
    *,
    count: int | None = None,
    annotations: Path | None = None,
    cache: Path | None = None,
    leave_out: Collection[int] = (),
) -> Dataset:
    """Open a data set by name (easy, crowded, heavy, train, demo) or the path of a folder.

    count: only the first so many images, of the demo clip so many evenly spaced frames; by
    default 300 of a split, all of a folder and of the clip.
    annotations: a folder's COCO file, by default its ``annotations.json``.
    cache: a folder in which images of a split are kept (JPEG, COCO's format), below the split's
    name; those that are missing are rendered, on all cores.
    leave_out: COCO ids of a folder's images that are not used: those seen in training.
    Raises ValueError or FileNotFoundError naming what there is.
    """
    from bmp_ros.evaluation.coco_folder import CocoFolder

    if count is not None and count < 1:
        raise ValueError(f"count is {count}, must be at least 1")
    if name in (*SPLIT_NAMES, DEMO) and annotations is not None:
        raise ValueError(f"{name} brings its annotations; leave {annotations} out")
    if name in SPLIT_NAMES:
        pictures = count or DEFAULT_COUNT
        if cache is None:
            return RenderedSplit(name, pictures)
        from bmp_ros.synthetic.dataset import write_dataset

        folder = cache / name
        write_dataset(folder, name, pictures, workers=os.cpu_count() or 1)
        return CocoFolder(folder, count=pictures, name=name)
    if cache is not None:
        raise ValueError(f"only rendered images are cached, {name!r} is not a split")
    if name == DEMO:
        from bmp_ros.evaluation.clip_truth import DemoClip

        return DemoClip(count)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{name!r} is neither {', '.join(SPLIT_NAMES)} or {DEMO} nor a folder in COCO's format"
        )
    return CocoFolder(folder, annotations, count=count, leave_out=leave_out)
