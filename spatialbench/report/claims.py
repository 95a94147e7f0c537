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

import yaml

from spatialbench.evaluation.base import Evaluation
from spatialbench.report.differences import Differences, Gain
from spatialbench.report.table_model import markdown_table
from spatialbench.results.files import Row
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean
from spatialbench.utils.typed_files import parse

EXPECT = ("higher", "lower", "not lower")
MARGIN = 1.0
"""Points that ``not lower`` allows where the claim gives no margin of its own."""
ADVICE = "see the head of results/claims.yaml for its form"


@dataclass(frozen=True)
class Claim:
    """One claim; see the head of results/claims.yaml.

    Attributes:
        claim: one sentence. paper: who says so.
        track: whose rows. row, than: the two rows, by page.
        column: a measure of the pair test (``all``) or of another evaluation of the track.
        expect: one of ``EXPECT``: what ``row`` is, compared with ``than``.
        margin: points, for ``not lower`` only; None: ``MARGIN``.
    """

    claim: str
    paper: str
    track: str
    row: str
    than: str
    column: str
    expect: str
    margin: float | None = None

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
    def allowed(self) -> float:
        """Points by which ``row`` may lie below ``than``, for ``not lower``."""
        return MARGIN if self.margin is None else self.margin

    @property
    def expected(self) -> str:
        """The expected place of the difference."""
        return {"higher": "above 0", "lower": "below 0", "not lower": f"above {-self.allowed:g}"}[
            self.expect
        ]

    def held(self, gain: Gain) -> bool:
        """Return whether a paired difference supports the claim."""
        if self.expect == "lower":
            return gain.interval.high < 0
        return gain.interval.low > (0 if self.expect == "higher" else -self.allowed)


@dataclass(frozen=True)
class _ClaimsFile:
    claims: list[Claim]


def read_claims(path: Path, measures: Mapping[str, Mapping[str, str]]) -> list[Claim]:
    """Read the claims, in the order of the file; none when there is no such file.

    Args:
        measures: track -> measure -> heading, of all evaluations.

    Raises:
        SpatialbenchError: bad YAML, a wrong field, an unknown track or column.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpatialbenchError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); {ADVICE}"
        ) from error
    claims = parse(_ClaimsFile, {"claims": data or []}, str(path), ADVICE).claims
    for number, claim in enumerate(claims):
        for field, value, known in (
            ("track", claim.track, measures),
            ("column", claim.column, measures.get(claim.track, {})),
        ):
            if value not in known:
                near = did_you_mean(value, known)
                where = f"{path}: field 'claims[{number}].{field}'"
                raise SpatialbenchError(f"{where}: unknown {field} {value!r}{near}")
    return claims


@dataclass(frozen=True)
class Verdict:
    """The verdict of the stored rows on a claim.

    Attributes:
        gain: None where a number is missing.
        state: ``held``, ``not held``, ``no row yet`` or, where a row lacks that column,
            ``not measured yet``.
    """

    claim: Claim
    gain: Gain | None
    state: str


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
        lines.append(
            [
                _plain(claim.claim),
                _plain(claim.paper),
                comparison,
                claim.expected,
                difference,
                verdict.state,
            ]
        )
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
    found: dict[str, str] = {}
    for cls in classes.values():
        found = {**cls.columns, **found}
    return found
