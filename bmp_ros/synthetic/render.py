# SPDX-License-Identifier: Apache-2.0
"""Draw a scene headless with OpenGL (EGL): lit image, instances, depth. GPU or llvmpipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from bmp_ros.synthetic import shaders
from bmp_ros.synthetic.camera import Camera
from bmp_ros.synthetic.surfaces import Material

SHADOW_SIZE = 1024
SHADOW_RADIUS = 7.0
VERTEX_FORMAT = "3f 3f 3f 1f 2f"
VERTEX_FIELDS = ("position", "normal", "canonical", "cover", "tag")
VERTEX_FLOATS = 12


@dataclass(frozen=True)
class Light:
    """Light of a scene, linear RGB. to_sun: unit vector. haze: per metre. lamp: a near light."""

    to_sun: np.ndarray
    sun_color: np.ndarray
    sky_color: np.ndarray
    ground_color: np.ndarray
    exposure: float
    haze: float
    haze_color: np.ndarray
    lamp: np.ndarray
    lamp_color: np.ndarray
    shadow_center: np.ndarray


@dataclass(frozen=True)
class Drawable:
    """Triangles for the renderer: vertices (V, 12) float32 in VERTEX_FORMAT, faces (F, 3)."""

    vertices: np.ndarray
    faces: np.ndarray


@dataclass(frozen=True)
class Raster:
    """What the renderer returns. color: (H, W, 3) uint8 RGB. instances: (H, W) uint8, 0 = none.

    depth: (H, W) float32 metres along the optical axis, 0 where nothing was hit.
    """

    color: np.ndarray
    instances: np.ndarray
    depth: np.ndarray


def drawable(
    position: np.ndarray,
    normal: np.ndarray,
    canonical: np.ndarray,
    cover: np.ndarray,
    material: np.ndarray,
    instance: np.ndarray | int,
    faces: np.ndarray,
) -> Drawable:
    """Interleave attributes: (V, 3), (V, 3), (V, 3), (V,), (V,) material rows, (V,) instance."""
    vertices = np.empty((len(position), VERTEX_FLOATS), np.float32)
    vertices[:, 0:3], vertices[:, 3:6], vertices[:, 6:9] = position, normal, canonical
    vertices[:, 9], vertices[:, 10], vertices[:, 11] = cover, material, instance
    return Drawable(vertices, faces)


class Renderer:
    """One OpenGL context with its programs; draws any number of scenes, always the same way."""

    def __init__(self) -> None:
        try:
            import moderngl
        except ImportError as error:
            raise ImportError(
                "rendering synthetic people needs moderngl: "
                "pip install -r requirements/synthetic.txt"
            ) from error
        gl: Any = moderngl  # its annotations are narrower than what it accepts
        try:
            context: Any = gl.create_standalone_context(backend="egl")
        except Exception as error:  # glcontext raises bare Exception for a missing library
            raise RuntimeError(
                f"no headless OpenGL (EGL) on this machine ({error}); on Debian and Ubuntu: "
                "apt install libegl1 libgl1-mesa-dri"
            ) from error
        self._gl = context
        self._moderngl = gl
        self._shadow_program = context.program(shaders.VERTEX, shaders.SHADOW_FRAGMENT)
        self._instance_program = context.program(shaders.VERTEX, shaders.INSTANCE_FRAGMENT)
        self._lit_program = context.program(shaders.VERTEX, shaders.LIT_FRAGMENT)
        for sampler, unit in (("materials", 0), ("textures", 1), ("noise", 2), ("shadow", 3)):
            self._lit_program[sampler].value = unit
        self._shadow = context.depth_texture((SHADOW_SIZE, SHADOW_SIZE))
        self._shadow.compare_func = "<="
        self._shadow.repeat_x = self._shadow.repeat_y = False
        self._shadow_buffer = context.framebuffer(depth_attachment=self._shadow)
        noise = noise_volume()
        self._noise = context.texture3d(noise.shape[:3], 4, noise.tobytes())
        self._noise.build_mipmaps()
        self._noise.filter = (gl.LINEAR_MIPMAP_NEAREST, gl.LINEAR)
        self._uploaded: np.ndarray | None = None
        self._textures: Any = None
        self._targets: dict[tuple[int, int], tuple[Any, Any]] = {}

    @property
    def device(self) -> str:
        """Name of the OpenGL renderer, e.g. "llvmpipe (LLVM 15.0.6, 256 bits)"."""
        return str(self._gl.info["GL_RENDERER"])

    def draw(
        self,
        parts: Sequence[Drawable],
        materials: Sequence[Material],
        textures: np.ndarray,
        light: Light,
        camera: Camera,
    ) -> Raster:
        """Draw ``parts`` as ``camera`` sees them. textures: (layers, S, S, 3) uint8 RGB."""
        instance_target, lit_target = self._target(camera.width, camera.height)
        starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
        faces = [part.faces + start for part, start in zip(parts, starts[:-1], strict=True)]
        vertex_buffer = self._gl.buffer(
            np.concatenate([part.vertices for part in parts]).tobytes()
        )
        index_buffer = self._gl.buffer(np.concatenate(faces).astype(np.int32).tobytes())
        table = self._gl.texture(
            (3, len(materials)), 4, _material_rows(materials).tobytes(), dtype="f4"
        )
        self._use_textures(textures)
        self._gl.enable_only(self._moderngl.DEPTH_TEST)
        try:
            sun = _sun_matrix(light)
            self._gl.depth_func = "<"
            self._shadow_buffer.clear(depth=1.0)
            self._shadow_buffer.use()
            self._pass(self._shadow_program, vertex_buffer, index_buffer, sun)

            instance_target.clear()
            instance_target.use()
            program = self._instance_program
            program["eye"].value = tuple(camera.position)
            program["forward"].value = tuple(camera.forward)
            self._pass(program, vertex_buffer, index_buffer, camera.clip_matrix())

            # The distance pass has left its depth: only what is visible is shaded, once.
            lit_target.use()
            lit_target.depth_mask = False
            self._gl.depth_func = "<="
            table.use(0)
            self._textures.use(1)
            self._noise.use(2)
            self._shadow.use(3)
            self._set_light(light, camera, sun)
            self._pass(self._lit_program, vertex_buffer, index_buffer, camera.clip_matrix())
            return self._read(instance_target, lit_target, camera)
        finally:
            for resource in (vertex_buffer, index_buffer, table):
                resource.release()

    def _pass(self, program: Any, vertices: Any, indices: Any, matrix: np.ndarray) -> None:
        program["projection"].write(np.ascontiguousarray(matrix.T, np.float32).tobytes())
        used = [name for name in VERTEX_FIELDS if name in program]
        formats = dict(zip(VERTEX_FIELDS, VERTEX_FORMAT.split(), strict=True))
        layout = " ".join(
            formats[name] if name in used else f"{int(formats[name][0]) * 4}x"
            for name in VERTEX_FIELDS
        )
        array = self._gl.vertex_array(program, [(vertices, layout, *used)], index_buffer=indices)
        array.render(self._moderngl.TRIANGLES)
        array.release()

    def _set_light(self, light: Light, camera: Camera, sun: np.ndarray) -> None:
        program = self._lit_program
        program["eye"].value = tuple(camera.position)
        program["sun_projection"].write(np.ascontiguousarray(sun.T, np.float32).tobytes())
        for name in (
            "to_sun", "sun_color", "sky_color", "ground_color", "haze_color", "lamp", "lamp_color",
        ):  # fmt: skip
            program[name].value = tuple(float(value) for value in getattr(light, name))
        program["exposure"].value = light.exposure
        program["haze"].value = light.haze

    def _target(self, width: int, height: int) -> tuple[Any, Any]:
        """Framebuffers of one image size, with a common depth: instances + distance, colours."""
        size = (width, height)
        if size not in self._targets:
            context = self._gl
            depth = context.depth_renderbuffer(size)
            instances = context.framebuffer(
                [context.renderbuffer(size, 1), context.renderbuffer(size, 1, dtype="f4")], depth
            )
            lit = context.framebuffer([context.renderbuffer(size, 4)], depth)
            self._targets[size] = (instances, lit)
        return self._targets[size]

    def _use_textures(self, textures: np.ndarray) -> None:
        if self._uploaded is textures:
            return
        if self._textures is not None:
            self._textures.release()
        layers, size = textures.shape[:2]
        self._textures = self._gl.texture_array((size, size, layers), 3, textures.tobytes())
        self._textures.build_mipmaps()
        self._textures.filter = (self._moderngl.LINEAR_MIPMAP_LINEAR, self._moderngl.LINEAR)
        self._uploaded = textures

    @staticmethod
    def _read(instance_target: Any, lit_target: Any, camera: Camera) -> Raster:
        shape = (camera.height, camera.width)
        color = np.frombuffer(lit_target.read(components=3, alignment=1), np.uint8).reshape(
            *shape, 3
        )
        ids = np.frombuffer(instance_target.read(components=1, alignment=1), np.uint8).reshape(
            shape
        )
        depth = np.frombuffer(
            instance_target.read(components=1, attachment=1, dtype="f4", alignment=1), np.float32
        ).reshape(shape)
        return Raster(color, ids, depth)


def _material_rows(materials: Sequence[Material]) -> np.ndarray:
    """(materials, 3, 4) float32: one row per material, as the shader reads it."""
    return np.array(
        [
            [
                [*m.color, float(m.kind)],
                [*m.second_color, m.scale],
                [float(m.pattern), float(m.layer), m.shine, m.roughness],
            ]
            for m in materials
        ],
        np.float32,
    )


def _sun_matrix(light: Light) -> np.ndarray:
    """(4, 4) orthographic view from the sun around ``shadow_center``."""
    ahead = -light.to_sun
    side = np.cross(ahead, [0.0, 0.0, 1.0] if abs(ahead[2]) < 0.95 else [0.0, 1.0, 0.0])
    side /= np.linalg.norm(side)
    rotation = np.stack([side, np.cross(side, ahead), ahead]) / SHADOW_RADIUS
    rotation[2] *= 0.5
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ light.shadow_center
    return matrix


@lru_cache(maxsize=1)
def noise_volume(size: int = 32) -> np.ndarray:
    """(size, size, size, 4) uint8 that repeats: smooth noise (alpha), its gradient (xyz)."""
    random = np.random.default_rng(7)
    value = np.zeros((size, size, size))
    for cells, strength in ((4, 1.0), (8, 0.7), (16, 0.5)):
        coarse = random.normal(0, strength, (cells, cells, cells))
        spectrum = np.zeros((size, size, size), complex)
        low = np.fft.fftfreq(cells, 1 / cells).astype(int)
        spectrum[np.ix_(low, low, low)] = np.fft.fftn(coarse) * (size / cells) ** 3
        value += np.real(np.fft.ifftn(spectrum))
    value = (value - value.mean()) / value.std()
    gradient = [(np.roll(value, -1, axis) - np.roll(value, 1, axis)) for axis in (2, 1, 0)]
    channels = np.stack([*(g / 3 for g in gradient), value / 2.4], axis=-1)
    return (np.clip(channels * 0.5 + 0.5, 0, 1) * 255).astype(np.uint8)
