"""Batches for the small foundation models: captions that name objects, and dense targets."""

from collections.abc import Iterator
from typing import TypedDict

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spatialbench.data.batches import ResumablePlans, loader
from spatialbench.data.rooms import RoomsSet, load
from spatialbench.data.rooms.room_captions import PLAIN, seen_things, write_captions


class CaptionBatch(TypedDict):
    """Images with C captions and as many foils; claims are the things that a sentence names.

    pixels uint8 [B, 3, S, S]; image int64 [C], the image of each caption; twin int64 [C], the
    caption with its two objects in the other order, or itself; seen bool [B, THINGS]; claims and
    foil_claims int64 [C, 2], the same thing twice where a sentence names one.
    """

    pixels: Tensor
    image: Tensor
    captions: list[str]
    twin: Tensor
    foils: list[str]
    seen: Tensor
    claims: Tensor
    foil_claims: Tensor


class DenseBatch(TypedDict):
    """Images with dense targets.

    pixels uint8 [B, 3, S, S]; depth float32 [B, S, S] metres; masks uint8 [B, S, S] instance codes.
    """

    pixels: Tensor
    depth: Tensor
    masks: Tensor


class _Scenes(Dataset):
    """Items are whole batches: the index is the list of images together with a seed."""

    def __init__(self, rooms: RoomsSet, names: int, pairs: int, plain: float) -> None:
        self.rooms, self.names, self.pairs, self.plain = rooms, names, pairs, plain
        self.seen = seen_things(rooms.scenes)

    def pixels(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self.rooms.images[rows]).permute(0, 3, 1, 2).contiguous()

    def whole(self, row: int) -> Tensor:
        return self.pixels(np.array([row]))[0]

    def __len__(self) -> int:
        return len(self.rooms.scenes)

    def __getitem__(self, key: tuple[np.ndarray, int]) -> CaptionBatch | DenseBatch:
        rows, seed = key
        pixels = self.pixels(rows)
        if self.names + self.pairs == 0:
            depth = torch.from_numpy(self.rooms.depth[rows].astype(np.float32))
            masks = torch.from_numpy(self.rooms.masks[rows])
            return DenseBatch(pixels=pixels, depth=depth, masks=masks)
        rng = np.random.default_rng([seed, int(rows[0])])
        scenes = [self.rooms.scenes[row] for row in rows]
        written = [
            (k, caption)
            for k, scene in enumerate(scenes)
            for caption in write_captions(scene, self.names, self.pairs, rng, self.plain)
        ]
        return CaptionBatch(
            pixels=pixels,
            image=torch.tensor([k for k, _ in written]),
            captions=[caption.text for _, caption in written],
            twin=torch.tensor([c + caption.twin for c, (_, caption) in enumerate(written)]),
            foils=[caption.foil for _, caption in written],
            seen=self.seen[rows],
            claims=torch.tensor([caption.claims for _, caption in written]),
            foil_claims=torch.tensor([caption.foil_claims for _, caption in written]),
        )


class _Batches(ResumablePlans):
    """Batches of a fixed size in an order drawn from (seed, epoch), or unshuffled with the rest."""

    def __init__(self, scenes: _Scenes, batch: int, seed: int, shuffle: bool) -> None:
        super().__init__(scenes, batch, seed)
        self.shuffled = shuffle

    def __len__(self) -> int:
        return self.items // self.batch if self.shuffled else -(-self.items // self.batch)

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.items) if self.shuffled else np.arange(self.items)
        for k in range(len(self)):
            rows = order[k * self.batch : (k + 1) * self.batch]
            seed = int(rng.integers(2**31)) if self.shuffled else 0
            if k >= self.start:
                yield np.sort(rows), seed


class PretrainData(L.LightningDataModule):
    """Images of the rooms' ``pretrain`` split; validation on ``val``.

    Args:
        images: number of images to train on.
        val_images: number of images to validate on.
        image_size: pixels per side.
        batch_images: images per batch; validation captions are drawn per batch, so depend on it.
        names: objects named alone, per image and batch.
        pairs: couples named together (in both orders), per image and batch; with neither names nor
            pairs the batches are of depth and masks.
        plain: share of training captions without colours; the validation's is ``PLAIN``.
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
        rooms, plain = load(split, count, self.image_size), self.plain if shuffle else PLAIN
        scenes = _Scenes(rooms, self.names, self.pairs, plain)
        return loader(_Batches(scenes, self.batch_images, self.seed, shuffle))

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches of ``pretrain``."""
        return self._loader("pretrain", self.images, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Return the batches of ``val``."""
        return self._loader("val", self.val_images, shuffle=False)
