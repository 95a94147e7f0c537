"""What a model knows beside relations: region classification, dense quality, retrieval, on the pictures of one set.

One pass over the pictures gives a dense map each, and of every map

    boxes        (1)  argmax_k <f_i, T_k>, f_i the RoIAlign of box i to one vector, things only
    masks        (2)  argmax_k <m_i, T_k>, m_i the mean token of mask i, things and stuff apart
    same mask    (3)  area under the ROC curve of <t_a, t_b> for "a and b lie in one mask", a mean over pictures
    k-means      (4)  intersection over union of clusters and classes, over the tokens that lie on a region
    retrieval    (5)  rank of a caption's picture among all pictures, and of a true caption among all captions
    objects      (6)  argmax_k <e_i, T_k>, e_i the embedding of thing i alone, cut out with its surroundings

T_k is the mean over prompts of the text tower's embedding of class k; (6) is zero-shot classification as CLIP does it,
of the embedding rather than of the dense map. A model is three functions here.

Letters: B images, h w tokens of a map, D joint width, K classes, C captions, M pictures, N regions of one.

Source: (1), (2) wusize/CLIPSelf @ 1c7fe9c, src/training/zero_shot.py; the others: docs/r_sc_rla.md, "What is measured".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from spatialbench.data.boxes import crops, with_surroundings
from spatialbench.data.region_sets import CaptionSet, Regions, RegionSet, check_regions
from spatialbench.evaluation.dense import (
    STARTS,
    cluster_classes,
    hits,
    inside,
    mask_tokens,
    overlap,
    same_segment_area,
    token_segments,
)
from spatialbench.evaluation.measures import VERSION, Measures
from spatialbench.evaluation.prompts import TextEncoder, caption_embeddings, class_embeddings
from spatialbench.models.region_tokens import region_tokens
from spatialbench.utils.progress import progress

TOPS = (1, 5)
TOKENS = 128
"""So many tokens of a picture at most, drawn at random among those on a region, go into k-means."""
_BATCH, _CROPS = 16, 128
Parts = dict[str, tuple[np.ndarray, np.ndarray]]
"""Measure -> numerator and denominator, [M, G]."""


class Encoder(TextEncoder, Protocol):
    """What is measured; a ``spatialbench.methods.base.Method`` is one."""

    image_size: int

    @property
    def device(self) -> torch.device: ...

    def image(self, x: Tensor) -> Tensor:
        """uint8 [B, 3, s, s], s the ``image_size`` -> unit norm [B, D]."""

    def dense(self, x: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] -> unit norm [B, h, w, D]."""


@torch.no_grad()
def measure(model: Encoder, regions: RegionSet) -> Measures:
    """Everything above, picture by picture. Always in float32.

    Args:
        model: in eval mode.
        regions: at the size at which dense maps are to be judged.

    Raises:
        SpatialbenchError: a picture, box or mask that cannot be used.
    """
    with torch.autocast(model.device.type, enabled=False):
        parts = _dense_parts(model, regions)
        captions = regions.captions(model.image_size)
        if captions is not None:
            parts |= retrieval(model, captions)
    return Measures.of(
        [regions.scene(row) for row in range(len(regions))],
        parts,
        data_fingerprint(regions, captions),
    )


def data_fingerprint(regions: RegionSet, captions: CaptionSet | None) -> str:
    """Hash of pictures, regions, prompts and captions: rows that share it can be compared."""
    texts = [] if captions is None else list(captions.captions)
    whole = repr(
        (VERSION, regions.fingerprint, regions.size, regions.classes, regions.templates, texts)
    )
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


# ------------------------------------------------------------------------------------------------------- dense maps
def _dense_parts(model: Encoder, regions: RegionSet) -> Parts:
    """(1) to (4), and (6)."""
    count, classes = len(regions), len(regions.classes)
    texts = class_embeddings(model, regions.classes, regions.templates)
    things = torch.tensor(regions.things, device=texts.device)
    counts = {name: np.zeros((2, count, classes)) for name in _classified(regions)}
    area, kept = np.full(count, np.nan), []
    with progress(f"regions of {regions.name}", count, "images") as advance:
        for rows, batch in _batches(regions):
            maps = model.dense(torch.stack([item.pixels for item in batch]).to(model.device))
            objects = _objects(model, batch, things)
            for row, item, dense, alone in zip(rows, batch, maps, objects, strict=True):
                segment = token_segments(item.masks.to(dense.device), dense.shape[:2])
                visible = inside(item.extent, dense.shape[:2]).to(dense.device)
                area[row] = same_segment_area(dense[visible], segment[visible])
                _count(counts, row, _scores(item, dense, alone, texts, things), item.label, classes)
                on_region = segment > 0
                labels = item.label[segment[on_region].cpu() - 1]
                some = np.random.default_rng(row).permutation(len(labels))[:TOKENS]
                kept.append((dense[on_region][some].cpu(), labels[some]))
            advance(len(rows))
    parts: Parts = {name: (found[0], found[1]) for name, found in counts.items()}
    there = np.isfinite(area)
    parts["same_mask"] = np.where(there, area / 100, 0), there.astype(np.float64)
    parts["cluster"] = _clusters(kept, classes)
    return parts


