# SPDX-License-Identifier: Apache-2.0
"""``BackgroundDimming``: MaskPose's mask conditioning as a step of an MMPose pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np

from bmp_ros.engines.crops import CropGeometry, background_weights


class BackgroundDimming:
    """Darkens what is not the person in a crop that MMPose's ``TopdownAffine`` has just cut.

    factor: brightness left to the background. use_udp: the convention of the ``TopdownAffine``
    before this step. The person's mask, (H, W) bool in the size of the image, is expected under
    ``PERSON_MASK``; without it, or when it has no pixel, the crop stays as it is. Work is done on
    the crop, never on the whole image.
    """

    PERSON_MASK = "person_mask"

    def __init__(self, factor: float, *, use_udp: bool) -> None:
        if not 0.0 <= factor <= 1.0:
            raise ValueError(f"background_factor must be between 0 and 1, got {factor}")
        self.factor = factor
        self.use_udp = use_udp

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        mask = results.get(self.PERSON_MASK)
        if mask is not None:
            weights = background_weights(mask[None], self._geometry(results), self.factor)[0]
            # Whole grey levels, halves to even: so was the background dimmed in training.
            results["img"] = np.rint(results["img"] * weights[..., None]).astype(np.uint8)
        return results

    def _geometry(self, results: dict[str, Any]) -> CropGeometry:
        """Where the crop lies: MMPose notes centre and scale in pixels of the image.

        The scale spans w - 1 steps between pixel centres with UDP, w steps without.
        """
        centre = np.asarray(results["input_center"], dtype=np.float64)
        scale = np.asarray(results["input_scale"], dtype=np.float64)
        size = np.array(results["input_size"])
        extent = scale if self.use_udp else scale * (size - 1) / size
        return CropGeometry((centre - scale / 2)[None], extent[None], (int(size[0]), int(size[1])))


def with_background_dimming(steps: list[Any], factor: float) -> list[Any]:
    """Return an MMPose top-down pipeline with the dimming put after its ``TopdownAffine``.

    Raises ValueError when the pipeline has no such step: there is no crop to dim.
    """
    for i, step in enumerate(steps):
        if str(step["type"]).endswith("TopdownAffine"):
            dimming = BackgroundDimming(factor, use_udp=bool(step.get("use_udp", False)))
            return [*steps[: i + 1], dimming, *steps[i + 1 :]]
    kinds = ", ".join(str(step["type"]) for step in steps)
    raise ValueError(
        f"background_factor needs a pipeline with TopdownAffine, this one has {kinds}; set "
        "background_factor to null for this network"
    )
