# SPDX-License-Identifier: Apache-2.0
"""Compose a scene: a camera, people alone, in contact, in queues and crowds, things, a place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bmp_ros.synthetic.camera import Camera, look_camera
from bmp_ros.synthetic.furniture import ThingBuilder, chair, table
from bmp_ros.synthetic.groups import facing, pose_pair
from bmp_ros.synthetic.people import (
    PosedPerson,
    Stance,
    make_person,
    pose_person,
    seated_height,
)
from bmp_ros.synthetic.photograph import Optics, sample_optics
from bmp_ros.synthetic.places import build_place, textured
from bmp_ros.synthetic.poses import sample_pose
from bmp_ros.synthetic.render import Drawable, Light, Raster, Renderer, drawable
from bmp_ros.synthetic.surfaces import Material
from bmp_ros.synthetic.textures import texture_bank

PERSONAL_SPACE = 0.34
"""Least distance between the hips of people who do not touch, metres for two 1.75 m adults."""
OCCLUDER_ODDS = 0.3


@dataclass(frozen=True)
class Layout:
    """How people are spread. pairs, queues: odds that the next ones come as such a group.

    pixel_heights: range of the standing height in pixels at 480 rows that distances aim at.
    gather: 0 spreads people over the view, 1 puts them around one direction.
    """

    pairs: float
    queues: float
    gather: float
    pixel_heights: tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """Everything that is needed to draw one image."""

    bodies: tuple[PosedPerson, ...]
    things: Drawable
    thing_materials: tuple[Material, ...]
    light: Light
    camera: Camera
    optics: Optics


def sample_camera(random: np.random.Generator, assets: str, width: int, height: int) -> Camera:
    """A robot's camera at the origin: 0.3-1.8 m high, 60-110 degrees wide, tilted.

    In training every fourth has the narrower view (35-60 degrees) of a photographer's camera.
    """
    high = random.uniform(0.3, 1.8)
    narrow = assets == "train" and random.random() < 0.25
    view = np.radians(random.uniform(35, 60) if narrow else random.uniform(60, 110))
    # Low cameras look up at people, high ones down.
    tilt = np.radians(np.clip(random.normal(12 * (1.0 - high), 7), -22, 25))
    return look_camera(
        width,
        height,
        field_of_view=view,
        position=np.array([0.0, 0.0, high]),
        tilt=float(tilt),
        roll=float(np.radians(random.normal(0, 1.2))),
    )


def compose_scene(
    random: np.random.Generator, assets: str, count: int, layout: Layout, width: int, height: int
) -> Scene:
    """A scene with ``count`` people made of the assets of "train" or "test"."""
    camera = sample_camera(random, assets, width, height)
    bodies = _place_people(random, assets, count, layout, camera)
    things = ThingBuilder()
    for body in bodies:
        if body.stance.seat:
            _seat(random, assets, things, body)
        if random.random() < OCCLUDER_ODDS / max(1, len(bodies) / 2):
            _occlude(random, assets, things, body, bodies)
    taken = np.array([body.stance.position[:2] for body in bodies]).reshape(-1, 2)
    light = build_place(random, assets, things, taken)
    optics = sample_optics(random)
    return Scene(tuple(bodies), things.finish(), tuple(things.materials), light, camera, optics)


def draw_scene(renderer: Renderer, scene: Scene) -> Raster:
    """Draw ``scene``; instances are the people's identities."""
    parts, materials = [scene.things], list(scene.thing_materials)
    for body in scene.bodies:
        mesh = body.person.mesh
        parts.append(
            drawable(
                body.vertices,
                body.normals,
                mesh.canonical,
                mesh.cover,
                mesh.surface + len(materials),
                np.where(mesh.is_person[mesh.surface], body.person.identity, 0),
                mesh.faces,
            )
        )
        materials += mesh.materials
    return renderer.draw(parts, materials, texture_bank().images, scene.light, scene.camera)


def _place_people(
    random: np.random.Generator, assets: str, count: int, layout: Layout, camera: Camera
) -> list[PosedPerson]:
    bodies: list[PosedPerson] = []
    bearing = random.uniform(-0.6, 0.6)
    while len(bodies) < count:
        left = count - len(bodies)
        draw = random.random()
        if left >= 2 and draw < layout.pairs:
            group = _pair(random, assets, len(bodies), bodies, layout, camera, bearing)
        elif left >= 3 and draw < layout.pairs + layout.queues:
            group = _queue(
                random, assets, len(bodies), min(left, 6), bodies, layout, camera, bearing
            )
        else:
            group = _single(random, assets, len(bodies), bodies, layout, camera, bearing)
        bodies += group
    return bodies


def _spot(
    random: np.random.Generator,
    bodies: Sequence[PosedPerson],
    layout: Layout,
    camera: Camera,
    bearing: float,
    space: float,
) -> np.ndarray:
    """A free place (3,) on the ground in view; with no room left the last try is taken."""
    half_view = np.arctan(camera.width / 2 / camera.matrix[0, 0])
    scale = camera.matrix[0, 0] * 480 / camera.height
    spot = np.zeros(3)
    for _ in range(40):
        pixels = np.exp(random.uniform(*np.log(layout.pixel_heights)))
        distance = float(np.clip(scale * 1.7 / pixels, 0.75, 11.0))
        spread = random.uniform(-0.95, 0.95) * half_view
        gathered = bearing * half_view + random.normal(0, 0.35 / distance + 0.08)
        angle = (1 - layout.gather) * spread + layout.gather * gathered
        angle = float(np.clip(angle, -0.98 * half_view, 0.98 * half_view))
        # Distance is along the optical axis, as the height in pixels is.
        spot = np.array([np.tan(angle) * distance, distance, 0.0])
        if not bodies or min(np.linalg.norm(b.stance.position - spot) for b in bodies) > space:
            break
    return spot


