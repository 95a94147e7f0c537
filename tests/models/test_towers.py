"""The towers' numbers and patches are open_clip's own, and the hook receives every block."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.models import towers
from spatialbench.models.open_clip_student import TextTokenizer, load_clip
from tests.support.checks import close
from tests.support.models import VARIANTS, normal_images, student

CAPTIONS = ["The sofa is left of the lamp.", "The lamp.", "The floor lamp is above the floor lamp."]


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> Any:
    return load_clip(student(request.param, **VARIANTS[request.param])).double()


def tokens() -> Tensor:
    return TextTokenizer(student())(CAPTIONS)


def doubles(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def test_both_towers_and_all_gradients_are_open_clips(model: Any) -> None:
    """Compare in double; the text tower is run over its whole context there."""
    results = []
    for own in (towers, type(model)):
        model.zero_grad()
        image = own.encode_image(model, normal_images().double())
        text = own.encode_text(model, tokens())
        (image.square().sum() + text.square().sum()).backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results.append((image, text, grads))
    ours, theirs = results
    close(ours[:2], theirs[:2])
    tokens_of = towers.visual_tokens(model, normal_images().double())
    close(tokens_of.cls, ours[0])
    assert (tokens_of.local.shape, tokens_of.grid) == ((3, 16, 24), (4, 4))
    assert len(ours[2]) == len([*model.parameters()]) - 1, "all but the logit scale"
    torch.testing.assert_close(ours[2], theirs[2], rtol=1e-9, atol=1e-11)


def test_patches_are_open_clips_own_projected_and_every_parameter_gets_a_gradient() -> None:
    model, x = load_clip(student()).double(), normal_images().double()
    model.visual.output_tokens = True  # patches after the norm, before the projection
    _, patches = model.visual(x)
    seen = towers.visual_tokens(model, x)
    close(seen.local, patches @ model.visual.proj)
    (seen.cls.square().sum() + seen.local.square().sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.visual.parameters())
    assert all(p.grad is None for p in model.transformer.parameters())
    assert towers.visual_tokens(model, normal_images(3, 32, 48).double()).grid == (4, 6)


def test_a_text_tower_that_reads_at_its_end_token() -> None:
    model = load_clip(student("eos", text='{"pool_type": "eos", "eos_id": 2}')).double()
    given = F.pad(torch.tensor([[1, 500, 7, 2, 0, 0, 0], [1, 9, 2, 0, 0, 0, 0]]), (0, 13))
    close(towers.encode_text(model, given), model.encode_text(given))


def test_attention_is_torchs_own() -> None:
    q, k, v = doubles(2, 3, 7, 10), doubles(2, 3, 7, 10), doubles(2, 3, 7, 4)
    mask = torch.full((7, 7), -torch.inf, dtype=torch.float64).triu(1)
    for bias in (None, mask):
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        close(towers.attention(q, k, v, bias), expected)


def test_many_tokens_take_the_fused_kernel_and_give_the_same() -> None:
    q, k, v = doubles(1, 1, 257, 8), doubles(1, 1, 200, 8), doubles(1, 1, 200, 8)
    mask = doubles(257, 200)
    for bias, biases in ((None, [None] * 3), (mask, mask.split(100))):
        parts = zip(q.split(100, dim=2), biases, strict=True)
        few = torch.cat([towers.attention(part, k, v, own) for part, own in parts], dim=2)
        close(towers.attention(q, k, v, bias), few)


def test_with_zero_foreign_channels_and_the_old_scale_a_block_is_open_clips(model: Any) -> None:
    """Q' = K' = 0, with the scale undone in the query; also where one token alone is read."""

    def widen(q: Tensor, k: Tensor, v: Tensor) -> towers.QKV:
        return F.pad(2**0.5 * q, (0, 16)), F.pad(k, (0, 16)), v

    x, read = doubles(3, 17, 48), torch.tensor([4, 0, 16])
    for block in model.visual.transformer.resblocks:
        close(towers.attention_block(block, x, widen), block(x))
        wanted = block(x)[torch.arange(3), read][:, None]
        close(towers.attention_block(block, x, read=read), wanted)


def test_the_hook_sees_every_block_in_order_and_its_values_count() -> None:
    model = load_clip(student())
    seen = []

    def look(block: int, q: Tensor, k: Tensor, v: Tensor) -> towers.QKV:
        seen.append((block, q.shape, k.shape, v.shape))
        return q, k, 2 * v

    for encode in (towers.encode_image, towers.visual_tokens, towers.encode_dense):
        plain, changed = encode(model, normal_images()), encode(model, normal_images(), look)
        assert seen == [(block, *(3 * [(3, 3, 17, 16)])) for block in range(3)]
        assert not torch.allclose(*(getattr(found, "cls", found) for found in (changed, plain)))
        seen.clear()


def test_dense_is_the_tower_with_the_last_attention_matrix_the_identity() -> None:
    """With a huge q = k of one-hot positions, softmax(q k^T) is the identity."""
    model = load_clip(student()).double()
    x, visual = normal_images().double(), model.visual

    def identity(block: int, q: Tensor, k: Tensor, v: Tensor) -> towers.QKV:
        hot = 1e3 * torch.eye(q.shape[2], dtype=q.dtype).expand(*q.shape[:3], -1)
        return (hot, hot, v) if block == 2 else (q, k, v)

    last = towers.run_blocks(visual.transformer.resblocks, visual._embeds(x), identity)
    expected = (visual.ln_post(last) @ visual.proj)[:, 1:].unflatten(1, (4, 4))
    close(towers.encode_dense(model, x), expected, 1e-10)


def test_dense_at_another_size() -> None:
    model = load_clip(student())
    assert towers.encode_dense(model, normal_images(height=48)).shape == (3, 6, 6, 24)
    with torch.no_grad():  # a position embedding that is the same everywhere stays so
        model.visual.positional_embedding.copy_(model.visual.positional_embedding[3].clone())
    same = model.visual.positional_embedding[:1].expand(37, -1)
    close(towers._positions(model.visual, (6, 6)), same, 1e-5, 1e-6)
    with torch.no_grad():  # one that counts rows still does
        model.visual.positional_embedding[1:] = torch.arange(16)[:, None] // 4
    rows = towers._positions(model.visual, (6, 6))[1:].unflatten(0, (6, 6))
    close(rows, rows[:, :1].expand_as(rows), 1e-5, 1e-6)
    assert (rows[0] < rows[-1]).all()


def test_the_text_tower_s_states_are_what_it_projects_at_the_end_token() -> None:
    model = load_clip(student("states")).double()
    states = towers.text_states(model, tokens())
    assert states.shape == (3, 20, 32)
    ends = states[torch.arange(3), tokens().argmax(-1)] @ model.text_projection
    close(ends, model.encode_text(tokens()))
    close(towers.text_states(model, tokens()[:, :9]), states[:, :9])
