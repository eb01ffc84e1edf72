# SPDX-License-Identifier: Apache-2.0
"""People in metres: 3D keypoints, centroid and distance from a registered depth image.

Pure functions on arrays. What lies behind or before a person is never taken for the person: only
pixels of the person's own mask count, and of these only those whose depth continues the bulk of
the body. Where nothing is known the answer is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bmp_ros.loop.camera_model import CameraModel
from bmp_ros.loop.masks import mask_rectangles
from bmp_ros.loop.people import People

NEAREST, FARTHEST = 0.1, 50.0
"""Metres between which depth is believed."""
GAP = 0.25
"""Metres between neighbours in the sorted depths of a mask that separate the person from what else
the mask caught. A stretched arm fills the depths on its way; a wall behind the person does not."""
STEP_PER_METRE = 0.02
"""How much wider gaps may be for each metre of distance: stereo depth gets coarser."""
WINDOW = 0.03
"""Half the side of the window around a joint in metres on the body."""
WINDOW_PIXELS = (1, 12)
"""Limits of that half side in pixels."""
LEAST_PIXELS = 3
"""Valid pixels of the person that a joint needs in its window."""
SAMPLES = 2000
"""Pixels per person, at most about, from which bulk, centroid and distance are computed."""

JOINT_INSET = np.array(
    [0.01] + [0.02] * 2 + [0.04] * 2 + [0.07] * 2 + [0.045] * 2 + [0.03] * 2 + [0.10] * 2
    + [0.06] * 2 + [0.045] * 2, np.float32
)  # fmt: skip
"""(17,) metres from the surface that the camera sees to the joint inside, along the ray, in COCO's
order: medians over visible joints of synthetic adults and children in clothes."""


@dataclass(frozen=True)
class People3D:
    """N people in space, in the camera's optical frame (x right, y down, z ahead), metres.

    keypoints: (N, K, 3) float32, NaN where unknown. spread: (N, K) float32, standard deviation of
    the depths around each joint, estimated from the median absolute deviation; NaN where unknown.
    centroids: (N, 3) float32, mean of the visible body. distances: (N,) float32, from the camera
    to the centroid. Row i is row i of the `People` it was made from; nobody is left out.
    """

    keypoints: np.ndarray
    spread: np.ndarray
    centroids: np.ndarray
    distances: np.ndarray

    def __len__(self) -> int:
        return len(self.keypoints)


@dataclass(frozen=True)
class Alignment:
    """Where pixels of the image lie in the depth image: ``depth = image * scale + shift``.

    scale, shift: (2,) x and y; pixel centres at integers.
    """

    scale: np.ndarray
    shift: np.ndarray

    @classmethod
    def of(
        cls,
        camera: CameraModel,
        depth_size: tuple[int, int],
        depth_camera: CameraModel | None = None,
    ) -> Alignment:
        """Align a registered depth image of ``depth_size`` (height, width) with the camera.

        depth_camera: calibration of the depth image; without it, it shows what the image shows.
        """
        height, width = depth_size
        if depth_camera is not None:
            focal, centre = _focal_and_centre(camera)
            depth_focal, depth_centre = _focal_and_centre(depth_camera)
            scale = depth_focal / focal
            return cls(scale, depth_centre - centre * scale)
        scale = np.array([width / camera.width, height / camera.height])
        return cls(scale, (scale - 1) / 2)  # edges onto edges

    @property
    def is_identity(self) -> bool:
        return bool(np.allclose(self.scale, 1) and np.allclose(self.shift, 0, atol=1e-3))


def lift_people(
    people: People,
    depth: np.ndarray,
    camera: CameraModel,
    *,
    depth_camera: CameraModel | None = None,
    joint_inset: bool = False,
) -> People3D:
    """Lift people into space with a depth image that is registered to theirs.

    depth: (h, w) uint16 millimetres or floating metres along the optical axis; 0, NaN, infinity
    and what is nearer than 0.1 m or farther than 50 m are unknown. Its size may differ from the
    image's. camera: of the image. depth_camera: of the depth image, None: same view, other size.
    joint_inset: move keypoints from the surface into the body (`JOINT_INSET`).

    Each joint gets the median depth of the person's own pixels in a window of 3 cm around it. A
    joint whose pixel belongs to somebody else, or that lies off the own mask by more than the
    window, is hidden: NaN. Raises ValueError for another dtype or shape, and for a camera of
    another image size.
    """
    _check(people, depth, camera)
    alignment = Alignment.of(camera, (depth.shape[0], depth.shape[1]), depth_camera)
    count, joints = people.keypoint_scores.shape
    z = np.full((count, joints), np.nan, np.float32)
    spread = np.full((count, joints), np.nan, np.float32)
    sampled: list[np.ndarray] = []
    owners: list[np.ndarray] = []
    places = people.keypoints * alignment.scale + alignment.shift
    hidden = _on_somebody_else(people)
    for row, rectangle in enumerate(mask_rectangles(people.masks)):
        part = _own_part(people.masks[row], rectangle, depth, alignment)
        if part is None:
            continue
        bulk = _bulk(part)
        if bulk is None:
            continue
        own = np.where((part.metres >= bulk[0]) & (part.metres <= bulk[1]), part.metres, np.nan)
        middle = float(np.nanmedian(own[part.samples]))
        half = WINDOW * camera.matrix[0, 0] * alignment.scale[0] / middle
        radius = int(np.clip(round(half), *WINDOW_PIXELS))
        z[row], spread[row] = _window_medians(own, places[row] - part.origin, radius)
        y, x = np.nonzero(np.isfinite(own[part.samples]))
        step = part.samples[0].step
        pixels = np.stack([x, y], axis=1) * step + part.origin - alignment.shift
        depths = own[part.samples][y, x]
        sampled.append(np.column_stack([pixels / alignment.scale, depths]))
        owners.append(np.full(len(depths), row))
    z[hidden] = spread[hidden] = np.nan
    if joint_inset and joints >= len(JOINT_INSET):
        z[:, : len(JOINT_INSET)] += JOINT_INSET
    rays = camera.rays(people.keypoints)
    keypoints = np.concatenate([rays * z[..., None], z[..., None]], axis=2, dtype=np.float32)
    centroids = _centroids(camera, sampled, owners, count)
    return People3D(keypoints, spread, centroids, np.linalg.norm(centroids, axis=1))


def depth_without_people(depth: np.ndarray, masks: np.ndarray, margin: int) -> np.ndarray:
    """A copy of ``depth`` in which every person is unknown: 0, or NaN where it is floating.

    depth: (h, w) uint16 or floating. masks: (N, H, W) bool, of the same size or another one of
    the same view. margin: pixels of the image by which masks are grown, for outlines that are a
    little tight. Raises ValueError for a negative margin.
    """
    import cv2

    if margin < 0:
        raise ValueError(f"margin must be >= 0 pixels, got {margin}")
    result: np.ndarray = depth.copy()
    unknown = np.nan if depth.dtype.kind == "f" else 0
    height, width = masks.shape[1:]
    scale = np.array([depth.shape[1] / width, depth.shape[0] / height])
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    for mask, (x, y, w, h) in zip(masks, mask_rectangles(masks), strict=True):
        if not w:
            continue
        left, top = max(0, x - margin), max(0, y - margin)
        right, bottom = min(width, x + w + margin), min(height, y + h + margin)
        grown = mask[top:bottom, left:right].view(np.uint8)
        if margin:
            grown = cv2.dilate(grown, kernel)
        if depth.shape == masks.shape[1:]:
            result[top:bottom, left:right][grown.view(bool)] = unknown
            continue
        low = np.floor(np.array([left, top]) * scale).astype(int)
        high = np.ceil(np.array([right, bottom]) * scale).astype(int)
        # Whatever part of a depth pixel the person covers makes it unknown.
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        covered = cv2.resize(grown.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
        target = result[low[1] : high[1], low[0] : high[0]]
        target[covered[: target.shape[0], : target.shape[1]]] = unknown
    return result


@dataclass(frozen=True)
class _Part:
    """metres: (h, w) float32, NaN off the person. origin: (2,) x y in the depth image.

    samples: two slices that thin the part out to about ``SAMPLES`` pixels of the person.
    """

    metres: np.ndarray
    origin: np.ndarray
    samples: tuple[slice, slice]


def _own_part(
    mask: np.ndarray, rectangle: np.ndarray, depth: np.ndarray, alignment: Alignment
) -> _Part | None:
    """The depth of one person in metres, in the mask's own rectangle; None without a pixel."""
    x, y, width, height = (int(side) for side in rectangle)
    limit = np.array(depth.shape[::-1])
    low, high = np.array([x, y]), np.array([x + width, y + height])
    if alignment.is_identity:
        low, high = np.clip(low, 0, limit), np.clip(high, 0, limit)
        own = mask[low[1] : high[1], low[0] : high[0]]
    else:
        low = np.ceil((low - 0.5) * alignment.scale + alignment.shift).astype(int)
        high = np.ceil((high - 0.5) * alignment.scale + alignment.shift).astype(int)
        low, high = np.clip(low, 0, limit), np.clip(high, 0, limit)
        back = [
            np.rint((np.arange(low[i], high[i]) - alignment.shift[i]) / alignment.scale[i])
            for i in (0, 1)
        ]
        columns = np.clip(back[0].astype(int), 0, mask.shape[1] - 1)
        rows = np.clip(back[1].astype(int), 0, mask.shape[0] - 1)
        own = mask[rows[:, None], columns]
    area = np.count_nonzero(own)
    if area == 0:
        return None
    crop = depth[low[1] : high[1], low[0] : high[0]]
    metres = crop.astype(np.float32)
    if depth.dtype.kind == "u":
        metres *= np.float32(0.001)
    # Comparisons with NaN are false, so NaN goes the way of what is out of range.
    metres[~(own & (metres >= NEAREST) & (metres <= FARTHEST))] = np.nan
    step = max(1, int(np.sqrt(area / SAMPLES)))
    return _Part(metres, low, (slice(None, None, step), slice(None, None, step)))


