"""The layout of a room, its objects and its camera, all drawn from (version, split, index).

World frame: x right, y away from the camera's wall, z up, metres; the floor is z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spatialbench.data.rooms.kinds import KIND, KINDS, Kind
from spatialbench.data.rooms.shapes import PALETTE, PATTERNS, Builder, Material, Vector, rotation

VERSION = 1
"""Raise it whenever the same (split, index) would give another image or another record."""

SPLITS: dict[str, int] = {"pretrain": 0, "train": 1, "val": 2, "test": 3}
"""The seed of each split; no two splits share a scene."""

_COUNTS = (("furniture", 1, 3), ("standing", 0, 1), ("wall", 1, 2), ("small", 2, 4))
"""Fewest and most objects of each mount in one room, in the order of placement."""
_SURFACES = {
    "wall": ((0.75, 0.70, 0.62), "plain", "striped", "speckled", "dotted"),
    "floor": ((0.50, 0.40, 0.31), "wood", "checkered", "speckled", "plain"),
}
"""Mean colour and possible patterns."""


@dataclass(frozen=True)
class Instance:
    """One object."""

    name: str
    colour: str
    pattern: str
    seed: int  # varies the shape
    position: Vector  # of the base, on walls of the back's centre, in metres
    yaw: float  # degrees about z; at 0 the front faces -y
    mount: str  # ``floor``, ``top`` (on another object) or ``wall``
    scale: float = 1.0


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with square pixels and a square image. ``fov``: full angle in degrees."""

    position: Vector
    target: Vector
    roll: float
    fov: float

    def axes(self) -> np.ndarray:
        """Return the orthonormal rows right, down and forward, float64 [3, 3]."""
        forward = np.subtract(self.target, self.position)
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        c, s = np.cos(np.deg2rad(self.roll)), np.sin(np.deg2rad(self.roll))
        return np.stack([c * right + s * down, -s * right + c * down, forward])

    def project(self, point: Vector) -> Vector:
        """Map a world point to (u, v, depth): u, v in [-1, 1] in the image, v down; metres."""
        x, y, z = self.axes() @ np.subtract(point, self.position)
        half = np.tan(np.deg2rad(self.fov / 2))
        return float(x / (z * half)), float(y / (z * half)), float(z)


@dataclass(frozen=True)
class Light:
    """A point light; linear RGB ``strength`` 1 fully lights a white wall 2 m away."""

    position: Vector
    strength: Vector


@dataclass(frozen=True)
class Scene:
    """Everything that the renderer needs; ``size``: the room's extent along x, y and z."""

    split: str
    index: int
    size: Vector
    camera: Camera
    lights: tuple[Light, ...]
    ambient: float
    surfaces: tuple[Material, Material, Material]
    objects: tuple[Instance, ...]
    noise_seed: int

    @property
    def scene_id(self) -> str:
        """Name of the scene, unique across versions and splits."""
        return f"rooms-v{VERSION}-{self.split}-{self.index:06d}"

    def swapped(self, first: str, second: str) -> Scene:
        """Return the same room with two objects in each other's place: the counterfactual scene.

        Objects of the same mount trade base points, others their centres; all trade mounts.

        Raises:
            ValueError: a name is not in the scene exactly once.
        """
        a, b = (self._only(name) for name in (first, second))
        pa, pb = np.array(a.position), np.array(b.position)
        if (a.mount == "wall") != (b.mount == "wall"):
            ca, cb = _centre_offset(a), _centre_offset(b)
            pa, pb = pa + ca - cb, pb + cb - ca  # pa: the base that puts b's centre at a's
        yaws = (b.yaw, a.yaw) if a.mount == b.mount == "wall" else (a.yaw, b.yaw)
        moved = {
            first: replace(a, position=_vector(pb), yaw=yaws[0], mount=b.mount),
            second: replace(b, position=_vector(pa), yaw=yaws[1], mount=a.mount),
        }
        return replace(self, objects=tuple(moved.get(o.name, o) for o in self.objects))

    def _only(self, name: str) -> Instance:
        matches = [o for o in self.objects if o.name == name]
        if len(matches) != 1:
            raise ValueError(f"{self.scene_id}: {name!r} is not in the scene exactly once")
        return matches[0]


def _vector(v: np.ndarray) -> Vector:
    return float(v[0]), float(v[1]), float(v[2])


