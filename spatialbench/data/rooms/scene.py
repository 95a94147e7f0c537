"""The layout of a room: which objects, where, and the camera; all of it from (version, split, index).

World frame: x right, y away from the camera's wall, z up, metres; the floor is z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spatialbench.data.rooms.kinds import KIND, KINDS, Kind
from spatialbench.data.rooms.shapes import PALETTE, PATTERNS, Builder, Material, rotation

VERSION = 1
"""Raised whenever the same (split, index) would give another picture or another record."""

SPLITS: dict[str, int] = {"pretrain": 0, "train": 1, "val": 2, "test": 3}
"""The seed of each split; no two splits share a scene."""


@dataclass(frozen=True)
class Instance:
    """One object: its kind and colour word, where its base (wall objects: its back's centre) is, and its turn.

    Attributes:
        seed: of the shape's variation.
        position: metres. yaw: degrees about z, 0 = front towards -y.
        mount: ``floor``, ``top`` (on another object) or ``wall``.
        scale: of the whole object, about 1.
    """

    name: str
    colour: str
    pattern: str
    seed: int
    position: tuple[float, float, float]
    yaw: float
    mount: str
    scale: float = 1.0


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with square pixels and a square picture. fov: degrees, full angle."""

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    roll: float
    fov: float

    def axes(self) -> np.ndarray:
        """Rows: right, down, forward; float64 [3, 3], orthonormal."""
        forward = np.subtract(self.target, self.position)
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        c, s = np.cos(np.deg2rad(self.roll)), np.sin(np.deg2rad(self.roll))
        return np.stack([c * right + s * down, -s * right + c * down, forward])

    def project(self, point: tuple[float, float, float]) -> tuple[float, float, float]:
        """World point -> (u, v, depth): u, v in [-1, 1] inside the picture, v down; depth in metres."""
        x, y, z = self.axes() @ np.subtract(point, self.position)
        half = np.tan(np.deg2rad(self.fov / 2))
        return float(x / (z * half)), float(y / (z * half)), float(z)


@dataclass(frozen=True)
class Light:
    """A point light: position in metres, linear RGB strength (1 lights a white wall 2 m away fully)."""

    position: tuple[float, float, float]
    strength: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Everything that the renderer needs; ``size`` is width (x), depth (y) and height (z) of the room."""

    split: str
    index: int
    size: tuple[float, float, float]
    camera: Camera
    lights: tuple[Light, ...]
    ambient: float
    surfaces: tuple[Material, Material, Material]
    objects: tuple[Instance, ...]
    noise_seed: int

    @property
    def scene_id(self) -> str:
        return f"rooms-v{VERSION}-{self.split}-{self.index:06d}"

    def exchanged(self, first: str, second: str) -> Scene:
        """The same room with two objects in each other's place: the counterfactual scene.

        Objects of the same mount trade base points and mounts; otherwise their centres trade places.

        Raises:
            ValueError: a name is not in the scene exactly once.
        """
        for name in (first, second):
            if sum(o.name == name for o in self.objects) != 1:
                raise ValueError(f"{self.scene_id}: {name!r} is not in the scene exactly once")
        a = next(o for o in self.objects if o.name == first)
        b = next(o for o in self.objects if o.name == second)
        pa, pb = np.array(a.position), np.array(b.position)
        if (a.mount == "wall") != (b.mount == "wall"):
            ca, cb = _centre_offset(a), _centre_offset(b)
            pa, pb = pa + ca - cb, pb + cb - ca  # pa: the base that puts b's centre at a's
        yaws = (b.yaw, a.yaw) if a.mount == b.mount == "wall" else (a.yaw, b.yaw)
        moved = {
            first: replace(a, position=_tuple(pb), yaw=yaws[0], mount=b.mount),
            second: replace(b, position=_tuple(pa), yaw=yaws[1], mount=a.mount),
        }
        return replace(self, objects=tuple(moved.get(o.name, o) for o in self.objects))


def _tuple(v: np.ndarray) -> tuple[float, float, float]:
    return float(v[0]), float(v[1]), float(v[2])


def build(instance: Instance) -> Builder:
    """The instance's parts in its own frame (scale, turn and position not yet applied)."""
    rng = np.random.default_rng(instance.seed)

    def material(name: str, second: str, pattern: str) -> Material:
        jitter = rng.uniform(-0.05, 0.05, 3)
        colour = np.clip(np.array(PALETTE[name]) * rng.uniform(0.85, 1.12) + jitter * 0.5, 0.02, 1)
        return Material(
            _tuple(colour),
            PALETTE[second],
            pattern,
            float(rng.uniform(0.1, 0.22)),
            float(rng.uniform(0, 0.4)),
        )

    main = material(
        instance.colour, "white" if instance.colour != "white" else "grey", instance.pattern
    )
    accents = [c for c in KIND[instance.name].colours if c != instance.colour]
    builder = Builder(rng, main, material(str(rng.choice(accents)), "white", "plain"))
    KIND[instance.name].build(builder)
    return builder


def _centre_offset(instance: Instance) -> np.ndarray:
    corners = np.concatenate(build(instance).corners).reshape(-1, 3)
    centre = (corners.min(0) + corners.max(0)) / 2 * instance.scale
    return rotation("z", instance.yaw) @ centre


def generate(split: str, index: int) -> Scene:
    """The scene ``index`` of ``split``: the same arguments give the same scene.

    Raises:
        ValueError: unknown split or negative index.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; one of {', '.join(SPLITS)}")
    rng = np.random.default_rng([VERSION, SPLITS[split], index])
    size = (
        float(rng.uniform(3.4, 4.8)),
        float(rng.uniform(3.8, 5.6)),
        float(rng.uniform(2.4, 2.8)),
    )
    camera = Camera(
        position=(
            size[0] / 2 + rng.uniform(-0.8, 0.8),
            rng.uniform(0.25, 0.6),
            rng.uniform(1.0, 2.0),
        ),
        target=(size[0] / 2 + rng.uniform(-0.6, 0.6), 0.65 * size[1], rng.uniform(0.5, 1.1)),
        roll=float(rng.uniform(-3, 3)),
        fov=float(rng.uniform(52, 68)),
    )
    layout = _Layout(rng, size, camera)
    for mount, low, high in (
        ("furniture", 1, 3),
        ("standing", 0, 1),
        ("wall", 1, 2),
        ("small", 2, 4),
    ):
        kinds = [k for k in KINDS if k.mount == mount]
        count = int(rng.integers(low, high + 1))
        for k in rng.permutation(len(kinds))[:count]:
            layout.place(kinds[k])
    return Scene(
        split=split,
        index=index,
        size=size,
        camera=camera,
        lights=_lights(rng, size),
        ambient=float(rng.uniform(0.25, 0.42)),
        surfaces=(_surface(rng, "floor"), _surface(rng, "wall"), _surface(rng, "ceiling")),
        objects=tuple(layout.objects),
        noise_seed=int(rng.integers(2**31)),
    )


def _lights(rng: np.random.Generator, size: tuple[float, float, float]) -> tuple[Light, ...]:
    lights = []
    for _ in range(int(rng.integers(1, 3))):
        tint = np.array([1.0, rng.uniform(0.88, 1.0), rng.uniform(0.75, 1.0)]) * rng.uniform(
            0.75, 1.25
        )
        at = (
            rng.uniform(0.15, 0.85) * size[0],
            rng.uniform(0.05, 0.8) * size[1],
            size[2] - rng.uniform(0.1, 0.5),
        )
        lights.append(Light(_tuple(np.array(at)), _tuple(tint)))
    return tuple(
        replace(light, strength=_tuple(np.array(light.strength) / len(lights) ** 0.7))
        for light in lights
    )


def _surface(rng: np.random.Generator, part: str) -> Material:
    if part == "ceiling":
        return Material((0.85, 0.85, 0.83))
    base = np.array([0.75, 0.70, 0.62]) if part == "wall" else np.array([0.50, 0.40, 0.31])
    colour = np.clip(base + rng.uniform(-0.18, 0.18, 3), 0.1, 0.95)
    second = np.clip(colour * rng.uniform(0.75, 0.92), 0.05, 1)
    patterns = (
        ("plain", "striped", "speckled", "dotted")
        if part == "wall"
        else ("wood", "checkered", "speckled", "plain")
    )
    return Material(
        _tuple(colour), _tuple(second), str(rng.choice(patterns)), float(rng.uniform(0.3, 0.7))
    )


class _Layout:
    """Places objects one after the other; an object that finds no place after some tries is left out."""

    tries = 24

    def __init__(
        self, rng: np.random.Generator, size: tuple[float, float, float], camera: Camera
    ) -> None:
        self.rng, self.size, self.camera = rng, size, camera
        self.objects: list[Instance] = []
        self._discs: list[tuple[float, float, float]] = []  # on the floor: x, y, radius
        self._tops: list[list] = []  # free supports: instance, (height, half width, half depth)
        self._walls: list[tuple[float, float, float, float]] = []  # wall, along, z, radius

    def place(self, kind: Kind) -> None:
        rng = self.rng
        instance = Instance(
            name=kind.name,
            colour=str(rng.choice(kind.colours)),
            pattern=str(rng.choice(PATTERNS[:4], p=(0.55, 0.2, 0.15, 0.1)))
            if kind.mount != "wall"
            else "plain",
            seed=int(rng.integers(2**31)),
            position=(0.0, 0.0, 0.0),
            yaw=0.0,
            mount="floor",
            scale=float(
                rng.uniform(1.15, 1.5) if kind.mount == "small" else rng.uniform(0.9, 1.15)
            ),
        )
        builder = build(instance)
        corners = np.concatenate(builder.corners).reshape(-1, 3) * instance.scale
        if kind.mount == "wall":
            placed = self._on_wall(instance, corners)
        elif kind.mount == "small" and self._tops and rng.random() < 0.55:
            placed = self._on_top(instance)
        else:
            placed = self._on_floor(instance, corners)
        if placed is None:
            return
        self.objects.append(placed)
        if builder.top is not None:
            top = tuple(v * placed.scale for v in builder.top)
            self._tops.append([placed, top])

    def _visible(self, point: tuple[float, float, float], margin: float = 0.88) -> bool:
        u, v, depth = self.camera.project(point)
        return depth > 0.8 and abs(u) < margin and abs(v) < margin

    def _on_floor(self, instance: Instance, corners: np.ndarray) -> Instance | None:
        radius = float(np.abs(corners[:, :2]).max()) * 1.05
        height = float(corners[:, 2].max())
        near, far = 1.0 + radius, self.size[1] - 0.3 - radius
        for _ in range(self.tries if near < far else 0):
            depth = self.rng.uniform(near, far)
            x = self.camera.position[0] + self.rng.uniform(-0.6, 0.6) * depth
            y = self.camera.position[1] + depth
            if not radius < x < self.size[0] - radius or y > self.size[1] - radius:
                continue
            if any(np.hypot(x - cx, y - cy) < radius + r for cx, cy, r in self._discs):
                continue
            if not self._visible((x, y, min(height, 1.0) / 2)):
                continue
            self._discs.append((x, y, radius))
            facing = np.rad2deg(
                np.arctan2(x - self.camera.position[0], y - self.camera.position[1])
            )
            yaw = float(self.rng.uniform(-50, 50) - facing * 0.5)
            return replace(instance, position=(float(x), float(y), 0.0), yaw=yaw)
        return None

    def _on_top(self, instance: Instance) -> Instance | None:
        k = int(self.rng.integers(len(self._tops)))
        support, (height, half_w, half_d) = self._tops.pop(k)
        offset = np.array(
            [self.rng.uniform(-0.7, 0.7) * half_w, self.rng.uniform(-0.7, 0.7) * half_d, height]
        )
        if support.mount == "wall":
            offset[1] = -0.17 * support.scale
        at = rotation("z", support.yaw) @ offset + np.array(support.position)
        if not self._visible(_tuple(at), 0.92):
            return None
        return replace(
            instance, position=_tuple(at), yaw=float(self.rng.uniform(-60, 60)), mount="top"
        )

    def _on_wall(self, instance: Instance, corners: np.ndarray) -> Instance | None:
        half = float(np.abs(corners[:, [0, 2]]).max()) + 0.08
        low = max(0.7, half)
        for _ in range(self.tries):
            wall = int(self.rng.choice(3, p=(0.6, 0.2, 0.2)))  # back, left, right
            z = float(self.rng.uniform(low, max(low + 0.05, self.size[2] - half)))
            length = self.size[0] if wall == 0 else self.size[1]
            along = float(
                self.rng.uniform(half + 0.05 if wall == 0 else 0.45 * length, length - half - 0.05)
            )
            at = ((along, self.size[1], z), (0.0, along, z), (self.size[0], along, z))[wall]
            taken = any(
                w == wall and np.hypot(along - a, z - b) < half + r for w, a, b, r in self._walls
            )
            if taken or not self._visible(at, 0.85):
                continue
            self._walls.append((wall, along, z, half))
            return replace(instance, position=at, yaw=(0.0, 90.0, -90.0)[wall], mount="wall")
        return None
