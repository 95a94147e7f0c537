"""Adapters: no effect at the start, then the printed equations, and a plain tower in the end."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spatialbench.models.lora import Adapters, LoraSettings
from spatialbench.models.open_clip_student import load_clip
from spatialbench.models.towers import encode_dense, encode_image
from tests.support.checks import close, refused
from tests.support.models import normal_images, student

BLOCK = "transformer.resblocks.1."
ATTENTION = ("attn.in_proj_weight", "attn.out_proj.weight")
MLP = ("mlp.c_fc.weight", "mlp.c_proj.weight")


def made(moved: bool = True, **settings: Any) -> tuple[Any, Any, Adapters]:
    """Student with adapters, a copy from before, and the adapters, by default randomly moved."""
    torch.manual_seed(0)
    model = load_clip(student()).double()
    before = copy.deepcopy(model)
    adapters = Adapters(model.visual, LoraSettings(rank=2, alpha=3, **settings), seed=0)
    with torch.no_grad():
        for parameter in model.visual.parameters():
            if parameter.requires_grad and moved:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model, before, adapters


def pixels() -> Tensor:
    return normal_images(2).double()


def part(model: Any, name: str) -> Any:
    return model.visual.get_submodule(BLOCK + name)


def product(model: Any, name: str) -> Tensor:
    """(alpha / r) B A of a weight, as loops."""
    if name.startswith("attn"):
        attention = part(model, "attn")
        layer = attention if name == ATTENTION[0] else attention.base_layer.out_proj
    else:
        layer = part(model, name.removesuffix(".weight"))
    a, b = layer.lora_A["default"].weight.tolist(), layer.lora_B["default"].weight.tolist()
    assert len(a) == 2
    rows = [[1.5 * sum(row[k] * a[k][j] for k in range(2)) for j in range(len(a[0]))] for row in b]
    return torch.tensor(rows, dtype=torch.float64)


def learned(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_at_the_start_nothing_changes() -> None:
    model, before, adapters = made(moved=False)
    for encode in (encode_image, encode_dense):
        with adapters.active():
            assert torch.equal(encode(model, pixels()), encode(before, pixels()))
    assert adapters.drift() == 0


def test_who_learns() -> None:
    names = learned(made(moved=False)[0].visual)
    parts = ("attn.base_layer.in_proj_", "attn.base_layer.out_proj.base_layer.")
    parts += ("mlp.c_fc.base_layer.", "mlp.c_proj.base_layer.")
    blocks = [f"transformer.resblocks.{number}." for number in range(3)]
    adapters = {name for name in names if "lora_" in name}
    assert names - adapters == {f"{block}{part}bias" for block in blocks for part in parts}
    assert len(adapters) == 3 * 4 * 2  # A and B of each
    assert all(name.startswith(tuple(blocks)) for name in names)
    assert learned(made(moved=False, bias=False)[0].visual) == adapters


def test_weights_and_outputs_are_the_printed_equations() -> None:
    model, before, adapters = made()
    start = dict(before.visual.named_parameters())
    with adapters.active():
        attention = part(model, "attn")
        weights = (attention.in_proj_weight, attention.out_proj.weight)
        for name, weight in zip(ATTENTION, weights, strict=True):
            torch.testing.assert_close(weight, start[BLOCK + name] + product(model, name))  # (2)
    layer, plain = part(model, "mlp.c_fc"), part(before, "mlp.c_fc")
    x = torch.randn(3, 48, dtype=torch.float64)
    wanted = x @ plain.weight.T + x @ product(model, MLP[0]).T + layer.base_layer.bias
    torch.testing.assert_close(layer.eval()(x), wanted)  # (1)


def test_merged_is_unmerged_and_open_clips_tower() -> None:
    model, before, adapters = made()
    x = pixels()
    with adapters.active(), torch.no_grad():
        image, dense = encode_image(model, x), encode_dense(model, x)
    products = {name: product(model, name) for name in (*ATTENTION, *MLP)}
    copied, drift = adapters.merged(), adapters.drift()
    adapters.merge()
    for encode, wanted in ((encode_image, image), (encode_dense, dense)):
        close(encode(model, x), wanted, 1e-10, 1e-12)
    close(model.encode_image(x), image, 1e-8, 1e-10)  # open_clip's own
    start, state = before.visual.state_dict(), model.visual.state_dict()
    assert all(torch.equal(copied[name], state[name]) for name in state)
    for name, value in products.items():
        torch.testing.assert_close(state[BLOCK + name] - start[BLOCK + name], value)  # (2), once
    moved = sum((state[name] - start[name]).square().sum() for name in state).sqrt()
    torch.testing.assert_close(drift.double(), moved, rtol=1e-5, atol=0)
    kinds = [{n: type(m) for n, m in clip.named_modules()} for clip in (model, before)]
    assert kinds[0] == kinds[1]
    start, state = before.state_dict(), model.state_dict()
    assert set(state) == set(start)
    changed = {name for name, value in state.items() if not torch.equal(value, start[name])}
    assert changed == {f"visual.{name}" for name in learned(model.visual)}


def test_gradients_are_those_of_the_adapted_weights() -> None:
    """Against a plain tower whose weights are written as functions of A and B."""
    model, before, adapters = made()
    with adapters.active():
        encode_image(model, pixels()).square().sum().backward()
    learning = {name: p for name, p in model.visual.named_parameters() if p.requires_grad}
    factors = {name: p.detach().clone().requires_grad_() for name, p in learning.items()}
    weights = dict(before.visual.named_parameters())
    for name, factor in factors.items():
        if "lora_A" in name:
            owner = name.split(".lora_A")[0].replace(".base_layer", "")
            weight = f"{owner}.in_proj_weight" if owner.endswith(".attn") else f"{owner}.weight"
            b = factors[name.replace("lora_A", "lora_B")]
            weights[weight] = weights[weight] + 1.5 * b @ factor
        elif "lora_B" not in name:
            weights[name.replace(".base_layer", "")] = factor
    torch.func.functional_call(before.visual, weights, (pixels(),)).square().sum().backward()
    for name, parameter in learning.items():
        assert parameter.grad.any()
        close(parameter.grad, factors[name].grad, 1e-8, 1e-10)


def test_the_frozen_weights_are_what_they_were() -> None:
    model, before, adapters = made()
    attention = part(model, "attn").base_layer
    held = attention.in_proj_weight, attention.out_proj.base_layer.weight
    with pytest.raises(RuntimeError), adapters.active():  # wrong images, say
        encode_image(model, pixels()[:, :1])
    assert attention.in_proj_weight is held[0]
    assert attention.out_proj.base_layer.weight is held[1]
    assert torch.equal(held[0], part(before, "attn").in_proj_weight)
    assert not held[0].requires_grad


def test_dropout_is_asked_for_and_follows_the_generator() -> None:
    model, _, adapters = made(dropout=0.5)
    model.train()  # has no effect

    def encoded(seed: int, dropout: bool) -> Tensor:
        torch.manual_seed(seed)
        with adapters.active(dropout), torch.no_grad():
            return encode_image(model, pixels())

    assert torch.equal(encoded(0, True), encoded(0, True))
    assert not torch.equal(encoded(0, True), encoded(1, True))
    assert torch.equal(encoded(0, False), encoded(1, False))


def test_the_seed_is_of_the_adapters_alone() -> None:
    drawn = []
    for seed in (0, 0, 1):
        model = load_clip(student())
        state = torch.random.get_rng_state()
        Adapters(model.visual, LoraSettings(), seed)
        assert torch.equal(torch.random.get_rng_state(), state)
        drawn.append(part(model, "mlp.c_fc").lora_A["default"].weight)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}])
def test_settings_out_of_range(wrong: dict) -> None:
    with refused(rf"lora\.{next(iter(wrong))}"):
        LoraSettings(**wrong)
