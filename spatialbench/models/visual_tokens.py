"""One interface for what an image tower says of a picture: its embedding and its patches, in one projected space.

open_clip's ViT returns its patches before the projection, SigLIP's tower in timm does not return them at all; DIVA and
its scorers want both beside the embedding. Nothing of either library is changed: a ViT runs through ``towers.py``, a
timm trunk through its own ``forward_features`` and ``forward_head``.

Letters: B images, L patches, D width of the joint space, h w rows and columns of patches.

Source: baaivision/DIVA @ d53c668, condition/*.py; docs/diva.md.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from spatialbench.models.towers import Mix, Model, attention_block, embed_patches, pool
from spatialbench.utils.errors import SpatialbenchError


class Tokens(NamedTuple):
    """What a tower says of pictures; not normalised.

    Attributes:
        cls: [B, D], the embedding of the picture: what ``encode_image`` gives.
        local: [B, L, D], its patches row by row, through the same norm and projection.
        grid: h, w; L = h w.
    """

    cls: Tensor
    local: Tensor
    grid: tuple[int, int]


def visual_tokens(model: Model, pixels: Tensor, mix: Mix | None = None) -> Tokens:
    """The embedding and the patches of pictures, with gradient.

    Args:
        model: an open_clip model; its image tower is open_clip's own ViT, or a timm trunk with attention pooling
            (SigLIP).
        pixels: normalised images, float [B, 3, H, W]; H and W multiples of the patch size. Off the native size the
            position embedding of a ViT is interpolated.
        mix: a method's hook into every block of a ViT, as in ``towers.encode_image``.

    Returns:
        ``Tokens``. In a SigLIP tower ``cls`` is the pooled vector and ``local`` are the features before the pooling:
        two spaces of one width.

    Raises:
        SpatialbenchError: a timm tower without attention pooling or with prefix tokens, or ``mix`` for a timm tower.
    """
    if hasattr(model.visual, "trunk"):  # open_clip's TimmModel
        return _of_timm(model.visual, pixels, mix)
    visual = model.visual
    x = embed_patches(visual, pixels)
    for number, block in enumerate(visual.transformer.resblocks):
        x = attention_block(block, x, mix and partial(mix, number))
    local = visual.ln_post(x[:, 1:])
    local = local if visual.proj is None else local @ visual.proj
    grid = (pixels.shape[-2] // visual.patch_size[0], pixels.shape[-1] // visual.patch_size[1])
    return Tokens(pool(visual, x), local, grid)


def _of_timm(visual: Any, pixels: Tensor, mix: Mix | None) -> Tokens:
    """SigLIP's: features after the trunk's last norm; the pooled vector from the trunk's own pooling head."""
    trunk = visual.trunk
    if getattr(trunk, "attn_pool", None) is None or trunk.num_prefix_tokens != 0:
        raise SpatialbenchError(
            "tokens of a timm tower need attention pooling and no prefix tokens, as SigLIP has, which "
            f"{type(trunk).__name__} has not: take a SigLIP model or one with open_clip's own ViT"
        )
    if mix is not None:
        raise SpatialbenchError(
            "the blocks of a timm tower cannot be reached into; take a model with open_clip's ViT"
        )
    features = trunk.forward_features(pixels)
    height, width = trunk.patch_embed.patch_size
    grid = (pixels.shape[-2] // height, pixels.shape[-1] // width)
    return Tokens(visual.head(trunk.forward_head(features)), visual.head(features), grid)