def _bulk(part: _Part) -> tuple[float, float] | None:
    """The nearest and farthest depth of the person: the largest run of depths without a gap."""
    values = part.metres[part.samples]
    values = np.sort(values[np.isfinite(values)])
    if len(values) < LEAST_PIXELS:
        return None
    gap = GAP + STEP_PER_METRE * values[len(values) // 2]
    ends = np.flatnonzero(np.diff(values) > gap) + 1
    runs = np.split(values, ends)
    largest = max(runs, key=len)
    return float(largest[0]) - gap / 2, float(largest[-1]) + gap / 2


def _window_medians(
    own: np.ndarray, places: np.ndarray, radius: int
) -> tuple[np.ndarray, np.ndarray]:
    """Median depth (K,) and spread (K,) of the person around each of ``places`` (K, 2).

    own: (h, w) metres, NaN off the person. Windows are squares of 2 ``radius`` + 1 pixels, cut at
    the border of ``own``.
    """
    reach = np.arange(-radius, radius + 1)
    finite = np.isfinite(places).all(axis=1)
    # Places far outside: any that is off by more than the window will do.
    limit = np.array(own.shape[::-1]) + radius + 1
    cells = np.where(finite[:, None], np.clip(places, -radius - 2, limit), -radius - 2)
    cells = np.rint(cells).astype(int)
    rows, columns = cells[:, 1, None] + reach, cells[:, 0, None] + reach
    inside = ((rows >= 0) & (rows < own.shape[0]))[:, :, None]
    inside = inside & ((columns >= 0) & (columns < own.shape[1]))[:, None, :]
    values = own[
        rows.clip(0, own.shape[0] - 1)[:, :, None], columns.clip(0, own.shape[1] - 1)[:, None, :]
    ]
    values = np.where(inside, values, np.nan).reshape(len(places), -1)
    median, number = _row_medians(values)
    deviation, _ = _row_medians(np.abs(values - median[:, None]))
    known = number >= LEAST_PIXELS
    # 1.4826: of a normal distribution, standard deviation over median absolute deviation.
    return np.where(known, median, np.nan), np.where(known, 1.4826 * deviation, np.nan)


def _row_medians(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower median (K,) of the finite values of each row, NaN without one, and their number."""
    number = np.isfinite(values).sum(axis=1)
    ordered = np.sort(values, axis=1)  # NaN comes last
    middle = np.maximum(number - 1, 0) // 2
    return ordered[np.arange(len(values)), middle], number


def _on_somebody_else(people: People) -> np.ndarray:
    """(N, K) bool: the joint's pixel lies in another person's mask."""
    height, width = people.image_size
    cells = np.rint(np.nan_to_num(people.keypoints, nan=-1.0)).astype(np.int64)
    x, y = cells[..., 0], cells[..., 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    # (N owners, N, K): masks at the joints of everybody.
    covered = people.masks[:, y.clip(0, height - 1), x.clip(0, width - 1)]
    others = ~np.eye(len(people), dtype=bool)[:, :, None]
    taken: np.ndarray = (covered & others).any(axis=0) & inside
    return taken


def _centroids(
    camera: CameraModel, sampled: list[np.ndarray], owners: list[np.ndarray], count: int
) -> np.ndarray:
    """(N, 3) float32 means of points given as rows (x, y in pixels, depth), NaN without any."""
    centroids = np.full((count, 3), np.nan, np.float32)
    if sampled:
        rows, owner = np.concatenate(sampled), np.concatenate(owners)
        points = np.column_stack([camera.rays(rows[:, :2]) * rows[:, 2:], rows[:, 2]])
        number = np.bincount(owner, minlength=count)
        sums = np.stack([np.bincount(owner, points[:, i], count) for i in range(3)], axis=1)
        known = number > 0
        centroids[known] = sums[known] / number[known, None]
    return centroids


def _focal_and_centre(camera: CameraModel) -> tuple[np.ndarray, np.ndarray]:
    return np.diag(camera.matrix)[:2].copy(), camera.matrix[:2, 2].copy()


def _check(people: People, depth: np.ndarray, camera: CameraModel) -> None:
    if (
        depth.ndim != 2
        or 0 in depth.shape
        or not (depth.dtype == np.uint16 or depth.dtype.kind == "f")
    ):
        raise ValueError(
            "depth must be (h, w) uint16 millimetres or floating metres, got shape "
            f"{depth.shape} and dtype {depth.dtype}"
        )
    if (camera.height, camera.width) != people.image_size:
        height, width = people.image_size
        raise ValueError(
            f"the calibration is of images of {camera.width}x{camera.height} pixels, the people "
            f"are in one of {width}x{height}; scale the calibration or the images"
        )
