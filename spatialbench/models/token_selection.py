"""Choice of an image's tokens: pure functions of tokens and a generator.

A ``TokenSelector`` makes the sequence that conditions a generative model, at random if so set;
``score_vector`` makes the one vector that an image is scored with, never at random.

Letters: B images, L patches in h rows and w columns, N selected tokens, D width.

Source: baaivision/DIVA @ d53c668, condition/*.py; docs/diva.md.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.models.towers import Tokens
from spatialbench.utils.argument_checks import check_choice
from spatialbench.utils.errors import SpatialbenchError

Mode = Literal["cls", "all", "random", "avgpool1d"]
Scorer = Literal["cls", "cls_local"]
_NUMBERS = {"random": ["count", "ratio"], "avgpool1d": ["window"]}


@dataclass
class TokenSelector:
    """An image's embedding, then its patches: none, all, a random part, or means of neighbours.

    Args:
        mode: ``cls``: the embedding alone; ``all``; ``random``: ``count`` or ``ratio`` of the
            patches, drawn anew for every image and call; ``avgpool1d``: means of ``window``
            consecutive patches in raster order, across the ends of rows, an incomplete window left
            out (DIVA's, for SigLIP).
        count: patches of ``random``. DIVA takes 76 of OpenAI's CLIP: 77 tokens for the prompt's 77.
        ratio: share of the patches of ``random``, in (0, 1], rounded down, at least one patch.
        window: patches of a mean. DIVA takes 6 for SigLIP at 224 pixels, 10 at 384.
        replacement: ``random`` may draw a patch more than once, as DIVA's code does.

    Raises:
        SpatialbenchError: a mode without its number or with another's, or a value out of range.
    """

    mode: Mode = "all"
    count: int | None = None
    ratio: float | None = None
    window: int | None = None
    replacement: bool = True

    def __post_init__(self) -> None:
        check_choice("tokens.mode", self.mode, Mode)
        given = [name for name in ("count", "ratio", "window") if getattr(self, name) is not None]
        allowed = _NUMBERS.get(self.mode, [])
        if len(given) != min(1, len(allowed)) or not set(given) <= set(allowed):
            one_of = f"needs one of tokens.{' and tokens.'.join(allowed)}"
            raise SpatialbenchError(
                f"tokens.mode {self.mode} {one_of if allowed else 'takes no number'}; "
                f"found {', '.join(given) or 'none'}"
            )
        for name, value in (("count", self.count), ("window", self.window)):
            if value is not None and value < 1:
                raise SpatialbenchError(f"tokens.{name} is {value}; it must be 1 or more")
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise SpatialbenchError(f"tokens.ratio is {self.ratio}; it must be in (0, 1]")

    def length(self, grid: tuple[int, int]) -> int:
        """N, for images of h x w patches; an error where that is too few."""
        if self.mode == "cls":
            return 1
        patches = grid[0] * grid[1]
        count = self._drawn(patches) if self.mode == "random" else patches // (self.window or 1)
        if not count:
            raise SpatialbenchError(
                f"tokens.window {self.window} is larger than the {grid[0]} x {grid[1]} patches"
            )
        return 1 + count

    def __call__(self, tokens: Tokens, generator: torch.Generator | None = None) -> Tensor:
        """Select tokens [B, N, D], ``cls`` first, with gradient.

        ``random`` needs a generator of the CPU, for the same draws on every device.
        """
        self.length(tokens.grid)
        cls = tokens.cls[:, None]
        return cls if self.mode == "cls" else torch.cat([cls, self._local(tokens, generator)], 1)

    def _local(self, tokens: Tokens, generator: torch.Generator | None) -> Tensor:
        local = tokens.local
        if self.mode == "random":
            assert generator is not None, "random tokens are drawn by an explicit generator"
            (images, patches, width), count = local.shape, self._drawn(local.shape[1])
            if self.replacement:
                index = torch.randint(0, patches, (images, count), generator=generator)
            else:
                index = torch.rand(images, patches, generator=generator).argsort(1)[:, :count]
            return local.gather(1, index.to(local.device)[..., None].expand(-1, -1, width))
        return local if self.window is None else F.avg_pool1d(local.mT, self.window).mT

    def _drawn(self, patches: int) -> int:
        count = self.count if self.ratio is None else max(1, int(self.ratio * patches))
        assert count is not None
        if count > patches and not self.replacement:
            raise SpatialbenchError(
                f"tokens.count is {count}, without replacement, and an image has {patches} patches"
            )
        return count


def score_vector(tokens: Tokens, scorer: Scorer = "cls") -> Tensor:
    """Return the vectors that images are scored with, [B, D], unit norm; nothing is random.

    ``cls`` is the embedding, as in CLIP and in MMVP-VLM's own script; ``cls_local`` adds the mean
    of all patches: DIVA's scorer for OpenAI's CLIP without its random choice.

    Source: baaivision/DIVA @ d53c668, which scores with ``cls_local`` after training and with
    ``cls`` before, so that a part of its gain is the scorer's (docs/diva.md, "What is measured").

    Raises:
        SpatialbenchError: another scorer.
    """
    check_choice("the scorer", scorer, Scorer)
    vector = tokens.cls if scorer == "cls" else tokens.cls + tokens.local.mean(1)
    return F.normalize(vector.float(), dim=-1)
