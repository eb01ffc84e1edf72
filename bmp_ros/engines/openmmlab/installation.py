# SPDX-License-Identifier: Apache-2.0
"""Importing an OpenMMLab package, or saying what to install."""

from __future__ import annotations

import importlib
from types import ModuleType


def import_openmmlab(module: str) -> ModuleType:
    """Import ``module`` (for example ``mmpose.datasets``).

    Raises ModuleNotFoundError naming what is missing and the two requirement files that bring it.
    """
    try:
        importlib.import_module("mmcv.ops")
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed; the OpenMMLab engines need mmengine, mmcv 2.1 with "
            "its operators, mmdet, mmpretrain and mmpose: see the OpenMMLab section of the "
            "README, requirements/openmmlab.txt and requirements/openmmlab-no-deps.txt",
            name=error.name,
        ) from error
