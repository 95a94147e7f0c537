"""Premises of the methods, measured on a student and a VFM before any training.

    position     (1)  R^2 of a linear read-out of a patch's row and column, from the patches that
                      enter each block, from the output, and from the student's joint space
    objects      (2)  R^2 of a linear read-out of an object's x, y and log depth from the embedding
                      of the image: one regression for each kind of object, pooled
    CLS          (3)  mass of the class token's attention on objects / their share of the area
    own object   (4)  mass of a patch's attention to other patches on its own object / its share
    text         (5)  cosine of a caption and the caption with the objects swapped
    recognition  (6)  zero-shot pairs, retrieval, and names of objects that are cut out

(1) and (2) are of ``ridge.py``, on images that the read-out has not seen. Attention is the mean
over heads, of patches that lie in the image and not in its padding; 1 is blind attention. A patch
shows the object that fills half of it. (5) and (6) are the student's.

Letters: B images, L blocks, T tokens, N patches in h rows and w columns, n objects, D joint width.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spatialbench.data.records import Record, RecordSet
from spatialbench.data.region_sets import Regions, RegionSet
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.dense import hits
from spatialbench.evaluation.patch_premises import (
    Found,
    PatchMeasures,
    Student,
    see_student,
    see_vfm,
)
from spatialbench.evaluation.prompts import caption_embeddings, class_embeddings
from spatialbench.evaluation.regions import batches, found_true, objects
from spatialbench.evaluation.ridge import FOLDS, Moments, r_squared
from spatialbench.models.timm_vfm import VFM
from spatialbench.models.towers import patch_grid
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

LEAST = 50
"""A kind of object has a regression of its own if it occurs alone in so many images."""
CUT_OUT = 200
"""The first images, whose objects are cut out and named."""
_BATCH, _TOKENS = 50, 4096  # images, and tokens, at a time


class Objects(NamedTuple):
    """Objects that are the only one of their kind in their image."""

    image: Tensor  # int64 [n]
    label: Tensor  # int64 [n]
    place: Tensor  # [n, 2 or 3]: x and y of the centre in [0, 1], and log depth in metres


def lone_objects(row: int, item: Regions, things: Tensor, depth: Tensor | None) -> Objects:
    """Return the lone objects of image ``row``, whose depth is float32 [S, S]."""
    alone = item.label.bincount(minlength=len(things))[item.label] == 1
    chosen = alone & things[item.label]
    boxes, masks = item.boxes[chosen], item.masks[chosen]
    place = (boxes[:, :2] + boxes[:, 2:]) / 2
    if depth is not None:
        mean = (masks * depth).sum((1, 2)) / masks.sum((1, 2))
        place = torch.cat([place, mean.log()[:, None]], 1)
    return Objects(torch.full((len(place),), row), item.label[chosen], place)


def embedding_readout(embeddings: Tensor, known: Objects, folds: Sequence[int]) -> Found | None:
    """(2) from embeddings [B, D]; None if no kind occurs ``LEAST`` times, in several scenes."""
    fold = torch.tensor(folds)[known.image]
    labels = int(known.label.max()) + 1 if len(known.label) else 0
    counts = torch.stack([known.label[fold == k].bincount(minlength=labels) for k in range(FOLDS)])
    enough = (counts.sum(0) >= LEAST) & (2 * counts.amax(0) <= counts.sum(0))
    kinds = enough.nonzero().flatten().tolist()
    if not kinds:
        return None

    def parts() -> Iterable[Moments]:
        for kind in kinds:
            moments = Moments(embeddings.shape[1], known.place.shape[1], embeddings.device)
            for each in range(FOLDS):
                own = (known.label == kind) & (fold == each)
                moments.add(embeddings[known.image[own]], known.place[own], each)
            yield moments

    names = ("x", "y", "log_depth")
    values = dict(zip(names, r_squared(parts()), strict=False))
    return {**values, "kinds": len(kinds), "objects": int(counts[:, kinds].sum())}


def relations(model: Student, embeddings: Tensor, records: Sequence[Record]) -> Found:
    """(5), and zero-shot accuracy of pairs in percent, by relation."""
    captions = [record.statement.caption for record in records]
    swapped = [record.statement.negated.caption for record in records]
    texts = caption_embeddings(model, [*captions, *swapped])
    own, other = texts.split(len(records))
    image = embeddings[torch.tensor([record.image for record in records])]
    margin = (image * (own - other)).sum(-1).cpu()
    right = 50 * (1 + margin.sign())
    cosine = (own * other).sum(-1).cpu()
    found: Found = {}
    for name in (*RELATIONS, "all"):
        chosen = torch.tensor([name in ("all", record.relation) for record in records])
        if count := int(chosen.sum()):
            numbers = {"text_cosine": cosine[chosen], "zero_shot": right[chosen]}
            means = {key: float(values.double().mean()) for key, values in numbers.items()}
            found[name] = {**means, "records": count}
    return found


def retrieval_rates(model: Student, embeddings: Tensor, source: RegionSet) -> Found:
    """Image and text R@1 in percent; nothing where the images have no captions."""
    captions = source.captions(model.image_size)
    if captions is None:
        return {}
    scores = (embeddings @ caption_embeddings(model, captions.captions).T).cpu()
    rates = found_true(scores, torch.from_numpy(captions.truth), 1)
    names = ("image_r1", "text_r1")
    return {name: 100 * float(hit.double().mean()) for name, hit in zip(names, rates, strict=True)}


def name_objects(
    model: Student, items: Sequence[Regions], source: RegionSet, things: Tensor
) -> Found:
    """Top-1 of cut-out objects against all class names, in percent, mean over classes."""
    if not any(things[item.label].any() for item in items):
        return {}
    texts = class_embeddings(model, source.classes, source.templates)
    embedded = torch.cat([part for part in objects(model, items, things) if part.numel()])
    label = torch.cat([item.label[things[item.label]] for item in items])
    right = hits(embedded @ texts.T, label.to(texts.device), 1).cpu()
    total = label.bincount(minlength=len(things))
    by_class = label[right].bincount(minlength=len(things)) / total
    return {"object_top1": 100 * float(by_class[total > 0].mean())}


def scene_folds(source: RegionSet) -> list[int]:
    """Fold of each image; images of one scene are in one fold."""
    numbers: dict[str, int] = {}
    scenes = (source.scene(row) for row in range(len(source)))
    return [numbers.setdefault(scene, len(numbers)) % FOLDS for scene in scenes]


@torch.no_grad()
def premises(
    source: RegionSet,
    records: RecordSet | None = None,
    model: Student | None = None,
    vfm: VFM | None = None,
) -> dict[str, Found]:
    """Measure a student, a VFM, or both, in one pass over the images.

    Args:
        source: images of the student's size.
        records: statements about the same images, for (5) and the pairs.
        model: in eval mode.
        vfm: on any device.

    Returns:
        ``student`` and ``vfm``, of those that are given. What the data or the model do not have is
        absent, and named in ``left_out``.

    Raises:
        SpatialbenchError: too few scenes, unusable regions, or a model that is not finite.
    """
    folds, things = scene_folds(source), torch.tensor(source.things)
    if len(set(folds)) < FOLDS:
        raise SpatialbenchError(f"{source.name}: there must be {FOLDS} scenes or more")
    measures = {"student": PatchMeasures(), "vfm": PatchMeasures()}
    embedded: list[Tensor] = []
    lone: list[Objects] = []
    first: list[Regions] = []
    with progress(f"premises on {source.name}", len(source), "images") as advance:
        for rows, items in batches(source, _images_at_once(model, vfm)):
            pixels, own = torch.stack([item.pixels for item in items]), [folds[row] for row in rows]
            if vfm is not None:
                measures["vfm"].add(see_vfm(vfm, pixels), items, things, own)
            if model is not None:
                seen, embeddings = see_student(model, pixels.to(model.device))
                measures["student"].add(seen, items, things, own)
                embedded.append(embeddings)
                lone += [
                    lone_objects(row, item, things, source.depth(row))
                    for row, item in zip(rows, items, strict=True)
                ]
                first += items[: max(0, CUT_OUT - len(first))]
            advance(len(rows))
    given = {"student": model, "vfm": vfm}
    found = {name: own.found() for name, own in measures.items() if given[name] is not None}
    if model is not None:
        images = torch.cat(embedded)
        known = Objects(*(torch.cat(parts) for parts in zip(*lone, strict=True)))
        student = found["student"]
        student["embedding"] = embedding_readout(images, known, folds)
        student["relations"] = relations(model, images, records.records) if records else {}
        student["recognition"] = retrieval_rates(model, images, source)
        student["recognition"] |= name_objects(model, first, source, things)
    for premises_of_one in found.values():
        premises_of_one["left_out"] = left_out(premises_of_one)
    return found


def _images_at_once(model: Student | None, vfm: VFM | None) -> int:
    tokens = 0 if vfm is None else vfm.token_shape[1]
    if model is not None:
        size = torch.empty(0, 3, model.image_size, model.image_size)
        h, w = patch_grid(model.student, size)
        tokens = max(tokens, h * w)
    return max(1, min(_BATCH, _TOKENS // tokens))


def left_out(found: Mapping[str, Any]) -> list[str]:
    """Say what could not be measured, and why."""
    shown = "own_area" in found
    reasons = {
        "attention on objects: none fills half of a patch": shown,
        "attention of the class token: the model has none": "cls_area" in found or not shown,
    }
    if "embedding" in found:
        place, text = found["embedding"], found["recognition"]
        needed = f"no kind of object is alone in {LEAST} images"
        reasons |= {
            f"place of objects: {needed}": place is not None,
            "depth of objects: the data have none": place is None or "log_depth" in place,
            "text and zero-shot pairs: the data have no statements": bool(found["relations"]),
            "retrieval: the data have no captions": "image_r1" in text,
            "names of objects: no image has an object": "object_top1" in text,
        }
    return [reason for reason, there in reasons.items() if not there]


def summary(found: Mapping[str, Any]) -> dict[str, float]:
    """One number of each measure, for bars: over blocks the least of (1), the mean of (3), (4)."""
    blocks = [line for line in found["blocks"] if line["block"] != "joint"]
    values = {key: float(np.min([line[key] for line in blocks])) for key in ("row", "column")}
    for key in ("cls_ratio", "own_ratio"):
        if ratios := [line[key] for line in blocks if key in line]:
            values[key] = float(np.mean(ratios))
    place = found.get("embedding") or {}
    values |= {key: place[key] for key in ("x", "y", "log_depth") if key in place}
    return values | found.get("recognition", {})


def below(found: Mapping[str, Found], bars: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Name the measures that are below their bars, or NaN; measures that are absent have none."""
    lines = []
    for name, own in found.items():
        values = summary(own)
        for measure, bar in bars.get(name, {}).items():
            if measure in values and not values[measure] >= bar:
                lines.append(f"{name}: {measure} {values[measure]:.3f}, below {bar:g}")
    return lines
