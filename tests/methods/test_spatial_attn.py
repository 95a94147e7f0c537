"""Spatial attention: equations (1)-(5) as loops; heads are paired, the VFM is frozen."""

import math

import pytest
import torch
from torch import Tensor, nn

from spatialbench.methods.spatial_attn import SpatialAttention
from spatialbench.models import towers
from tests.support.checks import close, refused
from tests.support.models import OTHER, SAME, TWO_HEADS, batch, images, step, student


def method(vfm: str = SAME, **arguments: object) -> SpatialAttention:
    return SpatialAttention(student(), vfm, cache=False, **arguments)


def blocks(of: SpatialAttention) -> nn.ModuleList:
    return of.student.visual.transformer.resblocks


def vfm_heads(connected: SpatialAttention, block: int, tokens: Tensor) -> list[Tensor]:
    """Compute Q', K', V' [T, H, d'] of one image from timm's parameters.

    Norm, projection with bias, q_norm, k_norm; patches are interpolated by hand if grids differ.
    """
    layer = connected.vfm.model.blocks[block]
    heads, side, parts = connected.vfm.heads, connected.vfm.grid[0], []
    norms = (layer.attn.q_norm, layer.attn.k_norm, nn.Identity())
    for part, norm in zip(layer.attn.qkv(layer.norm1(tokens)).chunk(3, -1), norms, strict=True):
        part = norm(part.view(len(tokens), heads, -1))
        if side != 4:
            grid = part[1:].view(side, side, heads, -1)
            patches = [bilinear(grid, i, j) for i in range(4) for j in range(4)]
            part = torch.cat([part[:1], torch.stack(patches)])
        parts.append(part)
    return parts


def bilinear(grid: Tensor, i: int, j: int) -> Tensor:
    """Interpolate grid [h, w, ...] at the centre of cell (i, j) of a 4 x 4 grid over it."""
    out = torch.zeros_like(grid[0, 0])
    at = [min(max((k + 0.5) * len(grid) / 4 - 0.5, 0.0), len(grid) - 1.0) for k in (i, j)]
    for y in range(len(grid)):
        for x in range(len(grid)):
            out = out + max(0.0, 1 - abs(at[0] - y)) * max(0.0, 1 - abs(at[1] - x)) * grid[y, x]
    return out


@pytest.mark.parametrize("vfm", [SAME, OTHER])
@pytest.mark.parametrize("value", [False, True])
def test_equations_1_to_5_as_a_loop_over_heads_and_tokens(vfm: str, value: bool) -> None:
    """With equal and unequal head dimensions, depths and grids."""
    connected = method(vfm, value_connection=value).double()
    if value:
        for parameter in connected.value_connection.parameters():
            nn.init.normal_(parameter, std=0.3)
    mix, tokens = connected.connect(images(1)), connected.vfm.tokens(images(1)).double()[0]
    for number, block in enumerate(blocks(connected)):
        foreign = {SAME: (0, 1, 2), OTHER: (1, 3, 5)}[vfm][number]  # m(l) of 3 and of 6 blocks
        vfm_q, vfm_k, vfm_v = vfm_heads(connected, foreign, tokens[foreign])
        x = torch.randn(17, 48, dtype=torch.float64)
        qkv = block.ln_1(x) @ block.attn.in_proj_weight.T + block.attn.in_proj_bias
        q, k, v = qkv.detach().split(48, -1)
        if value:
            linear = connected.value_connection[number]
            added = [linear.weight @ vfm_v[t].flatten() + linear.bias for t in range(17)]
            v = v + torch.stack(added).detach()
        heads = torch.zeros(17, 48, dtype=torch.float64)
        scale = math.sqrt(16 + connected.vfm.head_dim)
        for h in range(3):
            mine = slice(16 * h, 16 * h + 16)
            for t in range(17):
                logits = [
                    float(q[t, mine] @ k[u, mine] + vfm_q[t, h] @ vfm_k[u, h]) / scale
                    for u in range(17)
                ]
                total = sum(math.exp(logit) for logit in logits)
                for u in range(17):
                    heads[t, mine] += math.exp(logits[u]) / total * v[u, mine]
        y = x + heads @ block.attn.out_proj.weight.T + block.attn.out_proj.bias
        y = y + block.mlp(block.ln_2(y))
        mixed = towers.attention_block(block, x[None], lambda *own, n=number: mix(n, *own))[0]
        torch.testing.assert_close(mixed, y, rtol=1e-9, atol=1e-9)


def test_the_value_connection_is_zero_at_the_start() -> None:
    plain, with_value = method(), method(value_connection=True)
    with_value.load_state_dict(plain.state_dict(), strict=False)
    assert with_value.image(images(2)).equal(plain.image(images(2)))
    assert sum(p.numel() for p in with_value.value_connection.parameters()) == 3 * 48 * 49


@pytest.mark.parametrize("value", [False, True])
def test_no_gradient_reaches_the_vfm_and_it_stays_in_eval_mode(value: bool) -> None:
    connected = method(value_connection=value).train()
    trained = {name for name, p in connected.named_parameters() if p.requires_grad}
    own = {f"value_connection.{block}.weight" for block in range(3)} if value else set()
    biases = {name.replace("weight", "bias") for name in own}
    assert {name for name in trained if not name.startswith("student.")} == own | biases
    gradients = step(connected, batch())[1]
    assert set(gradients) <= trained
    assert all(gradients[name].any() for name in own)
    assert not any(part.training for part in connected.vfm.modules())
    assert connected.student.training
    for block in blocks(connected):
        learned = block.attn.in_proj_weight.grad.view(3, -1).any(dim=1)
        assert learned.all(), "queries, keys and values learn"


def test_heads_that_cannot_be_paired() -> None:
    with refused(r"has 2 heads, student .* has 3"):
        method(TWO_HEADS)


@pytest.mark.parametrize(
    ("student_blocks", "vfm_blocks", "expected"),
    [
        (3, 6, [1, 3, 5]),
        (6, 3, [0, 0, 1, 1, 2, 2]),
        (4, 1, [0, 0, 0, 0]),
        (24, 24, [*range(24)]),
    ],
)
def test_depths_are_matched_end_to_end(
    student_blocks: int, vfm_blocks: int, expected: list[int]
) -> None:
    connected = method()
    connected.depth, connected.vfm.depth = student_blocks, vfm_blocks
    assert [connected.vfm_block(block) for block in range(student_blocks)] == expected


def test_a_grid_that_is_not_square_keeps_its_rows_and_columns() -> None:
    """4 x 4 patches on 2 x 4: the mean of every two rows."""
    x = torch.randn(2, 3, 17, 16)
    found, patches = method()._resampled(x, (2, 4)), x[:, :, 1:].unflatten(2, (2, 2, 4))
    close(found[:, :, 1:], patches.mean(3).flatten(2, 3), 1e-5)
    assert found[:, :, 0].equal(x[:, :, 0])


def test_the_vfm_may_get_the_students_normalisation() -> None:
    own, students = method(), method(vfm_normalisation="student")
    assert own.vfm.mean.flatten().tolist() == pytest.approx([0.5 * 255, 0.4 * 255, 0.3 * 255])
    assert students.vfm.mean.equal(students.mean)
    assert students.vfm.std.equal(students.std)
    assert own.vfm.fingerprint != students.vfm.fingerprint
