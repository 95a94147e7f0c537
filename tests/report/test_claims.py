"""Claims: the rule at its bounds, the verdicts of stored rows, wrong files refused in one line."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from spatialbench.config.pages import load_track
from spatialbench.evaluation.bootstrap import Interval
from spatialbench.evaluation.statistics import smallest_effect
from spatialbench.report.claims import (
    Claim,
    Verdict,
    corrected,
    judge,
    multiplicity,
    read_claims,
)
from spatialbench.report.differences import Differences, Gain, stream
from spatialbench.report.readme import readme
from spatialbench.report.rows import read_rows
from spatialbench.results.files import read_row
from tests.support import ROOT, fakes
from tests.support.checks import refused

BY_NAME = (stream("b"), stream("a"))
"""Streams in which the rows b and a draw their seeds."""
PAPERS = {"Qiu et al. 2025", "Wu et al. 2024", "Yang and Jeon 2024", "Wang et al. 2025"}
PAPERS |= {"Ma et al. 2025", "asked here"}
TRACKS = {"rooms": load_track(ROOT / "benchmarks/tracks/rooms.yaml")}
TEXT: dict[str, Any] = {"capture_output": True, "text": True, "check": False}
CLAIM = {"claim": "B is better.", "paper": "Someone 2024", "track": "rooms"}
CLAIM |= {"row": "b", "than": "a"}


def claim(expect: str, column: str = "all", **fields: object) -> Claim:
    return Claim(**{**CLAIM, "expect": expect, "column": column, **fields})  # type: ignore[arg-type]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Rows a and b, b better in pairs and regions; same, like a; plain without regions."""
    benchmarks = fakes.benchmarks(tmp_path / "benchmarks", "a", "b", "same", "plain")
    results = tmp_path / "results"
    for name, shift, level in (("a", 0.0, 0.5), ("b", 2.0, 0.8), ("same", 0.0, 0.5)):
        regions = fakes.seeds_of("regions", name, level=level)
        fakes.store(results, name, benchmarks, shift=shift, regions=regions)
    fakes.store(results, "plain", benchmarks)
    return results, benchmarks


def verdicts(folders: tuple[Path, Path], *claims: Claim) -> list[Verdict]:
    rows = read_rows(*folders, "rooms")
    differences = Differences(rows)
    return [judge(claim, rows, differences) for claim in claims]


@pytest.mark.parametrize(
    ("expect", "margin", "interval", "state"),
    [
        ("higher", None, (0.1, 3.0), "supported"),
        ("higher", None, (0.0, 3.0), "undecided"),
        ("higher", None, (-3.0, -0.1), "contradicted"),
        ("lower", None, (-3.0, -0.1), "supported"),
        ("lower", None, (-3.0, 0.0), "undecided"),
        ("lower", None, (0.1, 3.0), "contradicted"),
        ("not lower", 1.0, (-0.9, 3.0), "supported"),
        ("not lower", 1.0, (-1.0, 3.0), "undecided"),
        ("not lower", 2.0, (-1.9, -0.5), "supported"),  # lower, but by less than is allowed
        ("not lower", 2.0, (-3.0, -2.1), "contradicted"),
        ("equal", 2.0, (-1.9, 1.9), "supported"),
        ("equal", 2.0, (0.5, 1.9), "supported"),  # a difference, but smaller than the margin
        ("equal", 2.0, (-2.0, 1.0), "undecided"),
        ("equal", 2.0, (2.1, 3.0), "contradicted"),
        ("equal", 2.0, (-3.0, -2.1), "contradicted"),
    ],
)
def test_the_rule(
    expect: str, margin: float | None, interval: tuple[float, float], state: str
) -> None:
    gain = Gain(sum(interval) / 2, Interval(*interval))
    assert claim(expect, margin=margin).state(gain, gain, 0.01) == state


def test_at_the_bound_0_the_swaps_must_agree() -> None:
    gain = Gain(1.0, Interval(0.1, 2.0))
    assert claim("higher").state(gain, gain, 0.06) == "undecided"
    assert claim("lower").state(gain, gain, 0.05) == "contradicted"
    assert claim("not lower", margin=1.0).state(gain, gain, 0.06) == "supported"


def test_equivalence_has_the_narrower_interval() -> None:
    """Two one-sided tests at 5 %: the 90 % interval decides, the 95 % interval need not fit."""
    wide, narrow = Gain(1.0, Interval(-0.2, 2.2)), Gain(1.0, Interval(0.1, 1.9))
    assert claim("equal", margin=2.0).state(wide, narrow, 1.0) == "supported"
    assert claim("equal", margin=1.9).state(wide, narrow, 1.0) == "undecided"


