"""Caption benchmarks: what is encoded, the rule of ties, the mean of products, intervals."""

from pathlib import Path

import numpy as np
import pytest
import torch

from spatialbench.data.captions.caption_set import CaptionSet, Corners, Measure, macro, micro
from spatialbench.evaluation import caption_benchmark, prompts
from spatialbench.evaluation.caption_benchmark import (
    CaptionBenchmark,
    by_relation,
    caption_evidence,
    caption_scores,
    credit,
    measure_facts,
)
from spatialbench.methods.clip import Clip
from tests.support.caption_files import answers, photo
from tests.support.checks import refused
from tests.support.eyes import Eyes
from tests.support.models import student

WORDS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "none": (0, 0, 0)}
COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}


class Colours(CaptionSet):
    """Images of one colour; the first caption of a record names it."""

    name = "colours"
    source = "the colours"
    crop: Corners | None = None

    def read(self) -> None:
        captions = [("red", "green"), ("red", "blue", "green"), ("green", "red"), ("blue", "blue")]
        for number, names in enumerate(captions):
            image = self.image(self.folder / f"{names[0]}.png", self.crop)
            self.add(f"r{number}", "all", names[0], image, names)

    def measures(self) -> list[Measure]:
        return [
            micro("pair", "pairs", self.rows()),
            micro("best", "best of all", self.rows(), options=None, chance=40),
            macro("macro", "mean of colours", [0, 1, 2], ["a", "a", "b"]),
            Measure("sets", "sets", [(0, 1), (0, 3), (2, 3)], ["a", "a", "b"], None),
        ]


class Cropped(Colours):
    """Their left half."""

    crop = (0, 0, 4, 8)


def eyes() -> Eyes:
    return Eyes(8, WORDS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in COLOURS.items():
        photo(tmp_path / f"{name}.png", colour)
    return tmp_path


def test_every_image_and_caption_is_encoded_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, source = eyes(), Colours(str(folder))
    scores, *_ = caption_scores(model, source)
    assert (model.images, model.texts) == (3, 3)
    assert scores.shape == (4, 3)
    assert np.array_equal(np.isnan(scores), [[0, 0, 1], [0, 0, 0], [0, 0, 1], [0, 0, 1]])
    assert scores[:, 0].tolist() == [1, 1, 1, 1]
    whole = CaptionBenchmark(source).run(eyes())
    assert whole.values()["pair"] == 100 * 3.5 / 4  # "blue", "blue" ties
    for module, name in (
        (caption_benchmark, "_IMAGES"),
        (caption_benchmark, "_RECORDS"),
        (prompts, "_AT_ONCE"),
    ):
        monkeypatch.setattr(module, name, 1)
    assert CaptionBenchmark(source).run(eyes()).digest == whole.digest


def test_the_hash_covers_what_was_asked(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def data(kind: type[CaptionSet], path: Path) -> str:
        return CaptionBenchmark(kind(str(path))).run(eyes()).data

    first, other = data(Colours, folder), tmp_path_factory.mktemp("other")
    for name, colour in COLOURS.items():
        photo(other / f"{name}.png", colour)
    assert data(Colours, other) == first  # wherever the folder is
    assert data(Cropped, folder) != first
    photo(other / "red.png", (249, 0, 0))
    assert data(Colours, other) != first
    monkeypatch.setattr(CaptionBenchmark, "version", 99)
    assert data(Colours, folder) != first


def test_a_method_scores_as_it_does_in_the_table(folder: Path) -> None:
    model, source = Clip(student()).eval(), Colours(str(folder))
    scores, *_ = caption_scores(model, source)
    pixels = [image.pixels(image.content(), 32, model.resize_mode, "") for image in source.images]
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    rows = [(record.image, caption) for record in source.records for caption in record.captions]
    with torch.no_grad():
        image = torch.tensor([row for row, _ in rows])
        expected = model.scores(x, image, [caption for _, caption in rows])
    assert scores[~np.isnan(scores)] == pytest.approx(expected.numpy(), abs=1e-6)


def test_scores_that_are_not_finite_and_unreadable_images(folder: Path) -> None:
    model = eyes()
    model.image = lambda x: torch.full((len(x), 3), torch.nan)  # type: ignore[method-assign]
    with refused("colours: a score is not a finite number"):
        CaptionBenchmark(Colours(str(folder))).run(model)
    (folder / "blue.png").write_bytes(b"no picture")
    message = r"blue\.png: not an image that Pillow can read; give the colours"
    with refused(message):
        CaptionBenchmark(Colours(str(folder))).run(eyes())


def test_a_tie_is_a_random_choice_in_expectation() -> None:
    nan = np.nan
    scores = np.array(
        [[3, 2, 1, 0], [1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0], [0, 1, nan, nan], [2, 2, nan, nan]]
    )
    assert credit(scores, None).tolist() == [1, 1 / 2, 1 / 3, 1 / 4, 0, 1 / 2]
    assert credit(scores, 2).tolist() == [1, 1 / 2, 1, 1 / 2, 0, 1 / 2]


def test_a_value_is_the_mean_over_groups_of_products_in_units(folder: Path) -> None:
    source = Colours(str(folder))
    source.account.read = 4
    scores = answers(source, lambda record: {"r0": 1, "r1": 0, "r2": -1, "r3": 0}[record.record])
    evidence = caption_evidence(source, scores, "d")
    assert evidence.values() == pytest.approx(
        {
            "pair": 100 * (1 + 1 / 2 + 0 + 1 / 2) / 4,
            "best": 100 * (1 + 1 / 3 + 0 + 1 / 2) / 4,
            "macro": 100 * ((1 + 1 / 2) / 2 + 0) / 2,
            "sets": 100 * ((1 / 3 + 1 / 2) / 2 + 0) / 2,
        }
    )
    assert measure_facts(source, evidence) == {
        "pair": (4, 2, 50),
        "best": (4, 2, 40),
        "macro": (3, 1, 50),
        "sets": (3, 3, 50),
    }
    found = by_relation(source, evidence)["all"]
    assert list(found.items()) == [
        *(("red", (2, 75, 1)), ("blue", (1, 50, 1)), ("green", (1, 0, 0)))
    ]
    headings = CaptionBenchmark.headings(["pair", "sets"], evidence.notes)
    assert headings == {"pair": "pairs", "sets": "sets"}
    assert evidence.notes["records"] == "4 read"


def test_the_interval_draws_images_not_records(folder: Path) -> None:
    """Two images, one always right and one always wrong: the interval is everything."""
    source = Colours(str(folder))
    source.records = [source.records[k] for k in (0, 2, 0, 2) for _ in range(100)]
    scores = answers(source, lambda record: 1 if record.relation == "red" else -1)
    evidence = caption_evidence(source, scores, "d")
    assert (evidence.values()["pair"], *evidence.interval("pair")) == (50, 0, 100)
