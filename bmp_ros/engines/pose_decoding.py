# SPDX-License-Identifier: Apache-2.0
"""From what a top-down pose network returns to joints: one `Decoding` per kind of training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from bmp_ros.engines.coordinates import (
    decode_regression,
    decode_simcc,
    decode_simdr,
    merge_flipped_bins,
    merge_flipped_points,
    softmax,
)
from bmp_ros.engines.crops import CONVENTIONS
from bmp_ros.engines.heatmaps import (
    decode_dark,
    decode_quarter,
    decode_udp_combined,
    decode_udp_dark,
    merge_flipped,
    merge_flipped_combined,
)

Outputs = dict[str, np.ndarray]
Located = tuple[np.ndarray, np.ndarray, tuple[int, int]]
"""Points (N, K, 2) x y in cells of a grid over the crop, scores (N, K), width and height of it."""

OUTPUTS = {
    "heatmaps": ("heatmaps", "presence", "visibility", "oks"),
    "simcc": ("along_x", "along_y"),
    "coordinates": ("coordinates",),
}
"""What networks return, in order. Heatmaps (N, K, h, w) come alone or, as of PMPose, with three
values (N, K); scores of bins (N, K, bins) along x and y; points with errors (N, K, 4)."""


@dataclass(frozen=True)
class Decoding:
    """How joints are read.

    returns: what the network must return, a key of `OUTPUTS`. locate: outputs of N crops ->
    points, scores, grid. merge: (outputs of N crops and of their mirror images, the joints'
    partners, shift as the option says, width of a crop) -> outputs of N crops. of_pass: what is
    done to the outputs of each pass before, merged or not. conventions: of crops that it can go
    with. shifts: whether mirrored outputs can be shifted. channels: of the first output per joint.
    """

    returns: str
    locate: Callable[[Outputs], Located]
    merge: Callable[[Outputs, np.ndarray, bool, int], Outputs]
    of_pass: Callable[[Outputs], Outputs] = lambda outputs: outputs
    conventions: tuple[str, ...] = CONVENTIONS
    shifts: bool = True
    channels: int = 1


def _on_heatmaps(decode: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Decoding:
    def locate(outputs: Outputs) -> Located:
        heatmaps = outputs["heatmaps"]
        height, width = heatmaps.shape[2:]
        return *decode(heatmaps), (width, height)

    def merge(outputs: Outputs, partners: np.ndarray, shift: bool, _: int) -> Outputs:
        return {
            name: merge_flipped(value, partners, shift=shift) for name, value in outputs.items()
        }

    return Decoding("heatmaps", locate, merge)


def _udp_combined() -> Decoding:
    def locate(outputs: Outputs) -> Located:
        heatmaps = outputs["heatmaps"]
        height, width = heatmaps.shape[2:]
        return *decode_udp_combined(heatmaps), (width, height)

    def merge(outputs: Outputs, partners: np.ndarray, _: bool, __: int) -> Outputs:
        return {"heatmaps": merge_flipped_combined(outputs["heatmaps"], partners)}

    return Decoding("heatmaps", locate, merge, conventions=("udp",), shifts=False, channels=3)


def _on_bins(
    decode: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    of_pass: Callable[[Outputs], Outputs],
    *,
    shifts: bool,
) -> Decoding:
    def locate(outputs: Outputs) -> Located:
        along_x, along_y = outputs["along_x"], outputs["along_y"]
        return *decode(along_x, along_y), (along_x.shape[2], along_y.shape[2])

    def merge(outputs: Outputs, partners: np.ndarray, shift: bool, _: int) -> Outputs:
        merged = merge_flipped_bins(outputs["along_x"], outputs["along_y"], partners, shift=shift)
        return dict(zip(OUTPUTS["simcc"], merged, strict=True))

    return Decoding("simcc", locate, merge, of_pass, conventions=("corners",), shifts=shifts)


def _shares(outputs: Outputs) -> Outputs:
    return {name: softmax(value) for name, value in outputs.items()}


def _regression() -> Decoding:
    def locate(outputs: Outputs) -> Located:
        return *decode_regression(outputs["coordinates"]), (1, 1)

    def merge(outputs: Outputs, partners: np.ndarray, shift: bool, width: int) -> Outputs:
        pixel = 1 / width if shift else 0.0
        merged = merge_flipped_points(outputs["coordinates"], partners, shift=pixel)
        return {"coordinates": merged}

    return Decoding("coordinates", locate, merge, conventions=("corners",))


DECODINGS = {
    "udp": _on_heatmaps(decode_udp_dark),
    "quarter": _on_heatmaps(decode_quarter),
    "quarter_mmpose": _on_heatmaps(partial(decode_quarter, axes_apart=True)),
    "dark": _on_heatmaps(decode_dark),
    "udp_combined": _udp_combined(),
    "simdr": _on_bins(decode_simdr, _shares, shifts=True),
    "simcc": _on_bins(decode_simcc, lambda outputs: outputs, shifts=False),
    "rle": _regression(),
}


def find_decoding(name: str, convention: str, shift: bool) -> Decoding:
    """Return the decoding of that name.

    Raises ValueError where it cannot go with a convention of crops, or shift mirrored outputs.
    """
    if name not in DECODINGS:
        raise ValueError(f"decoding is {name!r}, allowed: {', '.join(DECODINGS)}")
    decoding = DECODINGS[name]
    if convention not in decoding.conventions:
        raise ValueError(
            f"decoding {name} goes with crops by the convention "
            f"{' or '.join(decoding.conventions)}, got {convention!r}"
        )
    if shift and not decoding.shifts:
        raise ValueError(f"decoding {name} does not shift mirrored outputs: shift_flipped: false")
    return decoding
