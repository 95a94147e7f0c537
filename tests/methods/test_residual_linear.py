"""Residual linear connections: CLIP at the start, bit for bit; then equation (3)."""

import pytest
import torch
from torch import nn

from spatialbench.methods.clip import Clip
from spatialbench.methods.residual_linear import PARTS, ResidualLinear
from tests.support.checks import refused
from tests.support.models import OTHER, SAME, TWO_HEADS, batch, images, step, student


def method(vfm: str = SAME, **arguments: object) -> ResidualLinear:
    return ResidualLinear(student(), vfm, cache=False, **arguments)


@pytest.mark.parametrize("vfm", [SAME, OTHER, TWO_HEADS])
@pytest.mark.parametrize("mixed", [False, True])
def test_at_the_start_it_is_clip_bit_for_bit(vfm: str, mixed: bool) -> None:
    connected, plain = method(vfm), Clip(student())
    plain.student.load_state_dict(connected.student.state_dict())
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        assert connected.image(images(3)).equal(plain.image(images(3)))
        assert connected.dense(images(3)).equal(plain.dense(images(3)))


@pytest.mark.parametrize("connect", [["query"], ["value", "key"], list(PARTS)])
def test_equations_1_to_4_as_a_loop(connect: list[str]) -> None:
    """Every token and block in double, from open_clip's and timm's own parameters."""
    connected = method(connect=connect).double()
    for parameter in connected.connections.parameters():
        nn.init.normal_(parameter, std=0.3)
    mix, tokens = connected.connect(images(1)), connected.vfm.tokens(images(1)).double()[0]
    for number, block in enumerate(connected.student.visual.transformer.resblocks):
        x = torch.randn(17, 48, dtype=torch.float64)
        layer = connected.vfm.model.blocks[number]
        qkv = (block.ln_1(x) @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).split(48, -1)
        own = {part: value.clone() for part, value in zip(PARTS, qkv, strict=True)}
        foreign = layer.attn.qkv(layer.norm1(tokens[number])).split(48, -1)
        vfm = dict(zip(PARTS, foreign, strict=True))
        for part in connect:
            linear = connected.connections[part][number]
            for token in range(17):
                own[part][token] = own[part][token] + linear.weight @ vfm[part][token] + linear.bias
        heads = [[p.view(1, 17, 3, 16).transpose(1, 2) for p in s] for s in (qkv, own.values())]
        for mixed, expected in zip(mix(number, *heads[0]), heads[1], strict=True):
            torch.testing.assert_close(mixed, expected, rtol=1e-9, atol=1e-9)


def test_only_what_is_connected_has_parameters() -> None:
    assert sorted(method(connect=["value", "query"]).connections) == ["query", "value"]
    connected = method()
    assert sum(p.numel() for p in connected.connections.parameters()) == 3 * 3 * 48 * 49
    assert connected.hparams["connect"] == ["query", "key", "value"]


def test_who_gets_a_gradient() -> None:
    """The connections and the student from the first step on; never the VFM."""
    connected = method()
    gradients = {name for name, gradient in step(connected, batch())[1].items() if gradient.any()}
    assert not any(name.startswith("vfm.") for name in gradients)
    unused = ("vfm.", "student.logit_scale", "student.token_embedding")
    unused += ("student.positional_embedding", "connections.key")  # a softmax ignores a key's bias
    without = {name for name, _ in connected.named_parameters()} - gradients
    assert all(name.startswith(unused) for name in without)
    assert {f"connections.key.{block}.weight" for block in range(3)} <= gradients


@pytest.mark.parametrize("connect", [[], ["query", "keys"]])
def test_what_cannot_be_connected(connect: list[str]) -> None:
    with refused("give one or more of query, key, value"):
        method(connect=connect)