@pytest.mark.parametrize(
    ("expect", "margin", "points", "p"),
    [
        ("higher", None, 1.96, 0.05),
        ("not lower", 1.0, 0.96, 0.05),
        ("equal", 3.0, 3.0 - 1.6449, 0.05),  # one-sided
        ("equal", 3.0, 3.0 + 1.96, 0.05),
        ("equal", 3.0, -3.0, 1.0),
    ],
)
def test_p_values_of_a_difference_with_a_standard_error_of_1(
    expect: str, margin: float | None, points: float, p: float
) -> None:
    gain = Gain(points, Interval(points - 1.959964, points + 1.959964))
    assert claim(expect, margin=margin).p(gain, 0.0) == pytest.approx(p, abs=1e-3)
    assert claim("higher").p(gain, 0.7) == 0.7, "the swaps are asked as well"


@pytest.mark.parametrize(("evaluation", "column"), [("pairs", "all"), ("regions", "box_top1")])
def test_verdicts(folders: tuple[Path, Path], evaluation: str, column: str) -> None:
    """The numbers are those of the paired bootstrap of the stored evidence."""
    higher, lower, none, same, equal = verdicts(
        folders,
        claim("higher", column),
        claim("lower", column),
        claim("higher", column, row="same"),
        claim("not lower", column, row="same", margin=50.0),
        claim("equal", column, row="same", margin=50.0),
    )
    states = [verdict.state for verdict in (higher, lower, none, same, equal)]
    assert states == ["supported", "contradicted", "undecided", "supported", "supported"]
    assert none.gain is not None
    low, high = none.gain.interval
    assert none.smallest == pytest.approx((1.959964 + 0.841621) * (high - low) / 2 / 1.959964)
    assert higher.smallest is None
    a, b = (read_row(folders[0] / f"rooms/{name}.json").evidence[evaluation] for name in "ab")
    expected = a.resampler.difference(b.ratios[column], a.ratios[column], BY_NAME)
    assert higher.gain == Gain(*expected)  # type: ignore[arg-type]


def test_missing_rows_and_measures(folders: tuple[Path, Path]) -> None:
    changes = {"row": "clipself"}, {"than": "clipself"}, {"column": "same_mask", "row": "plain"}
    judged = verdicts(folders, *(claim(**{"expect": "higher", **change}) for change in changes))
    assert [verdict.state for verdict in judged] == ["no row yet"] * 2 + ["not measured yet"]
    assert all(verdict.gain is None for verdict in judged)


def test_a_verdict_on_a_stale_row_says_so(folders: tuple[Path, Path]) -> None:
    (folders[1] / "a.yaml").write_text(fakes.page_text("  init_args: {width: 2}\n"))
    judged = verdicts(folders, claim("higher"), claim("lower", row="same", than="b"))
    assert [verdict.shown for verdict in judged] == ["supported (stale)", "supported"]


def test_many_claims_are_corrected_together(folders: tuple[Path, Path]) -> None:
    """Holm by hand: the smallest p three times, the next twice; a missing row does not count."""
    given = claim("higher"), claim("higher", row="gone"), claim("higher", row="same")
    judged = verdicts(folders, *given, claim("lower", row="same", than="b"))
    small, large, largest = sorted(judged[place].p for place in (0, 2, 3))
    assert largest == judged[2].p > 0.05
    adjusted = corrected(judged)
    assert adjusted.pop(1) is None
    by_hand = [3 * small, max(3 * small, 2 * large), largest]
    assert sorted(p for p in adjusted if p is not None) == pytest.approx(by_hand)
    text = multiplicity(judged)
    assert text.startswith("4 claims, 3 judged: 2 supported, 0 contradicted, 1 undecided.")
    assert "up to 0.2 of 3" in text
    assert text.endswith("2 of the 2 decided ones remain.")


def write(path: Path, *claims: dict[str, object]) -> Path:
    path.write_text(yaml.safe_dump(list(claims)))
    return path


def test_reading(tmp_path: Path) -> None:
    full = {**CLAIM, "column": "same_mask", "expect": "not lower", "margin": 0.5}
    other = {**full, "expect": "equal", "margin": 2, "since": "0123456789"}
    lower = {**CLAIM, "column": "same_mask", "expect": "lower"}
    claims = read_claims(write(tmp_path / "claims.yaml", full, other, lower), TRACKS)
    assert [claim.expected for claim in claims] == ["above -0.5", "within ±2", "below 0"]
    assert [claim.since for claim in claims] == ["", "0123456789", ""]
    assert (claims[0].row, claims[0].than, claims[0].column) == ("b", "a", "same_mask")
    assert read_claims(tmp_path / "none.yaml", TRACKS) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"column": "same_maks"}, r"field 'claims\[1\].column': .* did you mean 'same_mask'\?"),
        ({"track": "room"}, r"field 'claims\[1\]\.track': .* did you mean 'rooms'\?"),
        ({"expect": "better"}, r"field 'claims\[1\]': unknown expect 'better': one of higher"),
        ({"expected": "higher"}, r"field 'claims\[1\]\.expected': unknown field"),
        ({"paper": None}, r"field 'claims\[1\]\.paper': expected str, found None"),
        ({"margin": 1.0}, "'higher' has no margin"),
        ({"expect": "equal"}, "'equal' has a margin in points"),
        ({"margin": -1.0, "expect": "not lower"}, "above 0"),
        ({"since": "HEAD"}, "since 'HEAD': the first ten digits of a commit"),
        ({"than": "b"}, "row and than are both b"),
    ],
)
def test_a_wrong_claim_is_one_line(
    folders: tuple[Path, Path], change: dict[str, object], message: str
) -> None:
    good: dict[str, object] = {**CLAIM, "column": "all", "expect": "higher"}
    write(folders[0] / "claims.yaml", good, {**good, **change})
    with refused(message) as error:
        readme(*folders)
    assert str(error.value).startswith(str(folders[0] / "claims.yaml"))


