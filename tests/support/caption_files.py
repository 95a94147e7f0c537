"""Shared by the tests of caption benchmarks: small images, JSON files, and known answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spatialbench.data.captions.caption_set import CaptionRecord, CaptionSet
from spatialbench.evaluation.caption_benchmark import caption_evidence, measure_facts
from tests.support.checks import refused


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
    return caption_evidence(found, scores, "d").values()


def ties(found: CaptionSet, scores: np.ndarray) -> dict[str, int]:
    """Return measure -> units with a tie."""
    facts = measure_facts(found, caption_evidence(found, scores, "d"))
    return {measure: fact.ties for measure, fact in facts.items()}


def check_chance(found: CaptionSet) -> None:
    """Check that a constant scorer gets the chance, and swapped captions the complement."""
    constant = answers(found, lambda record: 0)
    scores = np.random.default_rng(0).normal(size=constant.shape) + 0 * constant
    swapped = scores[:, [1, 0, *range(2, scores.shape[1])]]
    there, back = values(found, scores), values(found, swapped)
    evidence = caption_evidence(found, constant, "d")
    chance = {measure.name: measure.chance for measure in found.measures()}
    assert evidence.values() == pytest.approx(chance, abs=1e-5)
    assert ties(found, constant) == {m.name: len(m.units) for m in found.measures()}
    for measure in found.measures():
        if measure.options == 2:
            name = measure.name
            assert (evidence.values()[name], *evidence.interval(name)) == (50.0, 50.0, 50.0)
            assert there[name] + back[name] == pytest.approx(100)


def check_account(found: CaptionSet, read: int, dropped: int) -> None:
    """Check what was read and dropped; each reason names its first record."""
    assert (found.account.read, found.account.dropped.total()) == (read, dropped)
    assert all(found.account.first[reason] for reason in found.account.dropped)


def complaint(make: Callable[[], object], match: str) -> None:
    """Check that ``make`` fails with one line that matches."""
    with refused(match):
        make()
