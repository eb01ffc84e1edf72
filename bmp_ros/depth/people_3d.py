# SPDX-License-Identifier: Apache-2.0
"""People in metres: 3D keypoints, centroid and distance from a registered depth image.

Pure functions on arrays. What lies behind or before a person is never taken for the person: only
pixels of the person's own mask count, and of these only those whose depth continues the bulk of
the body. Where nothing is known the answer is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bmp_ros.depth.camera_model import CameraModel
from bmp_ros.depth.depth_grid import Alignment, DepthGrid
from bmp_ros.depth.lens_change import seen_by
from bmp_ros.loop.people import People
from bmp_ros.loop.skeletons import COCO_17

GAP = 0.25
"""Metres between neighbours in the sorted depths of a mask that separate the person from what else
the mask caught. A stretched arm fills the depths on its way; a wall behind the person does not."""
STEP_PER_METRE = 0.02
"""How much wider gaps may be for each metre of distance: stereo depth gets coarser."""
SPARSE = 0.02
"""Share of a mask's pixels that must lie within a gap's depth to count as a part of the body."""
WINDOW = 0.03
"""Half the side of the window around a joint in metres on the body."""
WINDOW_PIXELS = (1, 12)
"""Limits of that half side in pixels."""
LEAST_PIXELS = 3
"""Valid pixels of the person that a joint needs in its window."""
JOINT_INSET = np.array(
    [0.0, 0.017, 0.017, 0.021, 0.021, 0.072, 0.072, 0.048, 0.048, 0.025, 0.025, 0.122, 0.122,
     0.061, 0.061, 0.036, 0.036], np.float32
)  # fmt: skip
"""(17,) metres from the surface that the camera sees to the joint inside, along the ray, in COCO's
order: medians over visible joints of synthetic adults and children in clothes
(benchmarks/depth_accuracy.py --inset). Joints of any skeleton are found by name; others stay."""


@dataclass(frozen=True)
class People3D:
    """N people in space, in the camera's optical frame (x right, y down, z ahead), metres.

    keypoints: (N, K, 3) float32, NaN where unknown. spread: (N, K) float32, standard deviation of
    the depths around each joint, estimated from the median absolute deviation; NaN where unknown.
    centroids: (N, 3) float32, mean of the visible body. distances: (N,) float32, from the camera
    to the centroid. Row i is row i of the `People` it was made from; no person is left out.
    """

    keypoints: np.ndarray
    spread: np.ndarray
    centroids: np.ndarray
    distances: np.ndarray

    def __len__(self) -> int:
        return len(self.keypoints)


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
    image's. camera: of the image. depth_camera: of the depth image, of another lens or crop even;
    None: same view, other size.
    joint_inset: move keypoints from the surface into the body, along their rays (`JOINT_INSET`).

    Each joint gets the median depth of the person's own pixels in a window of 3 cm around it. A
    joint whose pixel belongs to another person, or that lies off the own mask by more than the
    window, is hidden: NaN. Raises ValueError for another dtype or shape, and for a calibration of
    another size than that of its image.
    """
    _check(people, depth, camera, depth_camera)
    if depth_camera is not None and not depth_camera.has_lens_of(camera):
        unknown = np.nan if depth.dtype.kind == "f" else 0
        depth, depth_camera = seen_by(camera, depth, depth_camera, unknown), None
    alignment = Alignment.of(people.image_size, depth.shape, camera, depth_camera)
    count, joints = people.keypoint_scores.shape
    z = np.full((count, joints), np.nan, np.float32)
    spread = np.full((count, joints), np.nan, np.float32)
    sampled: list[np.ndarray] = []
    owners: list[np.ndarray] = []
    grid = DepthGrid.of(depth, alignment, people.image_size)
    places = people.keypoints * alignment.scale + alignment.shift
    hidden = _on_another_person(people)
    for row, rectangle in enumerate(people.mask_rectangles):
        mask = people.masks[row]
        y, x = grid.sample_places(rectangle)
        metres = grid.metres(mask, y[:, None], x)
        bulk = _bulk(metres)
        if bulk is None:
            continue
        own = (metres >= bulk[0]) & (metres <= bulk[1])
        depths = metres[own]
        half = WINDOW * camera.matrix[0, 0] * alignment.scale[0] / float(np.median(depths))
        radius = int(np.clip(round(half), *WINDOW_PIXELS))
        z[row], spread[row] = _window_medians(grid, mask, places[row], radius, bulk)
        own_y, own_x = np.nonzero(own)
        pixels = (np.stack([x[own_x], y[own_y]], axis=1) - alignment.shift) / alignment.scale
        sampled.append(np.column_stack([pixels, depths]))
        owners.append(np.full(len(depths), row))
    rays = camera.rays(people.keypoints)
    hidden |= ~np.isfinite(rays).all(axis=2)
    z[hidden] = spread[hidden] = np.nan
    if joint_inset:
        insets = dict(zip(COCO_17.names, JOINT_INSET.tolist(), strict=True))
        z += np.array([insets.get(name, 0.0) for name in people.skeleton.names], np.float32)
    keypoints = np.concatenate([rays * z[..., None], z[..., None]], axis=2, dtype=np.float32)
    centroids = _centroids(camera, sampled, owners, count)
    return People3D(keypoints, spread, centroids, np.linalg.norm(centroids, axis=1))


