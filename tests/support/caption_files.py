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
from spatialbench.evaluation.caption_benchmark import caption_evidence, measure_facts
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
    """Measure -> percent."""
    return caption_evidence(found, scores, "d").values()


def check_chance(found: CaptionSet) -> None:
    """Check that a constant scorer gets the chance, on pairs exactly, and that swaps mirror."""
    constant = answers(found, lambda record: 0)
    evidence = caption_evidence(found, constant, "d")
    facts = measure_facts(found, evidence)
    scores = np.random.default_rng(0).normal(size=constant.shape) + 0 * constant
    swapped = scores[:, [1, 0, *range(2, scores.shape[1])]]
    there, back = values(found, scores), values(found, swapped)
    for measure in found.measures():
        name, value = measure.name, evidence.values()[measure.name]
        assert value == pytest.approx(measure.chance), name
        assert facts[name].ties == facts[name].n == len(measure.units)
        if measure.options == 2:
            assert (value, *evidence.interval(name)) == (50, 50, 50)
            assert there[name] + back[name] == pytest.approx(100)


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
