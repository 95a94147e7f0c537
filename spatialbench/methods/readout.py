r"""Dense readouts: what the patches of a CLIP say about where two named objects are.

Paper  value: Zhou, Loy, Dai, "Extract Free Dense Labels from CLIP", ECCV 2022, arXiv 2112.01071
       (MaskCLIP). vv: Deng, Zhang, Bao, Li, "AnoVL", arXiv 2308.15939. trident: Shi, Dong, Xu,
       "Harnessing Vision Foundation Models for High-Performance, Training-Free Open Vocabulary
       Segmentation", arXiv 2411.09219, step 1. None of them scores relations: (4) to (6) are ours.
Code   hq-deng/AnoVL @ 78a1a8f, clip/custom_clip.py; YuHengsss/Trident @ 04bf5f8, trident.py
       (nothing is copied).

With v_p the values of the last block of the image tower, head by head, and W^O its projection:

    (1)  a_p = v_p                                                                          value
         a_p = sum_q softmax_q(<v_p, v_q> / sqrt(d)) v_q                                    vv
         a_p = sum_q softmax_q(S'_pq) v_q                                                   trident
    (2)  S'_pq = g (S_pq - b mean S), -inf where it is negative and p != q;    S_pq = cos(o_p, o_q)
    (3)  f_p = P LN(W^O a_p) / |P LN(W^O a_p)|            neither residual connection nor MLP
    (4)  m_A(p) = softmax_p(t <f_p, T_A>)                 T_A: the embedding of "a A"
    (5)  c_A = sum_p m_A(p) (x_p, y_p, log d_p)           place in image sides, depth in metres
    (6)  s(I, "The A is left of the B.") = x of c_B - c_A;    right: its negative; above, under: y;
         close, far: log d

o_p are the VFM's patches, d_p its depth where a linear head for it lies beside its weights. Without
one, close and far are ties. (6) changes its sign when A and B are swapped, exactly.

Differences  AnoVL has a path of vv through every block, with a residual connection of its own; here
             it is the last block alone. Trident resizes V to the VFM's grid; here o_p is resized to
             CLIP's. Its mean S is over a whole batch; here over one image. A row of S' that is
             masked throughout would be NaN, so the diagonal stays.
"""

import inspect
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.config.signatures import import_class, refuse_unknown
from spatialbench.methods.base import DEFAULTS, FineTuning, Method
from spatialbench.models.places import Asked, centres, patch_depth, resampled
from spatialbench.models.timm_vfm import depth_head, load_vfm
from spatialbench.models.towers import Attend, Mix, attention, patch_grid
from spatialbench.utils.argument_checks import check_choice
from spatialbench.utils.checkpoints import class_path
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.say import say

Attention = Literal["value", "vv", "trident"]
BETA, GAMMA = 1.2, 3.0
"""b and g of (2), Trident's."""


