# SPDX-License-Identifier: Apache-2.0
"""Saves what a preset finds in clips and MOTChallenge folders, so that all trackers get the same.

    python benchmarks/tracking_detections.py FOLDER... --output DIR

A folder holds clips (`bmp_ros.synthetic.tracking_clips`) or sequences (``img1``, ``seqinfo.ini``).
One .npz per clip or sequence; those that are there are left out. All trackers get the same, so
that none tells the loop where somebody may be hidden: ``behind_threshold`` does not count.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from bmp_ros.engines import build_loop
from bmp_ros.evaluation.people_file import save_people
from bmp_ros.evaluation.sequences import open_sequences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--preset", default="tiny")
    args = parser.parse_args()
    loop, nobody = build_loop(args.preset), np.zeros((0, 4))
    args.output.mkdir(parents=True, exist_ok=True)
    for folder in args.folders:
        for sequence in open_sequences(folder):
            path = args.output / f"{sequence.name}.npz"
            if path.is_file():
                continue
            people, stamps = [], []
            for frame in sequence:
                people.append(loop.run(frame.image, tracked=nobody)[0])
                stamps.append(frame.stamp)
            save_people(path, people, stamps)
            print(f"{path}: {sum(map(len, people))} people in {len(people)} images", flush=True)


if __name__ == "__main__":
    main()
