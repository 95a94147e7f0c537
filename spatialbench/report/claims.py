"""The claims of results/claims.yaml, judged by the paired differences of the stored rows.

A claim compares two rows in one column. With d their difference and [low, high] its paired 95 %
interval, it is

    expect       supported                      contradicted
    higher       d better than 0                d worse than 0
    lower        d worse than 0                 d better than 0
    not lower    d better than -margin          d worse than -margin
    equal        |d| < margin                   d better than margin, or worse than -margin

and otherwise undecided: rows that cannot be told apart are no evidence. ``better`` and ``worse``
are those of ``statistics.verdict``, the rule of ``compare``; a claim names its one comparison
beforehand, so its p is not corrected. |d| < margin is an equivalence test: the 90 % interval lies
within the margin.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from spatialbench.config.pages import Track
from spatialbench.evaluation.base import Evaluation
from spatialbench.evaluation.paired import holm
from spatialbench.evaluation.statistics import (
    ALPHA,
    BETTER,
    SAME,
    WORSE,
    equivalent,
    p_beyond,
    smallest_effect,
    verdict,
)
from spatialbench.report.differences import Differences, Gain
from spatialbench.report.rows import evaluation_classes, read_yaml
from spatialbench.report.table_model import markdown_table, number, p_cell
from spatialbench.results.files import STORED_BUDGET, Row
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean
from spatialbench.utils.typed_files import parse

EXPECT = ("higher", "lower", "not lower", "equal")
WITH_MARGIN = EXPECT[2:]
SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
ADVICE = "see the head of results/claims.yaml for its form"
RULE = """\
*Supported*, *contradicted*: the whole paired 95 % interval lies where the claim expects it, or
where it excludes it; at the bound 0 the test that swaps the rows scene by scene must agree (p at
most 0.05), as in `spatialbench compare`. *Within* a margin: the 90 % interval lies inside (two
one-sided tests at 5 %). Otherwise *undecided*, with the smallest effect that these data would have
shown four times in five: a true difference from the bound, or for *within* a margin that equal rows
would have met. *First written*: the commit at which a claim came to stand there as it is."""


@dataclass(frozen=True)
class Claim:
    """One claim; see the head of results/claims.yaml."""

    claim: str
    paper: str
    track: str
    row: str  # the two rows, by page
    than: str
    column: str  # a measure of the pair test or of another evaluation of the track
    expect: str  # one of EXPECT: how row compares with than
    margin: float | None = None  # points, for WITH_MARGIN only
    since: str = ""  # the commit at which it was first written

    def __post_init__(self) -> None:
        if self.expect not in EXPECT:
            raise ValueError(f"unknown expect {self.expect!r}: one of {', '.join(EXPECT)}")
        if (self.margin is None) == (self.expect in WITH_MARGIN):
            needs = "a margin in points" if self.margin is None else "no margin"
            raise ValueError(f"{self.expect!r} has {needs}")
        if self.margin is not None and self.margin <= 0:
            raise ValueError(f"margin {self.margin:g}: it must be above 0")
        if self.row == self.than:
            raise ValueError(f"row and than are both {self.row}")
        if not re.fullmatch("([0-9a-f]{10})?", self.since):
            raise ValueError(f"since {self.since!r}: the first ten digits of a commit")

    @property
    def bound(self) -> float:
        """The bound on whose one side the whole interval must lie."""
        return -(self.margin or 0.0) if self.expect == "not lower" else 0.0

    @property
    def expected(self) -> str:
        """The expected place of the difference."""
        if self.expect == "equal":
            return f"within ±{self.margin:g}"
        return f"{'below' if self.expect == 'lower' else 'above'} {self.bound:g}"

    def state(self, gain: Gain, narrow: Gain, p: float) -> str:
        """Judge the claim.

        Args:
            gain: the difference with its 95 % interval; ``narrow``: the same with 90 %.
            p: of swapping the rows scene by scene.
        """
        if self.expect == "equal":
            margin = self.margin or 0.0
            if equivalent(narrow.interval, margin):
                return SUPPORTED
            outside = verdict(gain.interval, bound=margin) == BETTER
            outside |= verdict(gain.interval, bound=-margin) == WORSE
            return CONTRADICTED if outside else UNDECIDED
        found = verdict(gain.interval, None if self.bound else p, self.bound)
        if found == SAME:
            return UNDECIDED
        return SUPPORTED if (found == BETTER) != (self.expect == "lower") else CONTRADICTED

    def p(self, gain: Gain, swapped: float) -> float:
        """P-value of what the difference says; ``swapped``: of swapping the rows scene by scene."""
        if self.expect == "equal":
            margin = math.copysign(self.margin or 0.0, gain.points)
            p = p_beyond(*gain, margin)
            return p / 2 if abs(gain.points) < abs(margin) else p  # one-sided towards equality
        if self.bound:
            return p_beyond(*gain, self.bound)
        return max(swapped, p_beyond(*gain))


@dataclass(frozen=True)
class _ClaimsFile:
    claims: list[Claim]


def read_claims(
    path: Path, tracks: Mapping[str, Track], budget: str = STORED_BUDGET
) -> list[Claim]:
    """Read the claims, in the order of the file; none when there is no such file.

    Raises:
        SpatialbenchError: bad YAML, a wrong field, an unknown track or column.
    """
    claims = parse(_ClaimsFile, {"claims": read_yaml(path, ADVICE)}, str(path), ADVICE).claims
    known_columns = {
        name: headings_of(evaluation_classes(track, budget)) for name, track in tracks.items()
    }
    for place, claim in enumerate(claims):
        columns = known_columns.get(claim.track, {})
        for field, value, known in (
            ("track", claim.track, tracks),
            ("column", claim.column, columns),
        ):
            if value not in known:
                where = f"{path}: field 'claims[{place}].{field}'"
                near = did_you_mean(value, known)
                raise SpatialbenchError(f"{where}: unknown {field} {value!r}{near}")
    return claims


class Verdict(NamedTuple):
    """The verdict of the stored rows on a claim; no ``gain`` where a number is missing."""

    claim: Claim
    gain: Gain | None
    state: str  # SUPPORTED, CONTRADICTED, UNDECIDED, or why there is no verdict
    p: float = 1.0
    stale: bool = False

    @property
    def shown(self) -> str:
        """The verdict as it is printed."""
        return f"{self.state} (stale)" if self.stale else self.state

    @property
    def smallest(self) -> float | None:
        """Smallest effect that the data would have shown, in points; None where it is decided."""
        if self.gain is None or self.state != UNDECIDED:
            return None
        return smallest_effect(self.gain.interval, self.claim.expect == "equal")


def judge(claim: Claim, rows: Sequence[Row], differences: Differences) -> Verdict:
    """Compare the two rows of a claim; a verdict on a stale row says so."""
    known = {row.name: row for row in rows}
    if claim.row not in known or claim.than not in known:
        return Verdict(claim, None, "no row yet")
    compared = claim.row, claim.than, claim.column
    evaluation = differences.evaluation_of(claim.column)
    gain = differences.between(*compared, evaluation)
    narrow = differences.between(*compared, evaluation, level=1 - 2 * ALPHA)
    if gain is None or narrow is None or evaluation is None:
        return Verdict(claim, None, "not measured yet")
    p = differences.p(*compared, evaluation, corrected=False)
    stale = bool(known[claim.row].stale or known[claim.than].stale)
    return Verdict(claim, gain, claim.state(gain, narrow, p), claim.p(gain, p), stale)


def corrected(verdicts: Sequence[Verdict]) -> list[float | None]:
    """Correct the p-values of the judged claims for their number (Holm); None for the others."""
    adjusted = iter(holm([verdict.p for verdict in verdicts if verdict.gain is not None]))
    return [None if verdict.gain is None else next(adjusted) for verdict in verdicts]


def multiplicity(verdicts: Sequence[Verdict]) -> str:
    """Say how many claims are decided, how many by chance, and how many after Holm's correction."""
    counts = Counter(verdict.state for verdict in verdicts)
    states = ", ".join(f"{counts[name]} {name}" for name in (SUPPORTED, CONTRADICTED, UNDECIDED))
    judged = sum(verdict.gain is not None for verdict in verdicts)
    decided = [
        p is not None and p <= ALPHA
        for verdict, p in zip(verdicts, corrected(verdicts), strict=True)
        if verdict.state in (SUPPORTED, CONTRADICTED)
    ]
    return (
        f"{len(verdicts)} claims, {judged} judged: {states}. Each is judged by itself, and one "
        "whose true difference is at the bound is decided by chance once in 20: up to "
        f"{ALPHA * judged:.1f} of {judged}. Corrected for all {judged} (p, Holm at most {ALPHA}), "
        f"{sum(decided)} of the {len(decided)} decided ones remain."
    )


