"""The object kinds: each is a function that adds parts to a builder, and a line in ``KINDS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from spatialbench.data.rooms.shapes import PALETTE, Builder, Material, rotation

METAL = Material((0.55, 0.56, 0.58), gloss=0.5)
DARK = Material((0.05, 0.05, 0.06), gloss=0.2)
PALE = Material((0.88, 0.87, 0.83))
LEAF = Material((0.10, 0.42, 0.12), (0.22, 0.60, 0.20), "speckled", 0.08)
EARTH = Material((0.20, 0.12, 0.07))
SCREEN = Material((0.03, 0.04, 0.07), (0.12, 0.20, 0.35), "striped", 0.35, gloss=0.6)
GLASS = Material((0.62, 0.80, 0.93), (0.80, 0.90, 0.97), "wood", 0.5, glow=0.5)


def _table(b: Builder) -> None:
    w, d, h = b.u(0.9, 1.4), b.u(0.7, 0.9), b.u(0.65, 0.8)
    b.legs(w, d, h - 0.06, b.u(0.05, 0.1))
    b.box(w, d, 0.06, 0, 0, h - 0.06)
    b.top = (h, w / 2, d / 2)


def _coffee_table(b: Builder) -> None:
    r, h = b.u(0.7, 1.0), b.u(0.35, 0.45)
    b.rod(r, 0.06, 0, 0, h - 0.06)
    b.rod(0.12, h - 0.06, 0, 0, 0, b.accent)
    b.rod(0.6 * r, 0.04, 0, 0, 0, b.accent)
    b.top = (h, r / 3, r / 3)


def _desk(b: Builder) -> None:
    w, d, h = b.u(1.1, 1.4), b.u(0.6, 0.7), b.u(0.7, 0.8)
    b.box(w, d, 0.05, 0, 0, h - 0.05)
    b.box(0.35, d, h - 0.05, w / 2 - 0.18, 0, 0, b.accent)
    for k in range(3):
        b.box(0.12, 0.03, 0.03, w / 2 - 0.18, -d / 2, 0.12 + k * 0.22, METAL)
    b.box(0.05, d, h - 0.05, -w / 2 + 0.03, 0, 0)
    b.top = (h, w / 2, d / 2)


def _bed(b: Builder) -> None:
    w, d, h = b.u(1.2, 1.6), b.u(1.6, 1.9), b.u(0.35, 0.5)
    b.box(w, d, 0.25, 0, 0, 0.05, b.accent)
    b.box(w * 0.97, d * 0.97, h - 0.3, 0, 0, 0.3)
    b.box(w, 0.08, h + 0.5, 0, d / 2, 0, b.accent)
    for s in (-1, 1):
        b.box(0.4 * w, 0.35, 0.13, s * 0.25 * w, d / 2 - 0.28, h, PALE)
    b.top = (h, w / 2, d / 3)


def _sofa(b: Builder) -> None:
    w, d, h = b.u(1.5, 1.9), b.u(0.75, 0.9), b.u(0.38, 0.45)
    b.box(w, d, h, 0, 0, 0.05)
    b.box(w, 0.22, h + 0.45, 0, d / 2 - 0.11, 0.05)
    for s in (-1, 1):
        b.box(0.2, d, h + 0.2, s * (w / 2 - 0.1), 0, 0.05)
        b.box(w / 2 - 0.22, d - 0.25, 0.1, s * (w / 4 - 0.05), -0.1, h + 0.05, b.accent)
    b.top = (h + 0.15, w / 3, d / 5)


def _armchair(b: Builder) -> None:
    w, d, h = b.u(0.75, 0.95), b.u(0.75, 0.85), b.u(0.38, 0.45)
    b.box(w, d, h, 0, 0, 0.06)
    b.box(w, 0.2, h + 0.5, 0, d / 2 - 0.1, 0.06)
    for s in (-1, 1):
        x = s * (w / 2 - 0.1)
        b.add("cylinder", (0.22, 0.22, d), (x, 0, h + 0.2), b.main, rotation("x", 90))
        b.box(0.18, d, h + 0.14, x, 0, 0.06, b.accent)
    b.top = (h + 0.06, w / 4, d / 5)


def _chair(b: Builder) -> None:
    w, h = b.u(0.42, 0.52), b.u(0.42, 0.5)
    b.legs(w, w, h, 0.05, b.accent)
    b.box(w, w, 0.06, 0, 0, h)
    for s in (-1, 1):
        b.box(0.05, 0.05, 0.5, s * (w / 2 - 0.03), w / 2 - 0.03, h, b.accent)
    b.box(w, 0.05, 0.26, 0, w / 2 - 0.03, h + 0.26)
    b.top = (h + 0.06, w / 4, w / 6)


def _stool(b: Builder) -> None:
    r, h = b.u(0.36, 0.46), b.u(0.5, 0.7)
    b.rod(r, 0.09, 0, 0, h - 0.09)
    for a in (0, 120, 240):
        x, y = 0.36 * r * np.cos(np.deg2rad(a)), 0.36 * r * np.sin(np.deg2rad(a))
        b.rod(0.05, h - 0.09, x, y, 0, b.accent)
    b.rod(0.8 * r, 0.03, 0, 0, 0.3 * h, b.accent)
    b.top = (h, r / 3, r / 3)


def _bench(b: Builder) -> None:
    w, d, h = b.u(1.1, 1.5), b.u(0.35, 0.45), b.u(0.4, 0.48)
    for k in (-1, 0, 1):
        b.box(w, d * 0.28, 0.06, 0, k * d * 0.34, h - 0.06)
    for s in (-1, 1):
        b.box(0.08, d, h - 0.06, s * (w / 2 - 0.12), 0, 0, b.accent)
    b.top = (h, w / 2, d / 3)


def _cabinet(b: Builder) -> None:
    w, d, h = b.u(0.8, 1.1), b.u(0.4, 0.5), b.u(0.85, 1.15)
    b.box(w, d, h, 0, 0, 0)
    for s in (-1, 1):
        b.box(w / 2 - 0.05, 0.03, h - 0.12, s * w / 4, -d / 2, 0.06, b.accent)
        b.rod(0.04, 0.2, s * 0.06, -d / 2 - 0.03, h / 2, METAL)
    b.top = (h, w / 2, d / 2)


def _dresser(b: Builder) -> None:
    w, d, h = b.u(0.9, 1.2), b.u(0.4, 0.5), b.u(0.7, 0.9)
    b.box(w, d, h, 0, 0, 0)
    rows = int(b.rng.integers(3, 5))
    for k in range(rows):
        z = 0.05 + k * (h - 0.08) / rows
        b.box(w - 0.1, 0.03, (h - 0.08) / rows - 0.05, 0, -d / 2, z, b.accent)
        for s in (-1, 1):
            knob = (s * w / 4, -d / 2 - 0.03, z + 0.4 * (h - 0.08) / rows)
            b.add("sphere", (0.06, 0.06, 0.06), knob, DARK)
    b.top = (h, w / 2, d / 2)


def _night_stand(b: Builder) -> None:
    w, h = b.u(0.45, 0.55), b.u(0.5, 0.62)
    b.legs(w, w, 0.18, 0.05, b.accent)
    b.box(w, w, h - 0.18, 0, 0, 0.18)
    b.box(w - 0.1, 0.03, 0.16, 0, -w / 2, h - 0.22, b.accent)
    b.add("sphere", (0.06, 0.06, 0.06), (0, -w / 2 - 0.03, h - 0.14), METAL)
    b.top = (h, w / 2, w / 2)


def _bookshelf(b: Builder) -> None:
    w, d, h = b.u(0.7, 1.0), 0.32, b.u(1.5, 1.9)
    b.box(w, 0.03, h, 0, d / 2, 0, b.accent)
    for s in (-1, 1):
        b.box(0.05, d, h, s * w / 2, 0, 0)
    levels = 4
    for k in range(levels + 1):
        b.box(w, d, 0.05, 0, 0, k * (h - 0.05) / levels)
    for k in range(levels):
        x = -w / 2 + 0.06
        while x < w / 2 - 0.2:
            t = b.u(0.05, 0.1)
            cover = replace(PALE, colour=PALETTE[str(b.rng.choice(list(PALETTE)))])
            height = b.u(0.55, 0.8) * h / levels
            b.box(t * 0.9, 0.2, height, x + t / 2, 0, k * h / levels + 0.05, cover)
            x += t


def _fridge(b: Builder) -> None:
    w, d, h = b.u(0.6, 0.75), 0.6, b.u(1.4, 1.75)
    b.box(w, d, h, 0, 0, 0)
    b.box(w, 0.02, 0.02, 0, -d / 2, 0.65 * h, DARK)
    for z, length in ((0.72 * h, 0.2), (0.4 * h, 0.3)):
        b.rod(0.04, length, -w / 2 + 0.08, -d / 2 - 0.04, z, METAL)


def _plant(b: Builder) -> None:
    r, h = b.u(0.28, 0.38), b.u(0.25, 0.38)
    b.add("frustum", (r, r, h), (0, 0, h / 2), b.main, flip=True)
    b.rod(0.5 * r, 0.02, 0, 0, h - 0.01, EARTH)
    for _ in range(int(b.rng.integers(6, 9))):
        turn = rotation("z", b.u(0, 360)) @ rotation("y", b.u(15, 60))
        length = b.u(0.4, 0.7)
        at = turn @ np.array([0, 0, length / 2]) + [0, 0, h]
        b.add("sphere", (0.16, 0.05, length), tuple(at), LEAF, turn)


def _floor_lamp(b: Builder) -> None:
    h = b.u(1.3, 1.7)
    b.rod(0.32, 0.04, 0, 0, 0, DARK)
    b.rod(0.04, h, 0, 0, 0, METAL)
    b.add("frustum", (0.45, 0.45, 0.35), (0, 0, h), replace(b.main, glow=0.35))


def _lamp(b: Builder) -> None:
    r, h = b.u(0.24, 0.32), b.u(0.16, 0.24)
    b.add("sphere", (0.7 * r, 0.7 * r, h), (0, 0, h / 2), b.accent)
    b.add("cone", (1.3 * r, 1.3 * r, 0.26), (0, 0, h + 0.13), replace(b.main, glow=0.35))


def _trash_can(b: Builder) -> None:
    r, h = b.u(0.3, 0.38), b.u(0.42, 0.58)
    b.add("frustum", (r, r, h), (0, 0, h / 2), b.main, flip=True)
    b.rod(1.04 * r, 0.06, 0, 0, h - 0.03, DARK)
    b.box(0.05 * r, r, 0.05, 0, 0, h + 0.03, METAL)


def _ball(b: Builder) -> None:
    r = b.u(0.28, 0.42)
    b.add("sphere", (r, r, r), (0, 0, r / 2), b.main, rotation("x", b.u(0, 90)))


def _vase(b: Builder) -> None:
    r, h = b.u(0.2, 0.28), b.u(0.32, 0.45)
    b.add("sphere", (r, r, 0.65 * h), (0, 0, 0.33 * h))
    b.add("frustum", (0.7 * r, 0.7 * r, 0.45 * h), (0, 0, 0.75 * h), b.main, flip=True)
    for k in range(3):
        turn = rotation("z", 120 * k + b.u(0, 60)) @ rotation("y", 22)
        stem, bloom = (tuple(turn @ np.array([0, 0, z]) + [0, 0, h]) for z in (0.15, 0.3))
        b.add("cylinder", (0.02, 0.02, 0.3), stem, LEAF, turn)
        b.add("sphere", (0.11, 0.11, 0.09), bloom, b.accent)


def _mug(b: Builder) -> None:
    r, h = b.u(0.2, 0.26), b.u(0.22, 0.3)
    b.rod(r, h, 0, 0, 0)
    b.rod(0.85 * r, 0.01, 0, 0, h, DARK)
    for z in (0.25 * h, 0.75 * h):
        b.box(0.14, 0.05, 0.05, 0.5 * r + 0.04, 0, z - 0.02)
    b.box(0.05, 0.05, 0.55 * h, 0.5 * r + 0.1, 0, 0.24 * h)


def _bottle(b: Builder) -> None:
    r, h = b.u(0.13, 0.17), b.u(0.3, 0.4)
    b.rod(r, h, 0, 0, 0)
    b.rod(1.03 * r, 0.3 * h, 0, 0, 0.3 * h, PALE)
    b.add("cone", (r, r, 0.5 * r), (0, 0, h + 0.25 * r))
    b.rod(0.4 * r, 0.14, 0, 0, h + 0.1 * r, b.accent)


def _books(b: Builder) -> None:
    z = 0.0
    for k in range(int(b.rng.integers(3, 6))):
        t = b.u(0.06, 0.1)
        colour = b.main.colour if k % 2 == 0 else b.accent.colour
        turn = rotation("z", b.u(-25, 25))
        b.add("box", (0.38, 0.28, t), (0, 0, z + t / 2), replace(PALE, colour=colour), turn)
        b.add("box", (0.36, 0.27, 0.6 * t), (0.0, -0.01, z + t / 2), PALE, turn)
        z += t


def _bowl(b: Builder) -> None:
    r, h = b.u(0.32, 0.42), b.u(0.14, 0.18)
    b.add("frustum", (r, r, h), (0, 0, h / 2), b.main, flip=True)
    for k in range(4):
        x, y = 0.2 * r * np.cos(k * 1.57), 0.2 * r * np.sin(k * 1.57)
        b.add("sphere", (0.13, 0.13, 0.13), (x, y, h + 0.02), b.accent)


def _box(b: Builder) -> None:
    w, d, h = b.u(0.35, 0.5), b.u(0.3, 0.4), b.u(0.28, 0.4)
    b.box(w, d, h, 0, 0, 0)
    b.box(0.08, d * 1.02, h * 1.01, 0, 0, 0, b.accent)
    b.box(w * 1.02, 0.08, h * 1.01, 0, 0, 0, b.accent)
    b.top = (h, w / 3, d / 3)


def _teddy_bear(b: Builder) -> None:
    s = b.u(0.85, 1.15)
    b.add("sphere", (0.3 * s, 0.26 * s, 0.32 * s), (0, 0, 0.17 * s))
    b.add("sphere", (0.25 * s, 0.24 * s, 0.24 * s), (0, 0, 0.42 * s))
    b.add("sphere", (0.12 * s, 0.1 * s, 0.1 * s), (0, -0.1 * s, 0.39 * s), PALE)
    for k in (-1, 1):
        b.add("sphere", (0.11 * s, 0.06 * s, 0.11 * s), (k * 0.1 * s, 0, 0.54 * s))
        arm = (k * 0.17 * s, -0.04 * s, 0.22 * s)
        b.add("sphere", (0.12 * s, 0.12 * s, 0.2 * s), arm, b.main, rotation("y", k * 35))
        b.add("sphere", (0.13 * s, 0.22 * s, 0.13 * s), (k * 0.1 * s, -0.14 * s, 0.07 * s))
        b.add("sphere", (0.035, 0.03, 0.035), (k * 0.05 * s, -0.115 * s, 0.46 * s), DARK)


def _laptop(b: Builder) -> None:
    w = b.u(0.42, 0.5)
    b.box(w, 0.3, 0.03, 0, 0, 0)
    b.box(w - 0.06, 0.16, 0.005, 0, 0.03, 0.03, DARK)
    tilt = rotation("x", -15)
    b.add("box", (w, 0.025, 0.32), (0, 0.19, 0.17), b.main, tilt)
    b.add("box", (w - 0.05, 0.026, 0.27), (0, 0.185, 0.17), replace(SCREEN, glow=0.5), tilt)


def _suitcase(b: Builder) -> None:
    w, d, h = b.u(0.42, 0.55), b.u(0.22, 0.28), b.u(0.5, 0.65)
    b.box(w, d, h, 0, 0, 0.06)
    for x in (-0.25 * w, 0.25 * w):
        b.box(0.05, d * 1.03, h * 1.01, x, 0, 0.06, b.accent)
        b.rod(0.06, 0.06, x, 0, 0, DARK)
        b.rod(0.025, 0.28, x * 0.6, 0, h + 0.06, METAL)
    b.box(0.35 * w, 0.04, 0.04, 0, 0, h + 0.33, DARK)


def _traffic_cone(b: Builder) -> None:
    r, h = b.u(0.3, 0.38), b.u(0.45, 0.6)
    b.box(r * 1.15, r * 1.15, 0.04, 0, 0, 0, DARK)
    b.add("cone", (r, r, h), (0, 0, 0.04 + h / 2))
    b.rod(0.56 * r, 0.1, 0, 0, 0.4 * h, PALE)


def _frame(b: Builder, w: float, h: float, thick: float, inside: Material, frame: Material) -> None:
    """Add a flat panel on a wall: its back at y = 0, its centre at the origin."""
    b.box(w, 0.04, h, 0, -0.02, -h / 2, frame)
    b.box(w - 2 * thick, 0.03, h - 2 * thick, 0, -0.045, -h / 2 + thick, inside)


def _picture(b: Builder) -> None:
    w, h = b.u(0.5, 0.9), b.u(0.45, 0.7)
    _frame(b, w, h, 0.06, b.accent, b.main)
    b.add("sphere", (0.35 * h, 0.02, 0.35 * h), (b.u(-0.1, 0.1) * w, -0.06, 0), b.main)


def _mirror(b: Builder) -> None:
    w, h = b.u(0.5, 0.65), b.u(0.8, 1.1)
    turn = rotation("x", 90)
    b.add("cylinder", (w, h, 0.05), (0, -0.03, 0), b.main, turn)
    glass = replace(GLASS, glow=0.15, gloss=0.8)
    b.add("cylinder", (0.82 * w, 0.86 * h, 0.06), (0, -0.035, 0), glass, turn)


def _clock(b: Builder) -> None:
    r = b.u(0.42, 0.55)
    turn = rotation("x", 90)
    b.add("cylinder", (r, r, 0.06), (0, -0.03, 0), b.main, turn)
    b.add("cylinder", (0.8 * r, 0.8 * r, 0.07), (0, -0.035, 0), PALE, turn)
    for angle, length in ((b.u(0, 360), 0.3), (b.u(0, 360), 0.22)):
        hand = rotation("y", angle)
        x, _, z = hand @ np.array([0, 0, 0.5 * length * r * 1.2])
        b.add("box", (0.035, 0.02, length * r * 1.2), (x, -0.08, z), DARK, hand)


def _window(b: Builder) -> None:
    w, h = b.u(0.8, 1.2), b.u(0.8, 1.1)
    _frame(b, w, h, 0.07, GLASS, b.main)
    b.box(0.06, 0.07, h, 0, -0.035, -h / 2)
    b.box(w, 0.07, 0.06, 0, -0.035, -0.03)
    b.box(w + 0.12, 0.14, 0.05, 0, -0.07, -h / 2 - 0.04)


def _television(b: Builder) -> None:
    w = b.u(0.9, 1.2)
    _frame(b, w, 0.6 * w, 0.03, replace(SCREEN, glow=0.3), DARK)
    b.box(0.2 * w, 0.05, 0.03, 0, -0.04, -0.3 * w + 0.0, b.main)


def _shelf(b: Builder) -> None:
    w = b.u(0.8, 1.1)
    b.box(w, 0.3, 0.06, 0, -0.15, -0.03)
    for s in (-1, 1):
        b.box(0.05, 0.24, 0.2, s * w / 3, -0.13, -0.23, b.accent)
    b.top = (0.03, w / 2, 0.1)


def _curtain(b: Builder) -> None:
    w, h = b.u(0.6, 0.9), b.u(1.1, 1.4)
    b.add("cylinder", (0.05, 0.05, w + 0.2), (0, -0.08, h / 2), METAL, rotation("y", 90))
    folds = 6
    for k in range(folds):
        x = (k + 0.5) * w / folds - w / 2
        b.add("cylinder", (w / folds * 1.1, 0.1, h), (x, -0.08, 0), b.main)


@dataclass(frozen=True)
class Kind:
    """An object kind.

    ``mount`` is ``furniture``, which may carry others, ``standing`` on the floor, ``small``, on the
    floor or on another object, or ``wall``.
    """

    name: str  # in captions
    build: Callable[[Builder], None]
    mount: str
    colours: tuple[str, ...]


_WOOD = ("brown", "white", "black", "grey", "orange")
_CLOTH = ("red", "blue", "green", "grey", "purple", "white", "pink")
_BRIGHT = ("red", "orange", "yellow", "green", "blue", "purple", "pink")

KINDS: tuple[Kind, ...] = (
    Kind("table", _table, "furniture", _WOOD),
    Kind("coffee table", _coffee_table, "furniture", _WOOD),
    Kind("desk", _desk, "furniture", _WOOD),
    Kind("bed", _bed, "furniture", _CLOTH),
    Kind("sofa", _sofa, "furniture", _CLOTH),
    Kind("armchair", _armchair, "furniture", _CLOTH),
    Kind("chair", _chair, "furniture", (*_WOOD, "red", "green")),
    Kind("stool", _stool, "furniture", (*_WOOD, "red", "blue")),
    Kind("bench", _bench, "furniture", _WOOD),
    Kind("cabinet", _cabinet, "furniture", (*_WOOD, "blue")),
    Kind("dresser", _dresser, "furniture", (*_WOOD, "green")),
    Kind("night stand", _night_stand, "furniture", _WOOD),
    Kind("bookshelf", _bookshelf, "standing", _WOOD),
    Kind("fridge", _fridge, "standing", ("white", "grey", "black", "red")),
    Kind("plant", _plant, "standing", ("brown", "white", "orange", "blue")),
    Kind("floor lamp", _floor_lamp, "standing", ("white", "yellow", "red", "blue")),
    Kind("trash can", _trash_can, "standing", ("grey", "green", "blue", "red")),
    Kind("suitcase", _suitcase, "standing", _BRIGHT),
    Kind("lamp", _lamp, "small", ("white", "yellow", "green", "purple", "orange")),
    Kind("ball", _ball, "small", _BRIGHT),
    Kind("vase", _vase, "small", ("blue", "white", "purple", "green", "pink")),
    Kind("mug", _mug, "small", (*_BRIGHT, "white")),
    Kind("bottle", _bottle, "small", ("green", "brown", "blue", "red")),
    Kind("book stack", _books, "small", ("red", "blue", "green", "brown")),
    Kind("bowl", _bowl, "small", ("white", "blue", "orange", "yellow")),
    Kind("box", _box, "small", ("brown", "orange", "yellow", "purple")),
    Kind("teddy bear", _teddy_bear, "small", ("brown", "pink", "grey", "yellow")),
    Kind("laptop", _laptop, "small", ("grey", "black", "white")),
    Kind("cone", _traffic_cone, "small", ("orange", "red", "yellow", "green")),
    Kind("picture", _picture, "wall", (*_WOOD, "yellow")),
    Kind("mirror", _mirror, "wall", ("brown", "yellow", "black", "white")),
    Kind("clock", _clock, "wall", ("black", "red", "brown", "blue")),
    Kind("window", _window, "wall", ("white", "brown", "green")),
    Kind("television", _television, "wall", ("black", "grey")),
    Kind("shelf", _shelf, "wall", _WOOD),
    Kind("curtain", _curtain, "wall", _CLOTH),
)

KIND: dict[str, Kind] = {kind.name: kind for kind in KINDS}
