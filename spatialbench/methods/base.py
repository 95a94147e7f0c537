"""The base of every method: a student that embeds images and captions under one protocol.

A method is one file in ``spatialbench/methods``. It says what happens to the student (usually
``connect``) and what a training step minimises (usually ``finetuning_loss``). Everything that must
be equal for two rows of a table is here: the objective, the optimiser and its schedule, the scoring
(``parts/pair_scoring.py``), the checkpoint.

Letters: B images, C captions, N pairs, M distinct images of a batch, K its distinct captions, D
joint width, S side of an image in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.data.batches import Batch
from spatialbench.methods.parts.chunks import in_chunks
from spatialbench.methods.parts.finetuning import FineTuning, adamw
from spatialbench.methods.parts.objectives import negated_contrastive
from spatialbench.methods.parts.pair_scoring import PairScoring
from spatialbench.models.open_clip_student import (
    TextTokenizer,
    load_clip,
    normalisation,
    resize_mode,
    transpose_projections,
)
from spatialbench.models.running import BlockRunner, runner
from spatialbench.models.towers import (
    Attend,
    Mix,
    Model,
    Tokens,
    encode_dense,
    encode_image,
    encode_text,
    patch_size,
    visual_tokens,
)
from spatialbench.utils.argument_checks import settings_of
from spatialbench.utils.checkpoints import check_fits, class_path, part_of, without
from spatialbench.utils.distributed import Encoded, gather
from spatialbench.utils.errors import SpatialbenchError

__all__ = ["DEFAULTS", "Batch", "FineTuning", "Method", "below", "unit"]

DEFAULTS = FineTuning()


class Method(PairScoring):
    """A student and its protocol. A subclass must define ``training_step``.

    Args:
        student: ``<open_clip model>[:<weights>]``, for instance ``rooms-student``,
            ``ViT-L-14-336-quickgelu:openai``, a config file ``my.json:my.safetensors``;
            ``:random`` for random weights.
        finetuning: the protocol of training, the same for every row of a table.

    Attributes:
        student: the open_clip model, float32.
        frozen: prefixes of the parameters that are never trained nor saved in a checkpoint.
        leaves: files that training writes into the run folder, beside the checkpoint.
        pretrained: prefixes of the parameters that learn at ``finetuning.lr``; all others learn at
            ``connection_lr``.
        pooled: whether a student without a class token (SigLIP) is supported.
        reads_others: whether it loads checkpoints of other methods, too.
        hparams: plain JSON types.

    Raises:
        SpatialbenchError: the student cannot be loaded.
    """

    frozen: ClassVar[tuple[str, ...]] = ()
    leaves: ClassVar[tuple[str, ...]] = ()
    pretrained: ClassVar[tuple[str, ...]] = ("student.",)
    pooled: ClassVar[bool] = False
    reads_others: ClassVar[bool] = False
    student: Model
    mean: Tensor
    std: Tensor

    def __init__(self, student: str = "rooms-student", finetuning: FineTuning = DEFAULTS) -> None:
        super().__init__()
        finetuning = settings_of(FineTuning, finetuning)
        settings = {**asdict(finetuning), "betas": list(finetuning.betas)}
        self.save_arguments({"student": student}, finetuning=settings)
        self.finetuning = finetuning
        self.student = load_clip(student, self.pooled)
        if finetuning.projections == "transposed":
            transpose_projections(self.student)
        self.student.logit_scale.requires_grad_(not finetuning.freeze_logit_scale)
        self.image_size: int = self.student.visual.image_size[0]
        self.resize_mode = resize_mode(self.student)
        for name, value in zip(("mean", "std"), normalisation(self.student), strict=True):
            pixels = torch.tensor(value).view(3, 1, 1) * 255
            self.register_buffer(name, pixels, persistent=False)
        self._tokenizer = TextTokenizer(student)

    def save_arguments(self, arguments: Mapping[str, Any], **plain: Any) -> None:
        """Add a constructor's ``locals()`` to ``hparams``, ``plain`` in place of settings."""
        skipped = ("self", "__class__", "finetuning")
        own = {name: value for name, value in arguments.items() if name not in skipped}
        self.save_hyperparameters({**own, **plain})

    def connect(self, x: Tensor) -> Mix | None:
        """Return what happens to the queries, keys and values of every block; None: nothing.

        Args:
            x: uint8 [B, 3, S, S].
        """
        return None

    def image(self, x: Tensor, mix: Mix | None = None) -> Tensor:
        """Embed images.

        Args:
            x: uint8 [B, 3, S, S], RGB, S the student's image size.
            mix: in place of ``connect(x)``.

        Returns:
            float32 [B, D], unit norm.

        Raises:
            SpatialbenchError: images of another size or type.
        """
        run = self._runner(self.finetuning.compile)
        mix = self.connect(x) if mix is None else mix
        return unit(encode_image(self.student, self._normalised(x), mix, run))

    def text(self, tokens: Tensor) -> Tensor:
        """Embed captions, tokens int64 [C, context], as float32 [C, D] of unit norm."""
        return unit(encode_text(self.student, tokens, self._runner()))

    def dense(self, x: Tensor, attend: Attend | None = None) -> Tensor:
        """Embed patches in the joint space: the last block by its value path (``encode_dense``).

        Args:
            x: uint8 [B, 3, H, W], RGB; H and W multiples of the patch size. Off the native size the
                position embedding is interpolated.
            attend: a readout of the last block's values in place of the value path.

        Returns:
            float32 [B, h, w, D], unit norm at every patch.

        Raises:
            SpatialbenchError: images that are not whole patches, or of another type.
        """
        pixels = self._normalised(x, native=False)
        return unit(encode_dense(self.student, pixels, self.connect(x), attend=attend))

    def visual_tokens(self, x: Tensor) -> Tokens:
        """Return the embedding and the patches in the joint space, not normalised."""
        return visual_tokens(self.student, self._normalised(x), self.connect(x))

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Tokenize captions to int64 [C, context], on the method's device.

        Raises:
            SpatialbenchError: a caption is too long for the student.
        """
        return self._tokenizer(captions).to(self.device)

    def finetuning_loss(self, batch: Batch, images: Tensor | None = None) -> Tensor:
        """Return the protocol's loss, equations (5)-(7) over the pairs of all ranks.

        Every distinct image and caption is encoded once. ``images`` are embeddings of this rank's
        images [M, D], if they were encoded already.
        """
        captions = batch["captions"]
        negated = batch["negated"] if self.finetuning.needs_negated else []
        names = list(dict.fromkeys([*captions, *negated]))
        if images is None:
            images = in_chunks(self.image, batch["pixels"], self.finetuning.chunk_images)  # [M, D]
        texts = in_chunks(self.text, self.tokenize(names), self.finetuning.chunk_captions)  # [K, D]
        whole = gather(Encoded(images, texts, names, batch["image"], captions, negated))
        with torch.autocast(self.device.type, enabled=False):
            loss = negated_contrastive(
                self.student.logit_scale.exp() * whole.images @ whole.texts.T,
                whole.image,
                whole.columns(whole.captions),
                whole.columns(whole.negated) if negated else None,
                self.finetuning.own_negation_weight,
                self.finetuning.negatives,
            )
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(captions))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Refuse a step without a loss, which Lightning would skip."""
        if not outputs:
            name = type(self).__name__
            raise SpatialbenchError(f"{name}.training_step returned None: return the loss")

    def on_before_backward(self, loss: Tensor) -> None:
        """Stop at a loss that is not finite."""
        if not torch.isfinite(loss):
            raise SpatialbenchError(
                f"the loss is {loss.item()} at step {self.global_step}: lower "
                "model.init_args.finetuning.lr, or look for damaged images in the training set"
            )

    def configure_optimizers(self) -> Any:
        """Return AdamW with warm-up and cosine over the trainer's steps; see ``FineTuning``."""
        return adamw(self.named_parameters(), self.finetuning, self.trainer, self.pretrained)

    def start_from(self, weights: Mapping[str, Tensor], label: str) -> None:
        """Take the student of an earlier stage (``init_from``).

        Args:
            weights: the state of that stage's module.
            label: of that stage, for messages.

        Raises:
            SpatialbenchError: there is no student, or it is of another architecture.
        """
        self.load_state_dict(part_of(weights, self.state_dict(), "student.", label), strict=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out the frozen parameters."""
        checkpoint["method"] = class_path(self)
        checkpoint["state_dict"] = without(checkpoint["state_dict"], self.frozen)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Fill in the frozen parameters and check that the rest fits.

        Raises:
            SpatialbenchError: a checkpoint of another method or another architecture.
        """
        own = self.state_dict()
        frozen = {name: value for name, value in own.items() if name.startswith(self.frozen)}
        checkpoint["state_dict"] = {**checkpoint["state_dict"], **frozen}
        check_fits(checkpoint, own, class_path(self))

    def _runner(self, compiled: bool = False) -> BlockRunner:
        return runner(self.training and compiled, self.training and self.finetuning.checkpointing)

    def _normalised(self, x: Tensor, native: bool = True) -> Tensor:
        """Normalise images of the native size, or of any size that is whole patches."""
        side, (height, width) = self.image_size, patch_size(self.student)
        fits = x.ndim == 4 and x.shape[1] == 3
        if native:
            fits = fits and x.shape[2:] == (side, side)
            wanted = f"[B, 3, {side}, {side}]: set data.image_size to {side};"
        else:
            fits = fits and x.shape[2] % height == 0 and x.shape[3] % width == 0
            wanted = f"[B, 3, H, W] with multiples of {height} and {width};"
        if x.dtype != torch.uint8 or not fits:
            kind = str(x.dtype).removeprefix("torch.")
            raise SpatialbenchError(f"images must be uint8 {wanted} got {kind} {list(x.shape)}")
        return x.to(self.mean.dtype).sub_(self.mean).div_(self.std)


def below(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights whose names begin with a prefix, without the prefix."""
    return {name.removeprefix(prefix): weights[name] for name in weights if name.startswith(prefix)}


def unit(x: Tensor) -> Tensor:
    """Normalise rows in float32, or float64 where a method is double."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)
