"""Region classification, dense quality and retrieval on the images of one set.

One pass over the images gives one dense map each. From every map

    boxes        (1)  argmax_k <f_i, T_k>, f_i the RoIAlign of box i to one vector, things only
    masks        (2)  argmax_k <m_i, T_k>, m_i the mean token of mask i, things and stuff apart
    same mask    (3)  area under the ROC curve of <t_a, t_b> for "a and b lie in one mask"; mean
    k-means      (4)  intersection over union of clusters and classes, over the tokens on a region
    retrieval    (5)  rank of a caption's image among all, and of a true caption among all captions
    objects      (6)  argmax_k <e_i, T_k>, e_i the embedding of thing i cut out with surroundings

T_k is the mean text embedding of class k over prompts. (6) is CLIP's zero-shot classification, of
the embedding rather than of the dense map.

Letters: h w tokens of a map, D joint width, K classes, C captions, M images, N regions of an image.

Source: (1), (2) wusize/CLIPSelf @ 1c7fe9c, src/training/zero_shot.py; the others:
docs/r_sc_rla.md, "What is measured".
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from spatialbench.data.boxes import crops, with_surroundings
from spatialbench.data.region_sets import CaptionSet, Regions, RegionSet, check_regions
from spatialbench.data.selection_sets import fingerprint
from spatialbench.evaluation import dense as quality
from spatialbench.evaluation.base import Evaluation, Model
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.prompts import caption_embeddings, class_embeddings
from spatialbench.models.region_tokens import region_tokens
from spatialbench.utils.progress import progress

TOPS = (1, 5)
TOKENS = 128
"""Largest number of tokens of an image that go into k-means, drawn among those on a region."""
_BATCH, _CROPS = 16, 128
Parts = dict[str, tuple[np.ndarray, np.ndarray]]
"""Measure -> numerator and denominator, [M, G]."""


class RegionEvaluation(Evaluation):
    """The measures of this module; ``source``: the size at which dense maps are judged, too."""

    name = "regions"
    title = "Regions, dense quality, retrieval"
    explanation = """\
In percent, more is better. *Boxes*: accuracy of the RoIAlign of the dense map at the true box
against the class names, mean over classes; *Thing masks*, *Stuff masks*: the same by pooling the
dense map over the true mask. *Same-mask AUC*: area under the ROC curve of the cosine of two tokens
for lying in one mask; *k-means mIoU*: clusters of tokens matched to classes by the Hungarian
method. *Objects*: zero-shot classification, the embedding of an object cut out with its
surroundings against the class names; rows made before it was measured have a dash. *R@k*: retrieval
of images by captions (*Image*) and of captions by images (*Text*), a hit among the first k."""
    columns = {  # noqa: RUF012 - declared as a ClassVar by the base class
        "box_top1": "Boxes top-1",
        "box_top5": "Boxes top-5",
        "mask_top1": "Thing masks top-1",
        "mask_top5": "Thing masks top-5",
        "stuff_top1": "Stuff masks top-1",
        "stuff_top5": "Stuff masks top-5",
        "same_mask": "Same-mask AUC",
        "cluster": "k-means mIoU",
        "object_top1": "Objects top-1",
        "object_top5": "Objects top-5",
        "image_r1": "Image R@1",
        "image_r5": "Image R@5",
        "text_r1": "Text R@1",
        "text_r5": "Text R@5",
    }

    def __init__(self, source: RegionSet) -> None:
        self.source = source

    @torch.no_grad()
    def run(self, model: Model) -> Evidence:
        """Evaluate image by image; see :meth:`Evaluation.run`."""
        regions = self.source
        with torch.autocast(model.device.type, enabled=False):
            parts = _dense_parts(model, regions)
            captions = regions.captions(model.image_size)
            parts |= {} if captions is None else retrieval(model, captions)
        scenes = [regions.scene(row) for row in range(len(regions))]
        ordered = {name: parts[name] for name in self.columns if name in parts}
        return Evidence.of(scenes, ordered, data_fingerprint(regions, captions))


def data_fingerprint(regions: RegionSet, captions: CaptionSet | None) -> str:
    """Hash images, regions, prompts and captions."""
    texts = [] if captions is None else list(captions.captions)
    prompts = regions.classes, regions.templates
    return fingerprint(RegionEvaluation.version, regions.fingerprint, regions.size, *prompts, texts)


def _dense_parts(model: Model, regions: RegionSet) -> Parts:
    """(1) to (4), and (6)."""
    count, classes = len(regions), len(regions.classes)
    texts = class_embeddings(model, regions.classes, regions.templates)
    things = torch.tensor(regions.things, device=texts.device)
    kinds = ("box", "mask", "stuff", "object")
    counts = {(kind, top): np.zeros((2, count, classes)) for kind in kinds for top in TOPS}
    area, kept = np.full(count, np.nan), []
    with progress(f"regions of {regions.name}", count, "images") as advance:
        for rows, batch in batches(regions):
            maps = model.dense(torch.stack([item.pixels for item in batch]).to(model.device))
            cut_out = objects(model, batch, things)
            for row, item, dense, alone in zip(rows, batch, maps, cut_out, strict=True):
                segment = quality.token_segments(item.masks.to(dense.device), dense.shape[:2])
                visible = quality.inside(item.extent, dense.shape[:2]).to(dense.device)
                area[row] = quality.same_segment_area(dense[visible], segment[visible])
                _count(counts, row, _scores(item, dense, alone, texts, things), item.label)
                on_region = segment > 0
                labels = item.label[segment[on_region].cpu() - 1]
                drawn = np.random.default_rng(row).permutation(len(labels))[:TOKENS]
                kept.append((dense[on_region][drawn].cpu(), labels[drawn]))
            advance(len(rows))
    parts: Parts = {f"{kind}_top{top}": (*total,) for (kind, top), total in counts.items()}
    known = np.isfinite(area)
    parts["same_mask"] = np.where(known, area / 100, 0), known.astype(np.float64)
    parts["cluster"] = _clusters(kept, classes)
    return parts


def batches(regions: RegionSet, size: int = _BATCH) -> Iterable[tuple[range, list[Regions]]]:
    """Yield rows and checked regions, ``size`` images at a time."""
    for start in range(0, len(regions), size):
        rows = range(start, min(start + size, len(regions)))
        batch = [regions[row] for row in rows]
        for row, item in zip(rows, batch, strict=True):
            where = f"image {row} of {regions.name}"
            check_regions(item, regions.size, len(regions.classes), where)
        yield rows, batch


def objects(model: Model, batch: Sequence[Regions], things: Tensor) -> list[Tensor]:
    """Embed the things of every image, cut out with their surroundings: e_i of (6), [n, D] each."""
    boxes = [with_surroundings(item.boxes[things.cpu()[item.label]], item.extent) for item in batch]
    counts = [len(part) for part in boxes]
    image = torch.arange(len(batch)).repeat_interleave(torch.tensor(counts))
    pixels = torch.stack([item.pixels for item in batch])
    alone = crops(pixels, torch.cat(boxes), image, model.image_size)
    if not len(alone):
        return [things.new_zeros(0)] * len(batch)
    embedded = [model.image(part.to(model.device)) for part in alone.split(_CROPS)]
    return list(torch.cat(embedded).split(counts))


def _scores(
    item: Regions, dense: Tensor, alone: Tensor, texts: Tensor, things: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Kind -> the regions that it is about, bool [N], and their scores [n, K]: (1), (2), (6)."""
    if not len(item.label):
        return {}
    thing = things[item.label.to(things.device)]
    by_mask = quality.mask_tokens(dense, item.masks.to(dense.device)) @ texts.T
    scores = {"mask": (thing, by_mask[thing]), "stuff": (~thing, by_mask[~thing])}
    if thing.any():
        boxes = item.boxes.to(dense.device)[thing]
        image = torch.zeros(len(boxes), dtype=torch.int64, device=dense.device)
        scores["box"] = thing, region_tokens(dense[None], boxes, image, 1)[:, 0] @ texts.T
        scores["object"] = thing, alone @ texts.T
    return scores


