"""The towers are open_clip's own numbers, and the hook sees what it says."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.models import towers
from spatialbench.models.open_clip_student import TextTokenizer, load_clip
from tests.support.models import SIZE, student

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "quick_gelu": {"quick_gelu": True},
    "average": {"vision": '{"pool_type": "avg"}'},
    "norm_after_pool": {"vision": '{"pool_type": "avg", "final_ln_after_pool": true}'},
    "layer_scale": {
        "vision": '{"ls_init_value": 0.3, "no_ln_pre": true}',
        "text": '{"ls_init_value": 0.2}',
    },
    "projection_bias": {"text": '{"proj_bias": true}'},
}
CAPTIONS = [
    "The sofa is left of the lamp.",
    "The lamp is above the bed.",
    "The floor lamp is farther than the floor lamp.",
]


@pytest.fixture(params=VARIANTS)
def spec(request: pytest.FixtureRequest) -> str:
    return student(request.param, **VARIANTS[request.param])


def pixels(count: int = 3, size: int = SIZE) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_the_image_tower_is_open_clips(spec: str) -> None:
    model = load_clip(spec)
    torch.testing.assert_close(
        towers.encode_image(model, pixels()), model.encode_image(pixels()), rtol=1e-5, atol=1e-6
    )


def test_the_text_tower_is_open_clips_whole_context(spec: str) -> None:
    """Exact in double: what lies behind the longest caption has no effect."""
    model = load_clip(spec).double()
    tokens = TextTokenizer(spec)(CAPTIONS)
    torch.testing.assert_close(
        towers.encode_text(model, tokens), model.encode_text(tokens), rtol=1e-12, atol=1e-12
    )
    garbage = tokens.clone()
    garbage[:, -1] = 1
    assert towers.encode_text(model, garbage).equal(towers.encode_text(model, tokens))


def test_a_text_tower_that_reads_at_its_end_token() -> None:
    model = load_clip(student("eos", text='{"pool_type": "eos", "eos_id": 2}')).double()
    tokens = torch.tensor([[1, 500, 7, 2, 0, 0, 0], [1, 9, 2, 0, 0, 0, 0]])
    tokens = F.pad(tokens, (0, 13))
    torch.testing.assert_close(
        towers.encode_text(model, tokens), model.encode_text(tokens), rtol=1e-12, atol=1e-12
    )


def test_gradients_are_open_clips(spec: str) -> None:
    """Every parameter of both towers, in double."""
    model = load_clip(spec).double()
    tokens = TextTokenizer(spec)(CAPTIONS)
    gradients = []
    for image, text in (
        (towers.encode_image, towers.encode_text),
        (type(model).encode_image, type(model).encode_text),
    ):
        model.zero_grad()
        (
            image(model, pixels().double()).square().sum() + text(model, tokens).square().sum()
        ).backward()
        gradients.append(
            {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    assert len(gradients[0]) == len([*model.parameters()]) - 1, "all but the logit scale"
    for name, ours in gradients[0].items():
        torch.testing.assert_close(ours, gradients[1][name], rtol=1e-9, atol=1e-11, msg=name)


def test_attention_is_torchs_own() -> None:
    q, k = (torch.randn(2, 3, 7, 10, dtype=torch.float64) for _ in range(2))
    v = torch.randn(2, 3, 7, 4, dtype=torch.float64)
    mask = torch.full((7, 7), -torch.inf, dtype=torch.float64).triu(1)
    for bias, scale in itertools.product((None, mask), (None, 0.7)):
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
        torch.testing.assert_close(
            towers.attention(q, k, v, bias, scale), expected, rtol=1e-12, atol=1e-12
        )


def test_many_tokens_take_the_fused_kernel_and_give_the_same() -> None:
    q, k, v = (torch.randn(1, 1, 257, 8, dtype=torch.float64) for _ in range(3))
    few = torch.cat(
        [towers.attention(part, k[:, :, :200], v[:, :, :200]) for part in q.split(100, dim=2)],
        dim=2,
    )
    torch.testing.assert_close(
        towers.attention(q, k[:, :, :200], v[:, :, :200]), few, rtol=1e-12, atol=1e-12
    )


def test_with_zero_foreign_channels_and_the_old_scale_a_block_is_open_clips(spec: str) -> None:
    """Q' = K' = 0 and the scale set to sqrt(d_k)."""
    model = load_clip(spec).double()
    for block in model.visual.transformer.resblocks:
        x = torch.randn(2, 17, 48, dtype=torch.float64)

        def widen(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return F.pad(q, (0, 16)), F.pad(k, (0, 16)), v

        torch.testing.assert_close(
            towers.attention_block(block, x, widen, scale=16**-0.5),
            block(x),
            rtol=1e-12,
            atol=1e-12,
        )


def test_one_token_of_a_block_is_the_blocks(spec: str) -> None:
    model = load_clip(spec).double()
    block = model.visual.transformer.resblocks[0]
    x, read = torch.randn(3, 17, 48, dtype=torch.float64), torch.tensor([4, 0, 16])
    expected = block(x)[torch.arange(3), read][:, None]
    torch.testing.assert_close(
        towers.attention_block(block, x, read=read), expected, rtol=1e-12, atol=1e-12
    )


def test_the_hook_sees_every_block_in_order_and_its_values_count() -> None:
    model = load_clip(student())
    seen = []

    def look(block: int, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen.append((block, q.shape, k.shape, v.shape))
        return q, k, 2 * v

    changed = towers.encode_image(model, pixels(), look)
    assert seen == [(block, *(3 * [(3, 3, 17, 16)])) for block in range(3)]
    assert not changed.allclose(towers.encode_image(model, pixels()))


def test_dense_is_the_tower_with_the_last_attention_matrix_the_identity() -> None:
    """With a huge q = k of one-hot positions, softmax(q k^T) is the identity."""
    model = load_clip(student()).double()
    x = pixels().double()

    def identity(block: int, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if block < 2:
            return q, k, v
        hot = 1e3 * torch.eye(q.shape[2], dtype=q.dtype).expand(*q.shape[:3], -1)
        return hot, hot, v

    visual = model.visual
    tokens = visual._embeds(x)
    for number, block in enumerate(visual.transformer.resblocks):
        tokens = towers.attention_block(
            block, tokens, lambda q, k, v, n=number: identity(n, q, k, v)
        )
    expected = (visual.ln_post(tokens) @ visual.proj)[:, 1:].unflatten(1, (4, 4))
    torch.testing.assert_close(towers.encode_dense(model, x), expected, rtol=1e-10, atol=1e-10)


def test_dense_at_another_size() -> None:
    model = load_clip(student())
    assert towers.encode_dense(model, pixels(size=48)).shape == (3, 6, 6, 24)
    with torch.no_grad():  # a position embedding that is the same everywhere stays so
        model.visual.positional_embedding.copy_(model.visual.positional_embedding[3].clone())
    embedded = towers._positions(model.visual, (6, 6))
    torch.testing.assert_close(
        embedded, model.visual.positional_embedding[:1].expand(37, -1), rtol=1e-5, atol=1e-6
    )


def test_the_text_tower_s_states_are_what_it_projects_at_the_end_token() -> None:
    model = load_clip(student("states")).double()
    tokens = TextTokenizer(student("states"))(CAPTIONS)
    states = towers.text_states(model, tokens)
    assert states.shape == (3, 20, 32)
    ends = states[torch.arange(3), tokens.argmax(-1)] @ model.text_projection
    torch.testing.assert_close(ends, model.encode_text(tokens), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        towers.text_states(model, tokens[:, :9]), states[:, :9], rtol=1e-12, atol=1e-12
    )