class Readout(Method):
    """A frozen CLIP, or any other method's checkpoint, scored by (6) in place of a cosine.

    Its embeddings of images and captions are those of what it reads; its dense map is (3).

    Args:
        student: an open_clip model with a class token, ``<model>[:<weights>]``; see ``Method``.
        vfm: a timm model, ``<model>[:<weights>]``; loaded for ``trident``, or for its depth head.
        attention: (1).
        finetuning: not used.
    """

    frozen = ("vfm.", "depth_head.")
    reads_others = True
    free_captions = False

    def __init__(
        self,
        student: str = "rooms-student",
        vfm: str = "rooms-vfm",
        attention: Attention = "value",
        finetuning: FineTuning = DEFAULTS,
    ) -> None:
        super().__init__(student, finetuning)
        self.save_arguments(locals())
        check_choice("attention", attention, Attention)
        self.attention = attention
        self.depth_head = depth_head(vfm)
        if self.depth_head is None:
            say(f"note: vfm {vfm!r} has no depth head: close and far are ties, exactly 50")
        needed = attention == "trident" or self.depth_head is not None
        self.vfm = load_vfm(vfm, self.image_size, cache=False) if needed else None
        self.source: Method | None = None  # the method of a checkpoint of another page

    def connect(self, x: Tensor) -> Mix | None:
        """Return what the method that is read does in every block."""
        return None if self.source is None else self.source.connect(x)

    def image(self, x: Tensor, mix: Mix | None = None) -> Tensor:
        """Embed images as the method that is read does."""
        return super().image(x, mix) if self.source is None else self.source.image(x, mix)

    def text(self, tokens: Tensor) -> Tensor:
        """Embed captions as the method that is read does."""
        return super().text(tokens) if self.source is None else self.source.text(tokens)

    def dense(self, x: Tensor, attend: Attend | None = None) -> Tensor:
        """Return (3), [B, h, w, D], of images uint8 [B, 3, H, W]; see ``Method.dense``."""
        attend = attend or self.attend(x)
        return super().dense(x, attend) if self.source is None else self.source.dense(x, attend)

    def attend(self, x: Tensor, patches: Tensor | None = None) -> Attend:
        """Return (1) for images uint8 [B, 3, H, W] and the VFM's ``patches`` of them, if known.

        The class token takes part in ``vv`` alone.
        """
        if self.attention == "value":
            return lambda v: v
        if self.attention == "vv":
            return lambda v: attention(v, v, v)
        assert self.vfm is not None, "trident loads it"
        patches = self.vfm.patches(x) if patches is None else patches
        o = resampled(patches, patch_grid(self.student, x)).flatten(1, 2)
        weights = guidance(o)[:, None]  # the same for every head
        return lambda v: torch.cat([v[:, :, :1], weights.to(v) @ v[:, :, 1:]], dim=2)

    def pair_features(self, x: Tensor) -> Tensor:
        """Return f_p and log d_p (0 without a head) of images, float32 [M, h, w, D + 1]."""
        patches = None if self.vfm is None else self.vfm.patches(x)
        dense = self.dense(x, self.attend(x, patches))
        depth = dense.new_zeros(*dense.shape[:3], 1)
        if self.depth_head is not None and patches is not None:
            depth = patch_depth(self.depth_head, patches, (dense.shape[1], dense.shape[2]))
        return torch.cat([dense, depth], dim=-1)

    def pair_scores(self, features: Tensor, image: Tensor, captions: Sequence[str]) -> Tensor:
        """Return (6). A caption that is not of the grammar raises a SpatialbenchError."""
        asked = Asked.by(captions, image.device)
        texts = self.encoded(asked.phrases)
        centre = centres(features[..., :-1], features[..., -1], texts)
        return asked.score(centre[image, asked.first], centre[image, asked.second])  # (6)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take a readout's own checkpoint, or the whole method of another page's.

        Raises:
            SpatialbenchError: it is of no method, of another student, or cannot be read out.
        """
        if checkpoint.get("method") != class_path(self):
            self.source = self._other(checkpoint)
            self.student = self.source.student
            checkpoint["state_dict"] = self.state_dict()  # loaded already
        else:
            super().on_load_checkpoint(checkpoint)

    def _other(self, checkpoint: dict[str, Any]) -> Method:
        """Make the method of a checkpoint, with its weights."""
        name, arguments = checkpoint.get("method"), dict(checkpoint.get("hyper_parameters", {}))
        if name is None:
            raise SpatialbenchError(
                "the checkpoint is of no method, so it has no image tower to read out; give a "
                "student's exported weights as --model.init_args.student instead"
            )
        cls: Any = import_class(name, "checkpoint")
        if "attend" not in inspect.signature(cls.dense).parameters:
            raise SpatialbenchError(
                f"{name} has a dense map of its own, which does not let a readout into the last "
                "block: its dense needs the argument attend, see Method.dense"
            )
        if arguments.get("student") != self.hparams["student"]:
            raise SpatialbenchError(
                f"the checkpoint's student is {arguments.get('student')!r}, this page's is "
                f"{self.hparams['student']!r}: give the --track of its run, or "
                f"--model.init_args.student {arguments.get('student')}"
            )
        refuse_unknown(arguments, cls, "checkpoint")
        method = cls(**arguments)
        own = dict(checkpoint)
        method.on_load_checkpoint(own)
        method.load_state_dict(own["state_dict"], strict=method.strict_loading)
        return method.eval()

    def training_step(self, batch: object, batch_idx: int) -> Tensor:
        """Refuse to train."""
        raise SpatialbenchError("a readout trains nothing: set trainer.max_steps to 0")


def guidance(o: Tensor) -> Tensor:
    """Return softmax(S') of (2), [B, P, P], for the VFM's patches o [B, P, D']."""
    unit = F.normalize(o, dim=-1)
    cosines = unit @ unit.mT
    logits = GAMMA * (cosines - BETA * cosines.mean((1, 2), keepdim=True))
    diagonal = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    return logits.masked_fill((logits < 0) & ~diagonal, -torch.inf).softmax(-1)  # (2)