def _count(
    counts: dict[tuple[str, int], np.ndarray],
    row: int,
    scores: dict[str, tuple[Tensor, Tensor]],
    label: Tensor,
) -> None:
    """Add the hits and the regions of one image by class."""
    for kind, (chosen, own_scores) in scores.items():
        own = label.to(own_scores.device)[chosen]
        for top in TOPS:
            right, total = own[quality.hits(own_scores, own, top)], counts[kind, top]
            for part, classes in enumerate((right, own)):
                total[part, row] = np.bincount(classes.cpu().numpy(), minlength=total.shape[2])


def _clusters(kept: Sequence[tuple[Tensor, Tensor]], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(4): one cluster for each class, counted by image and summed over the starts of k-means."""
    tokens, labels = (torch.cat(part) for part in zip(*kept, strict=True))
    above, below = np.zeros((2, len(kept), classes))
    if len(tokens) < classes:
        return above, below
    ends = np.cumsum([len(own) for _, own in kept])[:-1]
    for start in range(quality.STARTS):
        guesses = np.split(quality.cluster_classes(tokens, labels, classes, start), ends)
        for row, (guess, (_, own)) in enumerate(zip(guesses, kept, strict=True)):
            both, either = quality.overlap(guess, own.numpy(), classes)
            above[row] += both
            below[row] += either
    return above, below


def retrieval(model: Model, captions: CaptionSet) -> Parts:
    """(5) by image: its captions that find a true image, and whether it finds a true caption."""
    pixels = torch.from_numpy(np.array(captions.images)).permute(0, 3, 1, 2)
    images = torch.cat([model.image(part.to(model.device)) for part in pixels.split(256)])
    scores = (images @ caption_embeddings(model, captions.captions).T).cpu()  # [M, C]
    truth, count = torch.from_numpy(captions.truth), len(images)
    written = np.bincount(captions.image, minlength=count).astype(np.float64)
    parts: Parts = {}
    for top in TOPS:
        by_caption, by_image = found_true(scores, truth, top)
        hit = np.bincount(captions.image, by_caption.double().numpy(), minlength=count)
        parts[f"image_r{top}"] = hit, written
        parts[f"text_r{top}"] = by_image.double().numpy(), np.ones(count)
    return parts


def found_true(scores: Tensor, truth: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Return whether a true (bool [M, C]) match is among the ``top`` best of scores [M, C].

    bool [C]: a true image among all images; bool [M]: a true caption among all captions.
    """
    first = [scores.topk(min(top, scores.shape[dim]), dim=dim).indices for dim in (0, 1)]
    return truth.gather(0, first[0]).any(0), truth.gather(1, first[1]).any(1)
