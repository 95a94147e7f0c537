"""Batches for the small foundation models: captions that name objects, and dense targets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, TypedDict

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from spatialbench.data.rooms import RoomsSet, load
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
    return KIND_ID[name] * (len(PALETTE) + 1) + (len(PALETTE) if colour is None else COLOUR_ID[colour])


class CaptionBatch(TypedDict):
    """pixels uint8 [B, 3, S, S]; captions and foils: C strings each, caption c was written for image ``image[c]``;
    seen bool [B, THINGS]; claims int64 [C, 2] and foil_claims int64 [C, 2]: the things that a caption names (the same
    one twice when it names one); twin int64 [C]: the caption with its two objects in the other order, or itself."""

    pixels: Tensor
    image: Tensor
    captions: list[str]
    twin: Tensor
    foils: list[str]
    seen: Tensor
    claims: Tensor
    foil_claims: Tensor


class DenseBatch(TypedDict):
    """pixels uint8 [B, 3, S, S]; depth float32 [B, S, S] metres; masks uint8 [B, S, S] instance codes."""

    pixels: Tensor
    depth: Tensor
    masks: Tensor


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
    captions = [_caption("a {}", (views[k],), 0, rng.random() < plain) for k in rng.permutation(len(views))[:names]]
    for _ in range(pairs if len(views) > 1 else 0):
        first, second = (views[k] for k in rng.permutation(len(views))[:2])
        wording, bare = _wording(rng), rng.random() < plain
        captions += [_caption(wording, (first, second), 1, bare), _caption(wording, (second, first), -1, bare)]
    return captions


def _wording(rng: np.random.Generator) -> str:
    if rng.random() < FILLED:
        return f"The {{}} {' '.join(rng.choice(FILLERS, int(rng.integers(1, 4))))} the {{}}."
    return TEMPLATES[int(rng.integers(len(TEMPLATES)))]


def _caption(wording: str, views: tuple[View, ...], twin: int, plain: bool) -> Caption:
    colours = tuple(None if plain else view.colour for view in views)

    def write(colours: tuple[str | None, ...]) -> tuple[str, tuple[int, int]]:
        parts = [f"{colour} {view.name}" if colour else view.name for view, colour in zip(views, colours, strict=True)]
        claims = [thing(view.name, colour) for view, colour in zip(views, colours, strict=True)]
        return re.sub(r"\ba (?=[aeiou])", "an ", wording.format(*parts)), (claims[0], claims[-1])

    text, claims = write(colours)
    swapped = colours[::-1]
    apart = swapped != colours and all(c in KIND[v.name].colours for v, c in zip(views, swapped, strict=True))
    foil, foil_claims = write(swapped) if apart else (text, claims)
    return Caption(text, twin, foil, claims, foil_claims)


class _Scenes(Dataset):
    """Items are whole batches: the index is the list of pictures together with the generator's seed."""

    def __init__(self, rooms: RoomsSet, names: int, pairs: int, plain: float) -> None:
        self.rooms, self.names, self.pairs, self.plain = rooms, names, pairs, plain
        self.seen = torch.zeros(len(rooms.scenes), THINGS, dtype=torch.bool)
        for row, scene in enumerate(rooms.scenes):
            self.seen[row, [thing(v.name, c) for v in scene.views for c in (v.colour, None)]] = True

    def pixels(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self.rooms.images[rows]).permute(0, 3, 1, 2).contiguous()

    def __getitem__(self, key: tuple[np.ndarray, int]) -> CaptionBatch | DenseBatch:
        rows, seed = key
        if self.names + self.pairs == 0:
            depth = torch.from_numpy(self.rooms.depth[rows].astype(np.float32))
            return DenseBatch(pixels=self.pixels(rows), depth=depth, masks=torch.from_numpy(self.rooms.masks[rows]))
        rng = np.random.default_rng([seed, int(rows[0])])
        written = [
            (k, caption)
            for k, row in enumerate(rows)
            for caption in write_captions(self.rooms.scenes[row], self.names, self.pairs, rng, self.plain)
        ]
        return CaptionBatch(
            pixels=self.pixels(rows),
            image=torch.tensor([k for k, _ in written]),
            captions=[caption.text for _, caption in written],
            twin=torch.tensor([c + caption.twin for c, (_, caption) in enumerate(written)]),
            foils=[caption.foil for _, caption in written],
            seen=self.seen[rows],
            claims=torch.tensor([caption.claims for _, caption in written]),
            foil_claims=torch.tensor([caption.foil_claims for _, caption in written]),
        )


class _Batches(Sampler):
    """Batches of a fixed size in an order drawn from (seed, epoch); without ``shuffle``, in order and with the rest."""

    def __init__(self, count: int, batch: int, seed: int, shuffle: bool) -> None:
        self.count, self.batch, self.seed, self.shuffle, self.epoch = count, batch, seed, shuffle, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.batch if self.shuffle else -(-self.count // self.batch)

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.count) if self.shuffle else np.arange(self.count)
        for k in range(len(self)):
            rows = order[k * self.batch : (k + 1) * self.batch]
            yield np.sort(rows), int(rng.integers(2**31)) if self.shuffle else 0


class PretrainData(L.LightningDataModule):
    """Pictures of the rooms' ``pretrain`` split; validation on ``val``.

    Args:
        images: pictures to train on.
        val_images: pictures to validate on.
        image_size: pixels a side.
        batch_images: pictures a batch; the captions of the validation are drawn a batch at a time, and differ with it.
        names, pairs: objects named alone and couples named together (in both orders), a picture and batch; none of
            either gives depth and masks.
        plain: share of the training's captions that leave the colours out; the validation's is ``PLAIN``.
        seed: of order and captions.
    """

    def __init__(
        self,
        images: int = 24_000,
        val_images: int = 1_000,
        image_size: int = 96,
        batch_images: int = 64,
        names: int = 8,
        pairs: int = 2,
        plain: float = PLAIN,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.images, self.val_images, self.image_size = images, val_images, image_size
        self.batch_images, self.names, self.pairs = batch_images, names, pairs
        self.plain, self.seed = plain, seed

    def _loader(self, split: str, count: int, shuffle: bool) -> DataLoader:
        scenes = _Scenes(load(split, count, self.image_size), self.names, self.pairs, self.plain if shuffle else PLAIN)
        return DataLoader(scenes, sampler=_Batches(count, self.batch_images, self.seed, shuffle), batch_size=None)

    def train_dataloader(self) -> DataLoader:
        return self._loader("pretrain", self.images, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader("val", self.val_images, shuffle=False)