def _classified(regions: RegionSet) -> list[str]:
    kinds = ["box", "mask", "object"] if any(regions.things) else []
    kinds += [] if all(regions.things) else ["stuff"]
    return [f"{kind}_top{top}" for kind in kinds for top in TOPS]


def _batches(regions: RegionSet) -> Iterable[tuple[range, list[Regions]]]:
    for start in range(0, len(regions), _BATCH):
        rows = range(start, min(start + _BATCH, len(regions)))
        batch = [regions[row] for row in rows]
        for row, item in zip(rows, batch, strict=True):
            check_regions(
                item, regions.size, len(regions.classes), f"picture {row} of {regions.name}"
            )
        yield rows, batch


def _objects(model: Encoder, batch: Sequence[Regions], things: Tensor) -> list[Tensor]:
    """e_i of (6), of the things of every picture: [n, D] each."""
    chosen = [things.cpu()[item.label] for item in batch]
    boxes = [
        with_surroundings(item.boxes[thing], item.extent)
        for item, thing in zip(batch, chosen, strict=True)
    ]
    counts = [len(part) for part in boxes]
    image = torch.arange(len(batch)).repeat_interleave(torch.tensor(counts))
    alone = crops(
        torch.stack([item.pixels for item in batch]), torch.cat(boxes), image, model.image_size
    )
    if not len(alone):
        return [things.new_zeros(0)] * len(batch)
    return list(
        torch.cat([model.image(part.to(model.device)) for part in alone.split(_CROPS)]).split(
            counts
        )
    )


def _scores(
    item: Regions, dense: Tensor, alone: Tensor, texts: Tensor, things: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Kind -> which regions of the picture it is about (bool [N]) and their scores [n, K]: (1), (2) and (6)."""
    if not len(item.label):
        return {}
    thing = things[item.label.to(things.device)]
    by_mask = mask_tokens(dense, item.masks.to(dense.device)) @ texts.T
    found = {"mask": (thing, by_mask[thing]), "stuff": (~thing, by_mask[~thing])}
    if thing.any():
        boxes = item.boxes.to(dense.device)[thing]
        image = torch.zeros(len(boxes), dtype=torch.int64, device=dense.device)
        found["box"] = thing, region_tokens(dense[None], boxes, image, 1)[:, 0] @ texts.T
        found["object"] = thing, alone @ texts.T
    return found


def _count(
    counts: dict[str, np.ndarray],
    row: int,
    scores: dict[str, tuple[Tensor, Tensor]],
    label: Tensor,
    classes: int,
) -> None:
    """Adds the hits and the regions of one picture by class."""
    for kind, (chosen, found) in scores.items():
        own = label.to(found.device)[chosen]
        for top in TOPS:
            if f"{kind}_top{top}" in counts:
                right = own[hits(found, own, top)]
                counts[f"{kind}_top{top}"][:, row] = [
                    np.bincount(part.cpu().numpy(), minlength=classes) for part in (right, own)
                ]


def _clusters(kept: Sequence[tuple[Tensor, Tensor]], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(4): k-means with as many clusters as classes, counted picture by picture and added up over its starts."""
    tokens, labels = (torch.cat(part) for part in zip(*kept, strict=True))
    above, below = np.zeros((len(kept), classes)), np.zeros((len(kept), classes))
    if len(tokens) < classes:
        return above, below
    ends = np.cumsum([len(own) for _, own in kept])[:-1]
    for start in range(STARTS):
        found = np.split(cluster_classes(tokens, labels, classes, start), ends)
        for row, (one, (_, own)) in enumerate(zip(found, kept, strict=True)):
            above[row], below[row] = np.add(
                (above[row], below[row]), overlap(one, own.numpy(), classes)
            )
    return above, below


# -------------------------------------------------------------------------------------------------------- retrieval
def retrieval(model: Encoder, captions: CaptionSet) -> Parts:
    """(5), picture by picture: captions of a picture that find a true picture, and whether it finds a true caption."""
    pixels = torch.from_numpy(np.array(captions.images)).permute(0, 3, 1, 2)
    images = torch.cat([model.image(part.to(model.device)) for part in pixels.split(256)])
    scores = (images @ caption_embeddings(model, captions.captions).T).cpu()  # [M, C]
    truth = torch.from_numpy(captions.truth)
    count, written = (
        len(images),
        np.bincount(captions.image, minlength=len(images)).astype(np.float64),
    )
    parts: Parts = {}
    for top in TOPS:
        pictures, sentences = found_true(scores, truth, top)
        parts[f"image_r{top}"] = (
            np.bincount(captions.image, pictures.double().numpy(), minlength=count),
            written,
        )
        parts[f"text_r{top}"] = sentences.double().numpy(), np.ones(count)
    return parts


def found_true(scores: Tensor, truth: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Whether what is true is among the first ``top``.

    Args:
        scores: [M, C]. truth: bool [M, C].

    Returns:
        bool [C]: a picture that the caption is true of, among all pictures; bool [M]: a caption that is true of the
        picture, among all captions.
    """
    first = [scores.topk(min(top, scores.shape[dim]), dim=dim).indices for dim in (0, 1)]
    return truth.gather(0, first[0]).any(0), truth.gather(1, first[1]).any(1)
