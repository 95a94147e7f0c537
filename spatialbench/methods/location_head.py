r"""Fine-tuned CLIP whose image embedding must also say where the named objects are.

Paper  none: the positive control of docs/protocol.md. That the loss of captions alone does not
       leave the plateau of left and right: Yamamoto, Noguchi, Tanizawa, arXiv 2601.12809, ICML 2026

For a named object i of a batch's records, with v the embedding of its image and e_i the code of its
name:

    (1)  (x_i, y_i, z_i) = v^T W e_i + b                W: 3 matrices
    (2)  MSE = mean_i [ (x_i - x*_i)^2, (y_i - y*_i)^2, 1/2 (z_i - z*_i)^2 ]
    (3)  L = L_protocol + w MSE

x* and y* are the centre of the object's box in units of the image side, z* the log of its mean
depth in metres; what the data do not know is left out of the mean. The code e is the whitened
embedding of the name: with T = U S V^T the embeddings of the training set's K names in the text
tower that training starts from, e_i is row i of U V^T at unit norm. It stays as it is: the text
tower cannot make the task easy. While K is at most the width D, codes are orthonormal, and each
name has in effect a linear head of its own; beyond, the head remains of one size. Embeddings as
they are lie close together, and with them x was not learned on the validation split.

The head is dropped: images, captions and patches are embedded by the student alone, so that a plain
CLIP is scored and exported. Privileged: boxes and depth are read in training, never in a test.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatialbench.data.images import Resize
from spatialbench.data.locations import locations
from spatialbench.data.records import Record
from spatialbench.evaluation.prompts import class_embeddings
from spatialbench.methods.base import DEFAULTS, Batch, FineTuning, Method
from spatialbench.methods.parts.chunks import in_chunks
from spatialbench.utils.errors import SpatialbenchError

_SHARES = (1.0, 1.0, 0.5)  # of x, y and log depth in (2)


class LocationHead(Method):
    """Fine-tuned CLIP with a linear head that regresses where the named objects are.

    Args:
        student: an open_clip model, ``<model>[:<weights>]``; see ``Method``.
        weight: w of (3).
        finetuning: the protocol of training, the same for every row of a table; the head learns at
            ``connection_lr``.
    """

    def __init__(
        self,
        student: str = "rooms-student",
        weight: float = 150.0,
        finetuning: FineTuning = DEFAULTS,
    ) -> None:
        super().__init__(student, finetuning)
        self.save_arguments(locals())
        if not weight >= 0:
            raise SpatialbenchError(f"weight is {weight}; it must be 0 or more")
        self.weight = weight
        width = self.student.visual.output_dim
        self.head = nn.Bilinear(width, width, len(_SHARES))
        self.codes: Tensor  # [K, D], of the training set's names
        self.named: Tensor  # int64 [R, 2], the rows of ``codes`` of each record's two objects
        self.located: Tensor  # [R, 2, 3], where they are; NaN: unknown

    def setup(self, stage: str) -> None:
        """Read where the objects of the training set are."""
        if stage == "fit":
            data = self.records_source()
            self.prepare(data.train_set.records, data.resize)

    @torch.no_grad()
    def prepare(self, records: Sequence[Record], resize: Resize) -> None:
        """Encode the names of the training set, and start the bias at the mean location."""
        names = {name: None for record in records for name in (record.subject, record.object)}
        row = {name: number for number, name in enumerate(names)}
        named = torch.tensor([[row[record.subject], row[record.object]] for record in records])
        located = torch.from_numpy(locations(records, resize))
        embedded = class_embeddings(self, list(names), ["a {}"])
        u, _, v = torch.linalg.svd(embedded, full_matrices=False)
        codes = F.normalize(u @ v, dim=-1)
        for name, value in (("codes", codes), ("named", named), ("located", located)):
            self.register_buffer(name, value.to(self.device), persistent=False)
        self.head.bias.copy_(located.flatten(0, 1).nanmean(0).nan_to_num())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return (3)."""
        images = in_chunks(self.image, batch["pixels"], self.finetuning.chunk_images)
        error = self.location_error(images[batch["image"]], batch["record"])
        self.log("train/location", error.detach(), batch_size=len(batch["record"]))
        return self.finetuning_loss(batch, images) + self.weight * error

    def location_error(self, images: Tensor, record: Tensor) -> Tensor:
        """Return (2) for embeddings [N, D] of the images of N records of the training set."""
        named, target = self.named[record], self.located[record]  # [N, 2], [N, 2, 3]
        with torch.autocast(self.device.type, enabled=False):
            both = images[:, None].expand(-1, 2, -1).contiguous()
            said = self.head(both, self.codes[named])  # (1)
            known = target.isfinite()
            error = (said - target.where(known, said)).square() * said.new_tensor(_SHARES)
            return error.sum() / known.sum().clamp(min=1)  # (2)
