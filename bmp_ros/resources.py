# SPDX-License-Identifier: Apache-2.0
"""Files that come with the package: presets, weights' catalogue, tiny networks, messages.

They lie in ``config/`` and ``models/``: of the checkout when the package is imported from there
(also through ``pip install -e`` and ``colcon build --symlink-install``), else of
``<prefix>/share/bmp_ros``, where pip and colcon put them. Nothing of ROS is needed to find them.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

SHARE = Path("share", "bmp_ros")


@lru_cache(maxsize=1)
def resource_root() -> Path:
    """Return the folder that holds ``config/`` and ``models/``.

    Raises FileNotFoundError naming the folders that were looked into.
    """
    # Resolved, because --symlink-install runs the package through a link into the checkout.
    package = Path(__file__).resolve().parent
    # An install tree has <prefix>/lib/python3.X/site-packages/bmp_ros; how deep the package lies
    # below the prefix differs between Debian's Python, pip --target and others.
    candidates = [package.parent, *(folder / SHARE for folder in package.parents)]
    for candidate in candidates:
        if (candidate / "package.xml").is_file() and (candidate / "config" / "presets").is_dir():
            return candidate
    raise FileNotFoundError(
        f"the presets of bmp_ros are missing: no config/presets beside {package} nor in "
        f"{SHARE} of a folder above it; install the package again with pip or colcon instead of "
        "copying its Python files"
    )


def preset_names() -> list[str]:
    """Names of the presets that come with the package, sorted."""
    return sorted(path.stem for path in (resource_root() / "config" / "presets").glob("*.yaml"))


def find_preset(name_or_path: str | Path) -> Path:
    """Return the file of a preset: one of `preset_names`, or a path to a YAML file of one's own.

    What has a folder (``./``, too) or the suffix ``.yaml`` or ``.yml`` is a path, anything else a
    name.
    Raises FileNotFoundError naming the presets there are.
    """
    path = Path(name_or_path).expanduser()
    if is_preset_path(name_or_path):
        if path.is_file():
            return path
        raise FileNotFoundError(
            f"{path}: no such preset file; the presets by name are {', '.join(preset_names())}"
        )
    preset = resource_root() / "config" / "presets" / f"{name_or_path}.yaml"
    if preset.is_file():
        return preset
    names = ["auto", *preset_names()]
    near = get_close_matches(str(name_or_path), names, n=1, cutoff=0.75)
    meant = f"did you mean {near[0]}? There" if near else "there"
    raise FileNotFoundError(
        f"no preset is called {str(name_or_path)!r}; {meant} are {', '.join(names)}, "
        "or give the path of a .yaml file"
    )


def is_preset_path(name_or_path: str | Path) -> bool:
    """Whether a preset is given as the path of a file, see `find_preset`."""
    suffix = Path(name_or_path).suffix.lower()
    return suffix in (".yaml", ".yml") or "/" in str(name_or_path)


def zoo_path() -> Path:
    """Return ``models/zoo.yaml``, the catalogue of weights."""
    return resource_root() / "models" / "zoo.yaml"


def message_files() -> list[Path]:
    """Return the ``.msg`` files of bmp_msgs, sorted."""
    return sorted((resource_root() / "bmp_msgs" / "msg").glob("*.msg"))


def tiny_network(name: str) -> Path:
    """Return the ONNX file of one of the tiny networks that come with the package.

    Raises FileNotFoundError naming the networks there are.
    """
    folder = resource_root() / "models" / "tiny"
    path = folder / f"{name}.onnx"
    if path.is_file():
        return path
    # NAME.PART.onnx is the second part of NAME and found with it.
    stems = {file.stem.partition(".")[0] for file in folder.glob("*.onnx")}
    there = ", ".join(sorted(stems)) or "none"
    raise FileNotFoundError(f"no tiny network is called {name!r}; in {folder} there are: {there}")
