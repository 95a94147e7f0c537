"""Expectations of the controls, and their verdicts: functions of their evidence.

The counts of an exact control are known before anything is scored. If one differs, data, scoring or
arithmetic are wrong, and no number of the table can be trusted. The other controls have a verdict
from their intervals.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from spatialbench.data.relations import DEPTH_RELATIONS, RELATIONS
from spatialbench.evaluation.bootstrap import Resampler
from spatialbench.evaluation.controls.heuristics import DIRECTIONS
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.pairs import Count, count
from spatialbench.evaluation.ratio import accuracy
from spatialbench.utils.errors import SpatialbenchError

CHANCE = 50.0
OWN = "as it is"
"""The scorer of the page's own answers, for comparison with the controls."""
SIDES = ("left", "right")
SWAP = "left and right, labels swapped, minus the page itself"
REST = "the other relations, minus the page itself"
ABOVE = "left and right of the page itself, minus 50"
"""The differences of ``mirrored``; where ``ABOVE`` contains 0, there is nothing that could swap."""
Counts = Mapping[str, Count]
"""Relation -> counts."""


class BrokenControl(SpatialbenchError):
    """An exact control does not have the counts that it must have: the run fails."""


def counts(evidence: Evidence, scorer: str) -> Counts:
    """Count a scorer's answers by relation, all six."""
    return count(evidence.answers(scorer)[0], evidence.known_margins.group)


def mirror(found: Counts, relations: Sequence[str] = RELATIONS) -> Counts:
    """100 minus the accuracy of ``relations``, ties kept; the other relations unchanged."""
    turned = {name: Count(c.n, c.n - c.correct - c.ties, c.ties) for name, c in found.items()}
    return {name: (turned if name in relations else found)[name] for name in found}


def _right(found: Counts, relations: Sequence[str]) -> Counts:
    """Every record of ``relations`` right: exactly 100."""
    return {name: Count(found[name].n, found[name].n, 0) for name in relations}


def _ties(found: Counts) -> Counts:
    """Every record a tie: exactly 50."""
    return {name: Count(c.n, 0, c.n) for name, c in found.items()}


def _half(found: Counts) -> Counts:
    """Exactly 50, with the ties that there are."""
    return {name: Count(c.n, (c.n - c.ties) // 2, c.ties) for name, c in found.items()}


EXACT: dict[str, Callable[[Evidence], Counts]] = {
    "constant": lambda evidence: _ties(counts(evidence, "constant")),
    "boxes": lambda evidence: _right(counts(evidence, "boxes"), DIRECTIONS),
    "boxes, mirrored": lambda evidence: mirror(counts(evidence, "boxes"), SIDES),
    "depth": lambda evidence: _right(counts(evidence, "depth"), DEPTH_RELATIONS),
    "blind": lambda evidence: _half(counts(evidence, "blind")),
    "swapped": lambda evidence: mirror(counts(evidence, OWN)),
}
"""Scorer -> the counts that it must have, where it is exact; a missing relation may have any."""


def exact(evidence: Evidence) -> list[str]:
    """Return the scorers that are exact on these records."""
    return [name for name in evidence.notes.get("exact", "").split("; ") if name]


def absent(evidence: Evidence) -> dict[str, str]:
    """Scorer -> reason why these records cannot have it."""
    return {name: reason for name, reason in evidence.notes.items() if name != "exact"}


def check(evidence: Evidence, where: str = "") -> None:
    """Check that every exact control holds.

    Raises:
        BrokenControl: the first that does not, and the number of others.
    """
    broken = []
    for scorer in exact(evidence):
        found = counts(evidence, scorer)
        for relation, wanted in EXACT[scorer](evidence).items():
            if found[relation] != wanted:
                has, must = (
                    f"{each.accuracy:.2f} ({each.correct} right, {each.ties} ties of {each.n})"
                    for each in (found[relation], wanted)
                )
                broken.append(f"{scorer} has {has} on {relation} and must have {must}")
    if broken:
        more = f" ({len(broken) - 1} more)" if len(broken) > 1 else ""
        advice = "no number of this test can be trusted"
        raise BrokenControl(f"{where}broken control: {broken[0]}{more}; {advice}")


def differences(evidence: Evidence) -> dict[str, tuple[float, float, float]]:
    """Differences of ``mirrored``: ``SWAP``, ``REST`` and ``ABOVE`` -> points and interval."""
    if not {OWN, "mirrored"} <= set(evidence.known_margins.values):
        return {}
    side = np.isin(evidence.known_margins.group, SIDES)
    own, flipped = evidence.answers(OWN), evidence.answers("mirrored")
    chance = np.zeros_like(own)  # a scorer without an opinion is at 50
    pairs = {SWAP: (side, -flipped, own), REST: (~side, flipped, own), ABOVE: (side, own, chance)}
    found = {}
    for name, (chosen, a, b) in pairs.items():
        if chosen.any():
            resampler = Resampler(evidence.clusters[chosen])
            points, interval = resampler.difference(accuracy(a[:, chosen]), accuracy(b[:, chosen]))
            assert interval is not None, "there are records"
            found[name] = (round(points, 3), round(interval.low, 3), round(interval.high, 3))
    return found


def verdict(evidence: Evidence, scorer: str) -> str:
    """Verdict on a control, in a few words."""
    if scorer in exact(evidence):
        return "exact, holds"
    if scorer == "mirrored" and (shifts := differences(evidence)):
        same = {name: low <= 0 <= high for name, (_, low, high) in shifts.items()}
        sides = "at chance" if same.get(ABOVE) else "swap" if same.get(SWAP) else "do not swap"
        return f"left, right {sides}; the others {'stay' if same.get(REST, True) else 'change'}"
    if scorer == OWN:
        return "the page itself"
    interval = evidence.interval(f"{scorer}: all")
    contains = interval is None or interval.low <= CHANCE <= interval.high
    return f"{'contains' if contains else 'does not contain'} {CHANCE:.0f}"
