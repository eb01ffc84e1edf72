# SPDX-License-Identifier: Apache-2.0
"""The set-up: which versions for which Python, and what it says where there is nothing for one."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
REQUIREMENTS = CHECKOUT / "requirements"
PYTHONS = [(3, minor) for minor in (10, 11, 12, 13, 14)]


@pytest.fixture(scope="module")
def set_up() -> Iterator[SimpleNamespace]:
    """What scripts/set_up defines, and its modules."""
    folder = str(CHECKOUT / "scripts" / "set_up")
    sys.path.insert(0, folder)
    try:
        yield SimpleNamespace(**runpy.run_path(f"{folder}/__main__.py", run_name="set_up"))
    finally:
        sys.path.remove(folder)
        for module in ("machine", "steps", "workspace"):
            sys.modules.pop(module, None)


@pytest.mark.parametrize("python", PYTHONS, ids=lambda python: f"3.{python[1]}")
def test_every_file_pins_each_name_once_for_every_python(set_up, python) -> None:
    for file in REQUIREMENTS.glob("*.txt"):
        text = file.read_text(encoding="utf-8")
        names = [name for name, _ in set_up.pins(text, python)]
        assert len(names) == len(set(names)), f"{file.name}: {names}"
        everywhere = {name for each in PYTHONS for name, _ in set_up.pins(text, each)}
        assert set(names) == everywhere, f"{file.name} misses {everywhere - set(names)}"


def test_numpy_is_that_of_the_distributions(set_up) -> None:
    text = (REQUIREMENTS / "base.txt").read_text(encoding="utf-8")
    major = {python: dict(set_up.pins(text, python))["numpy"].split(".")[0] for python in PYTHONS}
    assert [major[python] for python in PYTHONS] == ["1", "1", "1", "2", "2"]


def test_pins_are_read_as_pip_reads_them(set_up) -> None:
    """On this Python, against pip's own reading of the lines."""
    requirements = pytest.importorskip("packaging.requirements", reason="packaging is missing")
    for file in REQUIREMENTS.glob("*.txt"):
        lines = [line.partition(" #")[0].partition(" --hash")[0].strip() for line in
                 file.read_text(encoding="utf-8").splitlines()]  # fmt: skip
        wanted = [requirements.Requirement(line) for line in lines if line and line[0] != "#"]
        expected = [
            (each.name, str(each.specifier).removeprefix("=="))
            for each in wanted
            if each.marker is None or each.marker.evaluate()
        ]
        found = set_up.pins(file.read_text(encoding="utf-8"), sys.version_info[:2])
        assert found == expected, file.name


def test_a_marker_that_is_not_understood_is_refused(set_up) -> None:
    with pytest.raises(set_up.SetupError, match="sys_platform"):
        set_up.pins('numpy==1.26.4; sys_platform == "linux"', (3, 11))


def test_layers_that_a_python_has_no_packages_for_are_refused_with_the_reason(set_up) -> None:
    set_up.check_python(["base", "dev", "torch", "ros"], (3, 13))
    set_up.check_python(["base", "dev", "torch", "synthetic", "view"], (3, 14))
    with pytest.raises(set_up.SetupError) as refusal:
        set_up.check_python(["base", "ros", "openmmlab"], (3, 14))
    text = str(refusal.value)
    for part in ("Python 3.14", "ros: up to Python 3.13", "source a ROS 2", "openmmlab",
                 "make test-python"):  # fmt: skip
        assert part in text
    assert "base:" not in text


@pytest.mark.parametrize("python", [(3, 9), (3, 15)])
def test_other_pythons_are_refused_with_the_range(set_up, python) -> None:
    with pytest.raises(set_up.SetupError, match=r"needs 3\.10 to 3\.14"):
        set_up.check_python(["base"], python)
