"""Low-rank adapters (LoRA) in the blocks of an image tower, by peft, and their way into the tower's own weights.

    (1)  y = W x + (alpha / r) B A x                  a layer of the MLP while it learns; x of A under dropout
    (2)  W' = W + (alpha / r) B A                     the projections of attention, always, and every layer in the end

open_clip's blocks have ``nn.MultiheadAttention``, which peft 0.21 wraps, but with the adapters of its output projection
added twice (peft #3774), and ``towers.py`` reads the weights of attention itself. So peft makes, initialises and holds
the adapters and runs (1), and (2) is done here. Nothing of either library is changed.

Source: Hu et al., "LoRA", ICLR 2022, arXiv 2106.09685; mashijie1028/GenHancer @ d716ba2 for its settings.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.lora.layer import LoraLayer, MultiheadAttention
from torch import Tensor, nn

from spatialbench.utils.errors import SpatialbenchError

TARGETS = r"transformer\.resblocks\.\d+\.(attn|mlp\.c_fc|mlp\.c_proj)"
"""Of an open_clip tower: attention (its input and its output projection, as one) and both layers of the MLP."""
_NAME = "default"


@dataclass
class LoraSettings:
    """Adapters of rank ``rank``: W + (alpha / rank) B A, B zero at the start.

    Args:
        rank, alpha: 16 and 16, the released code's.
        dropout: of what enters A, in the MLP; the weights of attention are adapted as a whole, without dropout.
        bias: the biases of what is adapted learn, too (``lora_only``).

    Raises:
        SpatialbenchError: a value out of its range.
    """

    rank: int = 16
    alpha: float = 16
    dropout: float = 0.1
    bias: bool = True

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0 or not 0 <= self.dropout < 1:
            raise SpatialbenchError(
                f"lora.rank {self.rank} must be 1 or more, lora.alpha {self.alpha} more than 0, lora.dropout "
                f"{self.dropout} in [0, 1)"
            )


class Adapters:
    """The adapters of one tower, put in place: they, and the biases beside them, are all of it that learns.

    Args:
        visual: open_clip's ViT; changed in place until :meth:`merge`.
        seed: of A.
    """

    def __init__(self, visual: nn.Module, settings: LoraSettings, seed: int) -> None:
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,  # type: ignore[arg-type]  # a float is as good
            lora_dropout=settings.dropout,
            bias="lora_only" if settings.bias else "none",
            target_modules=TARGETS,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._model = LoraModel(visual, config, _NAME)  # freezes all else
        self._layers = _layers(
            self._model
        )  # once: peft's modules make their weights anew where they are listed
        inside = [layer for _, _, layer in self._layers if isinstance(layer, MultiheadAttention)]
        for layer in inside:
            layer.in_proj_bias.requires_grad_(settings.bias)  # peft's lora_only does not see it
        parts = {id(part) for layer in inside for part in (layer, layer.get_base_layer().out_proj)}
        self._attention = [found for found in self._layers if id(found[2]) in parts]
        self._biases = {
            name: p.detach().clone() for name, p in visual.named_parameters() if _is_bias(name, p)
        }

    @contextmanager
    def active(self, dropout: bool = False) -> Iterator[None]:
        """The weights of attention are those of (2), with gradient, for as long as this lasts; then what they were.

        Args:
            dropout: of the global generator; without it (1) and (2) are the same.
        """
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in self._attention]
        for (owner, name, weight), (_, _, layer) in zip(before, self._attention, strict=True):
            delattr(
                owner, name
            )  # a parameter gives way to a plain tensor of that name, which autograd follows
            setattr(owner, name, weight + layer.get_delta_weight(_NAME))  # (2)
        self._drop(dropout)
        try:
            yield
        finally:
            self._drop(False)
            for owner, name, weight in before:
                delattr(owner, name)
                owner.register_parameter(name, weight)

    @torch.no_grad()
    def drift(self) -> Tensor:
        """||theta - theta_0||, a scalar."""
        moved = [layer.get_delta_weight(_NAME).float() for _, _, layer in self._layers]
        biases = {
            name: p for name, p in self._model.model.named_parameters() if name in self._biases
        }
        moved += [p - self._biases[name].to(p.device) for name, p in biases.items()]
        return torch.stack([part.square().sum() for part in moved]).sum().sqrt()

    def merged(self) -> dict[str, Tensor]:
        """The state of the tower with the adapters in its weights, under its own names; a copy."""
        return _unloaded(copy.deepcopy(self._model)).state_dict()

    def merge(self) -> None:
        """Puts the adapters into the weights and takes peft's modules away: the tower is open_clip's again.

        What was adapted is what has ``requires_grad`` then.
        """
        adapted = [owner for owner, _, _ in self._layers]
        _unloaded(self._model).requires_grad_(False)
        for owner in adapted:
            owner.requires_grad_(True)

    def _drop(self, mode: bool) -> None:
        for _, _, layer in self._layers:
            layer.lora_dropout.train(mode)


def _layers(model: LoraModel) -> list[tuple[nn.Module, str, Any]]:
    """Every adapted weight: the module that has it, its name there, peft's layer."""
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    names = [
        "in_proj_weight" if isinstance(layer, MultiheadAttention) else "weight" for layer in layers
    ]
    return [
        (layer.get_base_layer(), name, layer) for layer, name in zip(layers, names, strict=True)
    ]


@torch.no_grad()
def _unloaded(model: LoraModel) -> nn.Module:
    """The tower with (2) in its weights, and without peft's modules."""
    for owner, name, layer in _layers(model):
        getattr(owner, name).add_(layer.get_delta_weight(_NAME))  # (2)
    return model.unload()


def _is_bias(name: str, parameter: nn.Parameter) -> bool:
    return parameter.requires_grad and "lora_" not in name
