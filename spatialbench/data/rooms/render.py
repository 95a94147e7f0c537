"""Ray casting of a scene with Embree: colour, exact depth, instance masks, visible boxes.

Letters: S pixels a side, N rays, F faces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh

from spatialbench.data.records import Box
from spatialbench.data.rooms.scene import Scene, build
from spatialbench.data.rooms.shapes import PATTERNS, Material, primitive, rotation

WALL = 0  # the mask code of the room


@dataclass(frozen=True)
class Rendering:
    """An image with its exact depth and masks."""

    image: np.ndarray  # uint8 [S, S, 3], sRGB
    depth: np.ndarray  # float32 [S, S], metres along the optical axis
    mask: np.ndarray  # uint8 [S, S]; 0 for the room, k + 1 for ``scene.objects[k]``

    def box(self, k: int) -> Box | None:
        """Return the box of the visible part of object k in pixels; None: it is hidden."""
        rows, columns = np.nonzero(self.mask == k + 1)
        if len(rows) == 0:
            return None
        x, y = int(columns.min()), int(rows.min())
        return Box(x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y)


@dataclass
class Mesh:
    """The triangles of a scene."""

    corners: np.ndarray  # float32 [F, 3, 3] world
    normals: np.ndarray  # float32 [F, 3, 3] world
    local: np.ndarray  # float32 [F, 3, 3] in the part's own frame, for the patterns
    part: np.ndarray  # int32 [F], row of ``materials``
    instance: np.ndarray  # uint8 [F], mask code
    materials: list[Material]


def mesh_of(scene: Scene) -> Mesh:
    """Return the triangles of the objects and of the room around them."""
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, int, Material]] = []
    for k, instance in enumerate(scene.objects):
        built = build(instance)
        turn = rotation("z", instance.yaw)
        for corners, normals, local, material in zip(
            built.corners, built.normals, built.local, built.materials, strict=True
        ):
            placed = corners * instance.scale @ turn.T + np.array(instance.position)
            parts.append((placed, normals @ turn.T, local, k + 1, material))
    floor, wall, ceiling = scene.surfaces
    unit, size = primitive("box"), np.array(scene.size)
    room = unit.corners * size + size / 2
    up = unit.normals[:, 0, 2]
    for material, faces in ((floor, up < -0.5), (ceiling, up > 0.5), (wall, np.abs(up) < 0.5)):
        parts.append((room[faces], -unit.normals[faces], room[faces], WALL, material))
    counts = [len(corners) for corners, *_ in parts]
    corners, normals, local, codes, materials = zip(*parts, strict=True)
    return Mesh(
        np.concatenate(corners).astype(np.float32),
        np.concatenate(normals).astype(np.float32),
        np.concatenate(local).astype(np.float32),
        np.repeat(np.arange(len(parts), dtype=np.int32), counts),
        np.repeat(np.array(codes, dtype=np.uint8), counts),
        list(materials),
    )


def _hash(cells: np.ndarray) -> np.ndarray:
    """Return a value in [0, 1) for every integer cell; int64 [N, 3] -> float32 [N]."""
    h = (cells[:, 0] * 73856093) ^ (cells[:, 1] * 19349663) ^ (cells[:, 2] * 83492791)
    return ((h * 2654435761 % 4294967296) / 4294967296).astype(np.float32)


def _pattern(code: int, p: np.ndarray, period: np.ndarray) -> np.ndarray:
    """Return the share of the second colour; p: metres [N, 3], period [N] -> [N] in [0, 1]."""
    name, q = PATTERNS[code], p / period[:, None]
    if name == "striped":
        return (np.floor(q[:, 0] + q[:, 1]) % 2).astype(np.float32)
    if name == "checkered":
        return (np.floor(q + 0.01).sum(1) % 2).astype(np.float32)
    if name == "dotted":
        cell = q - np.floor(q) - 0.5
        return (np.sort(np.abs(cell), axis=1)[:, :2] ** 2).sum(1).__lt__(0.06).astype(np.float32)
    if name == "wood":
        grain = 3 * q[:, 0] + 0.6 * np.sin(2.1 * q[:, 1]) + 0.5 * np.sin(1.3 * q[:, 2])
        return 0.5 + 0.5 * np.sin(6.28 * grain)
    if name == "speckled":
        return _hash(np.floor(q * 4).astype(np.int64))
    return np.zeros(len(p), dtype=np.float32)


def _of_hits(mesh: Mesh, part: np.ndarray, field: str) -> np.ndarray:
    """Return a number of the material of every hit; part [N] -> float32 [N, ...]."""
    return np.array([getattr(m, field) for m in mesh.materials], dtype=np.float32)[part]


def _albedo(mesh: Mesh, part: np.ndarray, local: np.ndarray) -> np.ndarray:
    """Return the linear RGB of every hit; part [N], local [N, 3] -> float32 [N, 3]."""
    colour, second, period = (_of_hits(mesh, part, f) for f in ("colour", "second", "period"))
    code = np.array([PATTERNS.index(m.pattern) for m in mesh.materials])[part]
    mix = np.zeros(len(part), dtype=np.float32)
    for k in np.unique(code):
        rows = code == k
        mix[rows] = _pattern(int(k), local[rows], period[rows])
    strength = np.where(code == PATTERNS.index("speckled"), 0.5, 0.85)[:, None]
    return colour + (second - colour) * mix[:, None] * strength


def rays(scene: Scene, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return origins, unit directions (float32 [S*S, 3]) and cosines to the optical axis [S*S]."""
    half = np.tan(np.deg2rad(scene.camera.fov / 2))
    grid = ((np.arange(size) + 0.5) / size * 2 - 1) * half
    v, u = np.meshgrid(grid, grid, indexing="ij")
    pixels = np.stack([u.ravel(), v.ravel(), np.ones(size * size)], axis=1)
    directions = pixels @ scene.camera.axes()
    norm = np.linalg.norm(directions, axis=1, keepdims=True)
    origins = np.broadcast_to(np.array(scene.camera.position, dtype=np.float32), directions.shape)
    cosine = (1 / norm[:, 0]).astype(np.float32)
    return np.ascontiguousarray(origins), (directions / norm).astype(np.float32), cosine


