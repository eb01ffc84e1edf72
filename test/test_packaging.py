# SPDX-License-Identifier: Apache-2.0
"""The packages as colcon, rosdep and pip see them."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml

import bmp_ros

CHECKOUT = Path(__file__).resolve().parent.parent


def tracked(*patterns: str) -> list[Path]:
    """Files of this repository, without what was built."""
    built = {".venv", "build", "install", "log", "out"}
    found = [path for pattern in patterns for path in CHECKOUT.rglob(pattern)]
    return sorted(p for p in found if not built & set(p.relative_to(CHECKOUT).parts))


def metadata(build_code: str, cwd: Path = CHECKOUT) -> str:
    done = subprocess.run(
        [sys.executable, "-c", build_code], cwd=cwd, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_both_packages_are_found_in_the_repository() -> None:
    colcon = shutil.which("colcon")
    if colcon is None:
        pytest.skip("colcon is not installed (make test brings it)")
    listed = subprocess.run(
        [colcon, "list", "--names-only"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert sorted(listed.stdout.split()) == ["bmp_msgs", "bmp_ros"]


def test_both_packages_are_found_in_a_workspace_with_the_link(tmp_path: Path) -> None:
    colcon = shutil.which("colcon")
    if colcon is None:
        pytest.skip("colcon is not installed (make test brings it)")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "bmp_ros").symlink_to(CHECKOUT)
    (tmp_path / "src" / "bmp_msgs").symlink_to("bmp_ros/bmp_msgs")
    listed = subprocess.run(
        [colcon, "--log-base", "log", "list", "--names-only"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(listed.stdout.split()) == ["bmp_msgs", "bmp_ros"]


@pytest.mark.parametrize("name", ["bmp_ros", "bmp_msgs"])
def test_package_xml(name: str) -> None:
    catkin_pkg = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg is not installed")
    folder = CHECKOUT if name == "bmp_ros" else CHECKOUT / name
    warnings: list[str] = []
    package = catkin_pkg.parse_package(str(folder), warnings=warnings)
    assert warnings == []
    assert (package.name, package.package_format, package.licenses) == (name, 3, ["Apache-2.0"])
    licence = folder / package.licenses[0].file
    assert licence.read_bytes() == (CHECKOUT / "LICENSE").read_bytes()
    assert package.version == bmp_ros.__version__
    assert {url.type for url in package.urls} >= {"repository", "bugtracker"} and package.authors
    assert package.get_build_type() == ("ament_python" if name == "bmp_ros" else "ament_cmake")


def test_package_xml_names_every_ros_package_that_is_imported() -> None:
    catkin_pkg = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg is not installed")
    declared = {
        dependency.name
        for kind in ("exec_depends", "test_depends")
        for dependency in getattr(catkin_pkg.parse_package(str(CHECKOUT)), kind)
    }
    ros_packages = re.compile(
        r"rclpy|ament_\w+|cv_bridge|launch(_ros)?|message_filters|tf2_\w+|\w+_(msgs|interfaces)"
    )
    imported = set()
    for path in [*tracked("bmp_ros/**/*.py"), *tracked("launch/*.py"), *tracked("test/ros/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported |= {name.partition(".")[0] for name in names}
    packages = {"tf2_ros": "tf2_ros_py"}  # where the module is named otherwise
    used = {packages.get(name, name) for name in imported if ros_packages.fullmatch(name)}
    assert used <= declared


def test_package_xml_names_keys_of_the_distributions_only() -> None:
    """A package that depends on a pip key of rosdep is not released by the build farm."""
    catkin_pkg = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg is not installed")
    package = catkin_pkg.parse_package(str(CHECKOUT))
    system = {each.name for each in package.exec_depends if each.name.startswith("python3-")}
    assert system == {f"python3-{name}" for name in ("numpy", "opencv", "scipy", "tqdm", "yaml")}
    pages = (CHECKOUT / "docs" / "distributions.md").read_text(encoding="utf-8")
    for key in ("python3-onnxruntime-pip", "python3-torch", "python3-rosbags-pip"):
        assert f"`{key}`" in pages


def test_what_kilted_does_not_have_is_conditional() -> None:
    catkin_pkg = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg is not installed")
    package = catkin_pkg.parse_package(str(CHECKOUT))
    for distribution in ("humble", "jazzy", "kilted", "lyrical"):
        package.evaluate_conditions({"ROS_DISTRO": distribution})
        needed = {each.name for each in package.exec_depends if each.evaluated_condition}
        assert ("hri_msgs" in needed) == (distribution != "kilted") and "foxglove_msgs" in needed


def check_release(folder: Path) -> list[str]:
    """What scripts/check_release finds missing in a checkout."""
    script = CHECKOUT / "scripts" / "check_release"
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True
    )
    assert done.stderr == ""
    lines = [line.removeprefix("check_release: ") for line in done.stdout.splitlines()]
    assert done.returncode == (0 if lines == ["nothing is missing"] else 1)
    return lines


def test_changelogs_are_what_bloom_reads() -> None:
    """Also that nothing but what a release fills in is missing, and that the check finds that."""
    pytest.importorskip("catkin_pkg.changelog", reason="catkin_pkg is not installed")
    from catkin_pkg.changelog import get_changelog_from_path

    for name, folder in (("bmp_ros", CHECKOUT), ("bmp_msgs", CHECKOUT / "bmp_msgs")):
        changelog = get_changelog_from_path(str(folder / "CHANGELOG.rst"), name)
        versions = {version: content for version, _, content in changelog.foreach_version()}
        assert bmp_ros.__version__ in versions and all(map(len, versions.values()))
    to_fill_in = re.compile(r"is a placeholder|section Forthcoming")
    assert [line for line in check_release(CHECKOUT) if not to_fill_in.search(line)] == []


def test_a_release_that_is_complete_passes_and_one_with_two_versions_does_not(
    tmp_path: Path,
) -> None:
    pytest.importorskip("catkin_pkg.changelog", reason="catkin_pkg is not installed")
    for name in ("package.xml", "setup.py", "CHANGELOG.rst", "LICENSE", "bmp_ros/__init__.py",
                 "bmp_msgs/package.xml", "bmp_msgs/CHANGELOG.rst"):  # fmt: skip
        text = (CHECKOUT / name).read_text(encoding="utf-8").replace("example.org", "robots.test")
        newest = rf"^(Forthcoming|{re.escape(bmp_ros.__version__)} \(.*\))\n-+"
        text = re.sub(newest, "0.9.0 (2026-12-01)\n------------------", text, flags=re.M)
        text = text.replace(f'"{bmp_ros.__version__}"', '"0.9.0"')
        text = text.replace(f">{bmp_ros.__version__}<", ">0.9.0<")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert check_release(tmp_path) == ["nothing is missing"]
    manifest = tmp_path / "bmp_msgs" / "package.xml"
    manifest.write_text(manifest.read_text().replace(">0.9.0<", ">0.8.0<"))
    (problem,) = check_release(tmp_path)
    assert "versions differ" in problem and "bmp_msgs: package.xml 0.8.0" in problem


def test_versions_agree() -> None:
    version = metadata(
        "import sys, setuptools; sys.argv = ['setup.py', '--version']; import runpy;"
        "runpy.run_path('setup.py')"
    )
    assert version.split()[-1] == bmp_ros.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", bmp_ros.__version__), "what package.xml allows"


def test_only_the_package_is_installed() -> None:
    """bmp_msgs/ and test/ lie beside it and must not be taken for packages."""
    found = metadata(
        "import setuptools, sys; sys.argv = ['setup.py', '--name'];"
        "packages = []; real = setuptools.setup;"
        "setuptools.setup = lambda **given: packages.extend(given['packages']);"
        "import runpy; runpy.run_path('setup.py'); print(*packages)"
    ).split()
    modules = {path.parent for path in (CHECKOUT / "bmp_ros").rglob("*.py")}
    expected = {".".join(folder.relative_to(CHECKOUT).parts) for folder in modules}
    assert set(found) == expected


def test_programs_that_are_installed_are_functions() -> None:
    """An entry point of a name that is not there fails only when it is started."""
    given = json.loads(metadata(
        "import json, setuptools, sys; sys.argv = ['setup.py', '--name'];"
        "setuptools.setup = lambda **given: print(json.dumps(given['entry_points']));"
        "import runpy; runpy.run_path('setup.py')"
    ))["console_scripts"]  # fmt: skip
    points = [EntryPoint(*re.split(r"\s*=\s*", line), "console_scripts") for line in given]
    assert {point.name for point in points} == {"bmp", "bmp_node", "bmp_camera"}
    assert all(callable(point.load()) for point in points)


def test_no_project_table_without_scripts() -> None:
    """With a [project] table, setuptools 78 and later drop the entry points of setup.py."""
    text = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    assert not re.search(r"^\[project\b", text, re.M)


def test_tests_are_collected_where_pytorch_is_missing() -> None:
    """Plain pytest skips what cannot run; a module that fails to import would stop all others."""
    code = (
        "import sys, importlib.util as util, pytest\n"
        "real = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'torch' else real(name, *rest)\n"
        "sys.modules['torch'] = None\n"
        "sys.exit(pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', "
        "'test/engines', 'test/networks', 'test/evaluation']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "torch is not installed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("setuptools", ["setuptools==65.5.0", "setuptools"])
def test_entry_points_are_there_whatever_setuptools(setuptools: str, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".*", "build", "install", "log", "out", "__pycache__", "test")
    shutil.copytree(CHECKOUT, source, ignore=ignored)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--upgrade"]
    index = subprocess.run([*pip, setuptools, "wheel"], capture_output=True, text=True)
    if index.returncode != 0:
        pytest.skip(f"pip cannot reach a package index: {index.stderr.strip().splitlines()[-1]}")
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", source], check=True)
    helped = subprocess.run([venv / "bin" / "bmp", "--help"], capture_output=True, text=True)
    assert helped.returncode == 0 and "verbs" in helped.stdout, helped.stderr


@pytest.mark.parametrize("path", tracked("*.yaml", "*.yml"), ids=lambda path: path.name)
def test_yaml_is_readable(path: Path) -> None:
    assert yaml.safe_load(path.read_text(encoding="utf-8")) is not None


@pytest.mark.parametrize("path", tracked("launch/*.py"), ids=lambda path: path.name)
def test_launch_files_declare_their_arguments_at_the_top(path: Path) -> None:
    """Arguments that a function declares are invisible to `ros2 launch --show-args`."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "generate_launch_description" in functions
    for name, function in functions.items():
        if name != "generate_launch_description":
            assert "DeclareLaunchArgument" not in ast.unparse(function), f"{path.name}: {name}"


def test_messages_that_are_missing_name_the_lines_to_run() -> None:
    """Without bmp_msgs, the node says how to build it instead of a bare ModuleNotFoundError."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", "import bmp_ros.ros.interfaces"],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    for line in (
        "ln -s bmp_ros/bmp_msgs src/bmp_msgs",
        "colcon build --packages-up-to bmp_ros",
        "source install/setup.bash",
        "make setup",
    ):
        assert line in done.stderr
