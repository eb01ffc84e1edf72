# SPDX-License-Identifier: Apache-2.0
"""Where the scene takes place: rooms, streets, in front of clutter; its light."""

from __future__ import annotations

import numpy as np

from bmp_ros.synthetic import palettes
from bmp_ros.synthetic.furniture import ThingBuilder, chair, table, tree
from bmp_ros.synthetic.render import Light
from bmp_ros.synthetic.surfaces import Kind, Material
from bmp_ros.synthetic.textures import texture_bank

FLOORS = ("tiles", "wood", "carpet", "concrete")
OUTDOORS = {"train": 0.42, "test": 0.22}
"""Share of scenes under the sky: photographs have more than the pictures that we measure on."""
FIELDS = (
    ("plaster", ("f5f8fb", "e9eef5", "dfe6ee")), ("concrete", ("c9a878", "a98558", "d8c09a")),
    ("grass", ("ffffff", "dfe8c0", "b8cc90")), ("grass", None),
)  # fmt: skip
"""Textures and tints of open ground: snow, sand and earth, lawns."""
WALLS = ("plaster", "plaster", "wallpaper", "bricks", "concrete", "tiles")


def textured(
    random: np.random.Generator,
    split: str,
    kind: str,
    *,
    scale: float = 0.5,
    tint: tuple[str, ...] | None = palettes.SURFACES,
    glowing: bool = False,
) -> Material:
    """A material with a texture of ``kind`` that ``split`` may use; scale: repeats per metre."""
    color = palettes.pick(random, tint, 0.2) if tint else (1.0, 1.0, 1.0)
    if tint:  # textures carry colour themselves: lift the tint towards white
        red, green, blue = color
        color = (0.35 + 0.65 * red, 0.35 + 0.65 * green, 0.35 + 0.65 * blue)
    return Material(
        Kind.GLOWING if glowing else Kind.TEXTURED,
        color,
        scale=scale,
        layer=texture_bank().pick(random, split, kind),
        shine=float(random.choice([0.0, 0.1, 0.3])),
    )


def build_place(
    random: np.random.Generator, split: str, things: ThingBuilder, taken: np.ndarray
) -> Light:
    """Fill ``things`` with surroundings of the camera at the origin; returns their light.

    taken: (N, 2) places on the ground where people are, y ahead of the camera; walls stay behind
    them and furniture keeps away.
    """
    depth = float(taken[:, 1].max(initial=2.5)) + 0.5
    draw = random.random()
    if draw < 0.80 - OUTDOORS[split]:
        return _room(random, split, things, depth, taken)
    if draw < 0.80:
        return _outdoors(random, split, things, depth)
    return _clutter_wall(random, split, things, depth)


def _room(
    random: np.random.Generator, split: str, things: ThingBuilder, depth: float, taken: np.ndarray
) -> Light:
    wide = max(2.0, float(np.abs(taken[:, 0]).max(initial=0.0)) + 0.5) + random.uniform(0.0, 5.0)
    high = random.uniform(2.4, 4.5)
    front, back = random.uniform(-4.0, -1.0), depth + random.uniform(0.3, 4.0)
    middle, long = (front + back) / 2, (back - front) / 2
    floor = textured(random, split, str(random.choice(FLOORS)), scale=random.uniform(0.25, 1.0))
    wall = textured(random, split, str(random.choice(WALLS)), scale=random.uniform(0.2, 0.8))
    ceiling = textured(random, split, "plaster", scale=0.3, tint=("f5f5f2", "efece4"))
    x, y, z = np.eye(3)
    things.quad(np.array([0, middle, 0]), x * wide, y * long, floor)
    things.quad(np.array([0, middle, high]), x * wide, -y * long, ceiling)
    for center, half_u in (
        (np.array([0, back, high / 2]), x * wide),
        (np.array([0, front, high / 2]), -x * wide),
        (np.array([wide, middle, high / 2]), -y * long),
        (np.array([-wide, middle, high / 2]), y * long),
    ):
        things.quad(center, half_u, z * high / 2, wall)
        _decorate(random, split, things, center, half_u, high)
    _furnish(random, split, things, wide, depth, taken)
    return _indoor_light(random, np.array([0, depth / 2, 0.8]), high)


