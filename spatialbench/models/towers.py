"""CLIP's two towers, with access to the queries, keys and values of every block.

open_clip computes attention inside ``nn.MultiheadAttention``, where nothing can be added to a
query. Here the towers are functions over open_clip's own parameters and modules (``ln_1``,
``attn.in_proj_weight``, ``mlp``, ...): the same numbers as ``encode_image`` and ``encode_text``,
with a hook between the projections and the softmax. open_clip's modules are not changed.

Letters: B images, C captions, T tokens, H heads, d channels per head, D width of the joint space.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatialbench.utils.errors import SpatialbenchError

Block = Any  # open_clip's ResidualAttentionBlock, or timm's Block in SigLIP's image tower
Model = Any  # open_clip's CLIP or SigLIP, as open_clip_student.load_clip returns it
QKV = tuple[Tensor, Tensor, Tensor]
BlockMix = Callable[[Tensor, Tensor, Tensor], QKV]  # (q, k, v) -> (q, k, v) of one block
Mix = Callable[[int, Tensor, Tensor, Tensor], QKV]
"""A method's step before the softmax: (block, q, k, v) -> (q, k, v), each [B, H, T, d].

It may widen q and k; the logits are then scaled by 1 / sqrt of the new number of channels.
"""
Attend = Callable[[Tensor], Tensor]  # a readout's attention over values, both [B, H, T, d]
BlockRunner = Callable[..., Tensor]  # called like attention_block; see running.py


class Tokens(NamedTuple):
    """An image tower's output, not normalised."""

    cls: Tensor  # [B, D], the embedding of the image, as encode_image returns it
    local: Tensor  # [B, h w, D], its patches row by row, through the same norm and projection
    grid: tuple[int, int]  # h, w: rows and columns of patches


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + mask) v, [B, H, T, e]; q, k [B, H, T, d], v [B, H, T, e].

    The mask broadcasts to [B, H, T, T].
    """
    # few tokens on a CPU: written out, where the fused kernel is up to 6 times slower in bfloat16
    if q.device.type != "cpu" or q.shape[-2] > 256:
        mask = None if mask is None else mask.to(q)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    logits = (q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-1, -2)
    if mask is not None:
        logits = logits + mask.to(logits.dtype)
    return logits.softmax(-1) @ v


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)), [B, H, T, T]; q, k [B, H, T, d]."""
    return ((q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)).softmax(-1)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, H d] -> [B, H, T, d]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, H, T, d] -> [B, T, H d]."""
    return x.transpose(1, 2).flatten(2)


def project_qkv(block: Block, x: Tensor) -> QKV:
    """Compute a block's queries, keys and values, each [B, H, T, d], from its input [B, T, H d]."""
    if hasattr(block, "norm1"):  # timm's, of SigLIP
        qkv = block.attn.qkv(block.norm1(x))
    else:
        qkv = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    q, k, v = (split_heads(part, block.attn.num_heads) for part in qkv.chunk(3, dim=-1))
    if hasattr(block, "norm1"):
        q, k = block.attn.q_norm(q), block.attn.k_norm(k)
    return q, k, v


def attention_block(
    block: Block,
    x: Tensor,
    mix: BlockMix | None = None,
    mask: Tensor | None = None,
    read: Tensor | None = None,
    wrap: Callable[[Any], Any] = lambda half: half,
) -> Tensor:
    """Run a block on x [B, T, H d], with ``mix`` between its projections and its softmax.

    With ``read``, int64 [B], only that token of each row is computed, [B, 1, H d], which saves
    three quarters of the last block. ``wrap`` is applied to the functions before and after ``mix``.
    """
    q, k, v = wrap(project_qkv)(block, x)
    if mix is not None:
        q, k, v = mix(q, k, v)
    return wrap(_attend)(block, x, (q, k, v), mask, read)


def _attend(block: Block, x: Tensor, qkv: QKV, mask: Tensor | None, read: Tensor | None) -> Tensor:
    """Run a block from its softmax on; arguments as in ``attention_block``."""
    q, k, v = qkv
    if read is not None:
        rows = torch.arange(len(x), device=x.device)
        x, q = x[rows, read][:, None], q[rows, :, read][:, :, None]
        mask = None if mask is None else mask[read][:, None, None]
    return _after_attention(block, x, attention(q, k, v, mask))


