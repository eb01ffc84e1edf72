# SPDX-License-Identifier: Apache-2.0
"""An empty models folder, and catalogues of a test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml


@pytest.fixture(scope="session")
def write_zoo() -> Callable[..., Path]:
    """Writes a catalogue: ``write_zoo(path, NAME={...}, ...)``, underscores become hyphens."""

    def write(path: Path, **entries: dict[str, object]) -> Path:
        common = {"role": "pose_estimator", "network": "for tests", "licence": "GPL-3.0"}
        weights = {name.replace("_", "-"): {**common, **each} for name, each in entries.items()}
        path.write_text(yaml.safe_dump({"weights": weights}, sort_keys=False))
        return path

    return write


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models folder, and no traces of this machine's own settings."""
    folder = tmp_path / "models"
    monkeypatch.setenv("BMP_MODELS", str(folder))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return folder
