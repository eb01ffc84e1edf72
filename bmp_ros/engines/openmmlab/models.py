# SPDX-License-Identifier: Apache-2.0
"""Building OpenMMLab models and pipelines without leaving traces in the process.

OpenMMLab looks names up in a process-wide "default scope". Everything is built inside a scope of
its own that ends with the call, so an MMDetection and an MMPose network live in one process, and
whatever else the process does with OpenMMLab goes on undisturbed.
"""

from __future__ import annotations

from typing import Any

import torch

from bmp_ros.engines.openmmlab.installation import import_openmmlab
from bmp_ros.weights.checkpoint import Checkpoint
from bmp_ros.weights.errors import BadCheckpoint

# What published checkpoints hold beside the weights of the network. All else must fit.
_PREPROCESSING_CONSTANTS = ("data_preprocessor.mean", "data_preprocessor.std")  # in the config
_AVERAGING_COPY = "ema_"  # MMCV's averaging hook keeps a second copy beside the averaged weights


def build_model(
    config: Any, package: str, weights: Checkpoint | None, device: str
) -> torch.nn.Module:
    """Build ``config.model``, load ``weights`` into it and make it ready on ``device``.

    Without weights they are random. Nothing is downloaded: ``init_cfg`` entries, which name
    pretrained backbones, are never run. Raises BadCheckpoint naming the file and the entries that
    are missing, unexpected or of another shape.
    """
    registry = import_openmmlab(f"{package}.registry").MODELS
    revert_sync_batchnorm = import_openmmlab("mmengine.model").revert_sync_batchnorm
    with _scope(config, package):
        model: torch.nn.Module = revert_sync_batchnorm(registry.build(config.model))
    if weights is not None:
        _load(model, weights)
    return model.to(device).eval().requires_grad_(False)


def build_pipeline(steps: list[Any], config: Any, package: str) -> Any:
    """Build the preprocessing ``steps`` (dicts of a config, or callables)."""
    compose = import_openmmlab("mmengine.dataset").Compose
    with _scope(config, package):
        return compose(steps)


def _scope(config: Any, package: str) -> Any:
    import_openmmlab(package)
    scope = import_openmmlab("mmengine.registry").DefaultScope
    return scope.overwrite_default_scope(config.get("default_scope", package))


def _load(model: torch.nn.Module, weights: Checkpoint) -> None:
    kept = {
        name: tensor
        for name, tensor in weights.state_dict.items()
        if name not in _PREPROCESSING_CONSTANTS and not name.startswith(_AVERAGING_COPY)
    }
    try:
        model.load_state_dict(kept, strict=True)
    except RuntimeError as error:
        raise BadCheckpoint(
            f"the weights in {weights.path} do not fit this config: {error}"
        ) from error
