"""Captions of rooms that name objects, with or without colours, but state no relation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spatialbench.data.relations import with_articles
from spatialbench.data.rooms.facts import SceneView, View
from spatialbench.data.rooms.kinds import KIND, KINDS
from spatialbench.data.rooms.shapes import PALETTE

KIND_ID = {kind.name: k for k, kind in enumerate(KINDS)}
COLOUR_ID = {colour: k for k, colour in enumerate((*PALETTE, None))}  # None: any colour
THINGS = len(KINDS) * len(COLOUR_ID)
"""(kind, colour) combinations, and kinds of any colour: they decide whether a caption is true."""

TEMPLATES = (
    "a {} and a {}",
    "a photo of a {} and a {}.",
    "there is a {} and a {}.",
    "a {} with a {}",
    "the {} and the {}",
    "The {} is in the room with the {}.",
    "The {} is in a picture with the {}.",
)
"""Wordings for two objects; none states a relation. One object is always "a sofa": few distinct
captions, so that the text tower has little to do."""
FILLED = 0.5
"""Share of the captions of two objects with words of ``FILLERS`` between the names: "The sofa is of
there the lamp." The text tower thus understands names in sentences that it has never read."""
FILLERS = ("is", "with", "in", "of", "there", "than", "and", "photo", "picture", "room")
PLAIN = 0.6
"""Share of the captions without colours, in the validation and by default."""


def thing(name: str, colour: str | None) -> int:
    """Return the number of a kind in a colour, or in any colour (None), in [0, THINGS)."""
    return KIND_ID[name] * len(COLOUR_ID) + COLOUR_ID[colour]


class Caption(NamedTuple):
    """A caption, its foil, and the things that either names (the same one twice if it is one).

    ``twin`` is the offset of the caption with the two objects in the other order.
    """

    text: str
    twin: int
    foil: str
    claims: tuple[int, int]
    foil_claims: tuple[int, int]


def write_captions(
    scene: SceneView, names: int, pairs: int, rng: np.random.Generator, plain: float = PLAIN
) -> list[Caption]:
    """Write up to ``names`` captions of one object, then up to ``2 pairs`` captions of two.

    ``rng`` draws objects and wording; a share ``plain`` has no colours. Two objects are named in
    both orders, one caption after the other in the same words, for (4) of ``student.py``.

    The foil of "a red sofa and a blue lamp" is "a blue sofa and a red lamp", given only if both
    kinds come in both colours, so that the words alone do not tell which is true. A caption without
    a foil is its own, which the loss masks.
    """
    views = list(scene.named.values())
    captions = [
        _caption("a {}", (views[k],), 0, rng.random() < plain)
        for k in rng.permutation(len(views))[:names]
    ]
    for _ in range(pairs if len(views) > 1 else 0):
        first, second = (views[k] for k in rng.permutation(len(views))[:2])
        wording, bare = _wording(rng), rng.random() < plain
        captions.append(_caption(wording, (first, second), 1, bare))
        captions.append(_caption(wording, (second, first), -1, bare))
    return captions


def _wording(rng: np.random.Generator) -> str:
    if rng.random() < FILLED:
        return f"The {{}} {' '.join(rng.choice(FILLERS, int(rng.integers(1, 4))))} the {{}}."
    return TEMPLATES[int(rng.integers(len(TEMPLATES)))]


def _caption(wording: str, views: tuple[View, ...], twin: int, plain: bool) -> Caption:
    names = [view.name for view in views]
    colours = [None if plain else view.colour for view in views]

    def write(colours: Sequence[str | None]) -> tuple[str, tuple[int, int]]:
        named = list(zip(names, colours, strict=True))
        parts = [f"{colour} {name}" if colour else name for name, colour in named]
        claims = [thing(name, colour) for name, colour in named]
        return with_articles(wording.format(*parts)), (claims[0], claims[-1])

    swapped = colours[::-1]
    if not all(c in KIND[name].colours for name, c in zip(names, swapped, strict=True)):
        swapped = colours  # the caption is its own foil
    text, claims = write(colours)
    foil, foil_claims = write(swapped)
    return Caption(text, twin, foil, claims, foil_claims)


def seen_things(scenes: Sequence[SceneView]) -> Tensor:
    """Return the things in each image, bool [M, THINGS]."""
    seen = torch.zeros(len(scenes), THINGS, dtype=torch.bool)
    for row, scene in enumerate(scenes):
        for view in scene.views:
            seen[row, [thing(view.name, view.colour), thing(view.name, None)]] = True
    return seen


def true_of(seen: Tensor, claims: Tensor) -> Tensor:
    """Return which claim [C, 2] is true of which image, bool [B, THINGS] -> bool [B, C]."""
    return seen[:, claims[:, 0]] & seen[:, claims[:, 1]]
