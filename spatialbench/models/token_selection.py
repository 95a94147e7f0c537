"""Which tokens of a picture are used: pure functions of tokens and a generator.

Two uses, kept apart: a ``TokenSelector`` makes the sequence that a generative model is conditioned on, at random if it
is so set; ``score_vector`` makes the one vector that a picture is scored with, and draws nothing.

Letters: B images, L patches in h rows and w columns, N tokens taken, D width.

Source: baaivision/DIVA @ d53c668, condition/*.py; docs/diva.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.models.visual_tokens import Tokens
from spatialbench.utils.errors import SpatialbenchError

Mode = Literal["cls", "all", "random", "avgpool1d", "avgpool2d"]
Scorer = Literal["cls", "cls_local"]


@dataclass
class TokenSelector:
    """The embedding of a picture first, then of its patches: none, all, some at random, or means of neighbours.

    Args:
        mode: ``cls``: the embedding alone; ``all``; ``random``: ``count`` or ``ratio`` of the patches, drawn anew for
            every picture and every call; ``avgpool1d``: means of ``window`` patches that follow one another in raster
            order, around the ends of rows, what does not fill a window is left out (DIVA's, for SigLIP);
            ``avgpool2d``: means of ``window`` x ``window`` patches.
        count: of ``random``, so many patches. DIVA's 76 of OpenAI's CLIP, so that 77 tokens stand beside the 77 of the
            prompt.
        ratio: of ``random``, in (0, 1]: this share of the patches, rounded down, one at least.
        window: of the two poolings, patches (a side). DIVA's 6 for SigLIP at 224 pixels, 10 at 384.
        replacement: of ``random``: a patch may be drawn more than once, as in DIVA's code.

    Raises:
        SpatialbenchError: a mode without what it needs, with what it does not take, or a value out of range.
    """

    mode: Mode = "all"
    count: int | None = None
    ratio: float | None = None
    window: int | None = None
    replacement: bool = True

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise SpatialbenchError(
                f"tokens.mode is {self.mode!r}; one of {', '.join(get_args(Mode))}"
            )
        given = [name for name in ("count", "ratio", "window") if getattr(self, name) is not None]
        wanted = {
            "random": ["count", "ratio"],
            "avgpool1d": ["window"],
            "avgpool2d": ["window"],
        }.get(self.mode, [])
        if len(given) != min(1, len(wanted)) or not set(given) <= set(wanted):
            need = (
                f"needs one of tokens.{' and tokens.'.join(wanted)}"
                if wanted
                else "takes no number"
            )
            raise SpatialbenchError(
                f"tokens.mode {self.mode} {need}; found {', '.join(given) or 'none'}"
            )
        for name in ("count", "window"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SpatialbenchError(f"tokens.{name} is {value}; it must be 1 or more")
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise SpatialbenchError(f"tokens.ratio is {self.ratio}; it must be in (0, 1]")

    def length(self, grid: tuple[int, int]) -> int:
        """N, of pictures of h x w patches.

        Raises:
            SpatialbenchError: more patches than there are are wanted.
        """
        patches, window = grid[0] * grid[1], self.window or 1
        if self.mode == "random":
            return 1 + self._drawn(patches)
        sides = {"cls": 0, "all": patches, "avgpool1d": patches // window}
        found = sides.get(self.mode, (grid[0] // window) * (grid[1] // window))
        if not found and self.mode != "cls":
            raise SpatialbenchError(
                f"tokens.window {self.window} is larger than the {grid[0]} x {grid[1]} patches"
            )
        return 1 + found

    def __call__(self, tokens: Tokens, generator: torch.Generator | None = None) -> Tensor:
        """Tokens of pictures -> [B, N, D], ``cls`` first, with gradient.

        Args:
            generator: of the CPU, for the same draws whatever the device; only ``random`` needs one.

        Raises:
            SpatialbenchError: more patches than there are are wanted.
        """
        self.length(tokens.grid)
        cls = tokens.cls[:, None]
        if self.mode == "cls":
            return cls
        return torch.cat([cls, self._local(tokens, generator)], dim=1)

    def _local(self, tokens: Tokens, generator: torch.Generator | None) -> Tensor:
        local, window = tokens.local, self.window or 1
        if self.mode == "random":
            index = self._index(len(local), local.shape[1], generator).to(local.device)
            return local.gather(1, index[..., None].expand(-1, -1, local.shape[2]))
        if self.mode == "avgpool1d":
            return F.avg_pool1d(local.mT, window).mT
        if self.mode == "avgpool2d":
            return F.avg_pool2d(local.mT.unflatten(2, tokens.grid), window).flatten(2).mT
        return local

    def _index(self, images: int, patches: int, generator: torch.Generator | None) -> Tensor:
        """int64 [B, n], the patches drawn for each picture."""
        assert generator is not None, "random tokens are drawn by an explicit generator"
        count = self._drawn(patches)
        if self.replacement:
            return torch.randint(0, patches, (images, count), generator=generator)
        return torch.rand(images, patches, generator=generator).argsort(dim=1)[:, :count]

    def _drawn(self, patches: int) -> int:
        count = self.count if self.ratio is None else max(1, int(self.ratio * patches))
        assert count is not None
        if count > patches and not self.replacement:
            raise SpatialbenchError(
                f"tokens.count is {count}, without replacement, and a picture has {patches} patches"
            )
        return count


def score_vector(tokens: Tokens, scorer: Scorer = "cls") -> Tensor:
    """The vector that pictures are scored with, [B, D], unit norm; nothing is drawn.

    Args:
        tokens: of pictures.
        scorer: ``cls``: the embedding, as in CLIP and in MMVP-VLM's own script; ``cls_local``: the embedding plus the
            mean of all patches, DIVA's for OpenAI's CLIP without its draw.

    Raises:
        SpatialbenchError: another scorer.

    Source: baaivision/DIVA @ d53c668, which scores with ``cls_local`` after training and compares with ``cls`` before,
        so that a part of its gain is the scorer's (docs/diva.md, "What is measured").
    """
    if scorer not in get_args(Scorer):
        raise SpatialbenchError(f"the scorer is {scorer!r}; one of {', '.join(get_args(Scorer))}")
    vector = tokens.cls if scorer == "cls" else tokens.cls + tokens.local.mean(1)
    return F.normalize(vector.float(), dim=-1)
