# SPDX-License-Identifier: Apache-2.0
"""``Frame``: one image on its way through the loop, and what the engines remember about it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np

Value = TypeVar("Value")


def check_image(image: np.ndarray) -> np.ndarray:
    """Return ``image`` if it is a BGR uint8 array (H, W, 3) with at least one pixel.

    Raises ValueError naming the shape and dtype found, and the conversion to use.
    """
    if not isinstance(image, np.ndarray):
        unread = "; cv2.imread returns None for a file that it cannot read"
        raise ValueError(
            "image must be a NumPy array (H, W, 3) uint8 in BGR order, got "
            f"{type(image).__name__}{unread if image is None else ''}"
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(
            "image must have shape (H, W, 3) with H, W >= 1 and dtype uint8 in BGR order, got "
            f"shape {image.shape} and dtype {image.dtype}; convert grey or RGBA images with "
            "cv2.cvtColor, 16-bit or float images by scaling to 0..255"
        )
    return image


class Frame:
    """One BGR uint8 image (H, W, 3) and a store in which engines keep what they made of it.

    The loop passes the same frame to every engine of every iteration, so a tensor uploaded or an
    embedding computed once is there for all. The loop never looks into the store.
    """

    __slots__ = ("image", "_store")

    def __init__(self, image: np.ndarray) -> None:
        self.image = check_image(image)
        self._store: dict[Hashable, Any] = {}

    @property
    def height(self) -> int:
        return int(self.image.shape[0])

    @property
    def width(self) -> int:
        return int(self.image.shape[1])

    def cached(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """Return what is kept under ``key``; call ``compute`` and keep its result the first time.

        Keys are chosen by the engines, e.g. ``(self, "embedding")``: with the engine in it, two
        engines never read each other's tensors.
        """
        if key not in self._store:
            self._store[key] = compute()
        value: Value = self._store[key]
        return value

    def __repr__(self) -> str:
        return f"Frame({self.width}x{self.height}, cached={len(self._store)})"
