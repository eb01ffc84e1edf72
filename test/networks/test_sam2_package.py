# SPDX-License-Identifier: Apache-2.0
"""The package sam2 is named alike wherever a user may read how to install it."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest

from bmp_ros.networks.sam2_package import INSTALL_SAM2, SAM2_REQUIREMENT

ROOT = Path(__file__).resolve().parents[2]
VERSION = re.compile(r"sam2==([\w.]+)")


def test_readme_requirements_and_error_name_one_version() -> None:
    lines = (ROOT / "requirements" / "sam2.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == [SAM2_REQUIREMENT]
    assert SAM2_REQUIREMENT in INSTALL_SAM2, "the error text has the hash, too"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert VERSION.findall(readme), "README.md says which version is installed"
    assert set(VERSION.findall(readme + INSTALL_SAM2)) == set(VERSION.findall(SAM2_REQUIREMENT))
    for text in (readme, INSTALL_SAM2):
        assert "git+https://github.com/facebookresearch/sam2" not in text


def test_that_version_is_the_one_that_is_tested() -> None:
    pytest.importorskip("sam2", reason="sam2 is not installed")
    assert VERSION.findall(SAM2_REQUIREMENT) == [importlib.metadata.version("sam2")]
