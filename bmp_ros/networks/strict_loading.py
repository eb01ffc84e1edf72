# SPDX-License-Identifier: Apache-2.0
"""Strict loading with an error that fits a screen: a foreign checkpoint has thousands of names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

_SHOWN = 3


def load_strictly(network: nn.Module, state_dict: Mapping[str, Tensor], kind: str) -> None:
    """Load all tensors of ``state_dict`` into ``network``.

    kind: what the network is, for the message. Raises ValueError that counts and names, a few of
    each, the tensors that are missing, not part of the network, or of another shape.
    """
    own = network.state_dict()
    # Files of before torch 0.4.1 do not count the batches of their norms.
    missing = [key for key in own if key not in state_dict and "num_batches" not in key]
    foreign = [key for key in state_dict if key not in own]
    other = [
        f"{key} {tuple(value.shape)}, not {tuple(own[key].shape)}"
        for key, value in state_dict.items()
        if key in own and value.shape != own[key].shape
    ]
    problems = {
        "missing": missing, "not part of the network": foreign, "of another shape": other
    }  # fmt: skip
    said = [f"{len(names)} {what} ({_first(names)})" for what, names in problems.items() if names]
    if said:
        raise ValueError(f"not the state dict of a {kind}: of its tensors {'; '.join(said)}")
    network.load_state_dict({key: state_dict.get(key, own[key]) for key in own}, strict=True)


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
