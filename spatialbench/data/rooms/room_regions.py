"""The rooms as a region set: every object large enough to be named, with its exact box and mask."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import torch
from torch import Tensor

from spatialbench.data.region_sets import CaptionSet, Regions, RegionSet
from spatialbench.data.rooms.facts import MIN_AREA
from spatialbench.data.rooms.kinds import KINDS
from spatialbench.data.rooms.room_captions import (
    KIND_ID,
    Caption,
    seen_things,
    true_of,
    write_captions,
)
from spatialbench.data.rooms.scene import VERSION
from spatialbench.data.rooms.store import load

CAPTIONS_SEED = 20250
TOO_SMALL = f"smaller than {100 * MIN_AREA:g} % of the image"


class RoomsRegions(RegionSet):
    """The first M = ``images`` of a split at S = ``size`` pixels; the scenes do not depend on S.

    Raises:
        SpatialbenchError: unknown split, or the cache cannot be written.
    """

    def __init__(self, split: str, images: int, size: int) -> None:
        self.rooms = load(split, images, size)
        self.name, self.size, self.split = f"rooms/{split}", size, split
        self.classes = tuple(kind.name for kind in KINDS)
        self.things = (True,) * len(KINDS)
        self.templates = ("a {}",)
        defining = f"rooms-v{VERSION}-{split}-{images}-{size}-{MIN_AREA}-{self.classes}"
        self.fingerprint = hashlib.sha256(defining.encode()).hexdigest()[:16]
        small = sum(len(scene.views) - len(scene.large) for scene in self.rooms.scenes)
        self.skipped = Counter({TOO_SMALL: small})

    def __len__(self) -> int:
        return len(self.rooms.scenes)

    def __getitem__(self, row: int) -> Regions:
        views = self.rooms.scenes[row].large
        boxes = [view.box.corners for view in views]
        codes = torch.tensor([view.code for view in views], dtype=torch.uint8)
        return Regions(
            pixels=torch.from_numpy(self.rooms.images[row].transpose(2, 0, 1).copy()),
            extent=(1.0, 1.0),
            boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) / self.size,
            label=torch.tensor([KIND_ID[view.name] for view in views], dtype=torch.int64),
            masks=torch.from_numpy(self.rooms.masks[row].copy())[None] == codes[:, None, None],
        )

    def scene(self, row: int) -> str:
        """Return the scene of an image; each image has its own."""
        return self.rooms.scenes[row].scene_id

    def depth(self, row: int) -> Tensor:
        """Return the exact depth of an image, float32 [S, S], in metres."""
        return torch.from_numpy(self.rooms.depth[row].astype(np.float32))

    def captions(self, size: int) -> CaptionSet:
        """Return captions such as "a red sofa" and "a red sofa and a blue lamp" of every image."""
        rooms = load(self.split, len(self), size)
        captions: list[Caption] = []
        rows: list[int] = []
        for row, scene in enumerate(rooms.scenes):
            rng = np.random.default_rng([CAPTIONS_SEED, row])
            written = write_captions(scene, 1, 1, rng, plain=0.0)
            captions += [caption for caption in written if caption.twin >= 0]  # one order of two
            rows += [row] * (len(captions) - len(rows))
        claims = torch.tensor([caption.claims for caption in captions]).reshape(-1, 2)
        return CaptionSet(
            images=rooms.images,
            captions=[caption.text for caption in captions],
            image=np.array(rows, dtype=np.int64),
            truth=true_of(seen_things(rooms.scenes), claims).numpy(),
        )
