# SPDX-License-Identifier: Apache-2.0
"""Build of the package for pip and for colcon (ament_python).

All metadata is here, not in a ``[project]`` table of pyproject.toml: with such a table, setuptools
78 and later drop the entry points of setup.py without a word.
"""

from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

NAME = "bmp_ros"
VERSION = "0.2.0"


def data_files() -> list[tuple[str, list[str]]]:
    """List what goes to ``share/``, as (folder below the prefix, files); laid out as here."""
    share = f"share/{NAME}"
    patterns = (
        "package.xml",
        "launch/*.py",
        "config/*.yaml",
        "config/*.rviz",
        "config/*.xml",
        "config/*.json",
        "config/presets/*.yaml",
        "config/sros2/*.xml",
        "models/*.yaml",
        "models/tiny/*",
        "models/demo/*",
        "bmp_msgs/msg/*.msg",
    )
    files = [("share/ament_index/resource_index/packages", [f"resource/{NAME}"])]
    for pattern in patterns:
        found = sorted(path for path in glob(pattern) if Path(path).is_file())
        if found:
            folder = Path(share, Path(pattern).parent).as_posix()
            files.append((folder, found))
    return files


setup(
    name=NAME,
    version=VERSION,
    description="People for robots: boxes, keypoints and masks of every person, in ROS 2",
    # Resolved, because colcon's --symlink-install runs a link to this file in another folder.
    long_description=Path(__file__).resolve().with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="bmp_ros maintainers",
    maintainer="bmp_ros maintainers",
    maintainer_email="bmp_ros@example.org",
    license="Apache-2.0",
    python_requires=">=3.10",
    # Never a bare find_packages(): bmp_msgs/ and test/ lie beside the package.
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed", "synthetic/data/*.npz"]},
    data_files=data_files(),
    zip_safe=False,
    install_requires=["numpy", "opencv-python-headless", "PyYAML", "scipy"],
    extras_require={
        "onnx": ["onnxruntime", "tqdm"],
        "bags": ["rosbags", "tqdm"],
        "view": ["rerun-sdk", 'pyarrow<19; python_version < "3.13"', "pyarrow", "rosbags"],
        "report": ["plotly"],
        "archives": ["ray", "rosbags", "tqdm"],
        "export": ["onnx", "onnxruntime", "torch"],
        "torch": ["torch", "torchvision", "tqdm"],
        "hub": ["huggingface_hub"],
        "evaluate": ["pycocotools", "pillow", "tqdm"],
        "test": ["pytest", "hypothesis"],
    },
    entry_points={
        "console_scripts": [
            "bmp = bmp_ros.cli.main:main",
            "bmp_node = bmp_ros.ros.programs:bmp_node",
            "bmp_camera = bmp_ros.ros.programs:bmp_camera",
        ],
    },
)
