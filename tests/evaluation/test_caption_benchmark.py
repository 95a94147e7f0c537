"""Benchmarks of captions: what is encoded, the rule of ties, the mean of products, and intervals over clusters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from spatialbench.data.captions.caption_set import CaptionSet, Corners, Measure, micro
from spatialbench.evaluation import captions
from spatialbench.evaluation.captions import by_relation, credit, evaluate, score
from spatialbench.methods.clip import Clip
from spatialbench.utils.errors import SpatialbenchError
from tests.support.caption_files import answers, photo
from tests.support.models import student

WORDS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "none": (0, 0, 0)}
COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}


class Colours(CaptionSet):
    """Pictures of one colour; the first caption of a record names it."""

    name = "colours"
    source = "the colours"

    def read(self) -> None:
        said = [("red", "green"), ("red", "blue", "green"), ("green", "red"), ("blue", "blue")]
        for number, names in enumerate(said):
            picture = self.picture(self.folder / f"{names[0]}.png", self.crop)
            self.add(f"r{number}", "all", names[0], picture, names)

    def measures(self) -> list[Measure]:
        return [micro("pair", "pairs", self.rows())]

    crop: Corners | None = None


class Cropped(Colours):
    """Their left half."""

    crop = (0, 0, 4, 8)


class Eyes:
    """A model that embeds the mean colour, and counts what it is given."""

    image_size = 8
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.images = self.texts = 0

    def image(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.uint8
        self.images += len(x)
        return torch.nn.functional.normalize(x.float().mean((2, 3)), dim=-1)

    def text(self, tokens: Tensor) -> Tensor:
        self.texts += len(tokens)
        return torch.nn.functional.normalize(tokens.float(), dim=-1)

    def tokenize(self, said: Sequence[str]) -> Tensor:
        return torch.tensor([WORDS[caption] for caption in said])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in COLOURS.items():
        photo(tmp_path / f"{name}.png", colour)
    return tmp_path


def test_every_picture_and_caption_is_encoded_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, found = Eyes(), Colours(str(folder))
    whole = score(model, found, "crop")
    assert (model.images, model.texts) == (3, 3)
    assert whole.scores.shape == (4, 3)
    assert np.array_equal(np.isnan(whole.scores), [[0, 0, 1], [0, 0, 0], [0, 0, 1], [0, 0, 1]])
    assert whole.scores[:, 0].tolist() == [1, 1, 1, 1]
    assert (
        evaluate(found, found.measures()[0], whole.scores).value == 100 * 3.5 / 4
    )  # "blue", "blue" ties
    for name in ("_PICTURES", "_CAPTIONS", "_RECORDS"):
        monkeypatch.setattr(captions, name, 1)
    parts = score(Eyes(), found, "crop")
    assert np.array_equal(parts.scores, whole.scores, equal_nan=True)
    assert parts.data == whole.data


def test_the_hash_is_that_of_what_was_asked(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first = score(Eyes(), Colours(str(folder)), "crop").data
    other = tmp_path_factory.mktemp("other")
    for name, colour in COLOURS.items():
        photo(other / f"{name}.png", colour)
    assert score(Eyes(), Colours(str(other)), "crop").data == first  # wherever the folder is
    assert score(Eyes(), Cropped(str(folder)), "crop").data != first
    photo(other / "red.png", (249, 0, 0))
    assert score(Eyes(), Colours(str(other)), "crop").data != first


def test_a_method_scores_as_it_does_in_the_table(folder: Path) -> None:
    model = Clip(student()).eval()
    found = Colours(str(folder))
    made = score(model, found, "squash").scores
    pixels = [picture.pixels(picture.content(), 32, "squash", "") for picture in found.pictures]
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    rows = [(record.picture, caption) for record in found.records for caption in record.captions]
    with torch.no_grad():
        expected = model.scores(
            x, torch.tensor([row for row, _ in rows]), [caption for _, caption in rows]
        )
    assert made[~np.isnan(made)] == pytest.approx(expected.numpy(), abs=1e-6)


def test_scores_that_are_no_numbers_and_pictures_that_are_none(folder: Path) -> None:
    model = Eyes()
    model.image = lambda x: torch.full((len(x), 3), torch.nan)  # type: ignore[method-assign]
    with pytest.raises(SpatialbenchError, match="colours: a score is not a finite number"):
        score(model, Colours(str(folder)), "crop")
    (folder / "blue.png").write_bytes(b"no picture")
    with pytest.raises(
        SpatialbenchError, match=r"blue\.png: not an image that Pillow can read; give the colours"
    ):
        score(Eyes(), Colours(str(folder)), "crop")


def test_a_tie_is_a_draw_among_those_that_tie() -> None:
    nan = np.nan
    scores = np.array(
        [[3, 2, 1, 0], [1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0], [0, 1, nan, nan], [2, 2, nan, nan]]
    )
    assert credit(scores, None).tolist() == [1, 1 / 2, 1 / 3, 1 / 4, 0, 1 / 2]
    assert credit(scores, 2).tolist() == [1, 1 / 2, 1, 1 / 2, 0, 1 / 2]


def test_a_value_is_the_mean_over_groups_of_products_in_units(folder: Path) -> None:
    found = Colours(str(folder))
    scores = answers(found, lambda record: {"r0": 1, "r1": 0, "r2": -1, "r3": 0}[record.record])
    measure = Measure("m", "m", [(0,), (1,), (0, 3), (2,)], ["a", "a", "b", "b"], None)
    made = evaluate(found, measure, scores)
    assert made.value == pytest.approx(100 * ((1 + 1 / 3) / 2 + (1 / 2 + 0) / 2) / 2)
    assert (made.n, made.ties) == (4, 2)
    counts = by_relation(found, scores)["all"]
    assert [(name, count.n, count.accuracy, count.ties) for name, count in counts.items()] == [
        *(("red", 2, 75, 1), ("blue", 1, 50, 1), ("green", 1, 0, 0))
    ]


def test_the_interval_draws_pictures_not_records(folder: Path) -> None:
    """Two pictures, one always right and one always wrong: with clusters the interval is all there is."""
    found = Colours(str(folder))
    found.records = [found.records[k] for k in (0, 2) for _ in range(200)]
    made = evaluate(
        found,
        found.measures()[0],
        answers(found, lambda record: 1 if record.relation == "red" else -1),
    )
    assert (made.value, *made.interval) == (50, 0, 100)