def _after_attention(block: Block, x: Tensor, attended: Tensor) -> Tensor:
    """Run the rest of a block on its input x [B, T, H d] and attended values [B, H, T, d]."""
    attended = merge_heads(attended)
    if hasattr(block, "norm1"):
        x = x + block.ls1(block.attn.proj(block.attn.norm(attended)))
        return x + block.ls2(block.mlp(block.norm2(x)))
    x = x + block.ls_1(block.attn.out_proj(attended))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def run_blocks(
    blocks: Iterable[Block], x: Tensor, mix: Mix | None = None, run: BlockRunner = attention_block
) -> Tensor:
    """Run ``blocks`` one after the other; ``mix`` receives the number of each."""
    for number, block in enumerate(blocks):
        x = run(block, x, mix and partial(mix, number))
    return x


def encode_image(
    model: Model, pixels: Tensor, mix: Mix | None = None, run: BlockRunner = attention_block
) -> Tensor:
    """Encode normalised images, float [B, 3, S, S], as open_clip does: [B, D], not normalised."""
    visual = model.visual
    if hasattr(visual, "trunk"):  # SigLIP's, of timm: patches alone, pooled by a head
        trunk = visual.trunk
        return visual.head(trunk.forward_head(trunk_features(trunk, pixels, mix, run)))
    *blocks, last = visual.transformer.resblocks
    x = run_blocks(blocks, embed_patches(visual, pixels), mix, run)
    class_token = torch.zeros(len(x), dtype=torch.long, device=x.device)
    read = class_token if visual.pool_type == "tok" else None
    return pool(visual, run(last, x, mix and partial(mix, len(blocks)), read=read))


def trunk_features(
    trunk: Any, pixels: Tensor, mix: Mix | None = None, run: BlockRunner = attention_block
) -> Tensor:
    """Return the patches of a SigLIP trunk of timm before its pooling, [B, L, W]."""
    x = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(pixels)))
    return trunk.norm(run_blocks(trunk.blocks, x, mix, run))


def image_blocks(model: Model) -> Sequence[Block]:
    """Return the residual blocks of the image tower."""
    visual = model.visual
    return visual.trunk.blocks if hasattr(visual, "trunk") else visual.transformer.resblocks


def has_class_token(model: Model) -> bool:
    """Return whether the image tower puts a class token before its patches."""
    return not hasattr(model.visual, "trunk")


def patch_size(model: Model) -> tuple[int, int]:
    """Height and width of a patch in pixels."""
    visual = model.visual
    height, width = (visual.trunk.patch_embed if hasattr(visual, "trunk") else visual).patch_size
    return height, width


def patch_grid(model: Model, pixels: Tensor) -> tuple[int, int]:
    """Rows and columns of patches of images [B, 3, H, W]."""
    height, width = patch_size(model)
    return pixels.shape[-2] // height, pixels.shape[-1] // width


def pool(visual: Any, x: Tensor) -> Tensor:
    """Pool the last block's tokens [B, 1 + h w, width], class token first, to embeddings [B, D]."""
    if visual.pool_type == "tok":
        x = visual.ln_post(x[:, 0])
    elif visual.final_ln_after_pool:
        x = visual.ln_post(x[:, 1:].mean(1))
    else:
        x = visual.ln_post(x[:, 1:]).mean(1)
    return x if visual.proj is None else x @ visual.proj


def project_patches(visual: Any, x: Tensor) -> Tensor:
    """Project the patches among the last block's tokens to the joint space, [B, h w, D]."""
    x = visual.ln_post(x[:, 1:])
    return x if visual.proj is None else x @ visual.proj


