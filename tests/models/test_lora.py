"""Adapters: nothing at the start, the printed equations afterwards, and a plain tower in the end."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spatialbench.models.lora import Adapters, LoraSettings
from spatialbench.models.open_clip_student import load_clip
from spatialbench.models.towers import encode_dense, encode_image
from spatialbench.utils.errors import SpatialbenchError
from tests.support.models import SIZE, student

BLOCK = "transformer.resblocks.1."
ATTENTION = ("attn.in_proj_weight", "attn.out_proj.weight")
MLP = ("mlp.c_fc.weight", "mlp.c_proj.weight")


def made(moved: bool = True, double: bool = True, **settings: Any) -> tuple[Any, Any, Adapters]:
    """A student with adapters, what it was, and the adapters; with ``moved`` they and the biases are random."""
    torch.manual_seed(0)
    model = load_clip(student())
    model = model.double() if double else model
    before = copy.deepcopy(model)
    adapters = Adapters(model.visual, LoraSettings(rank=2, alpha=3, **settings), seed=0)
    if moved:
        with torch.no_grad():
            for parameter in model.visual.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return model, before, adapters


def pixels(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0), dtype=dtype)


def product(model: Any, name: str) -> Tensor:
    """(alpha / r) B A of a weight, as loops."""
    layer = model.visual.get_submodule(
        BLOCK + name.removesuffix("in_proj_weight").removesuffix("weight").rstrip(".")
    )
    if name == "attn.out_proj.weight":
        layer = model.visual.get_submodule(BLOCK + "attn").base_layer.out_proj
    a, b = layer.lora_A["default"].weight.tolist(), layer.lora_B["default"].weight.tolist()
    assert len(a) == 2
    rows = [
        [3 / 2 * sum(row[k] * a[k][j] for k in range(2)) for j in range(len(a[0]))] for row in b
    ]
    return torch.tensor(rows, dtype=torch.float64)


def learned(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_at_the_start_nothing_changes() -> None:
    model, before, adapters = made(moved=False, double=False)
    x = pixels(torch.float32)
    for encode in (encode_image, encode_dense):
        with adapters.active():
            assert torch.equal(encode(model, x), encode(before, x))
    assert torch.equal(model.encode_image(x), before.encode_image(x))
    assert adapters.drift() == 0


def test_who_learns() -> None:
    model, _, _ = made(moved=False)
    found = learned(model.visual)
    blocks = {f"transformer.resblocks.{number}." for number in range(3)}
    for block in blocks:
        here = {name.removeprefix(block) for name in found if name.startswith(block)}
        assert {name for name in here if "lora_" not in name} == {
            "attn.base_layer.in_proj_bias",
            "attn.base_layer.out_proj.base_layer.bias",
            "mlp.c_fc.base_layer.bias",
            "mlp.c_proj.base_layer.bias",
        }
        assert len(here) == 4 + 2 * 4  # A and B of each
    assert all(name.startswith(tuple(blocks)) for name in found)
    plain, _, _ = made(moved=False, bias=False)
    assert learned(plain.visual) == {name for name in found if "lora_" in name}


def test_weights_and_outputs_are_the_printed_equations() -> None:
    model, before, adapters = made()
    inside, outside = (dict(before.visual.named_parameters())[BLOCK + name] for name in ATTENTION)
    with adapters.active():
        attention = model.visual.get_submodule(BLOCK + "attn")
        torch.testing.assert_close(
            attention.in_proj_weight, inside + product(model, ATTENTION[0])
        )  # (2)
        torch.testing.assert_close(
            attention.out_proj.weight, outside + product(model, ATTENTION[1])
        )
    layer, plain = (
        model.visual.get_submodule(BLOCK + "mlp.c_fc"),
        before.visual.get_submodule(BLOCK + "mlp.c_fc"),
    )
    x = torch.randn(3, 48, dtype=torch.float64)
    wanted = x @ plain.weight.T + x @ product(model, MLP[0]).T + layer.base_layer.bias
    torch.testing.assert_close(layer.eval()(x), wanted)  # (1)


def test_merged_is_unmerged() -> None:
    model, before, adapters = made()
    x = pixels()
    with adapters.active(), torch.no_grad():
        image, dense = encode_image(model, x), encode_dense(model, x)
    products = {name: product(model, name) for name in (*ATTENTION, *MLP)}
    copied, drift = adapters.merged(), adapters.drift()
    adapters.merge()
    torch.testing.assert_close(encode_image(model, x), image, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(encode_dense(model, x), dense, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        model.encode_image(x), image, rtol=1e-8, atol=1e-10
    )  # open_clip's own
    start, state = before.visual.state_dict(), model.visual.state_dict()
    assert all(torch.equal(copied[name], state[name]) for name in state)
    for name, value in products.items():
        torch.testing.assert_close(state[BLOCK + name] - start[BLOCK + name], value)  # (2), once
    moved = sum((state[name] - start[name]).square().sum() for name in state).sqrt()
    torch.testing.assert_close(drift.double(), moved, rtol=1e-5, atol=0)
    assert not torch.allclose(image, encode_image(before, x), atol=1e-2)


def test_what_is_left_is_open_clips_tower() -> None:
    model, before, adapters = made()
    adapters.merge()
    kinds = [{name: type(part) for name, part in one.named_modules()} for one in (model, before)]
    assert kinds[0] == kinds[1]
    assert set(model.state_dict()) == set(before.state_dict())
    assert {name.rsplit(".", 1)[0] for name in learned(model.visual) if BLOCK in name} == {
        BLOCK + part for part in ("attn", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")
    }
    for name, value in model.state_dict().items():
        if not name.startswith("visual."):
            assert torch.equal(value, before.state_dict()[name]), name
    fixed = ("conv1", "ln_", "proj", "positional_embedding", "class_embedding")
    for name, value in model.visual.state_dict().items():
        if name.startswith(fixed) or ".ln_" in name:
            assert torch.equal(value, before.visual.state_dict()[name]), name


def test_gradients_are_those_of_the_adapted_weights() -> None:
    """Against a plain tower whose weights are written as functions of A and B."""
    model, before, adapters = made()
    x = pixels()
    with adapters.active():
        encode_image(model, x).square().sum().backward()
    found = {name: p.grad for name, p in model.visual.named_parameters() if p.requires_grad}
    assert all(gradient is not None and gradient.any() for gradient in found.values())
    factors, weights = {}, {}
    for name, parameter in before.visual.named_parameters():
        weights[name] = parameter
    for name, parameter in model.visual.named_parameters():
        if parameter.requires_grad:
            factors[name] = parameter.detach().clone().requires_grad_()
    for name in factors:
        if "lora_A" in name:
            owner = name.split(".lora_A")[0].replace(".base_layer", "")
            weight = f"{owner}.in_proj_weight" if owner.endswith(".attn") else f"{owner}.weight"
            weights[weight] = (
                weights[weight] + 1.5 * factors[name.replace("lora_A", "lora_B")] @ factors[name]
            )
        elif "lora_B" not in name:
            weights[name.replace(".base_layer", "")] = factors[name]
    torch.func.functional_call(before.visual, weights, (x,)).square().sum().backward()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, factors[name].grad, rtol=1e-8, atol=1e-10, msg=name)


def test_the_frozen_weights_are_what_they_were() -> None:
    model, before, adapters = made()
    attention = model.visual.get_submodule(BLOCK + "attn").base_layer
    held = attention.in_proj_weight, attention.out_proj.base_layer.weight
    with pytest.raises(RuntimeError), adapters.active():  # wrong pictures, say
        encode_image(model, pixels()[:, :1])
    assert attention.in_proj_weight is held[0]
    assert attention.out_proj.base_layer.weight is held[1]
    assert torch.equal(held[0], before.visual.get_submodule(BLOCK + "attn").in_proj_weight)
    assert not held[0].requires_grad


def test_dropout_is_asked_for_and_follows_the_generator() -> None:
    model, _, adapters = made(dropout=0.5)
    model.train()  # whoever says so
    x = pixels()

    def encoded(seed: int, dropout: bool) -> Tensor:
        torch.manual_seed(seed)
        with adapters.active(dropout), torch.no_grad():
            return encode_image(model, x)

    assert torch.equal(encoded(0, False), encoded(1, False))
    assert torch.equal(encoded(0, True), encoded(0, True))
    assert not torch.equal(encoded(0, True), encoded(1, True))
    assert not torch.equal(encoded(0, True), encoded(0, False))
    assert torch.equal(encoded(0, False), encoded(1, False))


def test_the_seed_is_of_the_adapters_alone() -> None:
    states = []
    for drawn, seed in ((0, 0), (5, 0), (0, 1)):
        model = load_clip(student())
        torch.rand(drawn)
        state = torch.random.get_rng_state()
        Adapters(model.visual, LoraSettings(), seed)
        assert torch.equal(torch.random.get_rng_state(), state)
        states.append(model.visual.get_submodule(BLOCK + "mlp.c_fc").lora_A["default"].weight)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}])
def test_settings_out_of_range(wrong: dict) -> None:
    with pytest.raises(SpatialbenchError, match=rf"lora\.{next(iter(wrong))}"):
        LoraSettings(**wrong)