def section(
    claims: Sequence[Claim],
    rows: Sequence[Row],
    differences: Differences,
    headings: Mapping[str, str],
) -> list[str]:
    """Lines of results/README.md about a track's claims; ``headings``: measure -> heading."""
    verdicts = [judge(claim, rows, differences) for claim in claims]
    lines = []
    for found, p in zip(verdicts, corrected(verdicts), strict=True):
        claim, gain = found.claim, found.gain
        comparison = f"{claim.row} - {claim.than}, {headings[claim.column]}"
        texts = [_plain(claim.claim), _plain(claim.paper), comparison, claim.expected]
        numbers = ["–", "–"] if gain is None or p is None else [gain.text, p_cell(p)]
        ends = [found.shown, number(found.smallest), claim.since or "–"]
        lines.append([*texts, *numbers, *ends])
    header = ["claim", "paper", "comparison", "expected", "difference", "p, Holm", "verdict"]
    header += ["smallest effect", "first written"]
    table = markdown_table(header, lines, left=len(header))
    return ["### Claims", "", *RULE.splitlines(), "", *table, "", multiplicity(verdicts)]


def _plain(text: str) -> str:
    """Text on one line that does not end a cell."""
    return " ".join(text.split()).replace("|", "\\|")


def headings_of(classes: Mapping[str, type[Evaluation]]) -> dict[str, str]:
    """Measure -> heading, of all evaluations of a track; the first evaluation wins."""
    headings: dict[str, str] = {}
    for cls in classes.values():
        headings = {**cls.columns, **headings}
    return headings
