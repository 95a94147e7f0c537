"""Image selection: the metric on pairs whose answers are known, and both scorers as printed."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from spatialbench.data.images import Resize
from spatialbench.data.selection_sets import ImagePairs, SelectionSet
from spatialbench.evaluation import selection
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.selection import SCORERS, ImageSelection, both_right
from spatialbench.methods.clip import Clip
from spatialbench.models.token_selection import score_vector
from tests.support.checks import refused
from tests.support.eyes import Eyes
from tests.support.models import images, student

SIZE = 4
RED, GREEN, BOTH = (250, 0, 0), (0, 250, 0), (125, 125, 0)
PAIRS = {  # pattern, colours of the images, captions; whether (2) holds
    "both right": ("one", (RED, GREEN), ("red", "green"), 1),
    "one right": ("one", (RED, BOTH), ("red", "red"), 0),  # both captions pick the first image
    "same image twice": ("two", (RED, RED), ("red", "green"), 0),
    "a tie of the second": ("two", (RED, GREEN), ("red", "both"), 1),  # the script's > 0.5
}
WORDS = {"red": (1, 0, 0), "green": (0, 1, 0), "both": (1, 1, 0)}


def eyes(local: float = 0.0) -> Eyes:
    return Eyes(SIZE, WORDS, local)


class Painted(SelectionSet):
    """The pairs of the model's size, and of its way to resize."""

    def __init__(self, chosen: Sequence[str] = tuple(PAIRS), data: str = "d") -> None:
        self.chosen, self.data = chosen, data

    def pairs(self, size: int, resize: Resize = "crop") -> ImagePairs:
        assert (size, resize) == (SIZE, "squash")
        chosen = [PAIRS[name] for name in self.chosen]
        colours = np.array([pair[1] for pair in chosen], np.uint8)[:, :, None, None]
        return ImagePairs(
            images=np.tile(colours, (1, 1, SIZE, SIZE, 1)),
            captions=[pair[2] for pair in chosen],
            pattern=np.array([("one", "two").index(pair[0]) for pair in chosen]),
            patterns=("one", "two"),
            scenes=self.chosen,
            data=self.data,
        )


def right(evidence: Evidence, measure: str = "select_cls") -> list[float]:
    return evidence.ratios[measure].numerator[0].sum(1).tolist()


def test_pair_by_pair() -> None:
    model = eyes()
    evidence = ImageSelection(Painted()).run(model)
    assert (evidence.labels, evidence.units) == (("one", "two"), 4)
    assert right(evidence) == [pair[3] for pair in PAIRS.values()]
    assert evidence.group_values("select_cls") == {"one": 50, "two": 50}
    assert evidence.values()["select_cls"] == 50
    assert model.texts == 3  # each distinct caption once
    more = ImageSelection(Painted([*PAIRS, "both right", "both right"])).run(eyes())
    assert more.values()["select_cls"] == pytest.approx(100 * (3 / 4 + 1 / 2) / 2)


def test_the_metric_is_the_official_scripts_loop() -> None:
    """Softmax of each caption over both images, above one half or not, as in evaluate_vlm.py."""
    rng = np.random.default_rng(0)
    scores = rng.integers(-2, 3, (400, 2, 2)).astype(np.float64)  # many ties
    assert both_right(scores).tolist() == [_official(pair) for pair in scores]
    assert 0.1 < both_right(scores).mean() < 0.5


def _official(pair: np.ndarray) -> bool:
    predicted = []
    for scores in pair:
        first, second = (math.exp(100 * float(score) - 100 * scores.max()) for score in scores)
        predicted.append("img1" if first / (first + second) > 0.5 else "img2")
    return predicted == ["img1", "img2"]


def test_patches_count_in_the_second_scorer_only() -> None:
    plain, bright = (ImageSelection(Painted()).run(eyes(local)) for local in (0.0, 3.0))
    assert right(plain) == right(bright)
    assert right(bright) != right(bright, "select_local")


def test_more_pairs_than_one_batch_keep_their_own_captions() -> None:
    many = Painted(["both right"] * selection._BATCH + ["one right"] * 3)
    assert right(ImageSelection(many).run(eyes())) == [1] * selection._BATCH + [0] * 3


def test_other_pairs_or_another_version_are_other_data(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ImageSelection(Painted()).run(eyes()).data
    assert ImageSelection(Painted(data="e")).run(eyes()).data != before
    monkeypatch.setattr(ImageSelection, "version", 99)
    assert ImageSelection(Painted()).run(eyes()).data != before


def test_scores_that_are_not_finite_are_refused() -> None:
    with refused("not a finite number; the training diverged"):
        ImageSelection(Painted()).run(eyes(local=math.nan))


def test_a_method_is_evaluated_and_its_embedding_is_its_own() -> None:
    model, x = Clip(student()).eval(), images(4)
    with torch.no_grad():
        own = score_vector(model.visual_tokens(x), SCORERS["select_cls"])
        torch.testing.assert_close(own, model.image(x), atol=1e-6, rtol=0)
        scores = model.text(model.tokenize(["a sofa", "a bed"])) @ model.image(x[:2]).T

    class Noise(SelectionSet):
        def pairs(self, size: int, resize: Resize = "crop") -> ImagePairs:
            pixels = x.unflatten(0, (2, 2)).permute(0, 1, 3, 4, 2).numpy()
            captions = [("a sofa", "a bed"), ("a lamp", "a bed")]
            return ImagePairs(pixels, captions, np.array([0, 1]), ("a", "b"), "xy", "d")

    assert right(ImageSelection(Noise()).run(model))[0] == both_right(scores[None].numpy())[0]
