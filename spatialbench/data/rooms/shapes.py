"""Primitives, materials and the builder of the object kinds. Lengths in metres, z up."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import trimesh

PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (0.78, 0.10, 0.10),
    "orange": (0.92, 0.48, 0.08),
    "yellow": (0.93, 0.82, 0.15),
    "green": (0.13, 0.55, 0.18),
    "blue": (0.12, 0.25, 0.75),
    "purple": (0.48, 0.16, 0.60),
    "pink": (0.93, 0.50, 0.65),
    "brown": (0.42, 0.25, 0.12),
    "white": (0.92, 0.92, 0.90),
    "grey": (0.45, 0.46, 0.48),
    "black": (0.07, 0.07, 0.08),
}
"""Named colours, linear RGB in [0, 1]; an object's own colour is near one of them."""

PATTERNS = ("plain", "striped", "checkered", "dotted", "wood", "speckled")
"""Surface patterns; the renderer stores their indices."""

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """A surface: two linear RGB colours and the pattern that mixes them, its period in metres."""

    colour: Vector
    second: Vector = (1.0, 1.0, 1.0)
    pattern: str = "plain"
    period: float = 0.12
    gloss: float = 0.0
    glow: float = 0.0


Finish = Material | None
"""A part's material; None: the object's main one."""


@dataclass(frozen=True)
class Primitive:
    """Triangles of a unit shape: corners and corner normals, both float32 [F, 3, 3]."""

    corners: np.ndarray
    normals: np.ndarray


@cache
def primitive(name: str) -> Primitive:
    """Return an upright box, cylinder, cone, frustum or sphere of unit size, centred at 0."""
    if name == "box":
        mesh = trimesh.creation.box()
    elif name in ("cylinder", "frustum"):
        mesh = trimesh.creation.cylinder(radius=0.5, height=1.0, sections=16)
    elif name == "cone":
        mesh = trimesh.creation.cone(radius=0.5, height=1.0, sections=16)
        mesh.apply_translation([0, 0, -0.5])
    else:
        assert name == "sphere", name
        mesh = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    corners = np.array(mesh.triangles, dtype=np.float64)
    flat = np.asarray(mesh.face_normals)
    normals = np.repeat(flat[:, None], 3, axis=1)
    if name == "sphere":
        normals = corners / np.linalg.norm(corners, axis=-1, keepdims=True)
    elif name != "box":
        side = np.abs(flat[:, 2]) < 0.9
        radial = corners * [1.0, 1.0, 0.0]
        length = np.linalg.norm(radial, axis=-1, keepdims=True)
        radial = np.where(length > 1e-6, radial / np.maximum(length, 1e-6), normals)
        normals = np.where(side[:, None, None], radial, normals)
    if name == "frustum":  # wide below, 60 % above
        corners[..., :2] *= np.where(corners[..., 2:] > 0, 0.6, 1.0)
    return Primitive(corners.astype(np.float32), normals.astype(np.float32))


def rotation(axis: str, degrees: float) -> np.ndarray:
    """Return the right-handed rotation about a coordinate axis, float64 [3, 3]."""
    a = np.deg2rad(degrees)
    c, s = np.cos(a), np.sin(a)
    i = "xyz".index(axis)
    matrix = np.eye(3)
    j, k = (i + 1) % 3, (i + 2) % 3
    matrix[j, j] = matrix[k, k] = c
    matrix[j, k], matrix[k, j] = -s, s
    return matrix


@dataclass
class Builder:
    """Collects the parts of one object in its own frame: z = 0 is the base, -y is the front."""

    rng: np.random.Generator
    main: Material
    accent: Material
    corners: list[np.ndarray] = field(default_factory=list)
    normals: list[np.ndarray] = field(default_factory=list)
    local: list[np.ndarray] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)
    top: Vector | None = None  # height, half width and half depth of a surface for others

    def u(self, low: float, high: float) -> float:
        """Draw a number from a uniform distribution."""
        return float(self.rng.uniform(low, high))

    def add(
        self,
        shape: str,
        size: Vector,
        at: Vector,
        material: Finish = None,
        turn: np.ndarray | None = None,
        flip: bool = False,
    ) -> None:
        """Add a primitive of ``size`` centred at ``at``, upside down or turned about its centre."""
        unit = primitive(shape)
        scale = np.asarray(size, dtype=np.float64) * ((1, 1, -1) if flip else (1, 1, 1))
        local = unit.corners * scale
        normals = unit.normals / scale
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        corners = local if turn is None else local @ turn.T
        self.corners.append(corners + np.asarray(at))
        self.normals.append(normals if turn is None else normals @ turn.T)
        self.local.append(local)
        self.materials.append(material or self.main)

    def box(
        self, w: float, d: float, h: float, x: float, y: float, z: float, material: Finish = None
    ) -> None:
        """Add a box of width, depth and height whose base is centred at (x, y, z)."""
        self.add("box", (w, d, h), (x, y, z + h / 2), material)

    def rod(
        self, diameter: float, h: float, x: float, y: float, z: float, material: Finish = None
    ) -> None:
        """Add an upright cylinder whose base is centred at (x, y, z)."""
        self.add("cylinder", (diameter, diameter, h), (x, y, z + h / 2), material)

    def legs(self, w: float, d: float, h: float, thick: float, material: Finish = None) -> None:
        """Add four legs at the corners of a w x d rectangle."""
        for sx in (-1, 1):
            for sy in (-1, 1):
                self.box(thick, thick, h, sx * (w - thick) / 2, sy * (d - thick) / 2, 0, material)
