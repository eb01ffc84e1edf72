# SPDX-License-Identifier: Apache-2.0
"""Eight drawn figures learned by heart: the whole way from a recipe to a preset teaches a network.

One network of each kind of loss that is quick; the others by hand, with the same script.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bmp_ros.training import trainer

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import learn_by_heart  # noqa: E402


@pytest.mark.parametrize("network", ["vit_pose"])
def test_eight_images_are_learned_by_heart(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss down by 80 %, and an AP above 0.3 as a preset would run the network."""
    pytest.importorskip("pycocotools", reason="scores need requirements/train.txt")
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    assert learn_by_heart.by_heart(network, 1)
