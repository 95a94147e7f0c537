"""Batches for the small foundation models: captions that name objects, and dense targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spatialbench.data.batches import ResumablePlans, training_loader
from spatialbench.data.rooms import RoomsSet, load
from spatialbench.data.rooms.room_captions import PLAIN, seen_things, write_captions


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


class _Scenes(Dataset):
    """Items are whole batches: the index is the list of pictures together with the generator's seed."""

    def __init__(self, rooms: RoomsSet, names: int, pairs: int, plain: float) -> None:
        self.rooms, self.names, self.pairs, self.plain = rooms, names, pairs, plain
        self.seen = seen_things(rooms.scenes)

    def pixels(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self.rooms.images[rows]).permute(0, 3, 1, 2).contiguous()

    def whole(self, row: int) -> Tensor:
        """The picture ``row``, uint8 [3, S, S]."""
        return self.pixels(np.array([row]))[0]

    def __len__(self) -> int:
        """Pictures."""
        return len(self.rooms.scenes)

    def __getitem__(self, key: tuple[np.ndarray, int]) -> CaptionBatch | DenseBatch:
        rows, seed = key
        if self.names + self.pairs == 0:
            depth = torch.from_numpy(self.rooms.depth[rows].astype(np.float32))
            return DenseBatch(
                pixels=self.pixels(rows),
                depth=depth,
                masks=torch.from_numpy(self.rooms.masks[rows]),
            )
        rng = np.random.default_rng([seed, int(rows[0])])
        written = [
            (k, caption)
            for k, row in enumerate(rows)
            for caption in write_captions(
                self.rooms.scenes[row], self.names, self.pairs, rng, self.plain
            )
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


class _Batches(ResumablePlans):
    """Batches of a fixed size in an order drawn from (seed, epoch); without ``shuffle``, in order and with the rest."""

    def __init__(self, scenes: _Scenes, count: int, batch: int, seed: int, shuffle: bool) -> None:
        super().__init__(scenes, count, batch, seed)
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
        scenes = _Scenes(
            load(split, count, self.image_size),
            self.names,
            self.pairs,
            self.plain if shuffle else PLAIN,
        )
        return training_loader(_Batches(scenes, count, self.batch_images, self.seed, shuffle))

    def train_dataloader(self) -> DataLoader:
        return self._loader("pretrain", self.images, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader("val", self.val_images, shuffle=False)
