r"""``spatialbench contexts``: a dense map averaged over contexts, without any training, and how good it is.

A token is coloured by everything else in the picture. Encoded in N crops (contexts) that cover its place, and averaged,
what is its own remains:

.. math:: \bar f_u = \mathrm{norm}\Big( \frac{1}{|C_u|} \sum_{c \in C_u} f_c(u) \Big), \quad
          C_u = \{c \le N : u \in b_c\}                                                                      (1)

u is the centre of a cell of the global grid, b_c the box of context c, and f_c(u) the dense map of the crop, scaled to
the student's own size, read bilinearly at the place that u has in it.

Letters: N contexts, S pixels a side, s the student's own, h w the global grid, D width.

Source: figure 3 of Qiu et al., "Refining CLIP's Spatial Awareness", ICLR 2025. The figure gives no sizes and no number
of crops; those here are ours.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench import provenance
from spatialbench.backbones.towers import patch_size
from spatialbench.data.cache import progress
from spatialbench.data.region_sets import RegionSet
from spatialbench.data.regions import random_boxes
from spatialbench.errors import SpatialbenchError, write_atomic
from spatialbench.evaluation.dense import cluster_overlap, inside, same_segment_area, token_segments

if TYPE_CHECKING:
    from spatialbench.experiment import Resolved
    from spatialbench.method import Method

Dense = Callable[[Tensor], Tensor]
"""uint8 [B, 3, s, s] -> [B, h', w', D], unit norm: ``Method.dense``."""

COUNTS = (1, 2, 4, 8, 16, 32)
AREA = (0.25, 1.0)
"""Share of the picture that a context covers."""
_AT_ONCE = 16  # crops


# ------------------------------------------------------------------------------------------------- the average
def context_boxes(seed: int, picture: int, count: int, extent: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """The contexts of a picture: float32 [count, 4], x0 y0 x1 y1 in [0, 1].

    The first is the whole square, the others are drawn one after the other: those of N are the first N of any more.

    Args:
        seed, picture: decide the draw.
        extent: of the picture in the square; contexts after the first keep to it.
    """
    rng = np.random.default_rng([seed, picture])
    drawn = [random_boxes(rng, 1, AREA) * torch.tensor([*extent, *extent]) for _ in range(count - 1)]
    return torch.cat([torch.tensor([[0.0, 0.0, 1.0, 1.0]]), *drawn])


def context_average(dense: Dense, pixels: Tensor, boxes: Tensor, size: int, grid: tuple[int, int]) -> Tensor:
    """Equation (1): the dense map of a picture, averaged over the contexts ``boxes``.

    Args:
        dense: encodes crops.
        pixels: uint8 [3, S, S].
        boxes: [N, 4], x0 y0 x1 y1 in [0, 1]; taken to whole pixels.
        size: s, pixels a side that ``dense`` is given.
        grid: h, w.

    Returns:
        float32 [h, w, D], unit norm. A place that no context covers has the token of the whole picture.
    """
    return context_averages(dense, pixels, boxes, size, grid, (len(boxes),))[0]


def context_averages(
    dense: Dense, pixels: Tensor, boxes: Tensor, size: int, grid: tuple[int, int], counts: Sequence[int]
) -> list[Tensor]:
    """``context_average`` of the first n boxes for every n of ``counts`` (rising), each crop encoded once."""
    found: list[Tensor] = []
    total, hits = torch.zeros(1), torch.zeros(grid)
    for start in range(0, max(counts), _AT_ONCE):
        tokens, covered = _contexts(dense, pixels, boxes[start : min(start + _AT_ONCE, max(counts))], size, grid)
        for number, (part, mask) in enumerate(zip(tokens, covered, strict=True), start + 1):
            total, hits = total + part * mask[..., None], hits + mask
            if number in counts:
                average = total / hits.clamp(min=1)[..., None]
                if not hits.all():
                    whole = _contexts(dense, pixels, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), size, grid)[0][0]
                    average = torch.where(hits[..., None] > 0, average, whole)
                found.append(F.normalize(average, dim=-1))
    return found


def _contexts(dense: Dense, pixels: Tensor, boxes: Tensor, size: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """f_c(u) of some contexts, float32 [n, h, w, D], and whether u lies in the box, bool [n, h, w]; on the CPU."""
    corners = _pixel_corners(boxes, pixels.shape[-1])
    crops = torch.cat([_scaled(pixels[None, :, y0:y1, x0:x1], size) for x0, y0, x1, y1 in corners])
    maps = dense(crops).float().cpu().permute(0, 3, 1, 2)  # [n, D, h', w']
    x0, y0, x1, y1 = (torch.tensor(corners).T / pixels.shape[-1])[:, :, None]  # [n, 1] each
    y, x = ((torch.arange(count) + 0.5) / count for count in grid)
    across, down = (x - x0) / (x1 - x0), (y - y0) / (y1 - y0)  # of the box: [n, w] and [n, h]
    places = torch.stack(
        [across[:, None].expand(-1, grid[0], -1), down[:, :, None].expand(-1, -1, grid[1])], dim=-1
    )  # [n, h, w, 2]
    read = F.grid_sample(maps, 2 * places - 1, mode="bilinear", padding_mode="border", align_corners=False)
    return read.permute(0, 2, 3, 1), ((places >= 0) & (places < 1)).all(-1)


def _pixel_corners(boxes: Tensor, side: int) -> list[list[int]]:
    """x0 y0 x1 y1 of boxes [N, 4] in whole pixels, at least one each way."""
    corners = (boxes.double() * side).round().long().clamp(0, side)
    corners[:, :2] = corners[:, :2].clamp(max=side - 1)
    corners[:, 2:] = torch.maximum(corners[:, 2:], corners[:, :2] + 1)
    return corners.tolist()


def _scaled(crop: Tensor, size: int) -> Tensor:
    """uint8 [1, 3, y, x] -> uint8 [1, 3, size, size]; pixel for pixel where the size is right."""
    if tuple(crop.shape[-2:]) == (size, size):
        return crop
    scaled = F.interpolate(crop.float(), size=(size, size), mode="bicubic", antialias=True, align_corners=False)
    return scaled.round().clamp(0, 255).to(torch.uint8)


# ------------------------------------------------------------------------------------------------- the measures
def measure_contexts(
    dense: Dense,
    regions: RegionSet,
    counts: Sequence[int] = COUNTS,
    *,
    pictures: int,
    native_size: int,
    grid: tuple[int, int],
    seed: int = 0,
) -> dict[int, dict[str, float]]:
    r"""How good the average over N contexts is, for every N.

    ``same_mask``: mean over pictures of

    .. math:: 100\, P( \langle \bar f_u, \bar f_v \rangle > \langle \bar f_{u'}, \bar f_{v'} \rangle \mid
              seg(u) = seg(v), seg(u') \ne seg(v') )

    (ties count half) over the tokens of the picture; the segment of a token is the region that fills at least half of
    its cell, and what is left is one segment more. A picture with one segment has no value. ``cluster``: mean over
    classes of 100 |A n B| / |A u B|, A the tokens of all pictures in regions of the class and B the k-means cluster
    that is matched to it; k is the number of classes present, tokens in no region are left out.

    Args:
        dense: ``Method.dense``.
        regions: the first ``pictures`` are taken.
        counts: the N, each 1 or more.
        native_size: s.
        grid: h, w.
        seed: of the contexts and of k-means.

    Returns:
        N -> {same_mask, cluster} in percent, NaN where nothing has a value.

    Raises:
        SpatialbenchError: the set has fewer pictures.
    """
    if not 1 <= pictures <= len(regions):
        raise SpatialbenchError(f"{pictures} pictures of {regions.name}, which has {len(regions)}: ask for 1 to all")
    counts = sorted(set(counts))
    areas: dict[int, list[float]] = defaultdict(list)
    tokens: dict[int, list[Tensor]] = defaultdict(list)
    labels: list[Tensor] = []
    with progress(f"contexts of {regions.name}", pictures, "pictures") as advance:
        for row in range(pictures):
            region = regions[row]
            boxes = context_boxes(seed, row, counts[-1], region.extent)
            segment = token_segments(region.masks, grid)
            seen = inside(region.extent, grid)
            on_region = seen & (segment > 0)
            labels.append(region.label[segment[on_region] - 1])
            averages = context_averages(dense, region.pixels, boxes, native_size, grid, counts)
            for count, average in zip(counts, averages, strict=True):
                areas[count].append(same_segment_area(average[seen], segment[seen]))
                tokens[count].append(average[on_region])
            advance(1)
    label = torch.cat(labels)
    present = len(label.unique())
    return {
        count: {
            "same_mask": float(np.nanmean(areas[count])) if np.isfinite(areas[count]).any() else math.nan,
            "cluster": cluster_overlap(torch.cat(tokens[count]), label, present, seed) if present else math.nan,
        }
        for count in counts
    }


# ------------------------------------------------------------------------------------------------- the command
def run(options: argparse.Namespace, command: str) -> None:
    """``spatialbench contexts``: prints a line for each number of contexts, and writes a file when asked to.

    Args:
        options: as ``spatialbench.commands`` parses them.
        command: the whole command line, for the file.

    Raises:
        SpatialbenchError: something the user gave is wrong; one line.
    """
    if options.out is not None and (Path(options.out).suffix != ".json" or Path(options.out).is_dir()):
        raise SpatialbenchError(f"--out: the numbers go to a JSON file; give a name that ends in .json: {options.out}")
    from spatialbench.callbacks import Interruptions
    from spatialbench.experiment import resolve
    from spatialbench.scoring import readable_errors, say

    resolved = resolve(options.config, options.track, options.budget, runs=options.runs)
    with Interruptions(), readable_errors(resolved):
        report = {
            "page": str(resolved.page.path),
            "command": command,
            **_measured(resolved, options),
        }
    text = json.dumps(report, indent=2)
    if options.out is not None:
        write_atomic(options.out, text + "\n")
        say(f"wrote {options.out}")
    print(text if options.format == "json" else _lines(report["measures"]))


def encoded_size(asked: int | None, resolved: Resolved, model: Method) -> tuple[int, str]:
    """Side of the picture that is encoded, a multiple of the patch, and a note where that is not what was asked for.

    Args:
        asked: pixels; None: the size of the track's region set, else twice the student's own.
        resolved: says the track.
        model: says the patch.
    """
    patch = math.lcm(*patch_size(model.student))
    default = ((resolved.track.regions or {}).get("init_args") or {}).get("size") or 2 * model.image_size
    size = max(1, round((asked or default) / patch)) * patch
    if asked in (None, size):
        return size, ""
    return size, f"--size {asked} is not a multiple of the patch of {patch} pixels; {size} is used"


def _measured(resolved: Resolved, options: argparse.Namespace) -> dict[str, Any]:
    """Where the numbers come from, and the numbers of the rooms' validation split."""
    from spatialbench.data.rooms.regions import RoomsRegions
    from spatialbench.scoring import load_method, say

    model, checkpoint = load_method(resolved, options.ckpt_path, Path(options.runs), any_seed=True)
    size, note = encoded_size(options.size, resolved, model)
    if note:
        say(f"note: {note}")
    regions = RoomsRegions("val", options.pictures, size)
    height, width = patch_size(model.student)
    grid = (size // height, size // width)
    with torch.inference_mode():
        measures = measure_contexts(
            lambda crops: model.dense(crops.to(model.device)),
            regions,
            options.counts,
            pictures=options.pictures,
            native_size=model.image_size,
            grid=grid,
            seed=options.seed,
        )
    commit, dirty = provenance.commit()
    return {
        **{"commit": commit, "dirty": dirty, "versions": provenance.versions()},
        **{"checkpoint": None if checkpoint is None else str(checkpoint), "seed": options.seed},
        **{"data": regions.name, "data_fingerprint": regions.fingerprint, "pictures": options.pictures},
        **{"size": size, "native_size": model.image_size, "grid": grid},
        "measures": {
            str(count): {name: None if math.isnan(value) else round(value, 3) for name, value in values.items()}
            for count, values in measures.items()
        },
    }


def _lines(measures: dict[str, dict[str, float | None]]) -> str:
    rows = [f"{'contexts':>8}  {'same-mask AUC':>13}  {'k-means mIoU':>12}"]
    for count, values in measures.items():
        area, overlap = ("-" if value is None else f"{value:.2f}" for value in values.values())
        rows.append(f"{count:>8}  {area:>13}  {overlap:>12}")
    return "\n".join(rows)
