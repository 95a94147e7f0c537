"""Regions, dense quality and retrieval of models whose answers are known."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

from spatialbench.data.region_sets import CaptionSet, Regions, RegionSet
from spatialbench.evaluation import dense
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.prompts import class_embeddings
from spatialbench.evaluation.regions import RegionEvaluation, data_fingerprint, retrieval
from tests.support.eyes import Eyes

SIZE = 8
COLOURS = torch.tensor([[250, 0, 0], [0, 250, 0], [0, 0, 250], [125, 125, 0]], dtype=torch.uint8)


class Painted(RegionSet):
    """Images of two coloured halves on black: class k has colour k, class 2 is stuff."""

    def __init__(self, pairs: Sequence[tuple[int, int]], padded: bool = False) -> None:
        self.pairs, self.padded = pairs, padded
        self.name, self.size, self.skipped = "painted", SIZE, Counter()
        self.fingerprint = repr(pairs)
        self.classes, self.templates = ("0", "1", "2", "3"), ("{}",)
        self.things = (True, True, False, True)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, row: int) -> Regions:
        pixels = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
        masks = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
        masks[0, 2:4, 0:4], masks[1, 2:4, 4:8] = True, True
        for mask, label in zip(masks, self.pairs[row], strict=True):
            pixels[:, mask] = COLOURS[label][:, None]
        boxes = torch.tensor([[0, 2, 4, 4], [4, 2, 8, 4]]) / SIZE
        extent = (1.0, 0.5) if self.padded else (1.0, 1.0)
        return Regions(pixels, extent, boxes, torch.tensor(self.pairs[row]), masks)

    def scene(self, row: int) -> str:
        return f"scene {row}"


def eyes(confused: bool = False, kind: type[Eyes] = Eyes) -> Eyes:
    """Class k has colour k; a confused model takes 0 and 1 for one another."""
    order = [1, 0, 2, 3] if confused else [0, 1, 2, 3]
    return kind(SIZE, {str(k): COLOURS[colour].tolist() for k, colour in enumerate(order)})


PAIRS = [(0, 1), (1, 2), (3, 0), (2, 1)]


def run(model: Eyes, source: RegionSet) -> Evidence:
    return RegionEvaluation(source).run(model)


def test_a_model_that_sees_everything() -> None:
    found = run(eyes(), Painted(PAIRS)).values()
    for name in ("box_top1", "mask_top1", "stuff_top1", "object_top1", "same_mask", "cluster"):
        assert found[name] == pytest.approx(100), name


def test_class_mean_accuracy_is_torchmetrics() -> None:
    """Classes 0 and 1 taken for one another; class 2 is stuff and no box."""
    found = run(eyes(confused=True), Painted(PAIRS))
    label = torch.tensor([k for pair in PAIRS for k in pair])
    answer = torch.tensor([[1, 0, 2, 3][k] for k in label])
    thing = label != 2
    each = multiclass_accuracy(answer[thing], label[thing], num_classes=4, average="none")
    assert found.values()["box_top1"] == pytest.approx(100 * float(each[[0, 1, 3]].mean()))
    assert found.values()["box_top5"] == pytest.approx(100)
    assert found.values()["stuff_top1"] == pytest.approx(100)
    for top in ("top1", "top5"):  # the embedding of the same objects confuses these classes, too
        assert np.array_equal(found.ratios[f"object_{top}"], found.ratios[f"box_{top}"])
    assert found.clusters.tolist() == [f"scene {row}" for row in range(4)]
    above, below = found.ratios["box_top1"]
    assert below[0].tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0]]
    assert above[0].sum() == 1


def test_objects_are_seen_alone_with_their_surroundings() -> None:
    seen: list[Tensor] = []

    class Noting(Eyes):
        def image(self, x: Tensor) -> Tensor:
            seen.append(x)
            return super().image(x)

    run(eyes(kind=Noting), Painted([(0, 2), (2, 2), (3, 1)], padded=True))
    [alone] = seen  # all images at once; stuff is not cut out
    assert len(alone) == 3
    first = alone[:1]
    # box 0 to 4 by 2 to 4; half as much again is -1 to 5 by 1.5 to 4.5, cut to 0 to 5 by 1.5 to 4
    assert first.shape == (1, 3, SIZE, SIZE)
    shown = Painted([(0, 2)])[0].pixels[None, :, 1:4, 0:5].float()
    shown = F.interpolate(shown, size=(5, 8), mode="bicubic", antialias=True).round().clamp(0, 255)
    assert torch.equal(first[0, :, 1:6].float(), shown[0])
    assert not first[0, :, :1].any()
    assert not first[0, :, 6:].any()


def test_padding_is_left_out_of_the_area_under_the_curve() -> None:
    class Blind(Eyes):
        """See the rows of patches only: what lies below looks like the halves."""

        def dense(self, x: Tensor) -> Tensor:
            rows = torch.eye(3)[[0, 1, 1, 1]]
            return rows[None, :, None].expand(len(x), 4, 4, 3)

    whole = run(eyes(kind=Blind), Painted(PAIRS)).values()["same_mask"]
    padded = run(eyes(kind=Blind), Painted(PAIRS, padded=True)).values()["same_mask"]
    # eight tokens: a row of the rest, and two halves of two; 28 pairs, 6 + 1 + 1 of one segment,
    # all alike, and of the 20 others 4 (between the halves) alike
    assert padded == pytest.approx(100 * (16 + 4 / 2) / 20)
    assert whole < padded


def test_sentences_are_encoded_once() -> None:
    model = eyes()
    found = class_embeddings(model, ("0", "1", "0"), ("{}", "{}"))
    assert model.texts == 2
    torch.testing.assert_close(found, F.normalize(COLOURS[[0, 1, 0]].float(), dim=-1))


def test_retrieval_by_hand() -> None:
    pixels = COLOURS[:, None, None].expand(4, SIZE, SIZE, 3).numpy()
    truth = np.zeros((4, 3), dtype=bool)
    truth[0, 0] = truth[1, 1] = truth[2, 2] = True  # nothing is true of image 3
    captions = CaptionSet(pixels, ["0", "1", "2"], np.array([0, 0, 2]), truth)
    found = retrieval(eyes(confused=True), captions)
    # 0 finds image 1 and 1 image 0, both written for 0
    assert found["image_r1"][0].tolist() == [0, 0, 1, 0]
    assert found["image_r1"][1].tolist() == [2, 0, 1, 0]
    assert found["image_r5"][0].tolist() == [2, 0, 1, 0]
    assert found["text_r1"][0].tolist() == [0, 0, 1, 0]
    assert found["text_r5"][0].tolist() == [1, 1, 1, 0]
    assert found["text_r5"][1].tolist() == [1, 1, 1, 1]


def test_other_data_has_another_fingerprint() -> None:
    first, other = Painted(PAIRS), Painted(PAIRS[:3])
    assert data_fingerprint(first, None) != data_fingerprint(other, None)
    other = Painted(PAIRS)
    other.templates = ("a {}",)
    assert data_fingerprint(first, None) != data_fingerprint(other, None)


def test_images_without_regions_count_for_nothing() -> None:
    class Some(Painted):
        def __getitem__(self, row: int) -> Regions:
            item = super().__getitem__(row)
            keep = slice(0, 0) if row == 1 else slice(None)
            return item._replace(
                boxes=item.boxes[keep], label=item.label[keep], masks=item.masks[keep]
            )

    found = run(eyes(), Some(PAIRS))
    assert found.ratios["box_top1"].denominator[0, 1].sum() == 0
    assert found.ratios["same_mask"].denominator[0, :, 0].tolist() == [1, 0, 1, 1]
    assert found.values()["box_top1"] == pytest.approx(100)


def test_every_start_of_k_means_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def found(tokens: Tensor, label: Tensor, clusters: int, seed: int) -> np.ndarray:
        seeds.append(seed)
        return label.numpy()

    monkeypatch.setattr(dense, "cluster_classes", found)
    above, below = run(eyes(), Painted(PAIRS)).ratios["cluster"]
    assert seeds == list(range(dense.STARTS))
    assert above[0].tolist() == below[0].tolist()
    assert below[0, 0].tolist() == [dense.STARTS * 2] * 2 + [0, 0]  # two tokens of each class
