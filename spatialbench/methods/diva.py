r"""DIVA: a frozen diffusion model teaches CLIP's image tower what its tokens miss of an image.

Paper  Wang, Sun, Zhang, Tang, Liu, Wang, "Diffusion Feedback Helps CLIP See Better", ICLR 2025,
       arXiv 2407.20171.
Code   baaivision/DIVA @ d53c668 (nothing is copied). docs/diva.md lists the code's decisions D1 to
       D18 and what is done here; the page diva_legacy does as that code does.

With f the image tower and z the latents of an image I under the frozen autoencoder, for k = 1 to K:

    (1)  T = f(I)                               its embedding and its patches, projected
    (2)  C_k = E (+) P(select_k(T))             P linear, E the constant prompt's hidden states
    (3)  z_k = sqrt(a_t) z + sqrt(1 - a_t) e_k,  t_k ~ U{0..},  e_k ~ N(0, 1)
    (4)  L_k = mean over images of mean (U(z_k, t_k, C_k) - e_k)^2
    (5)  L = sum_k w_k L_k
    (6)  dL = sum_k w_k <dC_k, g_k>,  g_k = dL_k / dC_k

(6) is exactly the gradient of (5), with one graph of the UNet in memory at a time and one forward
of the image tower for all k.

Differences  One forward of the image tower serves the K inner steps; the code repeats it for each.
             Inner weights are a field. By default the constant is the mean of E over its positions,
             as in the code for all but OpenAI's CLIP.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spatialbench.data.image_batches import ImageBatch, ImageDataset, images_of, resized
from spatialbench.data.region_batches import generator
from spatialbench.methods.base import DEFAULTS, FineTuning
from spatialbench.methods.parts.finetuning import over_training, parameter_groups
from spatialbench.methods.parts.generative import GenerativeMethod, seeded
from spatialbench.methods.parts.reconstructions import NOISE, SEED, Column, Panel, reconstruct
from spatialbench.models.latent_diffusion import Diffusion, load_diffusion
from spatialbench.models.latents import Latents
from spatialbench.models.token_selection import TokenSelector
from spatialbench.models.towers import Tokens, visual_tokens
from spatialbench.utils.argument_checks import check_choice, settings_of
from spatialbench.utils.checkpoints import without
from spatialbench.utils.errors import SpatialbenchError

Offset = Literal["mean", "aligned"]
Optimizer = Literal["sgd", "adamw"]


class Diva(GenerativeMethod):
    """The denoiser's error trains the image tower; the text tower and the temperature are frozen.

    Args:
        student: an open_clip model, ``<model>[:<weights>]``; see ``Method``.
        diffusion: ``rooms-diffusion``; a folder in diffusers' layout; ``<owner>/<name>@<commit>``
            on the Hub; or ``sd-2-1-base:random``, the exact architecture with random weights.
        dtype: of the frozen diffusion model; its loss is in float32.
        hashes: sha256 of files of the diffusion model, by path.
        checkpointing: recompute the UNet's activations in the backward pass: less memory, a third
            more time.
        cache: keep the latents of images on disk, except of images that are cropped at random.
        tokens: tokens that condition the denoiser; DIVA's are all, or about 30 % at random.
        offset: (+) of (2): ``mean`` adds the mean over E's positions to every token; ``aligned``
            adds E position by position (the code's for OpenAI's CLIP), which needs as many tokens.
        inner_weights: w_k; K is their number. None: two of one half each. The released code's are 5
            to 1, a side effect of its accumulation over 5 batches (decision D6).
        legacy_range: give the autoencoder the released code's narrower range of pixels (D1).
        antialias: scale images to the student's size as CLIP does; false: as the code (D3).
        optimizer: the suite's ``adamw``, or DIVA's ``sgd`` without decay; both with the schedule of
            ``finetuning``.
        momentum: of ``sgd``.
        lr: learning rate of the student and of P, which DIVA has in one group; None: ``lr`` and
            ``connection_lr`` of ``finetuning``.
        finetuning: learning rates and schedule; its settings of captions are not used.
    """

    frozen = ("diffusion.",)

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
        self.tokens = settings_of(TokenSelector, tokens)
        self.weights = [0.5, 0.5] if inner_weights is None else [float(w) for w in inner_weights]
        self.save_arguments(locals(), tokens=asdict(self.tokens), inner_weights=self.weights)
        check_choice("offset", offset, Offset)
        check_choice("optimizer", optimizer, Optimizer)
        if not self.weights or not all(w > 0 and math.isfinite(w) for w in self.weights):
            raise SpatialbenchError(
                f"inner_weights is {self.weights}; give one number above 0 for each inner step"
            )
        if not 0 <= momentum < 1 or not (lr is None or lr >= 0):
            raise SpatialbenchError(
                f"momentum {momentum} must be in [0, 1), lr {lr} 0 or more, or null"
            )
        self.offset, self.antialias, self.cache = offset, antialias, cache
        self.optimizer, self.momentum = optimizer, momentum
        if lr is not None:
            self.finetuning = replace(self.finetuning, lr=lr, connection_lr=lr)
        for name, parameter in self.student.named_parameters():
            if not name.startswith("visual."):
                parameter.requires_grad_(False)
        options: dict[str, Any] = {"hashes": hashes, "checkpointing": checkpointing}
        self._load = partial(load_diffusion, diffusion, dtype, legacy_range, **options)
        self.diffusion: Diffusion | None = None  # only during training
        self.visual_proj: nn.Linear | None = None  # P; only in the checkpoints of this page

    def setup(self, stage: str) -> None:
        """Load the diffusion model, before a checkpoint is restored, so that the start is right."""
        if stage == "fit":
            self.begin(self._load())

    def begin(self, diffusion: Diffusion) -> None:
        """Make P, and keep the image tower as it is now.

        Raises:
            SpatialbenchError: the tokens cannot be aligned with the prompt.
        """
        self.diffusion = diffusion
        grid = self.student.visual.grid_size
        length, positions = self.tokens.length((grid[0], grid[1])), len(diffusion.context)
        if self.offset == "aligned" and length != positions:
            raise SpatialbenchError(
                "offset aligned needs as many tokens as the prompt has positions, "
                f"{positions}, and tokens gives {length}: set tokens.mode random with "
                f"tokens.count {positions - 1}, or offset mean"
            )
        with seeded(torch.initial_seed()):  # whatever was drawn before
            self.visual_proj = nn.Linear(self.student.visual.output_dim, diffusion.width)
        self.keep_start()
        self.latents = Latents(diffusion, cache=False)

    def on_fit_start(self) -> None:
        """Compute the latents."""
        super().on_fit_start()
        trainer = self.trainer
        self.prepare(images_of(trainer), trainer.is_global_zero, trainer.strategy.barrier)

    def prepare(
        self, images: ImageDataset, first: bool = True, wait: Callable[[], object] = lambda: None
    ) -> None:
        """Compute the latents once, if an image is always the same.

        Of several processes, the ``first`` fills the cache and the others ``wait``.

        Raises:
            SpatialbenchError: images of another size than the diffusion model's.
        """
        assert self.diffusion is not None, "setup loads it"
        size = self.diffusion.image_size
        if images.size != size:
            raise SpatialbenchError(
                f"the diffusion model reads images of {size} pixels a side: set "
                f"data.init_args.picture_size {size}, not {images.size}"
            )
        self.latents = Latents(self.diffusion, self.cache and images.crop is None)
        if first:
            self.latents.prepare(images)
        wait()
        self.latents.refresh()

    def finish_stage(self) -> None:
        """Drop the diffusion model: a CLIP and P remain."""
        self.diffusion, self._start = None, None
        del self.latents

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Return the value of (5) with the gradient of (6)."""
        assert self.diffusion is not None, "setup loads it"
        z, rng = self.latents(batch["pixels"]), generator(batch["key"])
        tokens = self.tokens_of(batch["pixels"])  # (1)
        real, surrogate = z.new_zeros(()), z.new_zeros(())
        for weight in self.weights:
            # on the CPU, so that draws are the same on every device
            t = torch.randint(0, self.diffusion.steps, (len(z),), generator=rng).to(z.device)
            eps = torch.randn(z.shape, generator=rng).to(z)
            context = self.context(tokens, rng)  # (2)
            fixed = context.detach().requires_grad_()
            loss = self.diffusion.loss(z, t, eps, fixed).mean()  # (3), (4)
            (gradient,) = torch.autograd.grad(loss, fixed)
            real = real + weight * loss.detach()  # (5)
            surrogate = surrogate + weight * (context * gradient).sum()  # (6)
        self.log("train/loss", real, prog_bar=True, batch_size=len(z))
        self.log_drift(batch["pixels"])
        return real + (surrogate - surrogate.detach())

    def tokens_of(self, pixels: Tensor, model: Any = None) -> Tokens:
        """Return (1) of images uint8 [B, 3, G, G] of any size; ``model`` replaces the student."""
        x = self._normalised(resized(pixels, self.image_size, self.antialias))
        return visual_tokens(self.student if model is None else model, x)

    def context(self, tokens: Tokens, rng: torch.Generator) -> Tensor:
        """Return (2), [B, N, W], with gradient."""
        assert self.diffusion is not None, "begin sets both"
        assert self.visual_proj is not None
        offset = self.diffusion.context  # [T, W]
        if self.offset == "mean":
            offset = offset.mean(0, keepdim=True)
        return offset + self.visual_proj(self.tokens(tokens, rng))

    def configure_optimizers(self) -> Any:
        """Return SGD or AdamW with warm-up and cosine; see ``FineTuning``."""
        if self.optimizer == "adamw":
            return super().configure_optimizers()
        settings = replace(self.finetuning, weight_decay=0.0)
        groups = parameter_groups(self.named_parameters(), settings, self.pretrained)
        optimizer = torch.optim.SGD(groups, momentum=self.momentum)
        return over_training(optimizer, settings, self.trainer)

    def embedding(self, x: Tensor, model: Any = None) -> Tensor:
        """Return the embedding of (1)."""
        return self.tokens_of(x, model).cls

    def distance(self) -> Tensor:
        """Return the L2 distance of the image tower's weights from the start."""
        assert self._start is not None, "begin keeps it"
        pairs = zip(self.student.visual.parameters(), self._start.visual.parameters(), strict=True)
        return torch.stack([(now - before).square().sum() for now, before in pairs]).sum().sqrt()

    def panels(self, x: Tensor) -> list[Panel]:
        """Denoise in one step with the prompt alone, the start's tokens, and the student's."""
        assert self.diffusion is not None
        model, z = self.diffusion, self.diffusion.encode(x)
        contexts = {"prompt only": model.context.expand(len(x), -1, -1)}
        for title, tower in (("before", self._start), ("after", None)):
            rng = torch.Generator().manual_seed(SEED)
            contexts[title] = self.context(self.tokens_of(x, tower), rng)

        def steps(t: float) -> Tensor:
            return torch.full((len(z),), int(t), device=z.device)

        def denoised(context: Tensor) -> Column:
            return lambda t, eps: model.denoised(z, steps(t), eps, context)

        columns: dict[str, Column] = {"noised": lambda t, eps: model.noised(z, steps(t), eps)}
        columns |= {title: denoised(context) for title, context in contexts.items()}
        times = [round(share * (model.steps - 1)) for share in NOISE]
        return reconstruct(x, z, times, columns, model.decode)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out P, unless training goes on."""
        if self.visual_proj is None:
            checkpoint["state_dict"] = without(checkpoint["state_dict"], ("visual_proj.",))
        super().on_load_checkpoint(checkpoint)
