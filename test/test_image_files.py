# SPDX-License-Identifier: Apache-2.0
"""Images from files and into files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from bmp_ros.image_files import UnreadableImageError, read_image, write_image

IMAGE = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".ppm", ".PNG"])
def test_round_trip_below_any_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"Ärger 人群 %03d{suffix}"
    write_image(path, IMAGE)
    np.testing.assert_array_equal(read_image(path), IMAGE)


@pytest.mark.parametrize("shape", [(24, 32), (24, 32, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_other_kinds_of_pixels_become_bgr(tmp_path: Path, shape: tuple, dtype: type) -> None:
    image = np.full(shape, 100 if dtype is np.uint8 else 100 * 257, dtype)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    read = read_image(tmp_path / "a.png")
    assert read.dtype == np.uint8 and (read == 100).all() and read.shape == (24, 32, 3)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "Bäume.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=rf"Bäume.png \({len(content)} bytes\) is no whole"):
        read_image(path)


def test_missing_files_and_unknown_formats(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone.png"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(ValueError, match="no image format is called '.doc'"):
        write_image(tmp_path / "a.doc", IMAGE)
