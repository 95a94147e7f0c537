"""The images of records as a region set: every boxed name is a class, every box its own mask."""

from collections import Counter

import numpy as np
import torch

from spatialbench.data.records import Box, RecordSet
from spatialbench.data.region_sets import Regions, RegionSet


class RecordRegions(RegionSet):
    """The first M = ``images`` of a record set; they were made square by squashing."""

    def __init__(self, records: RecordSet, images: int) -> None:
        kept = [record for record in records.records if record.image < images]
        pixels, fingerprint = records.images[:images], f"{records.fingerprint}-{images}"
        self.records = RecordSet(records.name, pixels, kept, fingerprint)
        self.name, self.size, self.fingerprint = records.name, pixels.shape[1], fingerprint
        self.templates, self.skipped = ("a photo of a {}.",), Counter()
        self._boxes: list[dict[str, Box]] = [{} for _ in pixels]  # in [0, 1]
        self._scenes = [f"image {row}" for row in range(len(pixels))]
        for record in kept:
            self._scenes[record.image] = record.scene_id or self._scenes[record.image]
            w, h = record.image_size
            for name, b in record.boxes.items():
                self._boxes[record.image][name] = Box(b.x / w, b.y / h, b.w / w, b.h / h)
        self.classes = tuple(sorted({name for boxes in self._boxes for name in boxes}))
        self.things = (True,) * len(self.classes)

    def __len__(self) -> int:
        return len(self.records.images)

    def __getitem__(self, row: int) -> Regions:
        named, size = self._boxes[row], self.size
        corners = [box.corners for box in named.values()]
        boxes = torch.tensor(corners, dtype=torch.float32).reshape(-1, 4).clamp(0, 1)
        masks = torch.zeros(len(boxes), size, size, dtype=torch.bool)
        pixels = (boxes * size).double().numpy()
        for mask, low, high in zip(masks, np.floor(pixels), np.ceil(pixels), strict=True):
            mask[int(low[1]) : int(high[3]), int(low[0]) : int(high[2])] = True
        return Regions(
            pixels=torch.from_numpy(np.array(self.records.images[row])).permute(2, 0, 1),
            extent=(1.0, 1.0),
            boxes=boxes,
            label=torch.tensor([self.classes.index(name) for name in named], dtype=torch.int64),
            masks=masks,
        )

    def scene(self, row: int) -> str:
        """Return the scene of an image, or its number where none is known."""
        return self._scenes[row]
