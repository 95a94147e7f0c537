r"""CLOC: image tokens that a prompt turns into the embedding of a region, or into its box.

Paper  Chen et al., "Contrastive Localized Language-Image Pre-Training", ICML 2025, arXiv
       2410.02746, sections 3.2 and 3.3.
Code   none released.

With F the tokens of an image, b_m the box of its m-th named object ("a lamp"), t_m the text
embedding of the name, R regions in a batch, and s(z, t) = cos(z, t) / tau:

    (1)  z(p) = P mean(Layer([p; F]))                    Prompter; p: a box or a text as a token
    (2)  L_R2T = -1/R sum_m log [ exp s(z(b_m), t_m) / sum_n exp s(z(b_m), t_n) ]
         L_T2R = -1/R sum_m log [ exp s(z(b_m), t_m) / sum_n exp s(z(b_n), t_m) ]
         n: m itself, and every region of the batch with cos(t'_m, t'_n) <= 0.9
    (3)  L_CLOC = (L_R2T + L_T2R) / 2
    (4)  L_ground = 1/(4 R) sum_m |b_m - BoxHead(z(t_m))|^2
    (5)  L = L_protocol + lam (L_CLOC + L_ground)        lam: weight x share of images with regions

Layer is one transformer layer with one head, BoxHead an MLP of two layers; b is x0 y0 x1 y1 in
units of the image side. Prompter and BoxHead are dropped after training: images, captions and
patches are embedded by the student alone, so that a plain CLIP is scored and exported. Privileged:
boxes are read in training, never in a test. ``ClocReadout`` keeps the heads and scores with them:

    (6)  s(I, "The A is left of the B.") = x of the centre of B's box - that of A's;    right: its
         negative; above, under: y; close, far: 0, a tie

Differences  The paper trains from scratch; here it is a fine-tuning, with the protocol's loss in
             place of CLIP's. Regions are named objects of the batch's records, not boxes of a
             detector with phrases; an object of several records is one region. The paper prints
             neither the kind of norm in (4) nor how prompts become tokens: here the squared norm,
             and linear maps of the corners' sines and cosines and of the text embedding, with the
             tokens after the tower's last norm. tau is the student's. t' is of the text tower that
             training starts from; the paper has t' = t. Here that has a second minimum: t soon are
             all alike, nothing is a negative any more, and (3) is 0 for good. Over ranks, (2) has
             the regions of all, as the protocol's loss; (4) is the mean of the ranks' means.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatialbench.data.images import Resize
from spatialbench.data.locations import NamedBoxes, corners, named_boxes
from spatialbench.data.records import Record
from spatialbench.evaluation.prompts import caption_embeddings
from spatialbench.methods.base import DEFAULTS, Batch, FineTuning, Method, unit
from spatialbench.methods.parts.chunks import in_chunks
from spatialbench.models.places import Asked, phrase
from spatialbench.models.towers import embed_patches, image_blocks, pool, run_blocks
from spatialbench.utils.checkpoints import class_path, part_of
from spatialbench.utils.distributed import Encoded, gather
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.say import say

AT_ONCE = 256
"""Boxes that a readout looks for at a time."""
ALIKE = 0.9
"""Two texts of a larger cosine are not negatives of one another: they may name the same thing."""
FREQUENCIES = 8
"""Sines and cosines of each coordinate, at pi, 2 pi, 4 pi, ... per image side."""


class Prompter(nn.Module):
    """Turn the tokens of an image into an embedding by a prompt, (1).

    Args:
        width: W, of the tokens.
        joint: D, of the joint space.
    """

    def __init__(self, width: int, joint: int) -> None:
        super().__init__()
        self.box = nn.Linear(8 * FREQUENCIES, width)
        self.phrase = nn.Linear(joint, width)
        self.layer = nn.TransformerEncoderLayer(
            width, 1, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.projection = nn.Linear(width, joint)

    def of_boxes(self, boxes: Tensor, tokens: Tensor) -> Tensor:
        """Return z(b) [R, D] for boxes [R, 4] and the tokens of their images [R, T, W]."""
        angles = boxes[..., None] * math.pi * 2.0 ** torch.arange(FREQUENCIES, device=boxes.device)
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
        return self(self.box(waves.to(self.box.weight)), tokens)

    def of_texts(self, texts: Tensor, tokens: Tensor) -> Tensor:
        """Return z(t) [R, D] for texts [R, D] and the tokens of the images [R, T, W]."""
        return self(self.phrase(texts), tokens)

    def forward(self, prompt: Tensor, tokens: Tensor) -> Tensor:
        """Return (1), [R, D], not normalised, for prompts as tokens [R, W]."""
        together = torch.cat([prompt[:, None].to(tokens.dtype), tokens], dim=1)
        return self.projection(self.layer(together).mean(1))  # (1)


class Cloc(Method):
    """Fine-tuned CLIP with region embeddings and grounding beside the protocol's loss.

    Args:
        student: an open_clip model with a class token, ``<model>[:<weights>]``; see ``Method``.
        weight: of lam in (5).
        regions: at most so many regions of each image and batch.
        finetuning: the protocol of training, the same for every row of a table; Prompter and
            BoxHead learn at ``connection_lr``.
    """

    def __init__(
        self,
        student: str = "rooms-student",
        weight: float = 1.0,
        regions: int = 4,
        finetuning: FineTuning = DEFAULTS,
    ) -> None:
        super().__init__(student, finetuning)
        self.save_arguments(locals())
        if not weight >= 0:
            raise SpatialbenchError(f"weight is {weight}; it must be 0 or more")
        if regions < 1:
            raise SpatialbenchError(f"regions is {regions}; it must be 1 or more")
        self.weight, self.most = weight, regions
        joint = self.student.visual.output_dim
        self.prompter = Prompter(len(self.student.visual.class_embedding), joint)
        self.box_head = nn.Sequential(nn.Linear(joint, joint), nn.GELU(), nn.Linear(joint, 4))
        self.records: Sequence[Record]  # of the training set
        self.boxes: Tensor  # [records, 2, 4], of subject and object; NaN: unknown
        self.row: dict[str, int]  # of each phrase in ``begun``
        self.begun: Tensor  # t', [phrases of the training set, D]

    def setup(self, stage: str) -> None:
        """Read where the objects of the training set are."""
        if stage == "fit":
            data = self.records_source()
            self.prepare(data.train_set.records, data.resize)

    @torch.no_grad()
    def prepare(self, records: Sequence[Record], resize: Resize) -> None:
        """Read the boxes of the training set, and encode its names as t'.

        Raises:
            SpatialbenchError: there is no box.
        """
        self.records, self.boxes = records, torch.from_numpy(corners(records, resize))
        known = self.boxes[..., 0].isfinite()
        unknown = int((~known).sum())
        if unknown == known.numel():
            raise SpatialbenchError(
                "no named object of the training set has a box: give records with boxes"
            )
        if unknown:
            say(f"note: {unknown} of {known.numel()} named objects have no box and are no regions")
        phrases = dict.fromkeys(phrase(n) for each in records for n in each.statement.names)
        self.row = {text: number for number, text in enumerate(phrases)}
        self.begun = caption_embeddings(self, list(phrases))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return (5)."""
        tokens = in_chunks(self.tokens, batch["pixels"], self.finetuning.chunk_images)
        images = unit(pool(self.student.visual, tokens))
        regions = named_boxes(batch, self.records, self.boxes, self.most)
        contrast, ground = self.region_losses(tokens, regions, self._phrases(batch))
        logged = {"train/regions": contrast.detach(), "train/ground": ground.detach()}
        self.log_dict(logged, batch_size=len(batch["record"]))
        weight = self.weight * len(regions.image.unique()) / len(images)
        return self.finetuning_loss(batch, images) + weight * (contrast + ground)  # (5)

    def tokens(self, x: Tensor) -> Tensor:
        """Return the tokens of images uint8 [M, 3, S, S] after the last block, [M, T, W]."""
        embedded = embed_patches(self.student.visual, self._normalised(x))
        run = self._runner(self.finetuning.compile)
        return run_blocks(image_blocks(self.student), embedded, run=run)

    def region_losses(
        self, tokens: Tensor, regions: NamedBoxes, phrases: list[str]
    ) -> tuple[Tensor, Tensor]:
        """Return (3) and (4).

        Args:
            tokens: of all images of the batch, after the last block, [M, T, W].
            regions: of the batch; there may be none.
            phrases: K distinct ones, among them those of the regions.
        """
        texts = self.text(self.tokenize(phrases))  # [K, D]
        named = [phrase(name) for name in regions.names]
        seen = self.student.visual.ln_post(tokens)[regions.image]  # [R, T, W]
        z = unit(self.prompter.of_boxes(regions.boxes, seen))
        missed = regions.boxes - self.said(texts[[phrases.index(each) for each in named]], seen)
        ground = missed.square().sum() / max(missed.numel(), 1)  # (4)
        rows = torch.arange(len(z), device=z.device)
        whole = gather(Encoded(z, texts, phrases, rows, named, []))
        with torch.autocast(self.device.type, enabled=False):
            own = whole.texts[whole.columns(whole.captions)]
            begun = self.begun[[self.row[each] for each in whole.captions]].to(own)
            alike = begun @ begun.T > ALIKE
            contrast = region_contrast(whole.images, own, alike, self.student.logit_scale.exp())
        return contrast, ground

    def said(self, texts: Tensor, tokens: Tensor) -> Tensor:
        """Return the boxes [R, 4] that BoxHead finds by texts [R, D] in tokens [R, T, W]."""
        return self.box_head(self.prompter.of_texts(texts, tokens))

    def _phrases(self, batch: Batch) -> list[str]:
        """Return the distinct phrases for all names of a batch, never empty: ranks go together."""
        said = [self.records[row].statement for row in batch["record"].tolist()]
        return list(dict.fromkeys(phrase(name) for each in said for name in each.names))