def _single(
    random: np.random.Generator,
    assets: str,
    taken: int,
    bodies: Sequence[PosedPerson],
    layout: Layout,
    camera: Camera,
    bearing: float,
) -> list[PosedPerson]:
    person = make_person(taken + 1, random, assets)
    template, pose = sample_pose(random, assets)
    space = 0.75 if template.seat else PERSONAL_SPACE
    spot = _spot(random, bodies, layout, camera, bearing, space)
    towards = facing(-spot[:2]) if random.random() < 0.55 else 0.0
    spread = 0.6 if towards else 2.0
    heading = towards + random.normal(0, spread)
    return [pose_person(person, Stance(pose, spot, float(heading), seat=template.seat))]


def _pair(
    random: np.random.Generator,
    assets: str,
    taken: int,
    bodies: Sequence[PosedPerson],
    layout: Layout,
    camera: Camera,
    bearing: float,
) -> list[PosedPerson]:
    first = make_person(taken + 1, random, assets, (10, 99))
    second = make_person(taken + 2, random, assets, (10, 99) if random.random() < 0.9 else (5, 12))
    spot = _spot(random, bodies, layout, camera, bearing, 0.8)
    return pose_pair(random, assets, first, second, spot, random.uniform(-np.pi, np.pi))


def _queue(
    random: np.random.Generator,
    assets: str,
    taken: int,
    length: int,
    bodies: Sequence[PosedPerson],
    layout: Layout,
    camera: Camera,
    bearing: float,
) -> list[PosedPerson]:
    """People in line, often along the line of sight, so that each hides the next."""
    head = _spot(random, bodies, layout, camera, bearing, 0.6)
    sight = np.arctan2(head[1], head[0])
    angle = sight + random.normal(0, 0.35) if random.random() < 0.6 else random.uniform(-3.1, 3.1)
    step = np.array([np.cos(angle), np.sin(angle), 0]) * random.uniform(0.42, 0.75)
    away = random.random() < 0.5
    queue: list[PosedPerson] = []
    for number in range(int(random.integers(3, length + 1))):
        spot = head + step * number + [*random.normal(0, 0.06, 2), 0]
        if spot[1] < 0.7 or any(
            np.linalg.norm(b.stance.position - spot) < PERSONAL_SPACE for b in bodies
        ):
            continue
        person = make_person(taken + len(queue) + 1, random, assets)
        template, pose = sample_pose(random, assets)
        while template.seat:
            template, pose = sample_pose(random, assets)
        heading = facing(step[:2] if away else -step[:2]) + random.normal(0, 0.35)
        queue.append(pose_person(person, Stance(pose, spot, float(heading))))
    return queue


def _seat(
    random: np.random.Generator, assets: str, things: ThingBuilder, body: PosedPerson
) -> None:
    """Put a chair, stool or box under a seated person."""
    kind = str(random.choice(["wood", "plaster", "carpet"]))
    material = textured(random, assets, kind, scale=1.0)
    height = max(seated_height(body) + 0.015, 0.06)
    stance = body.stance
    if random.random() < 0.75:
        seat = stance.position + [0, 0, height]
        chair(things, seat, stance.heading, material, back=bool(random.random() < 0.7))
    else:
        half = np.array([random.uniform(0.2, 0.5), 0.2, height / 2])
        things.box(stance.position + [0, 0, height / 2], half, stance.heading, material)


def _occlude(
    random: np.random.Generator,
    assets: str,
    things: ThingBuilder,
    body: PosedPerson,
    bodies: Sequence[PosedPerson],
) -> None:
    """Something between the camera and ``body``: counter, table, box, pole."""
    distance = float(np.linalg.norm(body.stance.position[:2]))
    nearer = max(distance - random.uniform(0.6, 1.5), 0.5)
    base = body.stance.position * nearer / distance + [random.normal(0, 0.15), 0, 0]
    if min(np.linalg.norm(b.stance.position - base) for b in bodies) < 0.5:
        return
    material = textured(
        random, assets, str(random.choice(["wood", "concrete", "plaster"])), scale=1
    )
    kind = random.choice(["table", "counter", "pole", "box"])
    heading = float(random.normal(0, 0.2))
    if kind == "pole":
        things.column(base, random.uniform(0.02, 0.09), random.uniform(1.0, 3.0), material)
    elif kind == "box":
        half = np.array([*random.uniform(0.1, 0.3, 2), random.uniform(0.1, 0.5)])
        things.box(base + [0, 0, half[2]], half, heading, material)
    else:
        size = (random.uniform(0.3, 0.8), random.uniform(0.2, 0.35), random.uniform(0.45, 1.0))
        table(things, base, size, heading, material, solid=bool(kind == "counter"))
