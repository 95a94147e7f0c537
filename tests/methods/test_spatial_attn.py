"""Spatial attention: the poster's equations (1)-(4) as loops; heads are paired, the VFM stays frozen."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatialbench.methods.clip import Clip
from spatialbench.methods.spatial_attn import SpatialAttention, _transpose
from spatialbench.models import towers
from spatialbench.models.towers import merge_heads, project_qkv
from spatialbench.utils.errors import SpatialbenchError
from tests.support.models import OTHER, SAME, TWO_HEADS, batch, images, student


def method(vfm: str = SAME, **arguments: object) -> SpatialAttention:
    return SpatialAttention(student(), vfm, cache=False, **arguments)


def vfm_heads(connected: SpatialAttention, block: int, tokens: Tensor) -> list[Tensor]:
    """Q', K', V' [T, H, d'] of one image from timm's parameters: norm, projection with bias, q_norm, k_norm; patches
    interpolated by hand where the grids differ.
    """
    layer = connected.vfm.model.blocks[block]
    count, heads = len(tokens), connected.vfm.heads
    parts = []
    for part, norm in zip(
        layer.attn.qkv(layer.norm1(tokens)).chunk(3, -1),
        (layer.attn.q_norm, layer.attn.k_norm, None),
        strict=True,
    ):
        part = part.view(count, heads, -1)
        part = part if norm is None else norm(part)
        if connected.vfm.grid != (4, 4):
            side = connected.vfm.grid[0]
            grid = part[1:].view(side, side, heads, -1)
            part = torch.cat(
                [part[:1], torch.stack([bilinear(grid, i, j) for i in range(4) for j in range(4)])]
            )
        parts.append(part)
    return parts


def bilinear(grid: Tensor, i: int, j: int) -> Tensor:
    """The value of grid [h, w, ...] at the centre of cell (i, j) of a 4 x 4 grid over the same square."""
    out = torch.zeros_like(grid[0, 0])
    for y in range(len(grid)):
        for x in range(len(grid)):
            at_y, at_x = ((k + 0.5) * len(grid) / 4 - 0.5 for k in (i, j))
            at_y, at_x = (min(max(at, 0.0), len(grid) - 1.0) for at in (at_y, at_x))
            out = out + max(0.0, 1 - abs(at_y - y)) * max(0.0, 1 - abs(at_x - x)) * grid[y, x]
    return out


@pytest.mark.parametrize(
    ("vfm", "value"), [(SAME, False), (SAME, True), (OTHER, False), (OTHER, True)]
)
def test_equations_1_to_5_as_a_loop_over_heads_and_tokens(vfm: str, value: bool) -> None:
    """With equal and unequal head dimensions, depths and grids."""
    connected = method(vfm, value_connection=value).double()
    if connected.value_connection is not None:
        for parameter in connected.value_connection.parameters():
            nn.init.normal_(parameter, std=0.3)
    mix = connected.connect(images(1))
    tokens = connected.vfm.tokens(images(1)).double()[0]
    for number, block in enumerate(connected.student.visual.transformer.resblocks):
        foreign = {SAME: (0, 1, 2), OTHER: (1, 3, 5)}[vfm][number]  # m(l) of 3 and of 6 blocks
        vfm_q, vfm_k, vfm_v = vfm_heads(connected, foreign, tokens[foreign])
        x = torch.randn(17, 48, dtype=torch.float64)
        q, k, v = (block.ln_1(x) @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).split(
            48, -1
        )
        if connected.value_connection is not None:
            linear = connected.value_connection[number]
            v = torch.stack(
                [v[t] + linear.weight @ vfm_v[t].flatten() + linear.bias for t in range(17)]
            )
        q, k, v = q.detach(), k.detach(), v.detach()
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
        found = towers.attention_block(block, x[None], lambda *own, n=number: mix(n, *own))[0]
        torch.testing.assert_close(found, y, rtol=1e-9, atol=1e-9)


def test_it_is_not_clip_but_is_with_a_vfm_of_zeros_and_the_old_scale() -> None:
    connected, plain = method(), Clip(student())
    plain.student.load_state_dict(connected.student.state_dict())
    assert not connected.image(images(2)).allclose(plain.image(images(2)), atol=1e-4)
    for block in connected.vfm.model.blocks:
        nn.init.zeros_(block.attn.qkv.weight)
        nn.init.zeros_(block.attn.qkv.bias)
    mix = connected.connect(images(2))
    block = connected.student.visual.transformer.resblocks[1]
    x = torch.randn(2, 17, 48)
    found = towers.attention_block(block, x, lambda *own: mix(1, *own), scale=16**-0.5)
    torch.testing.assert_close(found, block(x), rtol=1e-5, atol=1e-6)


def test_heads_are_paired() -> None:
    """The VFM's heads in another order give another output."""
    connected = method()
    rows = (
        torch.arange(144).view(3, 3, 16)[:, [1, 2, 0]].flatten()
    )  # q, k and v of head 0 become those of head 1, ...
    for block in connected.vfm.model.blocks:
        nn.init.normal_(block.attn.qkv.weight, std=0.3)
    before = connected.image(images(2))
    tokens = connected.vfm.tokens(images(2))
    connected.vfm.tokens = lambda _: tokens
    assert connected.image(images(2)).equal(before)
    for block in connected.vfm.model.blocks:
        block.attn.qkv.weight.copy_(block.attn.qkv.weight[rows].clone())
        block.attn.qkv.bias.copy_(block.attn.qkv.bias[rows].clone())
    assert (connected.image(images(2)) - before).abs().max() > 1e-3


