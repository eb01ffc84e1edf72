# SPDX-License-Identifier: Apache-2.0
"""Crops of people for top-down pose networks: geometry, warping, dimming, normalisation.

NumPy and OpenCV only; every engine uses this geometry. How crops lie in the image and heatmaps in
crops is a convention of the code that a network was trained with (`CONVENTIONS`):

* ``udp`` (Huang et al., "The Devil is in the Details", CVPR 2020; MMPose with UDP, ViTPose): a
  image of w pixels spans w - 1 units, from the centre of its first pixel to the centre of its
  last one, so that image, crop and heatmap map onto each other without a half-pixel shift.
* ``corners`` (HRNet's official code, SimDR, MMPose without UDP, sithu31296/pose-estimation): it
  spans w units, and the first pixels of image, crop and heatmap lie upon each other.
* ``width`` (OmniPose): as ``udp``, but both axes have the scale of the width, everything is
  centred, and a box of w pixels spans w - 1 units too.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

CROP_SIZE = (192, 256)
"""Width and height of the input of the published networks."""
BOX_PADDING = 1.25
"""A crop spans this many times the box."""
MINIMUM_EXTENT = 1.0
"""Pixels of the image that a crop spans at least: a box without area still gives a finite crop."""

CONVENTIONS = ("udp", "corners", "width")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Normalisation of every network here, (value - mean) / std: RGB, of values in [0, 1]."""
RGB_MEAN = (255 * np.array(IMAGENET_MEAN)).astype(np.float32)
RGB_STD = (255 * np.array(IMAGENET_STD)).astype(np.float32)
"""The same of values in [0, 255]."""


