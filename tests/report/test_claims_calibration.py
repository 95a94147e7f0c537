"""Verdicts on claims over simulated tables whose truth is known: false ones, power, equivalence.

The tables are those of ``tests/evaluation/test_calibration.py``. Everything is seeded; bounds are
three standard errors over ``TABLES`` tables.
"""

from collections import Counter
from functools import cache
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import optimize

from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.ratio import Margins
from spatialbench.evaluation.statistics import smallest_effect
from spatialbench.report.claims import Claim, Verdict, judge
from spatialbench.report.differences import Differences
from tests.evaluation.test_calibration import ALONE, RELATION, SCENE, tables, truth

pytestmark = pytest.mark.slow
TABLES, LEVEL = 200, 0.0


def above(gain: float) -> float:
    """Return the level whose true accuracy is ``gain`` points above that of ``LEVEL``."""
    return optimize.brentq(lambda level: truth(level) - truth(LEVEL) - gain, -5, 5)


@cache
def judged(
    seed: int, level: float, expect: str, margin: float | None = None, luck: float = 0.0
) -> list[Verdict]:
    """Judge a claim on ``TABLES`` tables; with luck the rows have three seeds, else one."""
    claim = Claim("b against a", "made up", "rooms", "b", "a", "all", expect, margin)
    verdicts, seeds = [], 3 if luck else 1
    for simulated in islice(tables(seed, LEVEL, level, seeds=seeds, luck=luck), TABLES):
        rows: list[Any] = []
        for name, answers in zip("ab", simulated, strict=True):
            margins = Margins(ALONE, RELATION, {"": answers.astype(np.float32)}, RELATIONS)
            evidence = {"pairs": Evidence(SCENE, {}, "simulated", margins=margins)}
            rows.append(SimpleNamespace(name=name, evidence=evidence, stale=()))
        verdicts.append(judge(claim, rows, Differences(rows)))
    return verdicts


def shares(verdicts: list[Verdict]) -> dict[str, float]:
    """Share of each verdict."""
    counts = Counter(verdict.state for verdict in verdicts)
    return {name: count / len(verdicts) for name, count in counts.items()}


def beyond(share: float) -> float:
    """Three standard errors of a share over ``TABLES`` tables."""
    return float(3 * np.sqrt(share * (1 - share) / TABLES))


def test_without_an_effect_few_claims_are_decided() -> None:
    """A gain is supported once in 40 tables, and either verdict once in 20."""
    found = shares(judged(1, LEVEL, "higher"))
    assert found.get("supported", 0) <= 0.025 + beyond(0.025)
    assert 1 - found["undecided"] <= 0.05 + beyond(0.05)


def test_with_luck_of_the_seeds_still_few_are() -> None:
    """Three seeds of two equal methods: the models differ, the methods do not."""
    found = shares(judged(2, LEVEL, "higher", luck=0.08))
    assert 1 - found["undecided"] <= 0.05 + 0.03 + beyond(0.05)  # three seeds understate luck


def test_the_smallest_effect_is_found_four_times_in_five() -> None:
    nothing = judged(1, LEVEL, "higher")
    effect = float(np.mean([smallest_effect(each.gain.interval) for each in nothing if each.gain]))
    assert 5 < effect < 13, "a table of this size"
    found = shares(judged(4, above(effect), "higher"))
    assert abs(found["supported"] - 0.8) <= beyond(0.8)
    assert found.get("contradicted", 0) == 0
    assert shares(judged(5, above(-effect), "lower"))["supported"] > 0.8 - beyond(0.8)


def test_equality_is_rarely_supported_at_its_margin_and_mostly_where_rows_are_equal() -> None:
    nothing = judged(1, LEVEL, "higher")
    sizes = [smallest_effect(each.gain.interval, True) for each in nothing if each.gain]
    margin = float(np.mean(sizes))
    equal = shares(judged(7, LEVEL, "equal", margin))
    assert abs(equal["supported"] - 0.8) <= beyond(0.8) + 0.03  # sizes differ from table to table
    assert equal.get("contradicted", 0) == 0
    for gain in (margin, -margin):
        found = shares(judged(8, above(gain), "equal", margin))
        assert found.get("supported", 0) <= 0.05 + beyond(0.05)


def test_a_margin_is_rarely_met_by_a_row_that_is_lower_by_it() -> None:
    found = shares(judged(9, above(-6), "not lower", 6.0))
    assert found.get("supported", 0) <= 0.025 + beyond(0.025)
    assert found.get("contradicted", 0) <= 0.025 + beyond(0.025)