def _decorate(
    random: np.random.Generator,
    split: str,
    things: ThingBuilder,
    center: np.ndarray,
    half_u: np.ndarray,
    high: float,
) -> None:
    """Windows, doors, pictures and shelves, a hand's width in front of the wall."""
    normal = np.cross(half_u, [0, 0, 1.0])
    normal /= np.linalg.norm(normal)
    along, z = half_u / np.linalg.norm(half_u), np.array([0, 0, 1.0])
    half_length = float(np.linalg.norm(half_u))
    frame = textured(random, split, "wood", scale=1.0)
    at = -half_length + random.uniform(0.4, 1.2)
    while at < half_length - 0.6:
        kind = random.choice(["window", "door", "picture", "shelf", "nothing", "picture"])
        size = {
            "window": (random.uniform(0.4, 1.1), random.uniform(0.4, 0.8)),
            "door": (random.uniform(0.38, 0.9), 1.03),
            "shelf": (random.uniform(0.4, 1.0), random.uniform(0.5, 1.0)),
        }.get(str(kind), (random.uniform(0.15, 0.7), random.uniform(0.15, 0.5)))
        low = 0.0 if kind in ("door", "shelf") else random.uniform(0.8, 1.3)
        place = center + along * (at + size[0]) + normal * 0.02
        place[2] = min(low + size[1], high - 0.1)
        if kind != "nothing":
            rim = place - normal * 0.01
            things.quad(rim, along * (size[0] + 0.06), z * (size[1] + 0.06), frame)
            look = {
                "window": ("view", None, True), "door": ("wood", palettes.SURFACES, False),
                "shelf": ("shelf", None, False),
            }.get(str(kind), ("clutter", None, False))  # fmt: skip
            material = textured(random, split, look[0], scale=1.0, tint=look[1], glowing=look[2])
            things.quad(place, along * size[0], z * size[1], material, fit=True)
        at += 2 * size[0] + random.uniform(0.2, 2.0)


def _furnish(
    random: np.random.Generator,
    split: str,
    things: ThingBuilder,
    wide: float,
    depth: float,
    taken: np.ndarray,
) -> None:
    for _ in range(random.integers(0, 13)):
        side = random.choice([-1, 1])
        base = np.array(
            [side * random.uniform(0.3, 1.0) * wide, random.uniform(1.5, depth + 1), 0]
        )
        if len(taken) and np.linalg.norm(taken - base[:2], axis=1).min() < 1.1:
            continue
        kinds = ["wood", "plaster", "carpet", "clutter", "shelf", "wallpaper"]
        material = textured(random, split, str(random.choice(kinds)), scale=1)
        kind = random.choice(["table", "chair", "box", "plant", "column"])
        heading = random.uniform(-3.1, 3.1)
        if kind == "table":
            size = (random.uniform(0.3, 0.9), random.uniform(0.25, 0.5), random.uniform(0.45, 1.0))
            table(things, base, size, heading, material, solid=bool(random.random() < 0.3))
        elif kind == "chair":
            chair(things, base + [0, 0, 0.45], heading, material, back=True)
        elif kind == "box":
            half = random.uniform(0.12, 0.5, 3)
            things.box(base + [0, 0, half[2]], half, heading, material)
        elif kind == "column":
            things.column(base, random.uniform(0.04, 0.25), 4.5, material)
        else:
            leaves = textured(random, split, "foliage", scale=1.5, tint=None)
            tree(things, base, random.uniform(0.6, 1.8), material, leaves)


