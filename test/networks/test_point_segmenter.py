# SPDX-License-Identifier: Apache-2.0
"""PointSegmenter: prompts in, logits out; rows do not see each other, padding does not count."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor  # noqa: E402

from bmp_ros.networks.point_segmenter import PointSegmenter  # noqa: E402
from bmp_ros.networks.residual_pyramid import PyramidSize  # noqa: E402

SMALL = PyramidSize((8, 12, 16, 16, 24), (1, 1, 1, 1), (12, 16, 8))
SIZE = (64, 96)


@pytest.fixture(scope="module")
def network() -> PointSegmenter:
    torch.manual_seed(0)
    return PointSegmenter(SMALL).eval()


@pytest.fixture(scope="module")
def features(network: PointSegmenter) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        return network.encode(torch.randn(1, 3, *SIZE))


def prompts(people: int, points: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(people, points, 2, generator=generator) * torch.tensor(SIZE[::-1])
    labels = torch.ones(people, points)
    labels[:, -1] = 0
    masks = torch.rand(people, SIZE[0] // 4, SIZE[1] // 4, generator=generator)
    return places, labels, masks


@torch.inference_mode()
def test_shapes_and_ranges(network: PointSegmenter, features: tuple[Tensor, ...]) -> None:
    logits, scores = network.decode(features, *prompts(3, 5))
    assert logits.shape == (3, SIZE[0] // 4, SIZE[1] // 4) and scores.shape == (3,)
    assert ((scores >= 0) & (scores <= 1)).all() and logits.isfinite().all()


@torch.inference_mode()
def test_people_are_decoded_on_their_own(
    network: PointSegmenter, features: tuple[Tensor, ...]
) -> None:
    points, labels, masks = prompts(4, 5)
    together, scores = network.decode(features, points, labels, masks)
    for row in range(4):
        one = slice(row, row + 1)
        alone, score = network.decode(features, points[one], labels[one], masks[one])
        assert torch.allclose(alone[0], together[row], atol=1e-4)
        assert torch.allclose(score[0], scores[row], atol=1e-5)


@torch.inference_mode()
def test_padding_and_order_do_not_matter(
    network: PointSegmenter, features: tuple[Tensor, ...]
) -> None:
    points, labels, masks = prompts(2, 4)
    expected, scores = network.decode(features, points, labels, masks)
    padded = torch.cat([points, torch.full((2, 3, 2), 17.0)], dim=1)
    more = torch.cat([labels, torch.full((2, 3), -1.0)], dim=1)
    order = torch.tensor([5, 3, 0, 6, 2, 1, 4])
    logits, same = network.decode(features, padded[:, order], more[:, order], masks)
    assert torch.allclose(logits, expected, atol=1e-4) and torch.allclose(same, scores, atol=1e-5)


@torch.inference_mode()
def test_every_prompt_counts(network: PointSegmenter, features: tuple[Tensor, ...]) -> None:
    points, labels, masks = prompts(1, 4)
    before, _ = network.decode(features, points, labels, masks)
    turned = labels.clone()
    turned[0, 0] = 0
    moved = points.clone()
    moved[0, 1] += 9
    for other in ((points, turned, masks), (moved, labels, masks), (points, labels, 0 * masks)):
        assert not torch.allclose(network.decode(features, *other)[0], before, atol=1e-5)


@torch.inference_mode()
def test_a_picture_per_person_as_in_training(network: PointSegmenter) -> None:
    canvases = torch.randn(2, 3, *SIZE)
    points, labels, masks = prompts(2, 3)
    together, _ = network.decode(network.encode(canvases), points, labels, masks)
    first, _ = network.decode(network.encode(canvases[:1]), points[:1], labels[:1], masks[:1])
    assert torch.allclose(together[:1], first, atol=1e-4)


def test_sizes_are_read_from_the_weights(network: PointSegmenter) -> None:
    again = PointSegmenter.from_state_dict(network.state_dict())
    assert again.pyramid.size == SMALL and not again.training


def test_foreign_weights_are_named(network: PointSegmenter) -> None:
    weights = dict(network.state_dict())
    del weights["key.bias"]
    with pytest.raises(ValueError, match=r"key\.bias"):
        PointSegmenter.from_state_dict(weights)
    with pytest.raises(ValueError, match="PointSegmenter"):
        PointSegmenter.from_state_dict({})
