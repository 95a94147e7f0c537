"""Batches for the small foundation models: pictures with captions that name objects, and pictures with dense targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypedDict

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from spatialbench.data.rooms import RoomsSet, load
from spatialbench.data.rooms.facts import SceneView, View
from spatialbench.data.rooms.kinds import KINDS
from spatialbench.data.rooms.shapes import PALETTE

KIND_ID = {kind.name: k for k, kind in enumerate(KINDS)}
COLOUR_ID = {colour: k for k, colour in enumerate(PALETTE)}
THINGS = len(KINDS) * len(PALETTE)
"""(kind, colour) combinations: what a caption's truth is decided by."""


def thing(name: str, colour: str) -> int:
    """Number of a (kind, colour) combination in [0, THINGS)."""
    return KIND_ID[name] * len(PALETTE) + COLOUR_ID[colour]


class CaptionBatch(TypedDict):
    """pixels uint8 [B, 3, S, S]; captions and foils: C strings each, caption c was written for image ``image[c]``;
    seen bool [B, THINGS]; claims int64 [C, 2] and foil_claims int64 [C, 2]: the things that a caption names (the same
    one twice when it names one)."""

    pixels: Tensor
    image: Tensor
    captions: list[str]
    foils: list[str]
    seen: Tensor
    claims: Tensor
    foil_claims: Tensor


class DenseBatch(TypedDict):
    """pixels uint8 [B, 3, S, S]; depth float32 [B, S, S] metres; masks uint8 [B, S, S] instance codes."""

    pixels: Tensor
    depth: Tensor
    masks: Tensor


@dataclass(frozen=True)
class _Phrase:
    text: str
    claim: int


def _phrase(view: View, colour: str, rng: np.random.Generator) -> _Phrase:
    pattern = f"{view.pattern} " if view.pattern != "plain" and rng.random() < 0.3 else ""
    words = f"{pattern}{colour} {view.name}"
    article = "an" if words[0] in "aeiou" else "a"
    return _Phrase(f"{article} {words}", thing(view.name, colour))


def write_caption(scene: SceneView, rng: np.random.Generator) -> tuple[str, str, tuple[int, int], tuple[int, int]] | None:
    """A caption that names one or two objects with their colours in random order, and its foil, the colours exchanged.

    No caption says where anything is. A caption of one object, or of two of the same colour, has itself as foil; the
    loss masks it as it masks every other caption that is true of the picture.

    Returns:
        caption, foil, claims, foil claims; None when nothing in the scene can be named.
    """
    views = scene.named()
    if not views:
        return None
    count = min(len(views), 2 if rng.random() < 0.8 else 1)
    picked = [views[k] for k in rng.permutation(len(views))[:count]]
    colours = [view.colour for view in picked]
    parts = [_phrase(v, c, rng) for v, c in zip(picked, colours, strict=True)]
    foils = [_phrase(v, c, rng) for v, c in zip(picked, reversed(colours), strict=True)]
    claims = (parts[0].claim, parts[-1].claim)
    return (
        " and ".join(p.text for p in parts),
        " and ".join(p.text for p in foils),
        claims,
        (foils[0].claim, foils[-1].claim),
    )


class _Scenes(Dataset):
    """Items are whole batches: the index is the list of pictures together with the generator's seed."""

    def __init__(self, rooms: RoomsSet, captions: int) -> None:
        self.rooms, self.captions = rooms, captions
        self.seen = torch.zeros(len(rooms.scenes), THINGS, dtype=torch.bool)
        for row, scene in enumerate(rooms.scenes):
            self.seen[row, [thing(v.name, v.colour) for v in scene.views]] = True

    def pixels(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self.rooms.images[rows]).permute(0, 3, 1, 2).contiguous()

    def __getitem__(self, key: tuple[np.ndarray, int]) -> CaptionBatch | DenseBatch:
        rows, seed = key
        if self.captions == 0:
            depth = torch.from_numpy(self.rooms.depth[rows].astype(np.float32))
            return DenseBatch(pixels=self.pixels(rows), depth=depth, masks=torch.from_numpy(self.rooms.masks[rows]))
        rng = np.random.default_rng([seed, int(rows[0])])
        written = [
            (k, made)
            for k, row in enumerate(rows)
            for _ in range(self.captions)
            if (made := write_caption(self.rooms.scenes[row], rng)) is not None
        ]
        return CaptionBatch(
            pixels=self.pixels(rows),
            image=torch.tensor([k for k, _ in written]),
            captions=[made[0] for _, made in written],
            foils=[made[1] for _, made in written],
            seen=self.seen[rows],
            claims=torch.tensor([made[2] for _, made in written]),
            foil_claims=torch.tensor([made[3] for _, made in written]),
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
        batch_images: pictures a batch.
        captions: captions a picture and batch; 0 gives depth and masks instead.
        seed: of order and captions.
    """

    def __init__(
        self,
        images: int = 24_000,
        val_images: int = 1_000,
        image_size: int = 96,
        batch_images: int = 256,
        captions: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.images, self.val_images, self.image_size = images, val_images, image_size
        self.batch_images, self.captions, self.seed = batch_images, captions, seed

    def _loader(self, split: str, count: int, shuffle: bool) -> DataLoader:
        scenes = _Scenes(load(split, count, self.image_size), self.captions)
        return DataLoader(scenes, sampler=_Batches(count, self.batch_images, self.seed, shuffle), batch_size=None)

    def train_dataloader(self) -> DataLoader:
        return self._loader("pretrain", self.images, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader("val", self.val_images, shuffle=False)
