"""The small student: an open_clip model trained as CLIP is, on captions that name objects but never a relation.

    (1)  s_jt = e^scale <image_j, text_t>
    (2)  L_I = - mean over captions c of log  e^{s_ic} / ( e^{s_ic} + sum over captions and foils t of e^{s_it} )
    (3)  L_T = - mean over captions c of log  e^{s_ic} / ( e^{s_ic} + sum over images j of e^{s_jc} )
    (4)  L_S = mean over captions c of (s_ic - s_ic')^2
    (5)  L = (L_I + L_T) / 2 + w L_S                       w is 0 in the first steps of a training

i is the picture that c was written for; t in (2) are false of i, and c in (3) is false of j; c' in (4) is c with its
two objects in the other order. Without (4) the student comes to prefer, by a hair, the order that names the larger
object first, and is not at chance on close and far. With (4) from the first step, and with few colours in the captions,
it does not learn which colour belongs to which object (weights/README.md), so w waits.

Source: CLIP (Radford et al., arXiv 2103.00020, figure 3), with four changes: (4), several captions a picture, no false
negatives (the scenes say which caption is true of which picture), and foils with exchanged colours ("a red sofa and a
blue lamp" / "a blue sofa and a red lamp", as NegCLIP's, arXiv 2210.01936), so that the text tower reads word order.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from spatialbench.data.rooms.room_captions import true_of
from spatialbench.evaluation.regions import found_true
from spatialbench.models.open_clip_student import TextTokenizer, load_clip, normalisation
from spatialbench.models.towers import encode_image, encode_text
from spatialbench.pretrain.data import CaptionBatch
from spatialbench.utils.errors import atomic_path, write_atomic


def caption_loss(
    scores: Tensor, image: Tensor, twin: Tensor, truth: Tensor, symmetry: float
) -> Tensor:
    """Equations (2) to (5).

    Args:
        scores: s [B, C + F], the captions first, then the foils.
        image: int64 [C], the picture of each caption.
        twin: int64 [C], the column of the caption with its objects in the other order, or its own.
        truth: bool [B, C + F]: true of the picture, hence never a negative.
        symmetry: w.
    """
    captions = torch.arange(len(image), device=scores.device)
    own = scores[image, captions]  # [C]
    negatives = scores.masked_fill(truth, -torch.inf)
    image_side = torch.logaddexp(own, negatives.logsumexp(1).index_select(0, image)) - own  # (2)
    text_side = torch.logaddexp(own, negatives[:, : len(image)].logsumexp(0)) - own  # (3)
    symmetric = (own - scores[image, twin]).square()  # (4)
    return (image_side.mean() + text_side.mean()) / 2 + symmetry * symmetric.mean()  # (5)


class StudentPretraining(L.LightningModule):
    """Trains the student.

    Args:
        student: as in ``backbones.clip.load_clip``.
        lr: peak learning rate of AdamW; warm-up over ``warmup`` steps, then a cosine to zero.
        weight_decay: on matrices, not on norms, biases and the scale.
        symmetry: w of (5).
        symmetry_from: share of the training's steps, in [0, 1], before w counts; 0 before that.
        export: where ``finish`` writes the weights (float16 safetensors) and, beside them, the scores.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        student: str = "rooms-student:random",
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        symmetry: float = 10.0,
        symmetry_from: float = 0.6,
        warmup: int = 200,
        export: str = "spatialbench/weights/rooms-student.safetensors",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.student = load_clip(student)
        self.tokenizer = TextTokenizer(student)
        mean, std = normalisation(self.student)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)
        self.scores: dict[str, float] = {}

    def image(self, pixels: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] -> unit-norm [B, D]."""
        return F.normalize(
            encode_image(self.student, (pixels - self.mean) / self.std).float(), dim=-1
        )

    def text(self, captions: list[str]) -> Tensor:
        """C captions -> unit-norm [C, D]; equal captions are encoded once."""
        distinct = list(dict.fromkeys(captions))
        row = {caption: k for k, caption in enumerate(distinct)}
        tokens = self.tokenizer(distinct).to(self.device)
        embeddings = F.normalize(encode_text(self.student, tokens).float(), dim=-1)
        # not embeddings[...]: its gradient adds up in the order of the threads, and no two trainings are the same
        return embeddings.index_select(
            0, torch.tensor([row[caption] for caption in captions], device=self.device)
        )

    @property
    def symmetry(self) -> float:
        """w of (5) at the step under way."""
        start, weight = self.hparams["symmetry_from"], self.hparams["symmetry"]
        begun = start == 0 or self.global_step >= start * self.trainer.estimated_stepping_batches
        return weight if begun else 0.0

    def training_step(self, batch: CaptionBatch, _: int) -> Tensor:
        images = self.image(batch["pixels"])
        texts = self.text(batch["captions"] + batch["foils"])
        claims = torch.cat([batch["claims"], batch["foil_claims"]])
        truth = true_of(batch["seen"], claims)
        with torch.autocast(
            self.device.type, enabled=False
        ):  # (4) is about less than bfloat16 tells apart
            scores = self.student.logit_scale.exp().clamp(max=100) * images @ texts.T  # (1)
            loss = caption_loss(scores, batch["image"], batch["twin"], truth, self.symmetry)
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._kept: list[dict[str, Tensor]] = []

    def validation_step(self, batch: CaptionBatch, _: int) -> None:
        texts = self.text(batch["captions"] + batch["foils"])
        count = len(batch["captions"])
        images = self.image(batch["pixels"])
        own = (images[batch["image"]] * texts[:count]).sum(1)
        foil = (images[batch["image"]] * texts[count:]).sum(1)
        apart = ~true_of(batch["seen"], batch["foil_claims"])[batch["image"], torch.arange(count)]
        self._kept.append(
            {
                "images": images,
                "texts": texts[:count],
                "claims": batch["claims"],
                "seen": batch["seen"],
            }
            | {"image": batch["image"], "binding": (own > foil)[apart].float()}
        )

    def on_validation_epoch_end(self) -> None:
        rows = {
            key: torch.cat([kept[key] for kept in self._kept])
            for key in self._kept[0]
            if key != "image"
        }
        start = torch.tensor([0, *(len(kept["images"]) for kept in self._kept)]).cumsum(0)
        image = torch.cat([kept["image"] + s for kept, s in zip(self._kept, start, strict=False)])
        self.scores = retrieval_scores(
            rows["images"], rows["texts"], image, true_of(rows["seen"], rows["claims"])
        )
        self.scores["binding"] = 100 * rows["binding"].mean().item()
        self.log_dict({f"val/{name}": value for name, value in self.scores.items()}, prog_bar=True)

    def configure_optimizers(self) -> Any:
        return adamw(self, self.hparams["lr"], self.hparams["weight_decay"], self.hparams["warmup"])

    def finish(self, run_dir: Path) -> dict[str, float]:
        """Writes the weights and their scores; called when the page's training is done."""
        target = Path(self.hparams["export"])
        state = {
            k: v.half().contiguous()
            for k, v in self.student.state_dict().items()
            if v.is_floating_point()
        }
        export(target, state, self.scores)
        return self.scores


