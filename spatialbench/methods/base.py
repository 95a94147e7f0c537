"""The base of every method: a student that embeds images and captions, fine-tuned and scored by one protocol.

A method is one file in ``spatialbench/methods``: it says what happens to the student (usually ``connect``) and what a
training step minimises (usually ``finetuning_loss``). Everything that must not differ between two rows of a table is
here: the objective, the optimiser and its schedule, the scoring, the checkpoint.

Letters: B images, C captions, N pairs, M distinct images of a batch, K its distinct captions, D joint width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor

from spatialbench.data.batches import Batch
from spatialbench.evaluation.pairs import Outcomes, PairOutcomes, score
from spatialbench.methods.parts.chunks import in_chunks
from spatialbench.methods.parts.finetuning import FineTuning, adamw, fused
from spatialbench.methods.parts.objectives import negated_contrastive
from spatialbench.models.open_clip_student import TextTokenizer, load_clip, normalisation, resize_mode
from spatialbench.models.running import BlockRunner, runner
from spatialbench.models.towers import (
    Mix,
    Model,
    encode_dense,
    encode_image,
    encode_text,
    patch_size,
)
from spatialbench.models.visual_tokens import Tokens, visual_tokens
from spatialbench.utils.checkpoints import check_fits, class_path, part_of, without
from spatialbench.utils.distributed import Encoded, gather
from spatialbench.utils.errors import SpatialbenchError

__all__ = ["DEFAULTS", "Batch", "FineTuning", "Method"]

DEFAULTS = FineTuning()
_CAPTIONS_AT_ONCE = 1024


class Method(LightningModule):
    """A student and its protocol. A subclass owes ``training_step``; most also override ``connect``.

    Args:
        student: ``<open_clip model>[:<weights>]``, for instance ``rooms-student``, ``ViT-L-14-336-quickgelu:openai``,
            a config file ``my.json:my.safetensors``; ``:random`` for random weights.
        finetuning: the protocol of training, the same for every row of a table.

    Attributes:
        student: the open_clip model, float32.
        frozen: prefixes of the parameters that are never trained and that a checkpoint leaves out.
        leaves: files that the end of training writes into the run folder, beside the checkpoint.
        pretrained: prefixes of those that learn at ``finetuning.lr``; all others learn at ``connection_lr``.
        pooled: whether a student without a class token, SigLIP, will do.
        test_outcomes, test_scores: what the last ``test`` found, None before.
        hparams: plain JSON types.

    Raises:
        SpatialbenchError: the student cannot be loaded.
    """

    frozen: ClassVar[tuple[str, ...]] = ()
    leaves: ClassVar[tuple[str, ...]] = ()
    pretrained: ClassVar[tuple[str, ...]] = ("student.",)
    pooled: ClassVar[bool] = False
    student: Model
    mean: Tensor
    std: Tensor

    def __init__(self, student: str = "rooms-student", finetuning: FineTuning = DEFAULTS) -> None:
        super().__init__()
        if isinstance(finetuning, Mapping):  # out of the hyper-parameters of a checkpoint
            finetuning = FineTuning(**finetuning)
        self.save_hyperparameters({"student": student, "finetuning": finetuning.as_json()})
        self.finetuning = finetuning
        self.student = load_clip(student, self.pooled)
        self.student.logit_scale.requires_grad_(not finetuning.freeze_logit_scale)
        self.image_size: int = self.student.visual.image_size[0]
        self.resize_mode = resize_mode(self.student)
        mean, std = (
            torch.tensor(value).view(3, 1, 1) * 255 for value in normalisation(self.student)
        )
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.outcomes = PairOutcomes()
        self.test_outcomes: Outcomes | None = None
        self.test_scores: dict[str, float] | None = None
        self._tokenizer = TextTokenizer(student)
        self._text_rows: dict[
            str, Tensor
        ] = {}  # caption -> float32 [D], of the evaluation under way

    # ---------------------------------------------------------------------------------------- what a method is
    def connect(self, x: Tensor) -> Mix | None:
        """What the method does to the queries, keys and values of every block, for images x uint8 [B, 3, S, S]."""
        return None

    def image(self, x: Tensor, mix: Mix | None = None) -> Tensor:
        """Image embeddings.

        Args:
            x: uint8 [B, 3, S, S], RGB, S the student's image size.
            mix: in place of ``connect(x)``.

        Returns:
            float32 [B, D], unit norm.

        Raises:
            SpatialbenchError: images of another size or type.
        """
        return _unit(
            encode_image(
                self.student,
                self._normalised(x),
                self.connect(x) if mix is None else mix,
                self._runner(self.finetuning.compile),
            )
        )

    def text(self, tokens: Tensor) -> Tensor:
        """Caption embeddings, float32 [C, D] of unit norm, of tokens int64 [C, context]."""
        return _unit(encode_text(self.student, tokens, self._runner()))

    def dense(self, x: Tensor) -> Tensor:
        """Embeddings of the patches in the joint space: the last block by its value path (``towers.encode_dense``).

        Args:
            x: uint8 [B, 3, H, W], RGB; H and W multiples of the patch size. Off the native size the position embedding
                is interpolated.

        Returns:
            float32 [B, h, w, D], unit norm at every patch.

        Raises:
            SpatialbenchError: images that are not whole patches, or of another type.
        """
        return _unit(encode_dense(self.student, self._patches(x), self.connect(x)))

    def visual_tokens(self, x: Tensor) -> Tokens:
        """Embedding and patches in the joint space, not normalised, of images as ``image`` takes them."""
        return visual_tokens(self.student, self._normalised(x), self.connect(x))

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Tokens int64 [C, context] of captions, on the method's device.

        Raises:
            SpatialbenchError: a caption is longer than the student reads.
        """
        return self._tokenizer(captions).to(self.device)

    # ---------------------------------------------------------------------------------------- training
    def finetuning_loss(self, batch: Batch) -> Tensor:
        """The protocol's step: every distinct image and caption once, then equations (5)-(7) over all ranks' pairs."""
        captions, negated = (
            batch["captions"],
            batch["negated"] if self.finetuning.needs_negated else [],
        )
        names = list(dict.fromkeys([*captions, *negated]))
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

    def on_before_backward(self, loss: Tensor) -> None:
        """Raises:
        SpatialbenchError: the loss is not a finite number; nothing is learned from there on.
        """
        if not torch.isfinite(loss):
            raise SpatialbenchError(
                f"the loss is {float(loss)} at step {self.global_step}: lower model.init_args.finetuning.lr, or look "
                "for damaged pictures in the training set"
            )

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine over the trainer's steps; see ``FineTuning``."""
        total = (
            self.trainer.estimated_stepping_batches if self.finetuning.schedule == "cosine" else 0
        )
        kernel = fused(self.finetuning, self.trainer)
        return adamw(self.named_parameters(), self.finetuning, total, self.pretrained, kernel)

    # ---------------------------------------------------------------------------------------- evaluation
    def scores(self, x: Tensor, image: Tensor, captions: Sequence[str]) -> Tensor:
        """Cosines of pairs, float32 [N]. Every distinct caption is encoded once per evaluation.

        Always in float32, whatever the precision of training: the rounding of bfloat16 is of the size of what tells a
        caption from its negation.

        Args:
            x: uint8 [M, 3, S, S].
            image: int64 [N], row of ``x`` of every caption.
            captions: N; none in a batch of nothing, which a rank may get.
        """
        if not captions:
            return x.new_zeros(0, dtype=torch.float32)
        with torch.autocast(self.device.type, enabled=False):
            new = [caption for caption in dict.fromkeys(captions) if caption not in self._text_rows]
            for start in range(0, len(new), _CAPTIONS_AT_ONCE):
                part = new[start : start + _CAPTIONS_AT_ONCE]
                self._text_rows.update(zip(part, self.text(self.tokenize(part)), strict=True))
            texts = torch.stack([self._text_rows[caption] for caption in captions])
            return (self.image(x)[image] * texts).sum(-1)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Tensor]:
        """record int64 [N], positive and negative float32 [N]: cosine with the caption and with its negation."""
        image = batch["image"].repeat(2)
        positive, negative = self.scores(
            batch["pixels"], image, [*batch["captions"], *batch["negated"]]
        ).tensor_split(2)
        return {"record": batch["record"], "positive": positive, "negative": negative}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.outcomes.update(**self.predict_step(batch))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.outcomes.update(**self.predict_step(batch))

    def on_validation_epoch_start(self) -> None:
        self._forget_evaluation()

    def on_test_epoch_start(self) -> None:
        self._forget_evaluation()

    def on_predict_epoch_start(self) -> None:
        self._forget_evaluation()

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val", partial=True)

    def on_test_epoch_end(self) -> None:
        self.test_outcomes, self.test_scores = self._log_scores("test", partial=False)

    def _log_scores(self, stage: str, partial: bool) -> tuple[Outcomes, dict[str, float]]:
        data: Any = getattr(self.trainer, "datamodule", None)
        assert data is not None, "a method is scored on a data module's records"
        records = (data.val_set if stage == "val" else data.test_set).records
        outcomes = self.outcomes.compute()
        scores = score(outcomes, [record.relation for record in records], partial=partial)
        for column, accuracy in scores.items():
            if accuracy == accuracy:  # a relation without records has none
                self.log(
                    f"{stage}/{column}", accuracy, prog_bar=column == "all", rank_zero_only=True
                )
        self._forget_evaluation()
        return outcomes, scores

    def _forget_evaluation(self) -> None:
        self.outcomes.reset()
        self._text_rows.clear()

    # ---------------------------------------------------------------------------------------- checkpoint
    def start_from(self, weights: Mapping[str, Tensor], label: str) -> None:
        """Takes the student that an earlier stage (``init_from``) left.

        Args:
            weights: the state of that stage's module.
            label: of that stage, for messages.

        Raises:
            SpatialbenchError: there is no student, or it is of another architecture.
        """
        student = part_of(weights, self.state_dict(), "student.", label)
        self.load_state_dict(student, strict=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Without what is frozen."""
        checkpoint["method"] = class_path(self)
        checkpoint["state_dict"] = without(checkpoint["state_dict"], self.frozen)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Fills in what is frozen; refuses what does not fit, in one line.

        Raises:
            SpatialbenchError: a checkpoint of another method or another architecture.
        """
        own = self.state_dict()
        if self.frozen:
            frozen = {name: value for name, value in own.items() if name.startswith(self.frozen)}
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **frozen}
        check_fits(checkpoint, own, class_path(self))

    # ---------------------------------------------------------------------------------------- helpers
    def _runner(self, compiled: bool = False) -> BlockRunner:
        return runner(self.training and compiled, self.training and self.finetuning.checkpointing)

    def _normalised(self, x: Tensor) -> Tensor:
        if (
            x.dtype != torch.uint8
            or x.ndim != 4
            or tuple(x.shape[1:]) != (3, self.image_size, self.image_size)
        ):
            raise SpatialbenchError(
                f"the student reads images uint8 [B, 3, {self.image_size}, {self.image_size}], found "
                f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}; set data.image_size to {self.image_size}"
            )
        return self._whitened(x)

    def _patches(self, x: Tensor) -> Tensor:
        """Normalised pixels of images of any size that is whole patches."""
        height, width = patch_size(self.student)
        if (
            x.dtype != torch.uint8
            or x.ndim != 4
            or x.shape[1] != 3
            or x.shape[2] % height
            or x.shape[3] % width
        ):
            raise SpatialbenchError(
                f"a dense map is made of images uint8 [B, 3, H, W] with H and W multiples of {height} and {width}, "
                f"found {str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
            )
        return self._whitened(x)

    def _whitened(self, x: Tensor) -> Tensor:
        return x.to(self.mean.dtype).sub_(self.mean).div_(self.std)


def _unit(x: Tensor) -> Tensor:
    """In float32, float64 where a method is double."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)
