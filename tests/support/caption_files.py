"""Shared by the tests of caption benchmarks: small images, JSON files, and known answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from spatialbench.evaluation.captions import evaluate

from spatialbench.data.captions.caption_set import CaptionRecord, CaptionSet
from spatialbench.utils.errors import SpatialbenchError


def photo(
    path: Path, colour: tuple[int, int, int] = (200, 10, 10), size: tuple[int, int] = (24, 16)
) -> Path:
    """Write an image of one colour, whatever its file name ends with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, "PNG")
    return path


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def answers(found: CaptionSet, margin: Callable[[CaptionRecord], float]) -> np.ndarray:
    """Return scores [M, K]: ``margin`` for the true caption, 0 for others, NaN beyond them."""
    most = max(len(record.captions) for record in found.records)
    scores = np.full((len(found.records), most), np.nan, dtype=np.float32)
    for row, record in enumerate(found.records):
        scores[row, : len(record.captions)] = 0
        scores[row, 0] = margin(record)
    return scores


def values(found: CaptionSet, scores: np.ndarray) -> dict[str, float]:
    """Return measure -> percent."""
    return {measure.name: evaluate(found, measure, scores).value for measure in found.measures()}


def check_chance(found: CaptionSet) -> None:
    """Check that a constant scorer gets the chance, and swapped captions the complement."""
    constant = answers(found, lambda record: 0)
    scores = np.random.default_rng(0).normal(size=constant.shape) + 0 * constant
    swapped = scores[:, [1, 0, *range(2, scores.shape[1])]]
    for measure in found.measures():
        made = evaluate(found, measure, constant)
        assert made.value == pytest.approx(measure.chance), measure.name
        assert made.ties == made.n == len(measure.units)
        if measure.options == 2:
            assert (made.value, *made.interval) == (50.0, 50.0, 50.0)
            both = [evaluate(found, measure, which).value for which in (scores, swapped)]
            assert sum(both) == pytest.approx(100)


def check_account(found: CaptionSet, read: int, dropped: int) -> None:
    """Check what was read and dropped; each reason names its first record."""
    assert (found.account.read, found.account.dropped.total()) == (read, dropped)
    assert all(found.account.first[reason] for reason in found.account.dropped)


def complaint(make: Callable[[], object], match: str) -> None:
    """Check that ``make`` fails with one line that matches."""
    with pytest.raises(SpatialbenchError, match=match) as error:
        make()
    assert "\n" not in str(error.value)