def _bulk(metres: np.ndarray) -> tuple[float, float] | None:
    """The nearest and farthest depth of the person: the longest dense run of the sorted depths.

    A run ends where ``SPARSE`` of all pixels are spread over more than a gap. So a strip of floor
    along a mask that is a little late, which leads from the feet to the wall without a gap, is
    left out: few pixels cover many depths. None where too few depths are known.
    """
    values = np.sort(metres[np.isfinite(metres)])
    count = len(values)
    if count < LEAST_PIXELS:
        return None
    gap = GAP + STEP_PER_METRE * values[count // 2]
    reach = max(1, int(SPARSE * count))
    sparse = np.flatnonzero(values[reach:] - values[:-reach] > gap)
    # Sample i to i + reach lie too far apart: cut between all of them.
    cuts = np.zeros(count, np.intp)
    cuts[sparse] += 1
    cuts[sparse + reach] -= 1
    edges = np.concatenate([[0], np.flatnonzero(np.cumsum(cuts)[:-1] > 0) + 1, [count]])
    longest = int(np.diff(edges).argmax())
    nearest, farthest = values[edges[longest]], values[edges[longest + 1] - 1]
    return float(nearest - gap / 2), float(farthest + gap / 2)


def _window_medians(
    grid: DepthGrid, mask: np.ndarray, places: np.ndarray, radius: int, bulk: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Median depth (K,) and spread (K,) of the person around each of ``places`` (K, 2).

    places: x y in the depth image. Windows are squares of 2 ``radius`` + 1 pixels, of which about
    nine rows and columns are looked at. bulk: depths of the person.
    """
    reach = np.arange(-radius, radius + 1, max(1, round(radius / 4)))
    height, width = grid.depth.shape
    outside = -radius - 1.0
    cells = np.rint(np.nan_to_num(places, nan=outside, posinf=outside, neginf=outside))
    cells = np.clip(cells, outside, max(height, width) + radius).astype(np.intp)
    rows = (cells[:, 1, None] + reach)[:, :, None]
    columns = (cells[:, 0, None] + reach)[:, None, :]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    values = grid.metres(mask, rows.clip(0, height - 1), columns.clip(0, width - 1))
    values[~(inside & (values >= bulk[0]) & (values <= bulk[1]))] = np.nan
    values = values.reshape(len(places), -1)
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


def _on_another_person(people: People) -> np.ndarray:
    """(N, K) bool: the joint's pixel lies in another person's mask."""
    height, width = people.image_size
    cells = np.rint(np.nan_to_num(people.keypoints, nan=-1.0)).astype(np.int64)
    x, y = cells[..., 0], cells[..., 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    # (N owners, N, K): masks at the joints of all people.
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
        shown = np.isfinite(points[:, 0])  # the lens shows some corners from nowhere
        points, owner = points[shown], owner[shown]
        number = np.bincount(owner, minlength=count)
        sums = np.stack([np.bincount(owner, points[:, i], count) for i in range(3)], axis=1)
        known = number > 0
        centroids[known] = sums[known] / number[known, None]
    return centroids


def _check(
    people: People, depth: np.ndarray, camera: CameraModel, depth_camera: CameraModel | None
) -> None:
    if (
        depth.ndim != 2
        or 0 in depth.shape
        or not (depth.dtype == np.uint16 or depth.dtype.kind == "f")
    ):
        raise ValueError(
            "depth must be (h, w) uint16 millimetres or floating metres, got shape "
            f"{depth.shape} and dtype {depth.dtype}"
        )
    _check_size("the image", people.image_size, camera)
    if depth_camera is not None:
        _check_size("the depth image", depth.shape, depth_camera)


def _check_size(what: str, size: tuple[int, ...], camera: CameraModel) -> None:
    if (camera.height, camera.width) != size:
        raise ValueError(
            f"the calibration is of images of {camera.width}x{camera.height} pixels, {what} has "
            f"{size[1]}x{size[0]}"
        )