def encode_dense(
    model: Model,
    pixels: Tensor,
    mix: Mix | None = None,
    blocks: Sequence[Block] | None = None,
    attend: Attend | None = None,
) -> Tensor:
    """Encode patches in the joint space: in the last block every token attends to itself alone.

    Normalised images, float [B, 3, H, W], H and W multiples of the patch size -> [B, h, w, D], not
    normalised. The position embedding is interpolated to other sizes. ``blocks`` replace the
    tower's own. With ``attend`` the last block is W^O attend(V), without its residual connections
    and MLP (methods/readout.py). A SigLIP tower raises a SpatialbenchError.

    Source: wusize/CLIPSelf @ 1c7fe9c, src/open_clip/transformer.py, ``encode_dense``.
    """
    if not has_class_token(model):
        raise SpatialbenchError("SigLIP's patches are not in the joint space: no dense map")
    *before, last = image_blocks(model) if blocks is None else blocks
    x = run_blocks(before, embed_patches(model.visual, pixels), mix)
    q, k, v = project_qkv(last, x)
    if mix is not None:
        q, k, v = mix(len(before), q, k, v)
    if attend is None:
        x = _after_attention(last, x, v)
    else:
        x = last.attn.out_proj(merge_heads(attend(v)))
    return project_patches(model.visual, x).unflatten(1, patch_grid(model, pixels))


def visual_tokens(model: Model, pixels: Tensor, mix: Mix | None = None) -> Tokens:
    """Encode normalised images [B, 3, H, W], H and W multiples of the patch size, with patches.

    In a SigLIP tower ``cls`` is the pooled vector and ``local`` the features before the pooling:
    two spaces of one width.

    Source: baaivision/DIVA @ d53c668, condition/*.py; docs/diva.md.
    """
    visual = model.visual
    if hasattr(visual, "trunk"):
        x = trunk_features(visual.trunk, pixels, mix)
        pooled, local = visual.head(visual.trunk.forward_head(x)), visual.head(x)
    else:
        x = run_blocks(visual.transformer.resblocks, embed_patches(visual, pixels), mix)
        pooled, local = pool(visual, x), project_patches(visual, x)
    return Tokens(pooled, local, patch_grid(model, pixels))


def embed_patches(visual: Any, pixels: Tensor) -> Tensor:
    """Embed images as the first block's input [B, 1 + h w, width], class token first."""
    x = visual.conv1(pixels)
    grid = (x.shape[-2], x.shape[-1])
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
    return visual.ln_pre(x + _positions(visual, grid).to(x.dtype))


def _positions(visual: Any, grid: tuple[int, int]) -> Tensor:
    embedding = visual.positional_embedding
    if grid == tuple(visual.grid_size):
        return embedding
    patches = embedding[1:].T.unflatten(1, visual.grid_size)[None]
    patches = F.interpolate(patches, size=grid, mode="bicubic", align_corners=False)[0]
    return torch.cat([embedding[:1], patches.flatten(1).T])


def encode_text(model: Model, tokens: Tensor, run: BlockRunner = attention_block) -> Tensor:
    """Run open_clip's ``encode_text``, only up to the end of the longest caption.

    Tokens int64 [C, context_length] -> [C, D], not normalised. The tower is causal and reads out
    at the end token, so nothing behind it has an effect.
    """
    if not hasattr(model, "token_embedding"):  # SigLIP's is not causal; it reads the last position
        return model.encode_text(tokens)
    by_eos = model.text_pool_type == "eos"
    end = tokens.eq(model.text_eos_id).int().argmax(-1) if by_eos else tokens.argmax(-1)
    length = int(end.max()) + 1
    *blocks, last = model.transformer.resblocks
    x, mask = _embed_text(model, tokens[:, :length])
    x = run_blocks(blocks, x, run=partial(run, mask=mask))
    x = model.ln_final(run(last, x, mask=mask, read=end)[:, 0])
    if isinstance(model.text_projection, nn.Linear):
        return model.text_projection(x)
    return x if model.text_projection is None else x @ model.text_projection


def text_states(model: Model, tokens: Tensor) -> Tensor:
    """Hidden states [C, T, width] of tokens int64 [C, T], also behind the end, after the norm."""
    x, mask = _embed_text(model, tokens)
    run = partial(attention_block, mask=mask)
    return model.ln_final(run_blocks(model.transformer.resblocks, x, run=run))


def _embed_text(model: Model, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Embed tokens as the first block's input [C, T, width]; also return the causal mask [T, T]."""
    length = tokens.shape[1]
    x = model.token_embedding(tokens)
    x = x + model.positional_embedding[:length].to(x.dtype)
    return x, model.attn_mask[:length, :length]
