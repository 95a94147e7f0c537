"""Content of a model's patches, block by block: (1), (3) and (4) of ``premises.py``.

Letters: B images, L blocks, T tokens, N patches in h rows and w columns, P patches on an object.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spatialbench.data.region_sets import Regions
from spatialbench.evaluation.dense import cell_shares, inside, token_segments
from spatialbench.evaluation.ridge import Moments, r_squared
from spatialbench.models.timm_vfm import VFM
from spatialbench.models.towers import (
    attention_block,
    attention_weights,
    has_class_token,
    image_blocks,
    patch_grid,
    project_patches,
)
from spatialbench.utils.errors import SpatialbenchError

Student = Any
"""A ``spatialbench.methods.base.Method``: image, text, tokenize, connect, student."""
Found = dict[str, Any]
"""Numbers of a model, in JSON's types."""


class Seen(NamedTuple):
    """Blocks of a model on images."""

    patches: dict[str, Tensor]  # [B, N, width] that enter block "1", ...; "output"; "joint"
    attention: Tensor  # [B, L, T, T], mean over heads; T is N, or N + 1 with the class token first
    grid: tuple[int, int]


def see_student(model: Student, pixels: Tensor) -> tuple[Seen, Tensor]:
    """Run the image tower as the method does; also return the embeddings [B, D].

    Raises:
        SpatialbenchError: the method's image does not run through the blocks of its student.
    """
    inputs: list[Tensor] = []
    attention: list[Tensor] = []
    blocks, mix = image_blocks(model.student), model.connect(pixels)

    def watch(block: int, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (q, k, v) if mix is None else mix(block, q, k, v)
        attention.append(attention_weights(q, k).float().mean(1))
        return q, k, v

    def keep(_: nn.Module, arguments: tuple[Tensor]) -> None:
        inputs.append(arguments[0])

    with ExitStack() as stack:
        for block in blocks:
            norm = block.norm1 if hasattr(block, "norm1") else block.ln_1
            stack.callback(norm.register_forward_pre_hook(keep).remove)
        embeddings = model.image(pixels, watch)
    if not len(inputs) == len(attention) == len(blocks):
        raise SpatialbenchError("the model's image does not run through its student's blocks")
    output = attention_block(blocks[-1], inputs[-1], mix and partial(mix, len(blocks) - 1))
    first = int(has_class_token(model.student))
    patches = _named([tokens[:, first:] for tokens in (*inputs, output)])
    if first:
        patches["joint"] = project_patches(model.student.visual, output)
    return Seen(patches, torch.stack(attention, 1), patch_grid(model.student, pixels)), embeddings


def see_vfm(vfm: VFM, pixels: Tensor) -> Seen:
    """Run a VFM."""
    *inputs, output = vfm(pixels).unbind(1)
    queries = (vfm.qkv(block, tokens, values=False) for block, tokens in enumerate(inputs))
    attention = [attention_weights(q, k).float().mean(1) for q, k in queries]
    patches = _named([tokens[:, 1:] for tokens in (*inputs, output)])
    return Seen(patches, torch.stack(attention, 1), vfm.grid)


def _named(patches: Sequence[Tensor]) -> dict[str, Tensor]:
    names = [*map(str, range(1, len(patches))), "output"]
    return dict(zip(names, patches, strict=True))


@dataclass
class PatchMeasures:
    """(1), (3) and (4) of a model, added up image by image."""

    moments: dict[str, Moments] = field(default_factory=dict)
    cls: list[Tensor] = field(default_factory=list)  # [L + 1] of images: masses, area last
    own: list[Tensor] = field(default_factory=list)  # [L + 1, P] of their patches: the same

    def add(
        self, seen: Seen, items: Sequence[Regions], things: Tensor, folds: Sequence[int]
    ) -> None:
        """Add images; ``things`` bool [K] says which classes are objects."""
        device, (h, w) = seen.attention.device, seen.grid
        if not seen.patches["output"].isfinite().all():
            raise SpatialbenchError("the model's tokens are not finite; it diverged or is damaged")
        place = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"), -1)
        if not self.moments:
            self.moments = {
                name: Moments(part.shape[-1], 2, device) for name, part in seen.patches.items()
            }
        for b, (item, fold) in enumerate(zip(items, folds, strict=True)):
            visible = inside(item.extent, seen.grid).flatten().to(device)
            for name, part in seen.patches.items():
                self.moments[name].add(part[b, visible], place.flatten(0, 1)[visible.cpu()], fold)
            masks = item.masks[things[item.label]].to(device)
            if not len(masks):
                continue
            if seen.attention.shape[-1] > h * w:
                anything = cell_shares(masks.any(0, keepdim=True), seen.grid).flatten()
                self.cls.append(attention_on(seen.attention[b, :, 0, 1:], anything, visible))
            self.own.append(own_object(seen.attention[b, :, -h * w :, -h * w :], masks, visible, h))

    def found(self) -> Found:
        """Return numbers by block."""
        rows: list[Found] = []
        for name, moments in self.moments.items():
            row, column = r_squared([moments])
            rows.append({"block": name, "row": row, "column": column})
        found: Found = {"blocks": rows}
        masses = {"cls": torch.stack(self.cls or [torch.zeros(0)], -1)}
        masses["own"] = torch.cat(self.own or [torch.zeros(0)], -1)
        for key, mass in masses.items():
            if mass.numel():
                *mean, area = mass.mean(-1).tolist()
                found[f"{key}_area"] = area
                for line, value in zip(rows, mean, strict=False):
                    line |= {f"{key}_mass": value, f"{key}_ratio": value / area}
        return found


def attention_on(attention: Tensor, share: Tensor, visible: Tensor) -> Tensor:
    """Return the mass of attention on a region, and the region's area last.

    Args:
        attention: [L, ..., N], of the blocks.
        share: of each patch that the region fills, [..., N] in [0, 1].
        visible: the patches that count, bool [..., N].

    Returns:
        [L + 1, ...], shares of the patches that count.
    """
    weight = torch.cat([attention, torch.ones_like(attention[:1])]) * visible
    return (weight * share).sum(-1) / weight.sum(-1)


def own_object(attention: Tensor, masks: Tensor, visible: Tensor, rows: int) -> Tensor:
    """Return (4) of the P patches that show an object, [L + 1, P]: mass by block, area last.

    Attention [L, N, N]; masks of objects bool [n, S, S]; ``visible`` bool [N] in ``rows`` rows.
    """
    grid = (rows, len(visible) // rows)
    segment = token_segments(masks, grid).flatten()
    (shown,) = (visible & (segment > 0)).nonzero(as_tuple=True)
    share = cell_shares(masks, grid).flatten(1)[segment[shown] - 1]  # [P, N]
    others = visible.repeat(len(shown), 1)
    others[torch.arange(len(shown)), shown] = False
    return attention_on(attention[:, shown], share, others)
