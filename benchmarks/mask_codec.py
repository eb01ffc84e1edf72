# SPDX-License-Identifier: Apache-2.0
"""Time of encoding and decoding the masks of ten people in 1280x720, beside pycocotools.

``python benchmarks/mask_codec.py`` prints the median and the best of many rounds; the
figures of this codec and of pycocotools come from interleaved rounds of the same run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
from pycocotools import mask as coco

from bmp_ros.loop.masks import decode_runs, encode_runs, mask_rectangles

HEIGHT, WIDTH, PEOPLE = 720, 1280, 10


def masks_of_people(seed: int = 0) -> np.ndarray:
    """Return (10, 720, 1280) bool: upright bodies 220 to 640 px tall, ragged rims, gaps."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    masks = np.zeros((PEOPLE, HEIGHT, WIDTH), np.bool_)
    for mask, x in zip(masks, np.linspace(90, WIDTH - 90, PEOPLE), strict=True):
        height = random.uniform(220, 640)
        y = random.uniform(height / 2, HEIGHT - height / 2)
        rim = 1 + 0.08 * np.sin(rows / 3 + random.uniform(0, 6)) * np.sin(columns / 2)
        body = ((rows - y) / (height / 2)) ** 2 + ((columns - x) / (height / 8)) ** 2 < rim
        gap = np.abs(rows - y - height / 5 - (columns - x) / 2) < 4
        mask[:] = body & ~gap
    return masks


def milliseconds(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Time of every call; the functions take turns, so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: np.array(values) for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=100, help="calls of each function")
    rounds = parser.parse_args().rounds

    masks = masks_of_people()
    rectangles = [tuple(row) for row in mask_rectangles(masks).tolist()]
    runs = [encode_runs(mask, r) for mask, r in zip(masks, rectangles, strict=True)]
    fortran = [np.asfortranarray(mask.view(np.uint8)) for mask in masks]
    compressed = [coco.encode(mask) for mask in fortran]

    def decode_full() -> np.ndarray:
        full = np.zeros(masks.shape, np.bool_)
        for mask, ((x, y, width, height), counts) in zip(full, runs, strict=True):
            mask[y : y + height, x : x + width] = decode_runs(counts, width, height)
        return full

    for mask, (rectangle, counts), mine in zip(masks, runs, decode_full(), strict=True):
        x, y, width, height = rectangle
        crop = mask[y : y + height, x : x + width]
        run_lengths = {"size": [height, width], "counts": counts.tolist()}
        theirs = coco.decode(coco.frPyObjects(run_lengths, height, width))
        if not (np.array_equal(mine, mask) and np.array_equal(theirs.astype(bool), crop)):
            print("the codec and pycocotools disagree: timing it would be pointless")
            return 1

    times = milliseconds(
        {
            "encode, rectangles given": lambda: [
                encode_runs(mask, r) for mask, r in zip(masks, rectangles, strict=True)
            ],
            "encode, rectangles found": lambda: [encode_runs(mask) for mask in masks],
            "encode, pycocotools": lambda: [
                coco.encode(np.asfortranarray(mask.view(np.uint8))) for mask in masks
            ],
            "decode to crops": lambda: [decode_runs(counts, r[2], r[3]) for r, counts in runs],
            "decode to full images": decode_full,
            "decode, pycocotools (full images)": lambda: coco.decode(compressed),
        },
        rounds,
    )
    size = sum(counts.nbytes for _, counts in runs)
    print(f"{PEOPLE} people in {WIDTH}x{HEIGHT}, mean area {masks.sum() / PEOPLE:.0f} px,")
    print(f"{sum(len(c) for _, c in runs) / PEOPLE:.0f} runs each, {size} bytes; {rounds} rounds")
    print(f"{'':36}{'median':>10}{'best':>10}   times pycocotools")
    for name, values in times.items():
        kind = "encode" if name.startswith("encode") else "decode"
        peer = next(v for n, v in times.items() if n.startswith(f"{kind}, pycocotools"))
        ratio = np.median(values) / np.median(peer)
        print(f"{name:36}{np.median(values):7.2f} ms{values.min():7.2f} ms   {ratio:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
