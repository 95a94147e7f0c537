"""Batches for the small foundation models: captions that name objects, and dense targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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


def _phrase(view: View, colour: str, pattern: bool) -> _Phrase:
    words = f"{view.pattern if pattern else ''} {colour} {view.name}".strip()
    return _Phrase(f"{'an' if words[0] in 'aeiou' else 'a'} {words}", thing(view.name, colour))


class Caption(NamedTuple):
    """A caption, its foil, and the things that either names (the same one twice when it is one)."""

    text: str
    foil: str
    claims: tuple[int, int]
    foil_claims: tuple[int, int]


def write_captions(scene: SceneView, names: int, pairs: int, rng: np.random.Generator) -> list[Caption]:
    """Up to ``names`` captions of one object and ``pairs`` captions of two, objects and order drawn by ``rng``.

    No caption says where anything is. The foil of "a red sofa and a blue lamp" is "a blue sofa and a red lamp", given
    only where both kinds come in both colours, so that the words alone do not tell which is true; a caption without a
    foil has itself in its place, which the loss masks as it masks every caption that is true of the picture.
    """
    views = list(scene.named.values())
    captions = []
    for k in rng.permutation(len(views))[:names]:
        one = _phrase(views[k], views[k].colour, pattern=False)
        captions.append(Caption(one.text, one.text, (one.claim, one.claim), (one.claim, one.claim)))
    for _ in range(pairs if len(views) > 1 else 0):
        a, b = (views[k] for k in rng.permutation(len(views))[:2])
        with_pattern = [v.pattern != "plain" and rng.random() < 0.3 for v in (a, b)]
        first, second = _phrase(a, a.colour, with_pattern[0]), _phrase(b, b.colour, with_pattern[1])
        text, claims = f"{first.text} and {second.text}", (first.claim, second.claim)
        if a.colour == b.colour or b.colour not in KIND[a.name].colours or a.colour not in KIND[b.name].colours:
            captions.append(Caption(text, text, claims, claims))
            continue
        first, second = _phrase(a, b.colour, with_pattern[0]), _phrase(b, a.colour, with_pattern[1])
        captions.append(Caption(text, f"{first.text} and {second.text}", claims, (first.claim, second.claim)))
    return captions


class _Scenes(Dataset):
    """Items are whole batches: the index is the list of pictures together with the generator's seed."""

    def __init__(self, rooms: RoomsSet, names: int, pairs: int) -> None:
        self.rooms, self.names, self.pairs = rooms, names, pairs
        self.seen = torch.zeros(len(rooms.scenes), THINGS, dtype=torch.bool)
        for row, scene in enumerate(rooms.scenes):
            self.seen[row, [thing(v.name, v.colour) for v in scene.views]] = True

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
            for caption in write_captions(self.rooms.scenes[row], self.names, self.pairs, rng)
        ]
        return CaptionBatch(
            pixels=self.pixels(rows),
            image=torch.tensor([k for k, _ in written]),
            captions=[caption.text for _, caption in written],
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
        batch_images: pictures a batch.
        names, pairs: captions of one object and of two, a picture and batch; none of either gives depth and masks.
        seed: of order and captions.
    """

    def __init__(
        self,
        images: int = 24_000,
        val_images: int = 1_000,
        image_size: int = 96,
        batch_images: int = 128,
        names: int = 3,
        pairs: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.images, self.val_images, self.image_size = images, val_images, image_size
        self.batch_images, self.names, self.pairs, self.seed = batch_images, names, pairs, seed

    def _loader(self, split: str, count: int, shuffle: bool) -> DataLoader:
        scenes = _Scenes(load(split, count, self.image_size), self.names, self.pairs)
        return DataLoader(scenes, sampler=_Batches(count, self.batch_images, self.seed, shuffle), batch_size=None)

    def train_dataloader(self) -> DataLoader:
        return self._loader("pretrain", self.images, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader("val", self.val_images, shuffle=False)