def test_the_value_connection_is_zero_at_the_start() -> None:
    plain, with_value = method(), method(value_connection=True)
    with_value.student.load_state_dict(plain.student.state_dict())
    with_value.vfm.load_state_dict(plain.vfm.state_dict())
    assert with_value.image(images(2)).equal(plain.image(images(2)))
    assert with_value.value_connection is not None
    assert sum(p.numel() for p in with_value.value_connection.parameters()) == 3 * 48 * 49


def test_nothing_is_learned_for_the_connection() -> None:
    trained = [name for name, parameter in method().named_parameters() if parameter.requires_grad]
    assert all(name.startswith("student.") for name in trained)


@pytest.mark.parametrize("value", [False, True])
def test_no_gradient_reaches_the_vfm_and_it_stays_in_eval_mode(value: bool) -> None:
    """It is the frozen side: docs/spatial_attn.md."""
    connected = method(value_connection=value)
    connected.log = lambda *_, **__: None
    connected.train()
    connected.training_step(batch(), 0).backward()
    assert all(parameter.grad is None for parameter in connected.vfm.parameters())
    assert not any(part.training for part in connected.vfm.modules())
    assert connected.student.training
    for block in connected.student.visual.transformer.resblocks:
        assert block.attn.in_proj_weight.grad.view(3, -1).any(dim=1).all(), (
            "queries, keys and values learn"
        )
    if connected.value_connection is not None:
        assert all(linear.weight.grad.any() for linear in connected.value_connection)


def test_cached_tokens_give_the_same_embeddings(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly."""
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path))
    live = method()
    cached = SpatialAttention(student(), SAME, cache=True)
    cached.student.load_state_dict(live.student.state_dict())
    cached.vfm.load_state_dict(live.vfm.state_dict())
    x = images(5)
    cached.vfm.prepare(x.permute(0, 2, 3, 1).numpy())
    assert len(cached.vfm._cache) == 5
    for rows in (slice(0, 5), slice(2, 4)):
        assert cached.image(x[rows]).equal(live.image(x[rows]))
        assert cached.dense(x[rows]).equal(live.dense(x[rows]))


def test_heads_that_cannot_be_paired() -> None:
    with pytest.raises(SpatialbenchError, match=r"has 2 heads, student .* has 3") as error:
        method(TWO_HEADS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("student_blocks", "vfm_blocks", "expected"),
    [
        (3, 3, [0, 1, 2]),
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


def test_patches_are_resampled_and_the_class_token_is_not() -> None:
    connected = method(OTHER)
    x = torch.randn(2, 3, 5, 8)
    out = connected._resampled(x, (4, 4))
    assert out.shape == (2, 3, 17, 8)
    assert out[:, :, 0].equal(x[:, :, 0])
    expected = (
        F.interpolate(x[0, 1, 1:].T.reshape(1, 8, 2, 2), size=(4, 4), mode="bilinear")[0]
        .flatten(1)
        .T
    )
    torch.testing.assert_close(out[0, 1, 1:], expected)


def test_transposed_projections_multiply_by_w() -> None:
    """Query, key, value and output of every block as x W instead of x W^T, in double, before anything is trained."""
    plain = method().double()
    legacy = method(projections="transposed")
    before = [
        {name: value.clone() for name, value in block.state_dict().items()}
        for block in blocks(plain)
    ]
    legacy.student.load_state_dict(plain.student.state_dict())
    _transpose(blocks(legacy))
    legacy.double()
    for block, old in zip(blocks(legacy), before, strict=True):
        x = torch.randn(1, 17, 48, dtype=torch.float64)
        normed = block.ln_1(x)
        parts = zip(
            old["attn.in_proj_weight"].chunk(3), old["attn.in_proj_bias"].chunk(3), strict=True
        )
        q, k, v = (normed @ weight.double() + bias.double() for weight, bias in parts)
        for found, wanted in zip(project_qkv(block, x), (q, k, v), strict=True):
            torch.testing.assert_close(merge_heads(found), wanted, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            block.attn.out_proj(x),
            x @ old["attn.out_proj.weight"].double() + old["attn.out_proj.bias"].double(),
        )
    assert not method(projections="transposed").image(images(1)).allclose(method().image(images(1)))


def blocks(of: SpatialAttention) -> nn.ModuleList:
    return of.student.visual.transformer.resblocks


def test_the_vfm_may_get_the_students_normalisation() -> None:
    own, students = method(), method(vfm_normalisation="student")
    assert own.vfm.mean.flatten().tolist() == pytest.approx([0.5 * 255, 0.4 * 255, 0.3 * 255])
    assert students.vfm.mean.equal(students.mean)
    assert students.vfm.std.equal(students.std)
    assert own.vfm.fingerprint != students.vfm.fingerprint
