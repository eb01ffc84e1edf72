# SPDX-License-Identifier: Apache-2.0
"""Finding a config: a file, the name of one that MMDetection or MMPose ships, or one of ours."""

from __future__ import annotations

import copy
import difflib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bmp_ros.engines.openmmlab.installation import import_openmmlab
from bmp_ros.engines.openmmlab.vit_configs import VIT_CONFIG_NAMES, named_vit_config


def load_config(config: str | Path | Mapping[str, Any] | Any, package: str) -> Any:
    """Return the ``mmengine.Config`` that ``config`` stands for, free to be changed.

    config: an ``mmengine.Config``, or a mapping with its contents; the path of a ``.py``,
    ``.json`` or ``.yaml`` config; the file name without ``.py`` of a config that ``package``
    ("mmdet" or "mmpose") ships; or, for mmpose, one of ``vit_configs.VIT_CONFIG_NAMES``.
    A ``.py`` config is a program that gets executed: use only files you trust.
    Raises FileNotFoundError with similar names.
    """
    mmengine_config = import_openmmlab("mmengine.config").Config
    if isinstance(config, mmengine_config):
        return copy.deepcopy(config)
    if isinstance(config, Mapping):
        return mmengine_config(copy.deepcopy(dict(config)))
    if package == "mmpose" and str(config) in VIT_CONFIG_NAMES:
        return mmengine_config(named_vit_config(str(config)))
    path = Path(config).expanduser()
    if not path.is_file():
        path = _shipped_config(str(config), package)
    return mmengine_config.fromfile(path)


def _shipped_config(name: str, package: str) -> Path:
    root = _shipped_folder(package)
    wanted = name.removesuffix(".py")
    found = sorted(root.rglob(f"{Path(wanted).name}.py")) if wanted else []
    found = [path for path in found if path.with_suffix("").as_posix().endswith(f"/{wanted}")]
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(str(path.relative_to(root).with_suffix("")) for path in found)
        raise FileNotFoundError(f"{package} ships {len(found)} configs {name!r}: say {choices}")
    known = {path.stem for path in root.rglob("*.py")}
    known.update(VIT_CONFIG_NAMES if package == "mmpose" else ())
    similar = difflib.get_close_matches(Path(wanted).name, sorted(known), n=3, cutoff=0.5)
    hint = f"; similar names: {', '.join(similar)}" if similar else ""
    raise FileNotFoundError(
        f"no config {name!r}: neither a file nor the name of a config that {package} ships{hint}"
    )


def _shipped_folder(package: str) -> Path:
    import_openmmlab(package)
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / ".mim" / "configs"
