"""What the tests of the benchmarks of captions share: small pictures, JSON files, and answers that are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spatialbench.data.captions.caption_set import CaptionRecord, CaptionSet
from spatialbench.evaluation.captions import evaluate
from spatialbench.utils.errors import SpatialbenchError


def photo(
    path: Path, colour: tuple[int, int, int] = (200, 10, 10), size: tuple[int, int] = (24, 16)
) -> Path:
    """A picture of one colour, whatever the ending of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, "PNG")
    return path


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def answers(found: CaptionSet, margin: Callable[[CaptionRecord], float]) -> np.ndarray:
    """Scores [M, K]: the true caption has ``margin`` and all others 0; NaN where a record has no more captions."""
    scores = np.full(
        (len(found.records), max(len(r.captions) for r in found.records)), np.nan, dtype=np.float32
    )
    for row, record in enumerate(found.records):
        scores[row, : len(record.captions)] = 0
        scores[row, 0] = margin(record)
    return scores


def values(found: CaptionSet, scores: np.ndarray) -> dict[str, float]:
    """measure -> percent."""
    return {measure.name: evaluate(found, measure, scores).value for measure in found.measures()}


def check_chance(found: CaptionSet) -> None:
    """A constant scorer gets the chance, on pairs exactly 50; exchanged captions mirror what two captions give."""
    constant = answers(found, lambda record: 0)
    for measure in found.measures():
        made = evaluate(found, measure, constant)
        assert made.value == pytest.approx(measure.chance), measure.name
        assert made.ties == made.n == len(measure.units)
        if measure.options == 2:
            assert made.value == 50.0
            assert tuple(made.interval) == (50.0, 50.0)
    scores = np.random.default_rng(0).normal(size=constant.shape) + 0 * constant
    exchanged = scores[:, [1, 0, *range(2, scores.shape[1])]]
    for measure in found.measures():
        if measure.options == 2:
            value, other = (evaluate(found, measure, which).value for which in (scores, exchanged))
            assert value + other == pytest.approx(100)


def check_account(found: CaptionSet, read: int, dropped: int) -> None:
    """What was read, and what was dropped; each reason names its first record."""
    assert found.account.read == read
    assert sum(noted.count for noted in found.account.dropped.values()) == dropped
    assert all(noted.first for noted in found.account.dropped.values())


def complaint(make: Callable[[], object], match: str) -> None:
    """``make`` ends in one line that ``match`` finds."""
    with pytest.raises(SpatialbenchError, match=match) as error:
        make()
    assert "\n" not in str(error.value)
