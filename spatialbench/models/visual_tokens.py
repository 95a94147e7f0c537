"""An image tower's embedding and patches in one projected space, for CLIP and for SigLIP.

open_clip's ViT returns its patches before the projection, and SigLIP's timm tower not at all.

Letters: B images, L patches, D width of the joint space, h w rows and columns of patches.

Source: baaivision/DIVA @ d53c668, condition/*.py; docs/diva.md.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from spatialbench.models import towers
from spatialbench.models.towers import Mix, Model
from spatialbench.utils.errors import SpatialbenchError


class Tokens(NamedTuple):
    """A tower's output for B images, not normalised."""

    cls: Tensor  # [B, D], the embedding of the image, as encode_image returns it
    local: Tensor  # [B, L, D], its patches row by row, through the same norm and projection
    grid: tuple[int, int]  # h, w; L = h w


def visual_tokens(model: Model, pixels: Tensor, mix: Mix | None = None) -> Tokens:
    """Encode images as embeddings and patches, with gradient.

    In a SigLIP tower ``cls`` is the pooled vector and ``local`` the features before the pooling:
    two spaces of one width.

    Args:
        model: an open_clip model; its image tower is open_clip's own ViT, or SigLIP's of timm.
        pixels: normalised images, float [B, 3, H, W]; H and W multiples of the patch size.
        mix: a method's hook into every block, as in ``towers.encode_image``.

    Raises:
        SpatialbenchError: a timm tower that is not SigLIP's.
    """
    visual = model.visual
    if not hasattr(visual, "trunk"):
        x = towers.embed_patches(visual, pixels)
        x = towers.run_blocks(visual.transformer.resblocks, x, mix)
        pooled, local = towers.pool(visual, x), towers.project_patches(visual, x)
    elif getattr(visual.trunk, "attn_pool", None) is None or visual.trunk.num_prefix_tokens != 0:
        raise SpatialbenchError(
            f"{type(visual.trunk).__name__} is a timm tower without attention pooling, or with "
            "prefix tokens: take a SigLIP model or one with open_clip's own ViT"
        )
    else:
        features = towers.trunk_features(visual.trunk, pixels, mix)
        pooled, local = visual.head(visual.trunk.forward_head(features)), visual.head(features)
    return Tokens(pooled, local, towers.patch_grid(model, pixels))
