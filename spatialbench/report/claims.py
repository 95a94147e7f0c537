"""The papers' claims (results/claims.yaml), judged by the paired differences of the stored rows.

A claim compares two rows in one column. With the 95 % interval [low, high] of their paired
difference it is held

    higher       iff low > 0
    lower        iff high < 0
    not lower    iff low > -margin

and otherwise not held: rows that cannot be told apart are no evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from spatialbench.config.pages import Track
from spatialbench.evaluation.base import Evaluation
from spatialbench.report.differences import Differences, Gain
from spatialbench.report.rows import evaluation_classes, read_yaml
from spatialbench.report.table_model import markdown_table
from spatialbench.results.files import STORED_BUDGET, Row
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean
from spatialbench.utils.typed_files import parse

EXPECT = ("higher", "lower", "not lower")
MARGIN = 1.0
"""Points that ``not lower`` allows where the claim gives no margin of its own."""
ADVICE = "see the head of results/claims.yaml for its form"


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
    margin: float | None = None  # points, for "not lower" only; None: MARGIN

    def __post_init__(self) -> None:
        if self.expect not in EXPECT:
            raise ValueError(f"unknown expect {self.expect!r}: one of {', '.join(EXPECT)}")
        if self.margin is not None and (self.expect != "not lower" or self.margin < 0):
            raise ValueError(
                f"margin {self.margin:g} of {self.expect!r}: only 'not lower' has one, 0 or more"
            )
        if self.row == self.than:
            raise ValueError(f"row and than are both {self.row}")

    @property
    def bound(self) -> float:
        """The bound that the whole interval must be above; for ``lower``, below."""
        allowed = MARGIN if self.margin is None else self.margin
        return -allowed if self.expect == "not lower" else 0.0

    @property
    def expected(self) -> str:
        """The expected place of the difference."""
        return f"{'below' if self.expect == 'lower' else 'above'} {self.bound:g}"

    def held(self, gain: Gain) -> bool:
        """Return whether a paired difference supports the claim."""
        low, high = gain.interval
        return high < self.bound if self.expect == "lower" else low > self.bound


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
    for number, claim in enumerate(claims):
        columns = known_columns.get(claim.track, {})
        for field, value, known in (
            ("track", claim.track, tracks),
            ("column", claim.column, columns),
        ):
            if value not in known:
                where = f"{path}: field 'claims[{number}].{field}'"
                near = did_you_mean(value, known)
                raise SpatialbenchError(f"{where}: unknown {field} {value!r}{near}")
    return claims


class Verdict(NamedTuple):
    """The verdict of the stored rows on a claim; no ``gain`` where a number is missing."""

    claim: Claim
    gain: Gain | None
    state: str
    """``held`` or ``not held``, or why there is no verdict."""


def judge(claim: Claim, rows: Sequence[Row], differences: Differences) -> Verdict:
    """Compare the two rows of a claim; a verdict on a stale row says so."""
    known = {row.name: row for row in rows}
    if claim.row not in known or claim.than not in known:
        return Verdict(claim, None, "no row yet")
    gain = differences.between(claim.row, claim.than, claim.column)
    if gain is None:
        return Verdict(claim, None, "not measured yet")
    stale = " (stale)" if known[claim.row].stale or known[claim.than].stale else ""
    return Verdict(claim, gain, ("held" if claim.held(gain) else "not held") + stale)


def section(
    claims: Sequence[Claim],
    rows: Sequence[Row],
    differences: Differences,
    headings: Mapping[str, str],
) -> list[str]:
    """Lines of results/README.md about a track's claims; ``headings``: measure -> heading."""
    lines = []
    for claim in claims:
        verdict = judge(claim, rows, differences)
        comparison = f"{claim.row} - {claim.than}, {headings[claim.column]}"
        difference = "–" if verdict.gain is None else verdict.gain.cell
        texts = [_plain(claim.claim), _plain(claim.paper), comparison, claim.expected]
        lines.append([*texts, difference, verdict.state])
    text = (
        "Held when the whole 95 % interval of the paired difference, in points, lies where the "
        "claim expects it."
    )
    header = ["claim", "paper", "comparison", "expected", "difference", "verdict"]
    return ["### Claims", "", text, "", *markdown_table(header, lines, left=len(header))]


def _plain(text: str) -> str:
    """Text on one line that does not end a cell."""
    return " ".join(text.split()).replace("|", "\\|")


def headings_of(classes: Mapping[str, type[Evaluation]]) -> dict[str, str]:
    """Measure -> heading, of all evaluations of a track; the first evaluation wins."""
    headings: dict[str, str] = {}
    for cls in classes.values():
        headings = {**cls.columns, **headings}
    return headings
