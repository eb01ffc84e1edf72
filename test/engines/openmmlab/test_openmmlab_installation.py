# SPDX-License-Identifier: Apache-2.0
"""Without OpenMMLab the adapters can be imported and say what to install when they are built."""

from __future__ import annotations

import sys

import pytest

from bmp_ros.engines.openmmlab.mmdet_detector import MMDetDetector
from bmp_ros.engines.openmmlab.mmpose_estimator import MMPoseEstimator


@pytest.mark.parametrize("adapter", [MMDetDetector, MMPoseEstimator])
def test_the_error_names_what_is_missing_and_the_requirement_files(adapter, monkeypatch):
    monkeypatch.setitem(sys.modules, "mmcv", None)
    monkeypatch.delitem(sys.modules, "mmcv.ops", raising=False)
    with pytest.raises(ModuleNotFoundError, match="requirements/openmmlab.txt") as caught:
        adapter("some_config", None)
    assert "mmcv" in str(caught.value).split(" is not installed")[0]
    assert caught.value.name.startswith("mmcv")