@dataclass(frozen=True)
class CropGeometry:
    """Where N crops of one size lie in the image; axis-aligned, without rotation.

    origin: (N, 2) float64, x y in image pixels of the centre of each crop's first pixel.
    extent: (N, 2) float64, image pixels from the centre of the first to that of the last pixel.
    size: (width, height) of a crop in pixels. convention: one of `CONVENTIONS`; says how grids
    that cover a crop lie in it.
    """

    origin: np.ndarray
    extent: np.ndarray
    size: tuple[int, int]
    convention: str = "udp"

    def __len__(self) -> int:
        return len(self.origin)

    def __getitem__(self, rows: slice) -> CropGeometry:
        return CropGeometry(self.origin[rows], self.extent[rows], self.size, self.convention)

    @property
    def crop_to_image(self) -> np.ndarray:
        """(N, 2, 3) float64 affine matrices from crop pixels to image pixels."""
        step = self.extent / (np.array(self.size) - 1)
        return _axis_aligned(step, self.origin)

    @property
    def image_to_crop(self) -> np.ndarray:
        """(N, 2, 3) float64 affine matrices from image pixels to crop pixels."""
        step = (np.array(self.size) - 1) / self.extent
        return _axis_aligned(step, -self.origin * step)

    def points_to_image(self, points: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        """Map points on a grid that covers the crop, e.g. its heatmap, to the image.

        points: (N, K, 2) x y in cells of the grid. grid: (width, height) of the grid in cells.
        Returns (N, K, 2) float32 x y in image pixels.
        """
        start, step = self._cells_of(np.array(grid))
        image_points = start[:, None] + np.asarray(points, np.float64) * step[:, None]
        return image_points.astype(np.float32)

    def _cells_of(self, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image points (N, 2) of the first cell of a grid, and image pixels (N, 2) per cell."""
        if self.convention == "corners":
            size = np.array(self.size)
            return self.origin, self.extent * (size / (size - 1) / grid)
        if self.convention == "udp":
            return self.origin, self.extent / (grid - 1)
        step = np.repeat(self.extent[:, :1] / (grid[0] - 1), 2, axis=1)
        return self.origin + (self.extent - step * (grid - 1)) / 2, step


def _axis_aligned(step: np.ndarray, shift: np.ndarray) -> np.ndarray:
    matrices = np.zeros((len(step), 2, 3))
    matrices[:, 0, 0], matrices[:, 1, 1] = step.T
    matrices[:, :, 2] = shift
    return matrices


def crop_geometry(
    boxes: np.ndarray, size: tuple[int, int] = CROP_SIZE, convention: str = "udp"
) -> CropGeometry:
    """Place one crop per box: same centre, padded by 1.25, the shorter side grown to the aspect.

    boxes: (N, 4) xyxy in image pixels; they may reach outside of the image. A box without width
    or height is padded to ``MINIMUM_EXTENT`` first. size: (width, height) of the crops.
    convention: one of `CONVENTIONS`.
    Raises ValueError for boxes of another shape or with a value that is not finite.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"crop convention is {convention!r}, allowed: {', '.join(CONVENTIONS)}")
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (N, 4) xyxy, got {boxes.shape}")
    if not np.isfinite(boxes).all():
        row = int(np.flatnonzero(~np.isfinite(boxes).all(axis=1))[0])
        raise ValueError(f"box {row} is not finite: {boxes[row].tolist()}; drop it before pose")
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    padded = np.maximum((boxes[:, 2:] - boxes[:, :2]) * BOX_PADDING, MINIMUM_EXTENT)
    aspect = size[0] / size[1]
    width = np.maximum(padded[:, 0], padded[:, 1] * aspect)
    extent = np.stack([width, width / aspect], axis=1)
    if convention == "udp":
        return CropGeometry(centre - extent / 2, extent, size)
    pixels = np.array(size)
    if convention == "corners":
        return CropGeometry(centre - extent / 2, extent * (pixels - 1) / pixels, size, convention)
    # The last pixel of the box is taken for its end, and its width for a number of pixels.
    step = np.maximum(width - 1, MINIMUM_EXTENT) / (size[0] - 1)
    extent = step[:, None] * (pixels - 1)
    return CropGeometry(centre - 0.5 - extent / 2, extent, size, convention)


def warp_crops(image: np.ndarray, geometry: CropGeometry) -> np.ndarray:
    """Cut all crops out of an image, bilinear; what lies outside of the image is black.

    image: (H, W, 3) uint8. Returns (N, height, width, 3) uint8 in the same channel order.
    """
    width, height = geometry.size
    crops = np.empty((len(geometry), height, width, 3), dtype=np.uint8)
    for crop, matrix in zip(crops, geometry.crop_to_image, strict=True):
        cv2.warpAffine(
            image, matrix, (width, height), dst=crop, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
    return crops


def background_weights(masks: np.ndarray, geometry: CropGeometry, factor: float) -> np.ndarray:
    """Brightness of each crop pixel: 1 on the person, ``factor`` beside, between at the outline.

    masks: (N, H, W) bool in the size of the image. A person whose mask has no pixel gets weight 1
    everywhere: nothing is known about the background. Returns (N, height, width) float32.
    """
    width, height = geometry.size
    weights = np.ones((len(geometry), height, width), dtype=np.float32)
    for person, (mask, matrix) in enumerate(zip(masks, geometry.crop_to_image, strict=True)):
        if mask.any():
            on_person = _warp_mask(mask, matrix, geometry[person : person + 1])
            weights[person] = factor + (1 - factor) / 255 * on_person.astype(np.float32)
    return weights


def _warp_mask(mask: np.ndarray, crop_to_image: np.ndarray, geometry: CropGeometry) -> np.ndarray:
    """Return one mask in its crop, (height, width) uint8, 255 = on the person.

    Only the part of the mask under the crop is widened to 0..255, never the full image.
    """
    limit = np.array(mask.shape[::-1])
    first = np.clip(np.floor(geometry.origin[0]), 0, limit).astype(int)
    last = np.clip(np.floor(geometry.origin[0] + geometry.extent[0]) + 2, 0, limit).astype(int)
    width, height = geometry.size
    if (last <= first).any():
        return np.zeros((height, width), dtype=np.uint8)
    part = mask[first[1] : last[1], first[0] : last[0]].astype(np.uint8) * np.uint8(255)
    matrix = crop_to_image.copy()
    matrix[:, 2] -= first
    return cv2.warpAffine(
        part, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )


def pose_inputs(
    image: np.ndarray,
    geometry: CropGeometry,
    masks: np.ndarray | None = None,
    background_factor: float | None = None,
) -> np.ndarray:
    """Crop, dim and normalise all people of an image for a pose network.

    image: (H, W, 3) uint8 BGR. masks: (N, H, W) bool or None. background_factor: brightness left
    to the background, or None for a network that is not conditioned on masks.
    Returns (N, 3, height, width) float32.
    """
    crops = warp_crops(image, geometry)
    inputs = crops[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32, order="C")
    if masks is not None and background_factor is not None:
        inputs *= background_weights(masks, geometry, background_factor)[:, None]
        # Whole grey levels, halves to even: so was the background dimmed in training.
        np.rint(inputs, out=inputs)
    return normalised(inputs)


def normalised(inputs: np.ndarray) -> np.ndarray:
    """Normalise RGB grey levels (N, 3, h, w) float32 in place, as for ImageNet; return them."""
    inputs -= RGB_MEAN[:, None, None]
    inputs /= RGB_STD[:, None, None]
    return inputs
