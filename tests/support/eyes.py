"""A model whose answers are known: it embeds colours."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.data.images import Resize
from spatialbench.models.towers import Tokens


class Eyes:
    """Images are their mean colour, maps the colour of each 2 x 2 patch, captions a colour.

    Args:
        size: S.
        words: caption -> colour.
        local: weight of the patches in ``visual_tokens``, which see green as red, blue as green.

    Attributes:
        images, texts: how many were encoded.
    """

    device = torch.device("cpu")
    resize_mode: Resize = "squash"
    free_captions = True

    def __init__(self, size: int, words: Mapping[str, Sequence[float]], local: float = 0.0) -> None:
        self.image_size, self.words, self.local = size, words, local
        self.images = self.texts = 0

    def image(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.uint8
        self.images += len(x)
        return F.normalize(x.float().mean((2, 3)), dim=-1)

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        return torch.tensor([list(self.words[caption]) for caption in captions])

    def text(self, tokens: Tensor) -> Tensor:
        self.texts += len(tokens)
        return F.normalize(tokens.float(), dim=-1)

    def dense(self, x: Tensor) -> Tensor:
        return F.normalize(F.avg_pool2d(x.float(), 2).permute(0, 2, 3, 1) + 1e-3, dim=-1)

    def visual_tokens(self, x: Tensor) -> Tokens:
        pixels = x.float().flatten(2).mT / 250  # [B, L, 3]
        side = self.image_size
        return Tokens(pixels.mean(1), self.local * pixels.roll(1, -1), (side, side))
