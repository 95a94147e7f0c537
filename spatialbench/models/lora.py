"""Low-rank adapters (LoRA) in the blocks of an image tower, by peft, and their merge.

    (1)  y = W x + (alpha / r) B A x        a layer of the MLP while it learns; x of A under dropout
    (2)  W' = W + (alpha / r) B A           the projections of attention; every layer in the end

peft 0.21 adds the adapters of the output projection of ``nn.MultiheadAttention`` twice (peft
#3774), and ``towers.py`` reads the weights of attention itself. So peft creates and holds the
adapters and runs (1), and (2) is computed here. Nothing of either library is changed.

Source: Hu et al., "LoRA", ICLR 2022, arXiv 2106.09685; mashijie1028/GenHancer @ d716ba2 for its
settings.
"""

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
"""In an open_clip tower: attention (both projections, as one) and both layers of the MLP."""
_NAME = "default"


@dataclass
class LoraSettings:
    """Adapters W + (alpha / rank) B A, B zero at the start; defaults as in the released code.

    Args:
        rank: of A and B, at least 1.
        alpha: the scale of their product, more than 0.
        dropout: in [0, 1), of the input of A in the MLP; attention has none.
        bias: also train the biases of the adapted layers (``lora_only``).

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
                f"lora.rank {self.rank} must be 1 or more, lora.alpha {self.alpha} more than 0, "
                f"lora.dropout {self.dropout} in [0, 1)"
            )


class Adapters:
    """The adapters of one tower, which alone are trained, with the adapted biases if so set.

    open_clip's ViT ``visual`` is changed in place until :meth:`merge`; A is drawn from ``seed``.
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
        self._layers = _layers(self._model)  # once: to list peft's modules makes their weights anew
        attention = [layer for _, _, layer in self._layers if isinstance(layer, MultiheadAttention)]
        for layer in attention:
            layer.in_proj_bias.requires_grad_(settings.bias)  # which peft's lora_only misses
        parts = {id(a) for layer in attention for a in (layer, layer.get_base_layer().out_proj)}
        self._attention = [adapted for adapted in self._layers if id(adapted[2]) in parts]
        learning = [(name, p) for name, p in visual.named_parameters() if p.requires_grad]
        self._biases = {name: p.detach().clone() for name, p in learning if "lora_" not in name}

    @contextmanager
    def active(self, dropout: bool = False) -> Iterator[None]:
        """Put the weights of (2) into attention, with gradient; draw dropout if ``dropout``."""
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in self._attention]
        for (owner, name, weight), (_, _, layer) in zip(before, self._attention, strict=True):
            delattr(owner, name)  # a plain tensor, which autograd follows, replaces the parameter
            setattr(owner, name, weight + layer.get_delta_weight(_NAME))  # (2)
        self._set_dropout(dropout)
        try:
            yield
        finally:
            self._set_dropout(False)
            for owner, name, weight in before:
                delattr(owner, name)
                owner.register_parameter(name, weight)

    @torch.no_grad()
    def drift(self) -> Tensor:
        """||theta - theta_0||, a scalar."""
        moved = [layer.get_delta_weight(_NAME).float() for _, _, layer in self._layers]
        now = dict(self._model.model.named_parameters())
        moved += [now[name] - before.to(now[name].device) for name, before in self._biases.items()]
        return torch.stack([part.square().sum() for part in moved]).sum().sqrt()

    def merged(self) -> dict[str, Tensor]:
        """Copy the state of the tower, with the adapters in its weights, under its own names."""
        return _unloaded(copy.deepcopy(self._model)).state_dict()

    def merge(self) -> None:
        """Merge the adapters and restore open_clip's tower; only adapted layers can learn."""
        adapted = [owner for owner, _, _ in self._layers]
        _unloaded(self._model).requires_grad_(False)
        for owner in adapted:
            owner.requires_grad_(True)

    def _set_dropout(self, mode: bool) -> None:
        for _, _, layer in self._layers:
            layer.lora_dropout.train(mode)


def _layers(model: LoraModel) -> list[tuple[nn.Module, str, Any]]:
    """Every adapted weight: its module, its name there, peft's layer."""
    layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    attention = [isinstance(layer, MultiheadAttention) for layer in layers]
    names = ["in_proj_weight" if fused else "weight" for fused in attention]
    bases = [layer.get_base_layer() for layer in layers]
    return list(zip(bases, names, layers, strict=True))


@torch.no_grad()
def _unloaded(model: LoraModel) -> nn.Module:
    """Put (2) into the tower's weights and remove peft's modules."""
    for owner, name, layer in _layers(model):
        getattr(owner, name).add_(layer.get_delta_weight(_NAME))  # (2)
    return model.unload()
