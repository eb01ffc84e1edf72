# SPDX-License-Identifier: Apache-2.0
"""Several folders of images as one stream of samples, each folder with a weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from bmp_ros.training.cut_outs import CutOuts
from bmp_ros.training.images import TrainingFolder, TrainingImage


class Images(Protocol):
    """A numbered stream of images; number n is the same in every run and process."""

    cut_outs: CutOuts | None
    """People to paste, None for none."""

    def draw(
        self, number: int, seed: int, validation: bool
    ) -> tuple[np.random.Generator, TrainingImage]:
        """Image ``number`` and a generator for what is to be done with it."""
        ...

    def more(self, random: np.random.Generator, count: int) -> list[TrainingImage]:
        """As many other images, chosen by ``random``."""
        ...


class People(Protocol):
    """A numbered stream of people whose joints are labelled, each with its image."""

    def draw_person(
        self, number: int, seed: int, validation: bool
    ) -> tuple[np.random.Generator, TrainingImage, int]:
        """Person ``number``: a generator, the image and the row in it."""
        ...


class Folder(Protocol):
    """Images by number."""

    @property
    def with_joints(self) -> Sequence[tuple[int, int]]:
        """Image and row of everybody with a labelled joint."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> TrainingImage: ...


@dataclass
class Mixture:
    """folders and their weights: images of a folder are drawn in proportion to its weight.

    held_out: folders whose images, all alike, are for validation.
    """

    folders: Sequence[Folder]
    weights: Sequence[float]
    held_out: Sequence[Folder]
    cut_outs: CutOuts | None = None

    def draw(
        self, number: int, seed: int, validation: bool
    ) -> tuple[np.random.Generator, TrainingImage]:
        random = np.random.default_rng((seed, 1, number))
        if validation:
            places = [(folder, n) for folder in self.held_out for n in range(len(folder))]
            # Evenly spread, so that few samples are of all folders.
            folder, place = places[(number * 7919) % len(places)]
        else:
            return random, self.more(random, 1)[0]
        return random, folder[place]

    def kept_aside(self) -> Iterator[TrainingImage]:
        """All images that are for validation."""
        for folder in self.held_out:
            for number in range(len(folder)):
                yield folder[number]

    def draw_person(
        self, number: int, seed: int, validation: bool
    ) -> tuple[np.random.Generator, TrainingImage, int]:
        """See `People`. Of a folder, everybody is drawn equally often."""
        random = np.random.default_rng((seed, 2, number))
        if validation:
            places = [(folder, each) for folder in self.held_out for each in folder.with_joints]
            folder, (place, row) = places[(number * 7919) % len(places)]
        else:
            shares = np.array(self.weights) / np.sum(self.weights)
            folder = self.folders[int(random.choice(len(self.folders), p=shares))]
            people = folder.with_joints
            place, row = people[int(random.integers(len(people)))]
        return random, folder[place], row

    def more(self, random: np.random.Generator, count: int) -> list[TrainingImage]:
        shares = np.array(self.weights) / np.sum(self.weights)
        chosen = [self.folders[n] for n in random.choice(len(self.folders), count, p=shares)]
        return [folder[int(random.integers(len(folder)))] for folder in chosen]


class RenderedImages:
    """The images of one folder of `bmp_ros.synthetic.dataset`, one in 25 held out.

    Sample ``number`` uses image ``number`` of an order that is new in every round.
    """

    cut_outs: CutOuts | None = None

    def __init__(self, folder: Path, *, with_detections: bool = False) -> None:
        self._folders = {
            validation: TrainingFolder(
                folder, validation=validation, with_detections=with_detections
            )
            for validation in (False, True)
        }

    def draw(
        self, number: int, seed: int, validation: bool
    ) -> tuple[np.random.Generator, TrainingImage]:
        folder = self._folders[validation]
        round_, place = divmod(number, len(folder))
        order = np.random.default_rng((seed, round_)).permutation(len(folder))
        return np.random.default_rng((seed, 1, number)), folder[int(order[place])]

    def more(self, random: np.random.Generator, count: int) -> list[TrainingImage]:
        folder = self._folders[False]
        return [folder[int(n)] for n in random.integers(len(folder), size=count)]
