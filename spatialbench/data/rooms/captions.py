"""Captions of rooms that name objects, their colours or not, and never how the objects stand to one another."""

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
COLOUR_ID = {colour: k for k, colour in enumerate(PALETTE)}
THINGS = len(KINDS) * (len(PALETTE) + 1)
"""(kind, colour) combinations, and kinds of any colour: what a caption's truth is decided by."""

TEMPLATES = (
    "a {} and a {}",
    "a photo of a {} and a {}.",
    "there is a {} and a {}.",
    "a {} with a {}",
    "the {} and the {}",
    "The {} is in the room with the {}.",
    "The {} is in a picture with the {}.",
)
"""Wordings for two objects; none says how they stand to one another. One object is always "a sofa": few distinct
captions, so that the text tower has little to do."""
FILLED = 0.5
"""Share of the captions of two objects that have words of ``FILLERS`` between the names instead, "The sofa is of there
the lamp.": names are then understood in sentences that were never read."""
FILLERS = ("is", "with", "in", "of", "there", "than", "and", "photo", "picture", "room")
PLAIN = 0.6
"""Share of the captions that leave the colours out, in the validation and where nothing else is said."""


def thing(name: str, colour: str | None) -> int:
    """Number of a kind in a colour, or in any colour (None), in [0, THINGS)."""
    return KIND_ID[name] * (len(PALETTE) + 1) + (
        len(PALETTE) if colour is None else COLOUR_ID[colour]
    )


class Caption(NamedTuple):
    """A caption, its foil, and the things that either names (the same one twice when it is one); ``twin`` is how many
    captions further on the one with the two objects in the other order stands."""

    text: str
    twin: int
    foil: str
    claims: tuple[int, int]
    foil_claims: tuple[int, int]


def write_captions(
    scene: SceneView, names: int, pairs: int, rng: np.random.Generator, plain: float = PLAIN
) -> list[Caption]:
    """Up to ``names`` captions of one object, then up to ``2 pairs`` captions of two, objects and wording by ``rng``.

    "a red sofa", "a sofa and a lamp", "The blue lamp is in the room with the red sofa.": with colours or without
    (a share ``plain``), and never one of the six relations. Two objects are named in both orders, one caption after
    the other in the same words: equation (4) of ``student.py`` has them scored alike.

    The foil of "a red sofa and a blue lamp" is "a blue sofa and a red lamp", given only where both kinds come in both
    colours, so that the words alone do not tell which is true; a caption without a foil has itself in its place, which
    the loss masks as it masks every caption that is true of the picture.
    """
    views = list(scene.named.values())
    captions = [
        _caption("a {}", (views[k],), 0, rng.random() < plain)
        for k in rng.permutation(len(views))[:names]
    ]
    for _ in range(pairs if len(views) > 1 else 0):
        first, second = (views[k] for k in rng.permutation(len(views))[:2])
        wording, bare = _wording(rng), rng.random() < plain
        captions += [
            _caption(wording, (first, second), 1, bare),
            _caption(wording, (second, first), -1, bare),
        ]
    return captions


def _wording(rng: np.random.Generator) -> str:
    if rng.random() < FILLED:
        return f"The {{}} {' '.join(rng.choice(FILLERS, int(rng.integers(1, 4))))} the {{}}."
    return TEMPLATES[int(rng.integers(len(TEMPLATES)))]


def _caption(wording: str, views: tuple[View, ...], twin: int, plain: bool) -> Caption:
    colours = tuple(None if plain else view.colour for view in views)

    def write(colours: tuple[str | None, ...]) -> tuple[str, tuple[int, int]]:
        parts = [
            f"{colour} {view.name}" if colour else view.name
            for view, colour in zip(views, colours, strict=True)
        ]
        claims = [thing(view.name, colour) for view, colour in zip(views, colours, strict=True)]
        return with_articles(wording.format(*parts)), (claims[0], claims[-1])

    text, claims = write(colours)
    swapped = colours[::-1]
    apart = swapped != colours and all(
        c in KIND[v.name].colours for v, c in zip(views, swapped, strict=True)
    )
    foil, foil_claims = write(swapped) if apart else (text, claims)
    return Caption(text, twin, foil, claims, foil_claims)


def seen_things(scenes: Sequence[SceneView]) -> Tensor:
    """What is in each picture, bool [M, THINGS]."""
    seen = torch.zeros(len(scenes), THINGS, dtype=torch.bool)
    for row, scene in enumerate(scenes):
        seen[
            row,
            [thing(view.name, colour) for view in scene.views for colour in (view.colour, None)],
        ] = True
    return seen


def true_of(seen: Tensor, claims: Tensor) -> Tensor:
    """Which caption is true of which picture.

    Args:
        seen: bool [B, THINGS]. claims: int64 [C, 2].

    Returns:
        bool [B, C].
    """
    return seen[:, claims[:, 0]] & seen[:, claims[:, 1]]