@pytest.mark.parametrize("text", ["- claim: [", "claim: 1", "- 3"])
def test_a_wrong_file_is_one_line(folders: tuple[Path, Path], text: str) -> None:
    (folders[0] / "claims.yaml").write_text(text)
    message = r"claims\.yaml: .*see the head of results/claims\.yaml"
    with refused(message):
        readme(*folders)


def test_the_section(folders: tuple[Path, Path]) -> None:
    write(
        folders[0] / "claims.yaml",
        {**CLAIM, "column": "same_mask", "expect": "higher", "claim": "B is | better,\nthey say."},
        {**CLAIM, "column": "all", "expect": "lower"},
        {**CLAIM, "column": "all", "expect": "not lower", "row": "r_sc_rla", "margin": 0.5},
    )
    text = readme(*folders)
    titles = [line for line in text.splitlines() if line.startswith("### ")]
    assert titles.index("### Claims") == titles.index("### Regions, dense quality, retrieval") + 1
    lines = text[text.index("### Claims") :].splitlines()
    header = "| claim | paper | comparison | expected | difference | p, Holm | verdict |"
    start = lines.index(f"{header} smallest effect | first written |")
    shown = [line.strip("|").replace("\\|", "/") for line in lines[start + 2 : start + 5]]
    first, second, third = ([cell.strip() for cell in line.split("|")] for line in shown)
    texts = ["B is / better, they say.", "Someone 2024", "b - a, Same-mask AUC", "above 0"]
    assert first[:4] == texts
    assert first[4].startswith("+")
    assert (first[6], second[6]) == ("supported", "contradicted")
    assert third[2:] == ["r_sc_rla - a, All", "above -0.5", "–", "–", "no row yet", "–", "–"]
    assert lines[start + 6].startswith("3 claims, 2 judged: 1 supported, 1 contradicted")


def test_the_repositorys_claims() -> None:
    """They are read, and name pages of the papers' methods; each comparison stands there once."""
    claims = read_claims(ROOT / "results/claims.yaml", TRACKS)
    assert {claim.paper for claim in claims} == PAPERS
    keys = [(claim.row, claim.than, claim.column) for claim in claims]
    assert len(set(keys)) == len(keys) == 43
    assert ("clipself", "clip_zeroshot", "cluster") in keys
    poster = [(c.row, c.than, c.expect) for c in claims if c.paper == "Yang and Jeon 2024"]
    assert poster == [
        ("clip_finetune", "clip_zeroshot", "higher"),
        ("residual_linear", "clip_finetune", "higher"),
        ("spatial_attn", "residual_linear", "higher"),
        ("spatial_attn_no_negatives", "spatial_attn", "lower"),
    ]


@pytest.mark.slow
def test_the_repositorys_margins_can_be_met_by_the_stored_rows() -> None:
    """Rows that are equal would meet each margin four times in five."""
    rows = read_rows(ROOT / "results", ROOT / "benchmarks", "rooms")
    differences = Differences(rows)
    for each in read_claims(ROOT / "results/claims.yaml", TRACKS):
        gain = each.margin and judge(each, rows, differences).gain
        if gain:
            assert smallest_effect(gain.interval, each.expect == "equal") <= each.margin, each.claim


def test_claims_were_first_written_when_they_say() -> None:
    """Git knows the commit that brought a claim, its expectation and its margin."""
    path, where = "results/claims.yaml", ["git", "-C", str(ROOT)]
    log = [*where, "log", "--reverse", "--format=%H", "--", path]
    shallow = subprocess.run([*where, "rev-parse", "--is-shallow-repository"], **TEXT)
    if shallow.stdout.strip() != "false":
        pytest.skip("no history at hand")
    first: dict[tuple[object, ...], str] = {}
    for commit in subprocess.run(log, **TEXT).stdout.split():
        text = subprocess.run([*where, "show", f"{commit}:{path}"], **TEXT).stdout
        for old in yaml.safe_load(text):
            first.setdefault(identity(old), commit[:10])
    for each in yaml.safe_load((ROOT / path).read_text()):
        assert each.get("since", "") in ("", first.get(identity(each))), each["claim"]


def identity(claim: dict[str, object]) -> tuple[object, ...]:
    """Everything but the sentence and the paper."""
    margin = claim.get("margin", 1.0) if claim["expect"] == "not lower" else claim.get("margin")
    return (*(claim[key] for key in ("track", "row", "than", "column", "expect")), margin)
