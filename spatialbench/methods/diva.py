r"""DIVA: a frozen diffusion model tells CLIP's image tower what of a picture its tokens do not say.

Paper  Wang, Sun, Zhang, Tang, Liu, Wang, "Diffusion Feedback Helps CLIP See Better", ICLR 2025, arXiv 2407.20171.
Code   baaivision/DIVA @ d53c668 (nothing is copied). docs/diva.md says of every decision that it takes,
       D1 to D18, what is done here; the page diva_legacy does as that code does.

With f the image tower and z the latents of a picture I under the frozen autoencoder, for k = 1 to K:

    (1)  T = f(I)                                               its embedding and its patches, projected
    (2)  C_k = E (+) P(select_k(T))                             P linear, E the constant prompt's hidden states
    (3)  z_k = sqrt(a_t) z + sqrt(1 - a_t) e_k,  t_k ~ U{0..},  e_k ~ N(0, 1)
    (4)  L_k = mean over pictures of mean (U(z_k, t_k, C_k) - e_k)^2
    (5)  L = sum_k w_k L_k
    (6)  dL = sum_k w_k <dC_k, g_k>,  g_k = dL_k / dC_k

(6) is the gradient of (5), exactly, taken with one graph of the UNet in memory at a time and one forward of the image
tower for all k.

Differences  One forward of the image tower serves the K inner steps, which the code repeats for each. Inner weights are
             a field; the mean of the C_k is the constant's default place (the code's for all but OpenAI's CLIP).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatialbench.data.image_batches import ImageBatch, ImageDataset, images_of, resized
from spatialbench.data.region_batches import generator
from spatialbench.methods.base import DEFAULTS, FineTuning, Method
from spatialbench.methods.parts.finetuning import adamw, sgd
from spatialbench.methods.parts.reconstructions import NAME, PICTURES, SEED, denoised_panels, draw
from spatialbench.models.latent_diffusion import Diffusion, load_diffusion
from spatialbench.models.latents import Latents
from spatialbench.models.token_selection import TokenSelector
from spatialbench.models.visual_tokens import Tokens, visual_tokens
from spatialbench.utils.errors import SpatialbenchError

Offset = Literal["mean", "aligned"]
Optimizer = Literal["sgd", "adamw"]


class Diva(Method):
    """The image tower learns from the denoiser's error; the text tower and the temperature stay as they are.

    Args:
        student: ``<open_clip model>[:<weights>]``, for instance ``rooms-student``, ``ViT-L-14-quickgelu:openai``,
            a config file ``my.json:my.safetensors``; ``:random`` for random weights.
        diffusion: ``rooms-diffusion``; a folder in diffusers' layout; ``<owner>/<name>@<commit>`` on the Hub; or
            ``sd-2-1-base:random``, the exact architecture with random weights.
        dtype: of the frozen diffusion model; its loss is in float32.
        hashes: sha256 of files of the diffusion model, by path.
        checkpointing: compute the UNet's activations again in the backward pass: less memory, a third more time.
        cache: keep the latents of pictures on disk; of pictures that are cropped at random none are kept anyway.
        tokens: which tokens the denoiser is conditioned on; DIVA's are all, or about 30 % at random.
        offset: (+) of (2): ``mean`` adds the mean over E's positions to every token (the code's for all but OpenAI's
            CLIP), ``aligned`` adds E position by position (the code's for OpenAI's), which needs as many tokens.
        inner_weights: w_k; K is their number. None: two of one half each. The released code's are 5 to 1, a side effect
            of its accumulation over 5 batches (decision D6).
        legacy_range: give the autoencoder the released code's narrower range of pixels (D1).
        antialias: scale pictures to the student's size as CLIP does; false: as the released code (D3).
        optimizer: the suite's ``adamw``, or ``sgd`` without decay, as DIVA; both with the schedule of ``finetuning``.
        momentum: of ``sgd``.
        lr: learning rate of the student and of P, which DIVA has in one group; None: those of ``finetuning``, lr and
            connection_lr.
        finetuning: learning rates and schedule; what it says of captions is of no use here.

    Raises:
        SpatialbenchError: a value out of its range.
    """

    frozen = ("diffusion.",)
    leaves = (NAME,)

    def __init__(
        self,
        student: str = "rooms-student",
        diffusion: str = "rooms-diffusion",
        dtype: str = "bfloat16",
        hashes: dict[str, str] | None = None,
        checkpointing: bool = False,
        cache: bool = True,
        tokens: TokenSelector | None = None,
        offset: Offset = "mean",
        inner_weights: Sequence[float] | None = None,
        legacy_range: bool = False,
        antialias: bool = True,
        optimizer: Optimizer = "adamw",
        momentum: float = 0.9,
        lr: float | None = None,
        finetuning: FineTuning = DEFAULTS,
    ) -> None:
        super().__init__(student, finetuning)
        if isinstance(tokens, Mapping):  # out of the hyper-parameters of a checkpoint
            tokens = TokenSelector(**tokens)
        self.tokens = tokens or TokenSelector()
        self.weights = (
            [0.5, 0.5] if inner_weights is None else [float(weight) for weight in inner_weights]
        )
        self.offset, self.antialias, self.optimizer, self.momentum = (
            offset,
            antialias,
            optimizer,
            momentum,
        )
        own = {
            "tokens": asdict(self.tokens),
            "inner_weights": self.weights,
            "offset": offset,
            "antialias": antialias,
        }
        loading = {
            "dtype": dtype,
            "hashes": hashes,
            "checkpointing": checkpointing,
            "legacy_range": legacy_range,
        }
        self.save_hyperparameters({"diffusion": diffusion, "cache": cache, **loading, **own})
        self.save_hyperparameters({"optimizer": optimizer, "momentum": momentum, "lr": lr})
        for name, value, known in (("offset", offset, Offset), ("optimizer", optimizer, Optimizer)):
            if value not in get_args(known):
                raise SpatialbenchError(f"{name} is {value!r}; one of {', '.join(get_args(known))}")
        if not self.weights or not all(
            weight > 0 and math.isfinite(weight) for weight in self.weights
        ):
            raise SpatialbenchError(
                f"inner_weights is {self.weights}; give one number above 0 for each inner step"
            )
        if not 0 <= momentum < 1 or not (lr is None or lr >= 0):
            raise SpatialbenchError(
                f"momentum {momentum} must be in [0, 1), lr {lr} 0 or more, or null"
            )
        self.rates = (
            self.finetuning if lr is None else replace(self.finetuning, lr=lr, connection_lr=lr)
        )
        for name, parameter in self.student.named_parameters():
            if not name.startswith("visual."):
                parameter.requires_grad_(False)
        self._loading: dict[str, Any] = {"spec": diffusion, **loading}
        self._cache = cache
        self.diffusion: Diffusion | None = None  # there while training only
        self.visual_proj: nn.Linear | None = (
            None  # P; trained, and in the checkpoint of this page alone
        )
        self._start: list[
            Any
        ] = []  # the image tower that training started from; no part of what is trained

    # ---------------------------------------------------------------------------------------- the frozen side
    def setup(self, stage: str) -> None:
        """Loads the diffusion model; before a checkpoint is restored, so that the start is the start."""
        if stage == "fit":
            self.begin(load_diffusion(**self._loading))

    def begin(self, diffusion: Diffusion) -> None:
        """Makes P, and keeps the image tower as it is now.

        Raises:
            SpatialbenchError: the tokens cannot be aligned with the prompt.
        """
        self.diffusion = diffusion
        grid = self.student.visual.grid_size
        length, positions = self.tokens.length((grid[0], grid[1])), len(diffusion.context)
        if self.offset == "aligned" and length != positions:
            raise SpatialbenchError(
                f"offset aligned needs as many tokens as the prompt has positions, {positions}, and tokens gives "
                f"{length}: set tokens.mode random with tokens.count {positions - 1}, or offset mean"
            )
        self.visual_proj = _linear(self.student.visual.output_dim, diffusion.width)
        self._start = [
            SimpleNamespace(visual=copy.deepcopy(self.student.visual).eval().requires_grad_(False))
        ]
        self.latents = Latents(diffusion, cache=False)

    def on_fit_start(self) -> None:
        pictures = images_of(self.trainer)
        self._start[0].visual.to(self.device)
        self.prepare(
            pictures, first=self.trainer.is_global_zero, wait=self.trainer.strategy.barrier
        )

    def prepare(
        self,
        pictures: ImageDataset,
        first: bool = True,
        wait: Callable[[], object] = lambda: None,
    ) -> None:
        """Computes the latents once where a picture is always the same.

        Args:
            first: whether this process is the one that fills the cache.
            wait: for the others.

        Raises:
            SpatialbenchError: pictures of another size than the diffusion model's.
        """
        assert self.diffusion is not None, "setup loads it"
        if pictures.size != self.diffusion.image_size:
            raise SpatialbenchError(
                f"the diffusion model sees pictures of {self.diffusion.image_size} pixels a side: set "
                f"data.init_args.picture_size {self.diffusion.image_size}, not {pictures.size}"
            )
        self.latents = Latents(self.diffusion, self._cache and pictures.crop is None)
        if first:
            self.latents.prepare(pictures)
        wait()
        self.latents.refresh()

    def on_fit_end(self) -> None:
        """Leaves the picture of what was learned; the diffusion model is gone, what is left is a CLIP and P."""
        if self.trainer.is_global_zero:
            self.to(
                self.trainer.strategy.root_device
            )  # Lightning has it back on the CPU by now, but not the start
            self.draw(images_of(self.trainer), Path(self.trainer.default_root_dir) / NAME)
        self.diffusion, self._start = None, []
        del self.latents

    # ---------------------------------------------------------------------------------------- training
    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        assert self.diffusion is not None, "setup loads it"
        z, rng = self.latents(batch["pixels"]), generator(batch["key"])
        tokens = self.tokens_of(batch["pixels"])  # (1)
        real, surrogate = z.new_zeros(()), z.new_zeros(())
        for weight in self.weights:
            t, eps = self._drawn(z, rng)
            context = self.context(tokens, rng)  # (2)
            fixed = context.detach().requires_grad_()
            loss = self.diffusion.loss(z, t, eps, fixed).mean()  # (3), (4)
            (gradient,) = torch.autograd.grad(loss, fixed)
            real = real + weight * loss.detach()  # (5)
            surrogate = surrogate + weight * (context * gradient).sum()  # (6)
        self.log("train/loss", real, prog_bar=True, batch_size=len(z))
        self._log_drift(batch["pixels"])
        return real + (surrogate - surrogate.detach())  # the value of (5), the gradient of (6)

    def tokens_of(self, pixels: Tensor, model: Any = None) -> Tokens:
        """(1), of pictures uint8 [B, 3, G, G] at any size; ``model`` in the place of the student."""
        seen = self._normalised(resized(pixels, self.image_size, self.antialias))
        return visual_tokens(self.student if model is None else model, seen)

    def context(self, tokens: Tokens, rng: torch.Generator) -> Tensor:
        """(2), [B, N, W], with gradient."""
        assert self.diffusion is not None, "begin sets both"
        assert self.visual_proj is not None
        offset = self.diffusion.context  # [T, W]
        if self.offset == "mean":
            offset = offset.mean(0, keepdim=True)
        return offset + self.visual_proj(self.tokens(tokens, rng))

    def _drawn(self, z: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """t_k int64 [B] and e_k [B, c, h, w], drawn on the CPU, so that they are the same on every device."""
        assert self.diffusion is not None
        t = torch.randint(0, self.diffusion.steps, (len(z),), generator=rng)
        return t.to(z.device), torch.randn(z.shape, generator=rng).to(z)

    def configure_optimizers(self) -> Any:
        """SGD or AdamW with warm-up and cosine over the trainer's steps; see ``FineTuning``."""
        total = self.trainer.estimated_stepping_batches if self.rates.schedule == "cosine" else 0
        if self.optimizer == "adamw":
            return adamw(self.named_parameters(), self.rates, total, self.pretrained)
        return sgd(self.named_parameters(), self.rates, total, self.pretrained, self.momentum)

    def _log_drift(self, pixels: Tensor) -> None:
        """How far the image tower has moved, in the steps of which the trainer writes a line."""
        trainer = getattr(self, "_trainer", None)
        if trainer is not None and (trainer.global_step + 1) % trainer.log_every_n_steps == 0:
            weights, cosine = self.drift(pixels)
            self.log("drift/weights", weights, batch_size=len(pixels))
            self.log("drift/cosine", cosine, batch_size=len(pixels))

    @torch.no_grad()
    def drift(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The L2 distance of the image tower's weights from the start, and the mean cosine of the embeddings of
        pictures uint8 [B, 3, G, G] with those of the start, in float32."""
        start = self._start[0]
        pairs = zip(self.student.visual.parameters(), start.visual.parameters(), strict=True)
        distance = (
            torch.stack([(now - before).square().sum() for now, before in pairs]).sum().sqrt()
        )
        with torch.autocast(self.device.type, enabled=False):
            now, before = (self.tokens_of(pixels, model).cls for model in (None, start))
        return distance, F.cosine_similarity(now, before, dim=-1).mean()

    # ---------------------------------------------------------------------------------------- what is left
    @torch.no_grad()
    def draw(self, pictures: ImageDataset, path: Path) -> None:
        """Draws what one step of denoising makes of noised pictures: with the prompt alone, with tokens of the tower
        that training started from, and of the trained one, through the same P."""
        assert self.diffusion is not None
        pixels = torch.stack(
            [pictures.whole(row) for row in range(min(PICTURES, len(pictures)))]
        ).to(self.device)
        contexts = {"prompt only": self.diffusion.context.expand(len(pixels), -1, -1)}
        with torch.autocast(self.device.type, enabled=False):
            for title, model in (("before", self._start[0]), ("after", None)):
                rng = torch.Generator().manual_seed(SEED)
                contexts[title] = self.context(self.tokens_of(pixels, model), rng)
            draw(
                denoised_panels(self.diffusion, pixels, self.diffusion.latents(pixels), contexts),
                path,
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As ``Method``; P is of use to training only."""
        if self.visual_proj is None:
            state = checkpoint["state_dict"].items()
            checkpoint["state_dict"] = {
                name: value for name, value in state if not name.startswith("visual_proj.")
            }
        super().on_load_checkpoint(checkpoint)


def _linear(width: int, out: int) -> nn.Linear:
    """nn.Linear with its usual start, drawn from the seed alone, whatever was drawn before."""
    layer, rng = nn.Linear(width, out), torch.Generator().manual_seed(torch.initial_seed())
    bound = 1 / math.sqrt(width)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=rng)
    return layer
