r"""GenHancer: a light denoiser that knows a picture by CLIP's embedding alone teaches the image tower what it lacks.

Paper  Ma, Ge, Wang, Guo, Ge, Shan, "GenHancer: Imperfect Generative Models are Secretly Strong Vision-Centric
       Enhancers", ICCV 2025, arXiv 2503.19480; the continuous variant.
Code   mashijie1028/GenHancer @ d716ba2 (nothing is copied). docs/genhancer.md says of every decision that it takes,
       G1 to G9, what is done here.

With z the latents of a picture I under a frozen autoencoder, drawn from its posterior:

    (1)  c = f(I)                                                the embedding, projected and not normalised; no patch
    (2)  t = sigmoid(s n),  x_t = (1 - t) z + t eps,  v = eps - z
    (3)  L = mean over pictures of mean (F(x_t; t, P(c)) - v)^2

Two stages, two pages. ``denoiser``: F and the projectors P learn from random weights, f is frozen. ``clip``: f learns
through low-rank adapters (lora.py), F and P are those of the first stage, frozen or not; then the adapters are merged
and what is left is a CLIP.

Differences  CLIP is open_clip's: its projection is one matrix outside of any layer and has no adapter. The adapters of
             attention have no dropout. Norms and biases do not decay.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.data.image_batches import ImageBatch, ImageDataset, images_of, resized
from spatialbench.data.region_batches import generator
from spatialbench.methods.base import DEFAULTS, FineTuning, Method
from spatialbench.methods.parts.flow import between, flow_loss, times
from spatialbench.methods.parts.reconstructions import NAME, PICTURES, draw, flow_panels
from spatialbench.models.autoencoder import Autoencoder, load_autoencoder
from spatialbench.models.denoiser import Denoiser, architecture
from spatialbench.models.lora import Adapters, LoraSettings
from spatialbench.models.towers import Mix, encode_image
from spatialbench.utils.errors import SpatialbenchError

Stage = Literal["denoiser", "clip"]
_TRAINED = "trained"
"""Key of a checkpoint in the middle of stage ``clip``: what learns, by name. Its state is that of the merged CLIP."""


class GenHancer(Method):
    """The image tower learns from a denoiser's error through its embedding; the text tower and the temperature stay.

    Args:
        student: ``<open_clip model>[:<weights>]``, for instance ``rooms-student``, ``ViT-L-14-quickgelu:openai``,
            a config file ``my.json:my.safetensors``; ``:random`` for random weights.
        stage: ``denoiser``, the first; or ``clip``, which needs init_from, a page of the first.
        diffusion: whose autoencoder: ``rooms-diffusion``; a folder in diffusers' layout, of which ``vae/`` is read;
            ``<owner>/<name>@<commit>`` on the Hub; ``flux-vae:random``, ``sd-2-1-base:random``, the architectures with
            random weights.
        dtype: of the frozen autoencoder.
        hashes: sha256 of files of the diffusion model, by path.
        denoiser: ``rooms``, ``flux-small`` (84 M parameters) or ``flux-lite``, the paper's (1.3 G).
        checkpointing: compute the denoiser's activations again in the backward pass: less memory, more time.
        guidance: FLUX's guidance embedding with this constant, 4 in the released code, where it is a learned offset;
            None: none (decision G4).
        time_scale: s of (2).
        posterior: draw z from the autoencoder's posterior, as the released code; false: its mean (G5).
        lora: of stage ``clip``.
        train_denoiser: in stage ``clip`` F and P learn on, at ``finetuning.connection_lr`` (the code's "all").
        finetuning: optimiser and schedule; what it says of captions is of no use here.

    Raises:
        SpatialbenchError: a value out of its range.
    """

    frozen = ("autoencoder.",)
    leaves = (NAME,)

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
        if isinstance(lora, Mapping):  # out of the hyper-parameters of a checkpoint
            lora = LoraSettings(**lora)
        self.lora = lora or LoraSettings()
        self.save_hyperparameters(
            {"stage": stage, "diffusion": diffusion, "dtype": dtype, "hashes": hashes}
        )
        self.save_hyperparameters(
            {"denoiser": denoiser, "checkpointing": checkpointing, "guidance": guidance}
        )
        self.save_hyperparameters(
            {"time_scale": time_scale, "posterior": posterior, "lora": asdict(self.lora)}
        )
        self.save_hyperparameters({"train_denoiser": train_denoiser})
        if stage not in get_args(Stage):
            raise SpatialbenchError(f"stage is {stage!r}; one of {', '.join(get_args(Stage))}")
        if not time_scale > 0:
            raise SpatialbenchError(f"time_scale is {time_scale}; it must be more than 0")
        architecture(denoiser)
        self.stage, self.time_scale, self.posterior, self.train_denoiser = (
            stage,
            time_scale,
            posterior,
            train_denoiser,
        )
        self._preset: dict[str, Any] = {"preset": denoiser, "guidance": guidance}
        self._checkpointing = checkpointing
        self._loading: dict[str, Any] = {"spec": diffusion, "dtype": dtype, "hashes": hashes}
        self.student.requires_grad_(False)
        self.autoencoder: Autoencoder | None = None  # there while training only
        self.denoiser: Denoiser | None = None  # F and P; in the checkpoint of stage denoiser alone
        self._adapters: Adapters | None = None
        self._before: dict[str, Tensor] = {}  # F and P of the first stage
        self._start: list[
            Any
        ] = []  # what training started from, for the picture; no part of what is trained

    # ---------------------------------------------------------------------------------------- the two stages
    def start_from(self, weights: Mapping[str, Tensor], label: str) -> None:
        """Takes the student; in stage ``clip`` also the denoiser.

        Raises:
            SpatialbenchError: the student does not fit, or there is no denoiser.
        """
        super().start_from(weights, label)
        prefix = "denoiser."
        self._before = {
            name.removeprefix(prefix): value
            for name, value in weights.items()
            if name.startswith(prefix)
        }
        if self.stage == "clip" and not self._before:
            raise SpatialbenchError(
                f"stage clip learns from a denoiser, and {label} has none: init_from a page with stage denoiser"
            )

    def setup(self, stage: str) -> None:
        """Makes what training needs; before a checkpoint is restored, so that the start is the start."""
        if stage == "fit":
            self.begin(load_autoencoder(**self._loading))

    def begin(self, autoencoder: Autoencoder) -> None:
        """Makes F and P, in stage ``clip`` with the weights of the first stage, and the adapters.

        Raises:
            SpatialbenchError: the denoiser of the first stage is not there or of another architecture.
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
                "init_from: its denoiser is another than this page's; give both the same denoiser, guidance and "
                "diffusion"
            ) from error
        self.denoiser.requires_grad_(self.train_denoiser)
        self._start = [SimpleNamespace(visual=copy.deepcopy(self.student.visual).eval())]
        self._adapters = Adapters(self.student.visual, self.lora, self._seed)

    def _random_denoiser(self, channels: int) -> Denoiser:
        """F and P as they begin: of the seed alone, whatever was drawn before."""
        with _seeded(self._seed):
            return Denoiser(
                **self._preset, channels=channels, condition=int(self.student.visual.output_dim)
            )

    def on_fit_start(self) -> None:
        images_of(self.trainer)
        for start in self._start:
            start.visual.to(self.device)

    def on_fit_end(self) -> None:
        """Leaves the picture of what was learned; the autoencoder is gone, the adapters are merged, and of stage
        ``clip`` a CLIP is left."""
        if self.trainer.is_global_zero:
            self.to(
                self.trainer.strategy.root_device
            )  # Lightning has it back on the CPU by now, but not the start
            self.draw(images_of(self.trainer), Path(self.trainer.default_root_dir) / NAME)
        self.finish_stage()

    def finish_stage(self) -> None:
        """What only training needs goes."""
        self.autoencoder, self._start, self._before = None, [], {}
        if self._adapters is not None:
            self._adapters.merge()
            self.denoiser, self._adapters = None, None

    # ---------------------------------------------------------------------------------------- embeddings
    def adapted(self, dropout: bool = False) -> AbstractContextManager[None]:
        """The student is the adapted one for as long as this lasts."""
        return nullcontext() if self._adapters is None else self._adapters.active(dropout)

    def image(self, x: Tensor, mix: Mix | None = None) -> Tensor:
        """As ``Method.image``, with the adapters."""
        with self.adapted():
            return super().image(x, mix)

    def dense(self, x: Tensor) -> Tensor:
        """As ``Method.dense``, with the adapters where there are any."""
        with self.adapted():
            return super().dense(x)

    def condition(self, x: Tensor, dropout: bool = False) -> Tensor:
        """(1), [B, D], of pictures uint8 [B, 3, S, S]."""
        with self.adapted(dropout):
            return encode_image(self.student, self._normalised(x))

    # ---------------------------------------------------------------------------------------- training
    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        assert self.autoencoder is not None, "setup makes both"
        assert self.denoiser is not None
        rng = generator(batch["key"])  # on the CPU, so that the draws are the same on every device
        x = resized(batch["pixels"], self.image_size)  # the autoencoder sees what CLIP sees
        z = self.autoencoder.encode(x, rng if self.posterior else None)
        t = times(len(z), self.time_scale, rng).to(z.device)
        eps = torch.randn(z.shape, generator=rng).to(z)
        with _seeded(int(torch.randint(2**62, (), generator=rng)), self.device):
            c = self.condition(x, dropout=True)  # (1)
        u = self.denoiser(between(z, eps, t), t, c)  # (2)
        loss = flow_loss(u, z, eps).mean()  # (3)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(z))
        self._log_drift(x)
        return loss

    def _log_drift(self, x: Tensor) -> None:
        """How far the image tower has moved, in the steps of which the trainer writes a line."""
        trainer = getattr(self, "_trainer", None)
        if (
            self._adapters is None
            or trainer is None
            or (trainer.global_step + 1) % trainer.log_every_n_steps
        ):
            return
        self.log("drift/weights", self._adapters.drift(), batch_size=len(x))
        self.log("drift/cosine", self.drift(x), batch_size=len(x))

    @torch.no_grad()
    def drift(self, x: Tensor) -> Tensor:
        """The mean cosine of embeddings of pictures uint8 [B, 3, S, S] with those before stage ``clip``, in float32."""
        assert self._adapters is not None, "nothing drifts in stage denoiser"
        with torch.autocast(self.device.type, enabled=False):
            now, before = self.condition(x), encode_image(self._start[0], self._normalised(x))
        return F.cosine_similarity(now, before, dim=-1).mean()

    # ---------------------------------------------------------------------------------------- what is left
    @torch.no_grad()
    def draw(self, pictures: ImageDataset, path: Path) -> None:
        """Draws what the denoiser makes of noised pictures, and of noise alone: in stage ``denoiser`` with its random
        weights and with the trained ones, in stage ``clip`` with the embedding before and after."""
        assert self.autoencoder is not None, "setup makes both"
        assert self.denoiser is not None
        pixels = torch.stack(
            [pictures.whole(row) for row in range(min(PICTURES, len(pictures)))]
        ).to(self.device)
        x = resized(pixels, self.image_size)
        with torch.autocast(self.device.type, enabled=False):
            c, z = self.condition(x), self.autoencoder.encode(x)
            if self.stage == "denoiser":
                before = (self._random_denoiser(z.shape[1]).to(self.device), c)
            else:
                before = (self.denoiser, encode_image(self._start[0], self._normalised(x)))
            draw(
                flow_panels(
                    self.autoencoder, x, z, {"before": before, "after": (self.denoiser, c)}
                ),
                path,
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As ``Method``; in the middle of stage ``clip`` the state is a CLIP's, as at its end, and what learns beside
        it."""
        if self._adapters is not None:
            learned = {
                name: value.detach()
                for name, value in self.named_parameters()
                if value.requires_grad
            }
            visual = {
                f"student.visual.{name}": value for name, value in self._adapters.merged().items()
            }
            rest = {
                name: value
                for name, value in checkpoint["state_dict"].items()
                if _of_the_text_side(name)
            }
            checkpoint["state_dict"], checkpoint[_TRAINED] = {**visual, **rest}, learned
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As ``Method``; stage ``clip`` goes on from what learns, and outside of training F and P are of no use.

        Raises:
            SpatialbenchError: also for a checkpoint of stage ``clip`` that is finished and goes on.
        """
        state = checkpoint["state_dict"]
        if self._adapters is not None:
            if _TRAINED not in checkpoint:
                raise SpatialbenchError(
                    "the checkpoint is of a finished stage, whose adapters are merged: nothing can go on from there"
                )
            state = {**self.state_dict(), **checkpoint[_TRAINED]}
        elif self.denoiser is None:
            state = {
                name: value for name, value in state.items() if not name.startswith("denoiser.")
            }
        checkpoint["state_dict"] = state
        super().on_load_checkpoint(checkpoint)


def _of_the_text_side(name: str) -> bool:
    return name.startswith("student.") and not name.startswith("student.visual.")


@contextmanager
def _seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """The global generators begin at ``seed``, and are afterwards where they were."""
    with torch.random.fork_rng(
        devices=[device] if device is not None and device.type == "cuda" else []
    ):
        torch.manual_seed(seed)
        yield
