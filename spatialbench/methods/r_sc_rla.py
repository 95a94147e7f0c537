r"""R-SC-RLA: region-language alignment that preserves and refines correlations among patch tokens.

Paper  Qiu, Wu, Ke, Bai, Zhang, "Refining CLIP's Spatial Awareness: A Visual-Centric Perspective",
       ICLR 2025, arXiv 2504.02328. RLA: CLIPSelf (Wu et al., ICLR 2024, arXiv 2310.01403),
       RegionCLIP (Zhong et al., CVPR 2022).
Code   The authors released none. wusize/CLIPSelf @ 1c7fe9c (S-Lab licence: nothing is copied) for
       RLA; CongpeiQiu/UniRefiner @ 38f4e71, later code of the same first author, for the
       correlation and the Refiner. docs/r_sc_rla.md tags every choice as quoted, from that code, or
       inferred; each is a field here.

With F = dense(X) of the student, a map in the joint space (last block by its value path), boxes
b_i, and t(c) the frozen CLIP's embedding of a crop c, one forward of the student serves both
losses:

    (1)  f_i = RoIAlign_{1x1}(F, b_i)                           the regions
    (2)  L_RLA = 1 - mean_i <f_i, t(crop_i)>                    language of the image encoder, or
    (3)  L_RLA = mean_i sum_{c in C} BCE(s <f_i, T_c>, [c = y_i])   of the text encoder, C federated
    (4)  Z = RoIAlign_{r x r}(F, b),  Z^t = RoIAlign_{r x r}(F^t, b)    larger boxes b
    (5)  L_SCD = CE( softmax_row g(Z^t Z^tT) / tau, softmax_row g(Z Z^T) / tau )
                                                                similarities among tokens
    (6)  L = L_RLA + lambda L_SCD

F^t is the frozen CLIP's map (SC-RLA), or the Refiner's (R-SC-RLA; refiner.py).

y_i of (3) is the region's own class or, as in RegionCLIP, the one that the frozen CLIP gives its
crop: argmax_c <t(crop_i), T_c> over all classes.

Differences  The paper's text after the introduction was not available, so its lambda, tau, r, boxes
             and g of (5) are unknown; the defaults are the follow-up code's where it has them.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.data.boxes import crops as cut_out
from spatialbench.data.region_batches import RegionBatch, RegionDataset, generator, regions_of
from spatialbench.evaluation.prompts import class_embeddings
from spatialbench.methods.base import DEFAULTS, FineTuning, Method, below
from spatialbench.methods.parts.distillation import (
    Normaliser,
    crop_cosine,
    region_text,
    spatial_correlation,
)
from spatialbench.methods.parts.teacher import Teacher, refiner_blocks
from spatialbench.models.region_tokens import region_tokens
from spatialbench.utils.argument_checks import check_choice, check_choices, settings_of
from spatialbench.utils.errors import SpatialbenchError

Language = Literal["image", "text", "none"]
Labels = Literal["given", "teacher"]


@dataclass
class CorrelationSettings:
    """Spatial correlation distillation, (4) and (5).

    Args:
        teacher: whose correlations: ``none``, the frozen ``clip`` (SC-RLA), or the ``refiner``
            (R-SC-RLA) of the page that ``init_from`` names.
        weight: lambda. 0.4 is the follow-up code's; sweep 0.1 to 2.
        size: r, tokens per side of a box. Inferred: the native grid of a ViT-B/16; sweep 7 to 20.
        boxes: random ``wide`` boxes (the teaser's separate box), the ``regions`` (the notation
            {b_i}), or ``both``. Inferred (docs/r_sc_rla.md).
        temperature: tau, of both sides; the follow-up code's 0.2.
        normaliser: g; the follow-up code's ``minmax``, or ``none`` (temperatures of 0.05 to 0.1).
        stop_gradient: of the second factor of the student's correlation, as the follow-up code.
        diagonal: keep a token's correlation with itself.
    """

    teacher: Literal["none", "clip", "refiner"] = "none"
    weight: float = 0.4
    size: int = 14
    boxes: Literal["wide", "regions", "both"] = "wide"
    temperature: float = 0.2
    normaliser: Normaliser = "minmax"
    stop_gradient: bool = True
    diagonal: bool = True

    def __post_init__(self) -> None:
        check_choices(self, "scd")
        if not self.weight >= 0 or not self.temperature > 0 or self.size < 2:
            raise SpatialbenchError(
                f"scd.weight {self.weight} must be 0 or more, scd.temperature {self.temperature} "
                f"more than 0, scd.size {self.size} 2 or more"
            )


class RegionDistillation(Method):
    """RLA, SCD, R-SCD and their sums: the image tower's blocks learn, all else is frozen.

    Args:
        student: an open_clip model, ``<model>[:<weights>]``; see ``Method``.
        language: of which encoder the regions learn: ``image``, (2), CLIPSelf; ``text``, (3), as
            RegionCLIP; or ``none``.
        scd: the correlation.
        classes: number of classes that (3) compares in a step, with the batch's; CLIPSelf's 100.
        labels: of (3): ``given``, the data's own, which needs ``data.kind: boxes`` and is
            privileged; or those of the frozen ``teacher``, which need crops.
        finetuning: optimiser and schedule; its settings of captions are not used.
    """

    frozen = ("teacher.",)

    def __init__(
        self,
        student: str = "rooms-student",
        language: Language = "image",
        scd: CorrelationSettings | None = None,
        classes: int = 100,
        labels: Labels = "given",
        finetuning: FineTuning = DEFAULTS,
    ) -> None:
        super().__init__(student, finetuning)
        self.scd = settings_of(CorrelationSettings, scd)
        self.save_arguments(locals(), scd=asdict(self.scd))
        check_choice("language", language, Language)
        check_choice("labels", labels, Labels)
        self._correlates = self.scd.teacher != "none"
        if language == "none" and (not self._correlates or self.scd.weight == 0):
            raise SpatialbenchError(
                "language none and scd.teacher none leave nothing to learn; set one of them"
            )
        if classes < 1:
            raise SpatialbenchError(f"classes is {classes}; it must be 1 or more")
        self.language, self.labels, self.classes = language, labels, classes
        self._reads_crops = language == "image" or (language == "text" and labels == "teacher")
        self.student.requires_grad_(False)
        self.student.visual.transformer.resblocks.requires_grad_(True)
        self.teacher: Teacher | None = None  # only during training
        self._refiner: dict[str, Tensor] = {}  # weights and no module, so that nothing trains it
        self._texts: Tensor

    def start_from(self, weights: Mapping[str, Tensor], label: str) -> None:
        """Take the student, and the Refiner if it is the teacher."""
        super().start_from(weights, label)
        self._refiner = below("refiner.", weights)
        if self.scd.teacher == "refiner" and not self._refiner:
            raise SpatialbenchError(
                f"scd.teacher is refiner, but {label} has no Refiner: init_from a page that has one"
            )

    def setup(self, stage: str) -> None:
        """Make the teacher from the weights that training starts from."""
        if stage != "fit":
            return
        refiner = None
        if self.scd.teacher == "refiner":
            if not self._refiner:
                raise SpatialbenchError(
                    "scd.teacher is refiner: the page needs init_from, a page that makes a Refiner"
                )
            count = len({name.split(".")[0] for name in self._refiner})
            refiner = refiner_blocks(self.student, count)
            refiner.load_state_dict(self._refiner)
        if self._reads_crops or self._correlates:
            self.teacher = Teacher(self.student, self.mean, self.std, refiner)

    def on_fit_start(self) -> None:
        """Prepare the regions of the data module."""
        regions = regions_of(self.trainer, self._correlates and self.scd.boxes != "regions")
        self.prepare(regions, self.trainer.is_global_zero, self.trainer.strategy.barrier)

    def prepare(
        self, regions: RegionDataset, first: bool = True, wait: Callable[[], object] = lambda: None
    ) -> None:
        """Compute once what is frozen and recurs: embeddings of the classes and of fixed crops.

        Of several processes, the ``first`` fills the cache of crops and the others ``wait``.
        """
        if self.language == "text":
            classes, templates = regions.regions.classes, regions.regions.templates
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                self._texts = class_embeddings(self, classes, templates)
        if self._reads_crops and regions.sampling.fixed:
            assert self.teacher is not None, "setup makes the teacher"
            if first:
                self.teacher.prepare(regions)
            wait()
            self._cache = self.teacher.cache(regions.sampling.crop_size)

    def on_fit_end(self) -> None:
        """Drop the teacher and the Refiner: a CLIP remains."""
        self.teacher, self._refiner = None, {}

    def training_step(self, batch: RegionBatch, batch_idx: int) -> Tensor:
        """Return (6)."""
        dense = self.dense(batch["pixels"])  # one forward for both losses
        loss = dense.new_zeros(())
        if self.language != "none":
            regions = region_tokens(dense, batch["boxes"], batch["image"], 1)[:, 0]  # (1)
            aligned = self._aligned(regions, batch)  # (2) or (3)
            self.log("train/rla", aligned.detach(), batch_size=len(regions))
            loss = loss + aligned
        if self._correlates:
            assert self.teacher is not None, "setup makes the teacher"
            scd, (boxes, image) = self.scd, self._correlated(batch)
            tokens = region_tokens(dense, boxes, image, scd.size)  # (4)
            target = region_tokens(self.teacher.dense(batch["pixels"]), boxes, image, scd.size)
            options = scd.temperature, scd.normaliser, scd.stop_gradient, scd.diagonal
            correlation = spatial_correlation(tokens, target, *options)  # (5)
            self.log("train/scd", correlation.loss.detach(), batch_size=len(boxes))
            self.log("train/scd_kl", correlation.divergence, batch_size=len(boxes))
            loss = loss + scd.weight * correlation.loss  # (6)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch["pixels"]))
        return loss

    def _aligned(self, regions: Tensor, batch: RegionBatch) -> Tensor:
        if self.language == "image":
            return crop_cosine(regions, self._crops(batch))  # (2)
        labels = batch["label"]
        if self.labels == "teacher":
            labels = (self._crops(batch) @ self._texts.T).argmax(1)
        labelled = labels >= 0
        self.log("train/labelled", labelled.float().mean(), batch_size=len(regions))
        if not labelled.any():  # images without a region: nothing to learn from this batch
            return 0.0 * regions.sum()
        label = labels[labelled]
        chosen = self._federated(label, batch["key"])
        position = (label[:, None] == chosen[None]).int().argmax(1)
        scale = self.student.logit_scale.exp().detach()
        return region_text(regions[labelled], self._texts[chosen], position, scale)  # (3)

    def _crops(self, batch: RegionBatch) -> Tensor:
        """Return t(crop_i), float32 [N, D]; fixed crops come from the cache."""
        assert self.teacher is not None, "setup makes the teacher"
        if not batch["keys"]:
            if not len(batch["crops"]):
                raise SpatialbenchError(
                    "language image and labels teacher read crops of the regions: set "
                    "data.init_args.crops true"
                )
            return self.teacher.crops(batch["crops"])
        embeddings, missing = self._cache.get(batch["keys"])
        embeddings = embeddings.float().to(self.device)
        if missing:  # images that changed on disk since the cache was filled
            rows = torch.tensor(missing)
            boxes, image = batch["crop_boxes"].cpu()[rows], batch["image"].cpu()[rows]
            cut = cut_out(batch["pixels"].cpu(), boxes, image, self.image_size)
            embeddings[missing] = self.teacher.embedded(cut).float().to(self.device)
        return F.normalize(embeddings, dim=-1)

    def _federated(self, label: Tensor, key: tuple[int, int, int]) -> Tensor:
        """Return C of (3): the batch's classes, and random others up to ``classes``."""
        present = label.unique()
        absent = torch.ones(len(self._texts), dtype=torch.bool, device=label.device)
        absent[present] = False
        others = absent.nonzero()[:, 0]
        order = torch.randperm(len(others), generator=generator(key)).to(others.device)
        return torch.cat([present, others[order[: max(0, self.classes - len(present))]]])

    def _correlated(self, batch: RegionBatch) -> tuple[Tensor, Tensor]:
        """Return the boxes of (4) and the image of each."""
        if self.scd.boxes == "wide":
            return batch["wide"], batch["wide_image"]
        if self.scd.boxes == "regions":
            return batch["boxes"], batch["image"]
        boxes = torch.cat([batch["wide"], batch["boxes"]])
        return boxes, torch.cat([batch["wide_image"], batch["image"]])