def retrieval_scores(
    images: Tensor, texts: Tensor, image: Tensor, truth: Tensor
) -> dict[str, float]:
    """Retrieval among all pictures and captions, in percent.

    Args:
        images: [B, D]. texts: [C, D]. image: int64 [C]. truth: bool [B, C].

    Returns:
        ``image_r1``, ``image_r5``: a picture that the caption is true of is among the first 1 (5) of all pictures;
        ``text_r1``: the first caption of a picture is true of it; ``chance``: the mean share of true pairs.
    """
    scores = images @ texts.T
    pictures, sentences = found_true(scores, truth, 1)
    return {
        "image_r1": 100 * pictures.float().mean().item(),
        "image_r5": 100 * found_true(scores, truth, 5)[0].float().mean().item(),
        "text_r1": 100 * sentences.float().mean().item(),
        "chance": 100 * truth.float().mean().item(),
    }


def adamw(module: L.LightningModule, lr: float, weight_decay: float, warmup: int) -> dict[str, Any]:
    """AdamW (betas 0.9, 0.98; no decay on vectors), linear warm-up, cosine to zero over the trainer's steps."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)
    total = int(module.trainer.estimated_stepping_batches)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def export(target: Path, state: dict[str, Tensor], scores: dict[str, float]) -> None:
    """Writes ``target`` (safetensors) and ``target`` with the ending ``.json`` (the scores), each in one step."""
    with atomic_path(target) as temporary:
        save_file(state, temporary)
    rounded = {name: round(value, 4) for name, value in scores.items()}
    write_atomic(target.with_suffix(".json"), json.dumps(rounded, indent=2) + "\n")
