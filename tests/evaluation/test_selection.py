"""Image selection: the metric on pairs whose answers are known, and both scorers as their equations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from spatialbench.evaluation.measures import Measures
from torch import Tensor

from spatialbench.data.selection_sets import ImagePairs
from spatialbench.evaluation import selection
from spatialbench.evaluation.selection import SCORERS, both_right, measure
from spatialbench.methods.clip import Clip
from spatialbench.models.token_selection import score_vector
from spatialbench.models.visual_tokens import Tokens
from spatialbench.utils.errors import SpatialbenchError
from tests.support.models import images, student

SIZE = 4
RED, GREEN = (250, 0, 0), (0, 250, 0)
BOTH = (125, 125, 0)
PAIRS = {  # of the fixture: pictures and captions, in two patterns
    "both right": ("one", (RED, GREEN), ("red", "green")),
    "one right": (
        "one",
        (RED, BOTH),
        ("red", "red"),
    ),  # the second caption picks the first picture, too
    "same image twice": ("two", (RED, RED), ("red", "green")),
    "a tie of the second": ("two", (RED, GREEN), ("red", "both")),
}
WORDS = {"red": (1, 0, 0), "green": (0, 1, 0), "both": (1, 1, 0)}


class Eyes:
    """A model that embeds the mean colour; its patches say green of red, and blue of green."""

    image_size = SIZE
    device = torch.device("cpu")

    def __init__(self, local: float = 0.0) -> None:
        self.local = local
        self.texts = 0

    def visual_tokens(self, x: Tensor) -> Tokens:
        assert x.dtype == torch.uint8
        assert x.shape[1:] == (3, SIZE, SIZE)
        pixels = x.float().flatten(2).mT / 250  # [B, L, 3]
        return Tokens(pixels.mean(1), self.local * pixels.roll(1, -1), (SIZE, SIZE))

    def text(self, tokens: Tensor) -> Tensor:
        self.texts += len(tokens)
        return torch.nn.functional.normalize(tokens.float(), dim=-1)

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        return torch.tensor([WORDS[caption] for caption in captions])


def pairs(chosen: Sequence[str] = tuple(PAIRS), data: str = "d") -> ImagePairs:
    pictures = [
        [np.full((SIZE, SIZE, 3), colour, np.uint8) for colour in PAIRS[name][1]] for name in chosen
    ]
    return ImagePairs(
        images=np.array(pictures),
        captions=[PAIRS[name][2] for name in chosen],
        pattern=np.array([("one", "two").index(PAIRS[name][0]) for name in chosen]),
        patterns=("one", "two"),
        scenes=list(chosen),
        data=data,
    )


def test_the_fixture_pair_by_pair() -> None:
    found = measure(Eyes(), pairs())
    assert found.labels == ("one", "two")
    assert found.pictures == 4
    right = found.ratios["select_cls"].numerator[0].sum(1)
    assert dict(zip(PAIRS, right.tolist(), strict=True)) == {
        "both right": 1,
        "one right": 0,
        "same image twice": 0,
        "a tie of the second": 1,  # a tie goes to the second picture: the official script's > 0.5
    }
    assert found.group_values("select_cls").tolist() == [[50, 50]]
    assert found.values()["select_cls"] == 50


def test_a_tie_of_the_first_caption_is_wrong() -> None:
    tied = np.array([[[0.5, 0.5], [0.1, 0.9]]])
    assert not both_right(tied)[0]
    assert both_right(tied[:, :, ::-1][:, ::-1])[0]  # the same tie, of the second caption


def test_the_metric_is_the_official_scripts_loop() -> None:
    """Softmax of each caption over the two pictures, above one half or not, as evaluate_vlm.py writes it."""
    rng = np.random.default_rng(0)
    scores = rng.integers(-2, 3, (400, 2, 2)).astype(np.float64)  # many ties
    assert both_right(scores).tolist() == [_official(pair) for pair in scores]
    assert 0.1 < both_right(scores).mean() < 0.5


def _official(pair: np.ndarray) -> bool:
    predicted = []
    for caption in range(2):
        first, second = (
            math.exp(100 * float(pair[caption, picture]) - 100 * pair[caption].max())
            for picture in range(2)
        )
        predicted.append("img1" if first / (first + second) > 0.5 else "img2")
    return predicted == ["img1", "img2"]


def test_the_value_is_the_mean_over_patterns() -> None:
    found = measure(Eyes(), pairs([*PAIRS, "both right", "both right"]))
    assert found.values()["select_cls"] == pytest.approx(100 * (3 / 4 + 1 / 2) / 2)


def test_scorers_are_their_equations() -> None:
    generator = torch.Generator().manual_seed(0)
    cls, local = torch.randn(3, 5, generator=generator), torch.randn(3, 7, 5, generator=generator)
    tokens = Tokens(cls, local, (7, 1))
    for row in range(3):
        x = [float(cls[row, d]) for d in range(5)]
        y = [x[d] + sum(float(local[row, patch, d]) for patch in range(7)) / 7 for d in range(5)]
        for vector, name in ((x, "select_cls"), (y, "select_local")):
            found = score_vector(tokens, SCORERS[name])[row]
            norm = math.sqrt(sum(value**2 for value in vector))
            assert found.tolist() == pytest.approx([value / norm for value in vector], abs=1e-6)


def test_patches_have_a_say_in_the_second_scorer_only() -> None:
    plain, bright = measure(Eyes(), pairs()), measure(Eyes(local=3.0), pairs())
    assert np.array_equal(
        plain.ratios["select_cls"].numerator, bright.ratios["select_cls"].numerator
    )
    assert not np.array_equal(
        bright.ratios["select_cls"].numerator, bright.ratios["select_local"].numerator
    )


def test_every_distinct_caption_is_encoded_once() -> None:
    model = Eyes()
    measure(model, pairs())
    assert model.texts == 3


def test_more_pairs_than_one_batch_keep_their_own_captions() -> None:
    found = measure(Eyes(), pairs(["both right"] * selection._BATCH + ["one right"] * 3))
    assert (
        found.ratios["select_cls"].numerator[0].sum(1).tolist() == [1] * selection._BATCH + [0] * 3
    )


def test_other_pairs_or_another_version_are_other_data(monkeypatch: pytest.MonkeyPatch) -> None:
    before = measure(Eyes(), pairs()).data
    assert measure(Eyes(), pairs(data="e")).data != before
    monkeypatch.setattr(selection, "SELECTION_VERSION", 99)
    assert measure(Eyes(), pairs()).data != before


def test_numbers_that_are_none_are_told() -> None:
    with pytest.raises(SpatialbenchError, match="not a finite number; the training diverged"):
        measure(Eyes(local=math.nan), pairs())


def test_a_method_is_measured_and_its_embedding_is_its_own() -> None:
    model = Clip(student()).eval()
    x = images(4)
    assert torch.allclose(
        score_vector(model.visual_tokens(x), SCORERS["select_cls"]), model.image(x), atol=1e-6
    )
    pictures = x.unflatten(0, (2, 2)).permute(0, 1, 3, 4, 2).numpy()
    found = ImagePairs(
        pictures,
        [("a sofa", "a bed"), ("a lamp", "a bed")],
        np.array([0, 1]),
        ("a", "b"),
        "xy",
        "d",
    )
    measured = measure(model, found)
    scores = model.text(model.tokenize(["a sofa", "a bed"])) @ model.image(x[:2]).T
    assert (
        measured.ratios["select_cls"].numerator[0, 0, 0]
        == both_right(scores[None].detach().numpy())[0]
    )


def test_a_file_keeps_the_names_of_patterns(tmp_path: object) -> None:
    found, path = measure(Eyes(), pairs()), tmp_path / "selection.npz"  # type: ignore[operator]
    found.save(path)
    again = Measures.load(path)
    assert (again.labels, again.digest) == (found.labels, found.digest)
    assert Measures.join([found, again]).labels == ("one", "two")
    with pytest.raises(SpatialbenchError, match="3 names of groups, but the measures have"):
        Measures(found.scenes, found.ratios, "d", labels=("a", "b", "c"))