def _outdoors(
    random: np.random.Generator, split: str, things: ThingBuilder, depth: float
) -> Light:
    x, y, z = np.eye(3)
    ground = textured(
        random, split, str(random.choice(["grass", "concrete", "tiles", "bricks"])), scale=0.4
    )
    field = split == "train" and random.random() < 0.5  # snow, sand, lawn; nothing built on it
    if field:
        kind, tints = FIELDS[int(random.integers(len(FIELDS)))]
        ground = textured(random, split, kind, scale=random.uniform(0.1, 0.5), tint=tints)
    things.quad(np.array([0, 20.0, 0]), x * 45, y * 35, ground)
    sky = textured(random, split, "sky", scale=4 / np.pi, tint=None, glowing=True)
    # The dome's texture runs four times around and once from the zenith to the horizon.
    things.ball(np.array([0, 10.0, 0]), np.full(3, 48.0), sky, lumps=0.0)
    for _ in range(random.integers(1, 9)):
        at = np.array([random.uniform(-28, 28), depth + random.uniform(2, 26), 0])
        if random.random() < 0.5 and not field:
            half = np.array([random.uniform(2, 7), random.uniform(2, 5), random.uniform(1.5, 7)])
            facade = textured(random, split, "facade", scale=random.uniform(0.08, 0.25))
            things.box(at + [0, half[1], half[2]], half, random.uniform(-0.4, 0.4), facade)
        else:
            bark = textured(random, split, "wood", scale=0.6)
            leaves = textured(random, split, "foliage", scale=0.8, tint=None)
            tree(things, at, random.uniform(2.0, 8.0), bark, leaves)
    for _ in range(random.integers(0, 5)):  # posts, bins, benches
        base = np.array([random.uniform(-5, 5), random.uniform(2.5, depth + 4), 0])
        material = textured(random, split, "concrete", scale=1)
        if random.random() < 0.5:
            things.column(base, random.uniform(0.03, 0.12), random.uniform(0.8, 5), material)
        else:
            half = random.uniform(0.15, 0.5, 3)
            things.box(base + [0, 0, half[2]], half, random.uniform(-3, 3), material)
    return _daylight(random, np.array([0, depth / 2, 0.8]))


def _clutter_wall(
    random: np.random.Generator, split: str, things: ThingBuilder, depth: float
) -> Light:
    """A floor and a backdrop without meaning: networks must not rely on rooms."""
    x, y, z = np.eye(3)
    floor = textured(random, split, str(random.choice([*FLOORS, "clutter"])), scale=0.3)
    kinds = ["clutter", "view", "shelf", "facade", "foliage"]
    things.quad(np.array([0, depth / 2, 0]), x * 20, y * 20, floor)
    for center, half_u in (
        (np.array([0, depth + 1.0, 4]), x * 10), (np.array([-7.0, depth / 2, 4]), y * 10),
        (np.array([7.0, depth / 2, 4]), -y * 10),
    ):  # fmt: skip
        backdrop = textured(random, split, str(random.choice(kinds)), scale=0.25, tint=None)
        things.quad(center, half_u, z * 4.5, backdrop, fit=bool(random.random() < 0.5))
    things.quad(np.array([0, 5.0, 8]), x * 20, -y * 20, textured(random, split, "plaster"))
    return _indoor_light(random, np.array([0, depth / 2, 0.8]), 6.0)


def _direction(random: np.random.Generator, low: float, high: float) -> np.ndarray:
    height, around = random.uniform(low, high), random.uniform(-np.pi, np.pi)
    flat = np.sqrt(1 - height**2)
    return np.array([flat * np.sin(around), -flat * np.cos(around), height])


def _indoor_light(random: np.random.Generator, center: np.ndarray, high: float) -> Light:
    warmth = random.normal(0, 0.10)
    tint = np.array([1 + warmth, 1.0, 1 - warmth])
    ambient = random.uniform(0.45, 0.95)
    return Light(
        to_sun=_direction(random, 0.55, 0.97),
        sun_color=tint * random.uniform(0.2, 1.1),
        sky_color=tint * ambient,
        ground_color=tint * ambient * random.uniform(0.4, 0.8),
        exposure=float(np.exp(random.normal(0.38, 0.28))),
        haze=0.0,
        haze_color=np.full(3, 0.6),
        lamp=np.array([random.uniform(-3, 3), random.uniform(0, 5), high - 0.2]),
        lamp_color=tint * random.uniform(0.0, 0.9),
        shadow_center=center,
    )


def _daylight(random: np.random.Generator, center: np.ndarray) -> Light:
    sunny = random.random() < 0.6
    return Light(
        to_sun=_direction(random, 0.25, 0.95),
        sun_color=np.array([1.0, 0.94, 0.85]) * (random.uniform(1.2, 2.4) if sunny else 0.15),
        sky_color=np.array([0.55, 0.65, 0.8]) * random.uniform(0.7, 1.3),
        ground_color=np.array([0.4, 0.4, 0.36]) * random.uniform(0.5, 1.0),
        exposure=float(np.exp(random.normal(0.15, 0.25))),
        haze=float(random.choice([0.0, 0.003, 0.02])),
        haze_color=np.array([0.75, 0.8, 0.88]),
        lamp=np.zeros(3),
        lamp_color=np.zeros(3),
        shadow_center=center,
    )
