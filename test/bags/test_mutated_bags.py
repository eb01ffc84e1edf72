# SPDX-License-Identifier: Apache-2.0
"""Bags with bytes altered or lost anywhere: one clear error, or a bag; never anything else."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed (requirements/bags.txt)")
from rosbags.rosbag2 import StoragePlugin
from test_bag import loop, messages, write_bag
from test_depth_of_bag import DEPTH, depth_bag

from bmp_ros.bags.process import BagError, Selection, process_bag

SELECTIONS = (
    Selection(),
    Selection("/camera/image", anonymise="bodies"),
    Selection("/camera/image", depth=DEPTH.depth, smooth=True),
    Selection("/camera/image", start_s=0.1, copy=False, depth=DEPTH.depth),
)


@pytest.mark.parametrize(
    ("plugin", "seed"),
    [
        (".mcap", 0),
        (".db3", 0),
        *(pytest.param(".mcap", seed, marks=pytest.mark.slow) for seed in range(1, 9)),
    ],
)
def test_mutated_bags_never_crash(tmp_path, plugin: str, seed: int) -> None:
    """Ten mutations each, 100 in all: a BagError that names the bag, or a bag that can be read.

    benchmarks/fuzz_files.py has as many as one has time for.
    """
    if plugin == ".mcap":
        source = depth_bag(tmp_path / "in", images=3)
    else:
        source = write_bag(tmp_path / "in", images=2, plugin=StoragePlugin.SQLITE3)
    (file,) = source.glob(f"*{plugin}")
    content, rng = file.read_bytes(), np.random.default_rng(seed)
    engine = loop()
    for number in range(10):
        damaged = bytearray(content)
        for at in rng.integers(0, len(damaged), rng.integers(1, 8)):
            damaged[at] = int(rng.integers(0, 256))
        if rng.random() < 0.3:
            del damaged[int(rng.integers(0, len(damaged))) :]
        path, out = tmp_path / f"{number}{plugin}", tmp_path / f"out{number}"
        path.write_bytes(damaged)
        selection = SELECTIONS[number % 4 if plugin == ".mcap" else number % 2]
        try:
            process_bag(engine, path, out, selection)
        except BagError as error:
            assert str(path) in str(error) or "has messages" in str(error)
            assert not out.exists() and not list(tmp_path.glob(".bmp-bag-*"))
        else:
            messages(out)
        assert path.read_bytes() == damaged
