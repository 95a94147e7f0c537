r"""GenHancer: a light denoiser, conditioned on CLIP's embedding alone, trains the image tower.

Paper  Ma, Ge, Wang, Guo, Ge, Shan, "GenHancer: Imperfect Generative Models are Secretly Strong
       Vision-Centric Enhancers", ICCV 2025, arXiv 2503.19480; the continuous variant.
Code   mashijie1028/GenHancer @ d716ba2 (nothing is copied). docs/genhancer.md lists the code's
       decisions G1 to G9 and what is done here.

With z the latents of an image I under a frozen autoencoder, drawn from its posterior:

    (1)  c = f(I)                   the embedding, projected and not normalised; no patch
    (2)  t = sigmoid(s n),  x_t = (1 - t) z + t eps,  v = eps - z       n, eps ~ N(0, 1)
    (3)  L = mean over images of mean (F(x_t; t, P(c)) - v)^2

Two stages, two pages. ``denoiser``: F and the projectors P learn from random weights, f is frozen.
``clip``: f learns through low-rank adapters (lora.py), and F and P of the first stage are frozen or
learn on; then the adapters are merged and a CLIP remains.

Differences  CLIP is open_clip's: its projection is one matrix outside of any layer and has no
             adapter. The adapters of attention have no dropout. Norms and biases do not decay.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from spatialbench.data.image_batches import ImageBatch, resized
from spatialbench.data.region_batches import generator
from spatialbench.methods.base import DEFAULTS, FineTuning, below
from spatialbench.methods.parts.generative import GenerativeMethod, seeded
from spatialbench.methods.parts.reconstructions import NOISE, Column, Panel, reconstruct
from spatialbench.models.autoencoder import Autoencoder, load_autoencoder
from spatialbench.models.denoiser import Denoiser, architecture, denoise
from spatialbench.models.lora import Adapters, LoraSettings
from spatialbench.models.towers import Attend, Mix, encode_image
from spatialbench.utils.argument_checks import check_choice, settings_of
from spatialbench.utils.checkpoints import without
from spatialbench.utils.errors import SpatialbenchError

Stage = Literal["denoiser", "clip"]
_TRAINED = "trained"
"""Key of the trainable parameters in a checkpoint within stage ``clip``, beside a merged CLIP."""
_DENOISER = "denoiser."


class GenHancer(GenerativeMethod):
    """A denoiser's error trains the image tower; the text tower and the temperature are frozen.

    Args:
        student: an open_clip model, ``<model>[:<weights>]``; see ``Method``.
        stage: ``denoiser``, the first; or ``clip``, which needs init_from, a page of the first.
        diffusion: source of the autoencoder: ``rooms-diffusion``; a folder in diffusers' layout, of
            which ``vae/`` is read; ``<owner>/<name>@<commit>`` on the Hub; ``flux-vae:random`` or
            ``sd-2-1-base:random``, the architectures with random weights.
        dtype: of the frozen autoencoder.
        hashes: sha256 of files of the diffusion model, by path.
        denoiser: ``rooms``, ``flux-small`` (84 M parameters) or ``flux-lite``, the paper's (1.3 G).
        checkpointing: recompute the denoiser's activations in the backward pass: less memory, more
            time.
        guidance: FLUX's guidance embedding with this constant, 4 in the released code, where it is
            a learned offset; None: none (decision G4).
        time_scale: s of (2).
        posterior: draw z from the autoencoder's posterior, as the code; false: its mean (G5).
        lora: of stage ``clip``.
        train_denoiser: in stage ``clip`` F and P also learn, at ``finetuning.connection_lr`` (the
            code's "all").
        finetuning: optimiser and schedule; its settings of captions are not used.
    """

    frozen = ("autoencoder.",)

    def __init__(
        self,
        student: str = "rooms-student",
        stage: Stage = "denoiser",
        diffusion: str = "rooms-diffusion",
        dtype: str = "bfloat16",
        hashes: dict[str, str] | None = None,
        denoiser: str = "rooms",
        checkpointing: bool = False,
        guidance: float | None = None,
        time_scale: float = 1.0,
        posterior: bool = True,
        lora: LoraSettings | None = None,
        train_denoiser: bool = False,
        finetuning: FineTuning = DEFAULTS,
    ) -> None:
        super().__init__(student, finetuning)
        self.lora = settings_of(LoraSettings, lora)
        self.save_arguments(locals(), lora=asdict(self.lora))
        check_choice("stage", stage, Stage)
        if not time_scale > 0:
            raise SpatialbenchError(f"time_scale is {time_scale}; it must be more than 0")
        architecture(denoiser)
        self.stage, self.train_denoiser = stage, train_denoiser
        self.time_scale, self.posterior = time_scale, posterior
        self._preset: dict[str, Any] = {"preset": denoiser, "guidance": guidance}
        self._checkpointing = checkpointing
        self._load = partial(load_autoencoder, diffusion, dtype=dtype, hashes=hashes)
        self.student.requires_grad_(False)
        self.autoencoder: Autoencoder | None = None  # only during training
        self.denoiser: Denoiser | None = None  # F and P; only in checkpoints of stage denoiser
        self._adapters: Adapters | None = None
        self._before: dict[str, Tensor] = {}  # F and P of the first stage

    def start_from(self, weights: Mapping[str, Tensor], label: str) -> None:
        """Take the student; in stage ``clip`` also the denoiser."""
        super().start_from(weights, label)
        self._before = below(_DENOISER, weights)
        if self.stage == "clip" and not self._before:
            raise SpatialbenchError(
                f"stage clip learns from a denoiser, and {label} has none: init_from a page with "
                "stage denoiser"
            )

    def setup(self, stage: str) -> None:
        """Make what training needs, before a checkpoint is restored, so that the start is right."""
        if stage == "fit":
            self.begin(self._load())

    def begin(self, autoencoder: Autoencoder) -> None:
        """Make F and P, in stage ``clip`` with the weights of the first stage, and the adapters.

        Raises:
            SpatialbenchError: the first stage's denoiser is missing or of another architecture.
        """
        self.autoencoder = autoencoder
        self._seed = torch.initial_seed()
        self.denoiser = self._random_denoiser(autoencoder.channels)
        if self._checkpointing:
            self.denoiser.transformer.enable_gradient_checkpointing()
        if self.stage == "denoiser":
            return
        if not self._before:
            raise SpatialbenchError(
                "stage clip learns from a denoiser: the page needs init_from, of stage denoiser"
            )
        try:
            self.denoiser.load_state_dict(self._before)
        except RuntimeError as error:
            raise SpatialbenchError(
                "init_from: its denoiser is another than this page's; give both the same denoiser, "
                "guidance and diffusion"
            ) from error
        self.denoiser.requires_grad_(self.train_denoiser)
        self.keep_start()
        self._adapters = Adapters(self.student.visual, self.lora, self._seed)

    def _random_denoiser(self, channels: int) -> Denoiser:
        """Make F and P from the seed alone, whatever was drawn before."""
        with seeded(self._seed):
            width = int(self.student.visual.output_dim)
            return Denoiser(**self._preset, channels=channels, condition=width)

    def finish_stage(self) -> None:
        """Drop the autoencoder and merge the adapters: after stage ``clip`` a CLIP remains."""
        self.autoencoder, self._start, self._before = None, None, {}
        if self._adapters is not None:
            self._adapters.merge()
            self.denoiser, self._adapters = None, None

    def adapted(self, dropout: bool = False) -> AbstractContextManager[None]:
        """Apply the adapters, if any, for the length of a context."""
        return nullcontext() if self._adapters is None else self._adapters.active(dropout)

    def image(self, x: Tensor, mix: Mix | None = None) -> Tensor:
        """Embed images with the adapters; see ``Method.image``."""
        with self.adapted():
            return super().image(x, mix)

    def dense(self, x: Tensor, attend: Attend | None = None) -> Tensor:
        """Embed patches with the adapters; see ``Method.dense``."""
        with self.adapted():
            return super().dense(x, attend)

    def condition(self, x: Tensor, dropout: bool = False) -> Tensor:
        """Return (1), [B, D], of images uint8 [B, 3, S, S]."""
        with self.adapted(dropout):
            return encode_image(self.student, self._normalised(x))

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Return (3)."""
        assert self.autoencoder is not None, "setup makes both"
        assert self.denoiser is not None
        rng = generator(batch["key"])  # on the CPU, so that draws are the same on every device
        x = resized(batch["pixels"], self.image_size)  # the autoencoder sees what CLIP sees
        z = self.autoencoder.encode(x, rng if self.posterior else None)
        t = times(len(z), self.time_scale, rng).to(z.device)
        eps = torch.randn(z.shape, generator=rng).to(z)
        with seeded(int(torch.randint(2**62, (), generator=rng)), self.device):
            c = self.condition(x, dropout=True)  # (1)
        u = self.denoiser(between(z, eps, t), t, c)  # (2)
        loss = flow_loss(u, z, eps).mean()  # (3)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(z))
        self.log_drift(x)
        return loss

    def embedding(self, x: Tensor, model: Any = None) -> Tensor:
        """Return (1) of images uint8 [B, 3, S, S], by ``model`` if given."""
        return self.condition(x) if model is None else encode_image(model, self._normalised(x))

    def distance(self) -> Tensor:
        """Return the L2 norm of what the adapters add to the image tower's weights."""
        assert self._adapters is not None, "nothing drifts in stage denoiser"
        return self._adapters.drift()

    def panels(self, x: Tensor) -> list[Panel]:
        """Follow the flow, before and after.

        Before is the untrained denoiser in stage ``denoiser``, and the start's embedding in stage
        ``clip``.
        """
        assert self.autoencoder is not None, "setup makes both"
        assert self.denoiser is not None
        x = resized(x, self.image_size)
        c, z = self.condition(x), self.autoencoder.encode(x)
        if self.stage == "denoiser":
            before = (self._random_denoiser(z.shape[1]).to(self.device), c)
        else:
            before = (self.denoiser, self.embedding(x, self._start))

        def noised(t: float, eps: Tensor) -> Tensor:
            return between(z, eps, z.new_full((len(z),), t))

        def flow(denoiser: Denoiser, condition: Tensor) -> Column:
            return lambda t, eps: denoise(denoiser, noised(t, eps), condition, t)

        columns = {"noised": noised, "before": flow(*before), "after": flow(self.denoiser, c)}
        return reconstruct(x, z, (*NOISE, 1.0), columns, self.autoencoder.decode)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save as ``Method``; within stage ``clip`` a merged CLIP, and the trainable parameters."""
        if self._adapters is not None:
            named = self.named_parameters()
            checkpoint[_TRAINED] = {n: p.detach() for n, p in named if p.requires_grad}
            merged = self._adapters.merged().items()
            visual = {f"student.visual.{name}": value for name, value in merged}
            rest = without(checkpoint["state_dict"], ("student.visual.", _DENOISER))
            checkpoint["state_dict"] = {**visual, **rest}
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load as ``Method``; stage ``clip`` resumes from the trainable parameters.

        Outside of training F and P are not loaded, and a finished stage ``clip`` cannot resume.
        """
        state = checkpoint["state_dict"]
        if self._adapters is not None:
            if _TRAINED not in checkpoint:
                raise SpatialbenchError(
                    "the checkpoint is of a finished stage, whose adapters are merged: nothing can "
                    "go on from there"
                )
            state = {**self.state_dict(), **checkpoint[_TRAINED]}
        elif self.denoiser is None:
            state = without(state, (_DENOISER,))
        checkpoint["state_dict"] = state
        super().on_load_checkpoint(checkpoint)


def times(count: int, scale: float, rng: torch.Generator) -> Tensor:
    """Draw the times of (2) with s = ``scale``, float32 [count] in (0, 1)."""
    return torch.sigmoid(scale * torch.randn(count, generator=rng))


def between(z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Return x_t of (2), [B, C, H, W], at the times t [B]: 0 is the latent, 1 the noise."""
    t = t.to(z.dtype)[:, None, None, None]
    return (1 - t) * z + t * eps


def flow_loss(u: Tensor, z: Tensor, eps: Tensor) -> Tensor:
    """Return the error of predictions u of v for each image, [B], at least in float32."""
    exact = torch.promote_types(u.dtype, torch.float32)
    v = eps.to(exact) - z.to(exact)
    return (u.to(exact) - v).square().mean(dim=(1, 2, 3))