def render(scene: Scene, size: int, supersample: int = 1) -> Rendering:
    """Render a scene at S = ``size`` with shadows, ambient light, gloss and sensor noise.

    Colours have ``supersample`` rays per pixel and axis; depth and mask are of the upper left ray.

    Raises:
        ValueError: a ray left the room (the scene is broken).
    """
    full = size * supersample
    mesh = mesh_of(scene)
    tracer = rtcore_scene.EmbreeScene()
    TriangleMesh(tracer, mesh.corners)
    origins, directions, cosine = rays(scene, full)
    hit = tracer.run(origins, directions, output=True)
    face, distance = hit["primID"], hit["tfar"]
    if (face < 0).any():
        raise ValueError(f"{scene.scene_id}: {int((face < 0).sum())} rays leave the room")
    weights = np.stack([1 - hit["u"] - hit["v"], hit["u"], hit["v"]], axis=1)[:, :, None]
    normal = (mesh.normals[face] * weights).sum(1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    normal *= np.where((normal * directions).sum(1, keepdims=True) > 0, -1, 1).astype(np.float32)
    point = origins + directions * distance[:, None]
    albedo = _albedo(mesh, mesh.part[face], (mesh.local[face] * weights).sum(1))
    light = _light(scene, mesh, tracer, mesh.part[face], point, normal, directions)
    linear = (albedo * light[:, :3] + light[:, 3:]).reshape(full, full, 3)
    linear = linear.reshape(size, supersample, size, supersample, 3).mean((1, 3))
    noise = np.random.default_rng(scene.noise_seed).normal(0, 2.0, linear.shape)
    srgb = np.clip(linear, 0, 1) ** (1 / 2.2) * 255 + noise
    pick = np.s_[::supersample, ::supersample]
    return Rendering(
        image=np.clip(srgb + 0.5, 0, 255).astype(np.uint8),
        depth=(distance * cosine).reshape(full, full)[pick].astype(np.float32),
        mask=mesh.instance[face].reshape(full, full)[pick].copy(),
    )


def _light(
    scene: Scene,
    mesh: Mesh,
    tracer: rtcore_scene.EmbreeScene,
    part: np.ndarray,
    point: np.ndarray,
    normal: np.ndarray,
    directions: np.ndarray,
) -> np.ndarray:
    """Return the diffuse light that the albedo multiplies, and gloss to add; float32 [N, 3 + 3]."""
    glow, gloss = (_of_hits(mesh, part, field) for field in ("glow", "gloss"))
    sky = 0.75 + 0.25 * normal[:, 2]
    diffuse = np.repeat((scene.ambient * sky + glow)[:, None], 3, axis=1)
    shine = np.zeros_like(diffuse)
    start = point + normal * 1e-3
    for lamp in scene.lights:
        to = np.array(lamp.position, dtype=np.float32) - start
        reach = np.linalg.norm(to, axis=1)
        to /= reach[:, None]
        facing = np.clip((normal * to).sum(1), 0, None)
        free = np.zeros(len(point), dtype=bool)
        lit = np.flatnonzero(facing > 0)
        ends = np.full(len(lit), 1e9, dtype=np.float32)
        blocked = tracer.run(start[lit], to[lit], ends, query="DISTANCE")
        free[lit] = blocked >= reach[lit] - 2e-3
        strength = free * 4.0 / (1.5 + reach**2)
        diffuse += (strength * facing)[:, None] * np.array(lamp.strength, dtype=np.float32)
        mirror = to - 2 * (to * normal).sum(1, keepdims=True) * normal
        glint = np.clip((mirror * directions).sum(1), 0, 1) ** 24
        shine += (strength * glint * gloss * 0.5)[:, None]
    return np.concatenate([diffuse, shine], axis=1)