class ClocReadout(Cloc):
    """The boxes that a trained Cloc finds, as scores of captions: (6), on a page without training.

    Its embeddings are those of the Cloc that it starts from, or whose checkpoint it is given.
    """

    reads_others = True
    free_captions = False

    def start_from(self, weights: Mapping[str, Tensor], label: str) -> None:
        """Take the student, Prompter and BoxHead of the page that this one starts from."""
        super().start_from(weights, label)
        for part in ("prompter.", "box_head."):
            self.load_state_dict(part_of(weights, self.state_dict(), part, label), strict=False)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take a checkpoint of its own or of a Cloc, which has the same parts.

        Raises:
            SpatialbenchError: it is of another method or another architecture.
        """
        if checkpoint.get("method") == f"{Cloc.__module__}.{Cloc.__qualname__}":
            checkpoint["method"] = class_path(self)
        super().on_load_checkpoint(checkpoint)

    def pair_features(self, x: Tensor) -> Tensor:
        """Return F of images, float32 [M, T, W]."""
        return self.student.visual.ln_post(self.tokens(x))

    def pair_scores(self, features: Tensor, image: Tensor, captions: Sequence[str]) -> Tensor:
        """Return (6). A caption that is not of the grammar raises a SpatialbenchError."""
        asked = Asked.by(captions, image.device)
        texts = self.encoded(asked.phrases)
        both = torch.stack([image.repeat(2), torch.cat([asked.first, asked.second])], dim=1)
        distinct, row = both.unique(dim=0, return_inverse=True)  # [U, 2], [2 N]
        said = [self.said(texts[k], features[m]) for m, k in map(Tensor.t, distinct.split(AT_ONCE))]
        boxes = torch.cat(said)[row]  # [2 N, 4]
        places = F.pad((boxes[:, :2] + boxes[:, 2:]) / 2, (0, 1))  # no depth
        return asked.score(*places.tensor_split(2))  # (6)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Refuse to train."""
        raise SpatialbenchError("a readout trains nothing: set trainer.max_steps to 0")


def region_contrast(regions: Tensor, texts: Tensor, alike: Tensor, scale: Tensor) -> Tensor:
    """Return (3) for R regions and their texts, unit norm [R, D].

    ``alike``: bool [R, R], texts that are no negatives of one another; ``scale``: 1 / tau.
    """
    own = torch.arange(len(regions), device=regions.device)
    others = alike & (own[:, None] != own)
    logits = (scale * regions @ texts.T).masked_fill(others, -torch.inf)
    both = [F.cross_entropy(x, own, reduction="sum") for x in (logits, logits.T)]  # (2)
    return (both[0] + both[1]) / (2 * max(len(own), 1))  # (3)
