r"""The Refiner: a copy of CLIP's last blocks that matches each token to CLIP's own token in a crop.

Paper  Qiu, Wu, Ke, Bai, Zhang, "Refining CLIP's Spatial Awareness: A Visual-Centric Perspective",
       ICLR 2025, arXiv 2504.02328, figure 4.
Code   The authors released none; CongpeiQiu/UniRefiner @ 38f4e71 is later code of the same first
       author. docs/r_sc_rla.md tags every choice as quoted, from that code, or inferred; each is
       a field here.

The trunk, all blocks but the last K, is frozen and shared. R is a copy of the last K blocks and the
only part that learns. For boxes c_p of an image X:

    (1)  G = R(trunk(X)),   g_p = RoIAlign(G, c_p)  tokens of the whole image
    (2)  t_p = dense(crop of X at c_p)              the frozen CLIP's tokens, with less context
    (3)  L = mean_j ( - <g_j, t_j> / tau + u log sum_k e^{<g_j, t_k> / tau} )

Over many crops, (3) asks for the mean over contexts.

Differences  The paper's K, crops and u are not known. R has no layer but the copied blocks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from spatialbench.data.region_batches import RegionBatch, generator, regions_of
from spatialbench.methods.base import DEFAULTS, FineTuning, Method
from spatialbench.methods.parts.teacher import refiner_blocks, with_refiner
from spatialbench.models.region_tokens import exact, region_tokens, single
from spatialbench.models.towers import Attend, encode_dense
from spatialbench.utils.errors import SpatialbenchError


class Refiner(Method):
    """The Refiner on a frozen CLIP: only the dense map changes, not images or captions.

    Args:
        student: an open_clip model, ``<model>[:<weights>]``; see ``Method``. Frozen.
        blocks: K; none: a third of the tower's. Inferred: 4 of 12, 8 of 24; sweep 2 to 6.
        temperature: tau of (3); the follow-up code's.
        uniformity: u of (3); in the follow-up code 1 for EVA-CLIP and 0.3 for most others.
        match_to_full: the positive of a token is the most similar token of the frozen CLIP's map of
            the whole image, whose other tokens are the negatives, as in the follow-up code; false:
            its own place in the crop.
        background: share of a crop's side that a strip of another image takes, on a random side, so
            that a token's context changes more; 0 for none, 0.35 in the follow-up code.
        finetuning: optimiser and schedule.
    """

    pretrained = ("student.", "refiner.")  # a copy of the student's

    def __init__(
        self,
        student: str = "rooms-student",
        blocks: int | None = None,
        temperature: float = 0.2,
        uniformity: float = 1.0,
        match_to_full: bool = False,
        background: float = 0.0,
        finetuning: FineTuning = DEFAULTS,
    ) -> None:
        super().__init__(student, finetuning)
        self.save_arguments(locals())
        if not temperature > 0 or not uniformity >= 0 or not 0 <= background < 1:
            raise SpatialbenchError(
                f"temperature {temperature} must be more than 0, uniformity {uniformity} 0 or more,"
                f" background {background} in [0, 1)"
            )
        self.student.requires_grad_(False)
        third = max(1, len(self.student.visual.transformer.resblocks) // 3)
        self.refiner = refiner_blocks(self.student, third if blocks is None else blocks)
        self.temperature, self.uniformity = temperature, uniformity
        self.match_to_full = match_to_full
        grid = self.image_size // self.student.visual.patch_size[0]
        self.strip = round(background * grid)
        if background and not 0 < self.strip < grid:
            raise SpatialbenchError(
                f"background {background} is {self.strip} of the {grid} tokens a side: take 1 or "
                "more"
            )

    def on_fit_start(self) -> None:
        """Check that there are wide boxes."""
        regions_of(self.trainer, wide=True)

    def dense(self, x: Tensor, attend: Attend | None = None) -> Tensor:
        """Return the refined map (1); see ``Method.dense``."""
        blocks, pixels = with_refiner(self.student, self.refiner), self._normalised(x, native=False)
        dense = encode_dense(self.student, pixels, blocks=blocks, attend=attend)
        return F.normalize(dense.float(), dim=-1)

    def plain(self, x: Tensor) -> Tensor:
        """Return the frozen CLIP's own map, without gradient."""
        with torch.no_grad():
            return super().dense(x)

    def training_step(self, batch: RegionBatch, batch_idx: int) -> Tensor:
        """Return (3)."""
        boxes, image = batch["wide"], batch["wide_image"]
        crops, (top, left, rows, columns) = self.contexts(batch)
        local = self.plain(crops)[:, top : top + rows, left : left + columns].flatten(1, 2)  # (2)
        refined = region_tokens(self.dense(batch["pixels"]), boxes, image, (rows, columns))  # (1)
        place = None
        if self.match_to_full:
            whole = self.plain(batch["pixels"]).flatten(1, 2)[image]  # [P, h w, D]
            place, local = (local @ whole.mT).argmax(-1), whole
        loss = token_contrast(refined, local, place, self.temperature, self.uniformity)  # (3)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(boxes))
        return loss

    def contexts(self, batch: RegionBatch) -> tuple[Tensor, tuple[int, int, int, int]]:
        """Cut out the wide boxes at the native size, with a strip of another image or without.

        Returns:
            crops uint8 [P, 3, s, s]; and the tokens of the box itself: first row, first column,
            rows, columns.
        """
        side, patch = self.image_size, self.student.visual.patch_size[0]
        grid, strip = side // patch, self.strip
        pixels = batch["pixels"].float()
        if strip and len(pixels) < 2:
            raise SpatialbenchError(
                "background needs another image in the batch: raise data.region_batch to 2 or more"
            )
        edge = int(torch.randint(4, (1,), generator=generator(batch["key"])))
        rows, columns = (grid - strip, grid) if edge < 2 else (grid, grid - strip)
        top, left = strip * (edge == 1), strip * (edge == 3)
        height, width = pixels.shape[-2:]
        corners = batch["wide"] * pixels.new_tensor([width, height, width, height])
        rois = torch.cat([batch["wide_image"][:, None].to(pixels), corners], dim=1)
        crops = roi_align(pixels, rois, output_size=(rows * patch, columns * patch), aligned=True)
        if strip:
            whole = F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)
            whole = whole[(batch["wide_image"] + 1) % len(pixels)]  # the batch's next image
            y, x = top * patch, left * patch
            whole[:, :, y : y + rows * patch, x : x + columns * patch] = crops
            crops = whole
        return crops.round().clamp(0, 255).to(torch.uint8), (top, left, rows, columns)


def token_contrast(
    refined: Tensor, local: Tensor, place: Tensor | None, temperature: float, uniformity: float
) -> Tensor:
    """Match each token of the whole image to one token of the frozen model: (3).

    Args:
        refined: [N, L, D], unit norm, g.
        local: [N, M, D], unit norm, t; gets no gradient.
        place: int64 [N, L] in [0, M), the token that j is matched to; None: j itself, M = L.
        temperature: tau.
        uniformity: u; 1 is InfoNCE.
    """
    with exact(refined):
        logits = single(refined) @ single(local.detach()).mT / temperature  # [N, L, M]
        own = torch.arange(logits.shape[1], device=logits.device) if place is None else place
        positive = logits.gather(-1, own.expand(logits.shape[:2])[..., None])[..., 0]
        return (uniformity * logits.logsumexp(-1) - positive).mean()