def build(instance: Instance) -> Builder:
    """Return the instance's parts in its own frame, before scale, turn and position."""
    rng = np.random.default_rng(instance.seed)

    def material(name: str, second: str, pattern: str) -> Material:
        jitter = rng.uniform(-0.05, 0.05, 3)
        colour = np.clip(np.array(PALETTE[name]) * rng.uniform(0.85, 1.12) + jitter * 0.5, 0.02, 1)
        period, gloss = float(rng.uniform(0.1, 0.22)), float(rng.uniform(0, 0.4))
        return Material(_vector(colour), PALETTE[second], pattern, period, gloss)

    second = "white" if instance.colour != "white" else "grey"
    main = material(instance.colour, second, instance.pattern)
    accents = [c for c in KIND[instance.name].colours if c != instance.colour]
    builder = Builder(rng, main, material(str(rng.choice(accents)), "white", "plain"))
    KIND[instance.name].build(builder)
    return builder


def _centre_offset(instance: Instance) -> np.ndarray:
    corners = np.concatenate(build(instance).corners).reshape(-1, 3)
    centre = (corners.min(0) + corners.max(0)) / 2 * instance.scale
    return rotation("z", instance.yaw) @ centre


def generate(split: str, index: int) -> Scene:
    """Return the scene ``index`` of ``split``: the same arguments give the same scene.

    Raises:
        ValueError: unknown split or negative index.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; one of {', '.join(SPLITS)}")
    rng = np.random.default_rng([VERSION, SPLITS[split], index])
    u = rng.uniform
    w, d, h = float(u(3.4, 4.8)), float(u(3.8, 5.6)), float(u(2.4, 2.8))
    camera = Camera(
        position=(w / 2 + u(-0.8, 0.8), u(0.25, 0.6), u(1.0, 2.0)),
        target=(w / 2 + u(-0.6, 0.6), 0.65 * d, u(0.5, 1.1)),
        roll=float(u(-3, 3)),
        fov=float(u(52, 68)),
    )
    layout = _Layout(rng, (w, d, h), camera)
    for mount, low, high in _COUNTS:
        kinds = [kind for kind in KINDS if kind.mount == mount]
        count = int(rng.integers(low, high + 1))
        for k in rng.permutation(len(kinds))[:count]:
            layout.place(kinds[k])
    return Scene(
        split=split,
        index=index,
        size=(w, d, h),
        camera=camera,
        lights=_lights(rng, (w, d, h)),
        ambient=float(u(0.25, 0.42)),
        surfaces=(_surface(rng, "floor"), _surface(rng, "wall"), _surface(rng, "ceiling")),
        objects=tuple(layout.objects),
        noise_seed=int(rng.integers(2**31)),
    )


def _lights(rng: np.random.Generator, size: Vector) -> tuple[Light, ...]:
    u, count = rng.uniform, int(rng.integers(1, 3))
    lights = []
    for _ in range(count):
        tint = np.array([1.0, u(0.88, 1.0), u(0.75, 1.0)]) * u(0.75, 1.25)
        at = np.array([u(0.15, 0.85) * size[0], u(0.05, 0.8) * size[1], size[2] - u(0.1, 0.5)])
        lights.append(Light(_vector(at), _vector(tint / count**0.7)))
    return tuple(lights)


def _surface(rng: np.random.Generator, part: str) -> Material:
    if part == "ceiling":
        return Material((0.85, 0.85, 0.83))
    base, *patterns = _SURFACES[part]
    colour = np.clip(np.array(base) + rng.uniform(-0.18, 0.18, 3), 0.1, 0.95)
    second = np.clip(colour * rng.uniform(0.75, 0.92), 0.05, 1)
    pattern, period = str(rng.choice(patterns)), float(rng.uniform(0.3, 0.7))
    return Material(_vector(colour), _vector(second), pattern, period)


class _Layout:
    """Places objects one by one; an object without a place after some tries is left out."""

    tries = 24

    def __init__(self, rng: np.random.Generator, size: Vector, camera: Camera) -> None:
        self.rng, self.size, self.camera = rng, size, camera
        self.objects: list[Instance] = []
        self._discs: list[Vector] = []  # on the floor: x, y, radius
        self._tops: list[tuple[Instance, Vector]] = []  # free supports, ``Builder.top`` scaled
        self._walls: list[tuple[float, float, float, float]] = []  # wall, along, z, radius

    def place(self, kind: Kind) -> None:
        """Add an object of ``kind``, if there is a place for it."""
        rng, wall, small = self.rng, kind.mount == "wall", kind.mount == "small"
        instance = Instance(
            name=kind.name,
            colour=str(rng.choice(kind.colours)),
            pattern="plain" if wall else str(rng.choice(PATTERNS[:4], p=(0.55, 0.2, 0.15, 0.1))),
            seed=int(rng.integers(2**31)),
            position=(0.0, 0.0, 0.0),
            yaw=0.0,
            mount="floor",
            scale=float(rng.uniform(1.15, 1.5) if small else rng.uniform(0.9, 1.15)),
        )
        builder = build(instance)
        corners = np.concatenate(builder.corners).reshape(-1, 3) * instance.scale
        if wall:
            placed = self._on_wall(instance, corners)
        elif small and self._tops and rng.random() < 0.55:
            placed = self._on_top(instance)
        else:
            placed = self._on_floor(instance, corners)
        if placed is None:
            return
        self.objects.append(placed)
        if builder.top is not None:
            self._tops.append((placed, _vector(np.array(builder.top) * placed.scale)))

    def _visible(self, point: Vector, margin: float = 0.88) -> bool:
        u, v, depth = self.camera.project(point)
        return depth > 0.8 and abs(u) < margin and abs(v) < margin

    def _on_floor(self, instance: Instance, corners: np.ndarray) -> Instance | None:
        radius = float(np.abs(corners[:, :2]).max()) * 1.05
        height = float(corners[:, 2].max())
        near, far = 1.0 + radius, self.size[1] - 0.3 - radius
        camera = self.camera.position
        for _ in range(self.tries if near < far else 0):
            depth = self.rng.uniform(near, far)
            x, y = camera[0] + self.rng.uniform(-0.6, 0.6) * depth, camera[1] + depth
            if not radius < x < self.size[0] - radius or y > self.size[1] - radius:
                continue
            if any(np.hypot(x - cx, y - cy) < radius + r for cx, cy, r in self._discs):
                continue
            if not self._visible((x, y, min(height, 1.0) / 2)):
                continue
            self._discs.append((x, y, radius))
            facing = np.rad2deg(np.arctan2(x - camera[0], y - camera[1]))
            yaw = float(self.rng.uniform(-50, 50) - facing * 0.5)
            return replace(instance, position=(float(x), float(y), 0.0), yaw=yaw)
        return None

    def _on_top(self, instance: Instance) -> Instance | None:
        u = self.rng.uniform
        support, (height, half_w, half_d) = self._tops.pop(int(self.rng.integers(len(self._tops))))
        offset = np.array([u(-0.7, 0.7) * half_w, u(-0.7, 0.7) * half_d, height])
        if support.mount == "wall":
            offset[1] = -0.17 * support.scale
        at = _vector(rotation("z", support.yaw) @ offset + np.array(support.position))
        if not self._visible(at, 0.92):
            return None
        return replace(instance, position=at, yaw=float(u(-60, 60)), mount="top")

    def _on_wall(self, instance: Instance, corners: np.ndarray) -> Instance | None:
        half = float(np.abs(corners[:, [0, 2]]).max()) + 0.08
        low = max(0.7, half)
        for _ in range(self.tries):
            wall = int(self.rng.choice(3, p=(0.6, 0.2, 0.2)))  # back, left, right
            z = float(self.rng.uniform(low, max(low + 0.05, self.size[2] - half)))
            length = self.size[0] if wall == 0 else self.size[1]
            start = half + 0.05 if wall == 0 else 0.45 * length
            along = float(self.rng.uniform(start, length - half - 0.05))
            at = ((along, self.size[1], z), (0.0, along, z), (self.size[0], along, z))[wall]
            others = [rest for number, *rest in self._walls if number == wall]
            taken = any(np.hypot(along - a, z - b) < half + r for a, b, r in others)
            if taken or not self._visible(at, 0.85):
                continue
            self._walls.append((wall, along, z, half))
            return replace(instance, position=at, yaw=(0.0, 90.0, -90.0)[wall], mount="wall")
        return None
