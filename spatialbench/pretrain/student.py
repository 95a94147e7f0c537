"""The small student: an open_clip model trained on captions that name objects but no relation.

    (1)  s_jt = e^scale <image_j, text_t>
    (2)  L_I = - mean over captions c of
               log  e^{s_ic} / ( e^{s_ic} + sum over captions and foils t of e^{s_it} )
    (3)  L_T = - mean over captions c of
               log  e^{s_ic} / ( e^{s_ic} + sum over images j of e^{s_jc} )
    (4)  L_S = mean over captions c of (s_ic - s_ic')^2
    (5)  L = (L_I + L_T) / 2 + w L_S                w is 0 in the first steps of a training

i is the image that c was written for; t in (2) are false of i, and c in (3) is false of j; c' in
(4) is c with its two objects in the other order. Without (4) the student slightly prefers the order
that names the larger object first, and is not at chance on close and far. With (4) from the first
step, and few colours in the captions, it does not learn which colour belongs to which object
(weights/README.md), so w waits.

Source: CLIP (Radford et al., arXiv 2103.00020, figure 3), with four changes: (4); several captions
per image; no false negatives (the scenes say which caption is true of which image); and foils with
swapped colours ("a red sofa and a blue lamp" / "a blue sofa and a red lamp", as NegCLIP's, arXiv
2210.01936), so that the text tower reads word order.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.data.rooms.room_captions import true_of
from spatialbench.evaluation.regions import found_true
from spatialbench.models.open_clip_student import TextTokenizer, load_clip, normalisation
from spatialbench.models.towers import encode_image, encode_text
from spatialbench.pretrain.data import CaptionBatch
from spatialbench.pretrain.pretraining import Pretraining, write_scores, write_weights


def caption_loss(
    scores: Tensor, image: Tensor, twin: Tensor, truth: Tensor, symmetry: float
) -> Tensor:
    """Return (5), from (2) to (4).

    Args:
        scores: s [B, C + F], the captions first, then the foils.
        image: int64 [C], the image of each caption.
        twin: int64 [C], the column of the caption with its objects in the other order, or its own.
        truth: bool [B, C + F]: true of the image, hence never a negative.
        symmetry: w.
    """
    captions = torch.arange(len(image), device=scores.device)
    own = scores[image, captions]  # [C]
    negatives = scores.masked_fill(truth, -torch.inf)
    image_side = torch.logaddexp(own, negatives.logsumexp(1).index_select(0, image)) - own  # (2)
    text_side = torch.logaddexp(own, negatives[:, : len(image)].logsumexp(0)) - own  # (3)
    symmetric = (own - scores[image, twin]).square()  # (4)
    return (image_side.mean() + text_side.mean()) / 2 + symmetry * symmetric.mean()  # (5)


class StudentPretraining(Pretraining):
    """The training of the student.

    Args:
        student: as in ``models.open_clip_student.load_clip``.
        lr: peak learning rate of AdamW; linear warm-up, then a cosine to zero.
        symmetry: w of (5).
        symmetry_from: share of the training's steps, in [0, 1], before which w is 0.
        warmup: steps.
        export: file of the weights (float16 safetensors); the scores go beside it.
    """

    weight_decay = 0.1

    def __init__(
        self,
        student: str = "rooms-student:random",
        lr: float = 1e-3,
        symmetry: float = 10.0,
        symmetry_from: float = 0.6,
        warmup: int = 200,
        export: str = "spatialbench/weights/rooms-student.safetensors",
    ) -> None:
        super().__init__()
        self.student = load_clip(student)
        self.tokenizer = TextTokenizer(student)
        self.normalise_by(*normalisation(self.student))

    def image(self, pixels: Tensor) -> Tensor:
        """Embed uint8 [B, 3, S, S] as [B, D], unit norm."""
        embeddings = encode_image(self.student, (pixels - self.mean) / self.std)
        return F.normalize(embeddings.float(), dim=-1)

    def text(self, captions: list[str]) -> Tensor:
        """Embed C captions as [C, D], unit norm; equal captions are encoded once."""
        distinct = list(dict.fromkeys(captions))
        number = {caption: k for k, caption in enumerate(distinct)}
        tokens = self.tokenizer(distinct).to(self.device)
        embeddings = F.normalize(encode_text(self.student, tokens).float(), dim=-1)
        rows = torch.tensor([number[caption] for caption in captions], device=self.device)
        # The gradient of embeddings[rows] depends on the order of threads; this one is repeatable.
        return embeddings.index_select(0, rows)

    @property
    def symmetry(self) -> float:
        """Weight w of (5) at the current step."""
        start, weight = self.hparams["symmetry_from"], self.hparams["symmetry"]
        begun = start == 0 or self.global_step >= start * self.trainer.estimated_stepping_batches
        return weight if begun else 0.0

    def training_step(self, batch: CaptionBatch, _: int) -> Tensor:
        """Return (5)."""
        images = self.image(batch["pixels"])
        texts = self.text(batch["captions"] + batch["foils"])
        claims = torch.cat([batch["claims"], batch["foil_claims"]])
        truth = true_of(batch["seen"], claims)
        with torch.autocast(self.device.type, enabled=False):  # (4) is finer than bfloat16
            scores = self.student.logit_scale.exp().clamp(max=100) * images @ texts.T  # (1)
            loss = caption_loss(scores, batch["image"], batch["twin"], truth, self.symmetry)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: CaptionBatch, _: int) -> None:
        """Keep the embeddings, and whether each caption beats its foil."""
        texts = self.text(batch["captions"] + batch["foils"])
        count = len(batch["captions"])
        images = self.image(batch["pixels"])
        own = (images[batch["image"]] * texts[:count]).sum(1)
        foil = (images[batch["image"]] * texts[count:]).sum(1)
        apart = ~true_of(batch["seen"], batch["foil_claims"])[batch["image"], torch.arange(count)]
        self.keep(
            images=images,
            texts=texts[:count],
            claims=batch["claims"],
            seen=batch["seen"],
            binding=(own > foil)[apart].float(),
        )

    def summary(self, rows: dict[str, Tensor]) -> dict[str, float]:
        """Return retrieval and, as ``binding``, the percentage of captions that beat their foil."""
        truth = true_of(rows["seen"], rows["claims"])
        scores = retrieval_scores(rows["images"], rows["texts"], truth)
        return {**scores, "binding": 100 * rows["binding"].mean().item()}

    def write(self, target: Path) -> None:
        """Write the weights, and the scores beside them."""
        write_weights(target, self.student.state_dict())
        write_scores(target.with_suffix(".json"), self.scores)


def retrieval_scores(images: Tensor, texts: Tensor, truth: Tensor) -> dict[str, float]:
    """Return retrieval among images [B, D] and captions [C, D], in percent; truth: bool [B, C].

    ``image_r1``, ``image_r5``: captions whose first 1 (5) images include one that it is true of;
    ``text_r1``: images whose first caption is true; ``chance``: the share of true pairs.
    """
    scores = images @ texts.T
    by_caption, by_image = found_true(scores, truth, 1)
    hits = {"image_r1": by_caption, "image_r5": found_true(scores, truth, 5)[0]}
    hits |= {"text_r1": by_image, "chance": truth}
    return {name: 100 * hit.float().mean().item() for name, hit in hits.items()}
