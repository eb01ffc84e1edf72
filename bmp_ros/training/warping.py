# SPDX-License-Identifier: Apache-2.0
"""Masks and boxes moved by a matrix: only the part of a canvas is touched on which they are."""

from __future__ import annotations

import cv2
import numpy as np


def warp_mask(mask: np.ndarray, matrix: np.ndarray, target: np.ndarray) -> None:
    """Write ``mask`` (H, W) bool, mapped by ``matrix`` (2, 3), into ``target`` (h, w) bool, which
    is all False. Only what is around the mask is touched: most people fill little of a canvas."""
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    x, y, width, height = cv2.boundingRect(pixels)
    if not width:
        return
    part = pixels[y : y + height, x : x + width] * np.uint8(255)
    window, local = window_of(matrix, (x, y, x + width, y + height), target.shape[::-1])
    rows, columns = target[window].shape
    if rows and columns:
        target[window] = cv2.warpAffine(part, local, (columns, rows)) > 127


def window_of(
    matrix: np.ndarray, box: tuple[int, int, int, int], size: tuple[int, ...], margin: int = 2
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Rows and columns of a canvas of ``size`` (width, height) on which ``matrix`` (2, 3) shows
    ``box`` (xyxy, pixels), and the matrix from the pixels of the box to those of the window."""
    shown = moved_boxes(np.array([box], np.float32), matrix)[0]
    limits = np.array(size)
    low = np.clip(np.floor(shown[:2]).astype(int) - margin, 0, limits)
    high = np.clip(np.ceil(shown[2:]).astype(int) + margin, low, limits)
    local = matrix.astype(np.float64)
    local[:, 2] += matrix[:, :2] @ np.array(box[:2]) - low
    return (slice(low[1], high[1]), slice(low[0], high[0])), local


def pixel_counts(masks: np.ndarray) -> np.ndarray:
    """(N,) True pixels of masks (N, H, W) bool."""
    return np.array([cv2.countNonZero(mask.view(np.uint8)) for mask in masks], np.int64)


def moved_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The boxes (N, 4) around the corners of ``boxes`` after ``matrix`` (2, 3), which is of pixel
    centres at integers, while boxes are edges."""
    corners = boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 4, 2) - 0.5
    corners = corners @ matrix[:, :2].T + matrix[:, 2] + 0.5
    moved: np.ndarray = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    return moved.astype(np.float32)


def clipped_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes (N, 4) xyxy within a canvas of ``size`` (width, height)."""
    clipped: np.ndarray = np.clip(boxes, 0, np.array([*size, *size], np.float32))
    return clipped


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """(N,) pixels."""
    areas: np.ndarray = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)
    return areas
