# SPDX-License-Identifier: Apache-2.0
"""The mean of the weights of several trainings that began alike: ``python -m
bmp_ros.training.average A.pth B.pth --output C.pth``.

The mean of a network and of the same one trained further is often better than both on images
unlike the training's (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


def average(state_dicts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of all entries; counters (integers) are those of the last one.

    Raises ValueError when names or shapes differ: then they are different networks.
    """
    first, *others = state_dicts
    for number, other in enumerate(others, 2):
        shapes, expected = ({k: v.shape for k, v in d.items()} for d in (other, first))
        if shapes != expected:
            names = [k for k in {**shapes, **expected} if shapes.get(k) != expected.get(k)]
            raise ValueError(
                f"weights {number} are of another network than the first: {names[0]!r} differs; "
                "average checkpoints of one network"
            )
    return {
        name: torch.stack([d[name] for d in state_dicts]).mean(dim=0)
        if value.is_floating_point()
        else state_dicts[-1][name]
        for name, value in first.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bmp_ros.training.average",
        description="Writes the mean of the weights of several trainings that began alike.",
    )
    parser.add_argument("weights", type=Path, nargs="+", help="files (.pth)")
    parser.add_argument("--output", type=Path, required=True, help="file (.pth) to write")
    args = parser.parse_args(arguments)
    try:
        loaded = [torch.load(f, map_location="cpu", weights_only=True) for f in args.weights]
        torch.save(average(loaded), args.output)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
