"""Claims: the rule at its bounds, the verdicts of stored rows, wrong files refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from spatialbench.config.pages import load_track
from spatialbench.evaluation.bootstrap import Interval
from spatialbench.report.claims import Claim, Verdict, judge, read_claims
from spatialbench.report.differences import Differences, Gain, stream
from spatialbench.report.readme import readme
from spatialbench.report.rows import read_rows
from spatialbench.results.files import read_row
from spatialbench.utils.errors import SpatialbenchError
from tests.support import ROOT, fakes

BY_NAME = (stream("b"), stream("a"))
"""How the rows b and a draw their seeds."""
PAPERS = {"Qiu et al. 2025", "Wu et al. 2024", "Yang and Jeon 2024", "Wang et al. 2025"}
PAPERS |= {"Ma et al. 2025", "asked here"}
TRACKS = {"rooms": load_track(ROOT / "benchmarks/tracks/rooms.yaml")}
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
    ("expect", "margin", "interval", "held"),
    [
        ("higher", None, (0.1, 3.0), True),
        ("higher", None, (0.0, 3.0), False),
        ("lower", None, (-3.0, -0.1), True),
        ("lower", None, (-3.0, 0.0), False),
        ("not lower", None, (-0.9, 3.0), True),
        ("not lower", None, (-1.0, 3.0), False),
        ("not lower", 2.0, (-1.9, -0.5), True),  # surely lower, but by less than is allowed
        ("not lower", 0.0, (-0.1, 3.0), False),
    ],
)
def test_the_rule(
    expect: str, margin: float | None, interval: tuple[float, float], held: bool
) -> None:
    assert claim(expect, margin=margin).held(Gain(sum(interval) / 2, Interval(*interval))) is held


@pytest.mark.parametrize(("evaluation", "column"), [("pairs", "all"), ("regions", "box_top1")])
def test_verdicts(folders: tuple[Path, Path], evaluation: str, column: str) -> None:
    """The numbers are those of the paired bootstrap of the stored evidence."""
    higher, lower, same = verdicts(
        folders,
        claim("higher", column),
        claim("lower", column),
        claim("not lower", column, row="same", margin=50.0),
    )
    assert [verdict.state for verdict in (higher, lower, same)] == ["held", "not held", "held"]
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
    assert [verdict.state for verdict in judged] == ["held (stale)", "held"]


def write(path: Path, *claims: dict[str, object]) -> Path:
    path.write_text(yaml.safe_dump(list(claims)))
    return path


def test_reading(tmp_path: Path) -> None:
    full = {**CLAIM, "column": "same_mask", "expect": "not lower"}
    path = write(tmp_path / "claims.yaml", full, {**full, "margin": 0.5}, {**full, "margin": 2})
    claims = read_claims(path, TRACKS)
    assert [claim.expected for claim in claims] == ["above -1", "above -0.5", "above -2"]
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
        ({"margin": 1.0}, "only 'not lower' has one"),
        ({"margin": -1.0, "expect": "not lower"}, "0 or more"),
        ({"than": "b"}, "row and than are both b"),
    ],
)
def test_a_wrong_claim_is_one_line(
    folders: tuple[Path, Path], change: dict[str, object], message: str
) -> None:
    good: dict[str, object] = {**CLAIM, "column": "all", "expect": "higher"}
    write(folders[0] / "claims.yaml", good, {**good, **change})
    with pytest.raises(SpatialbenchError, match=message) as error:
        readme(*folders)
    assert str(error.value).startswith(str(folders[0] / "claims.yaml"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["- claim: [", "claim: 1", "- 3"])
def test_a_wrong_file_is_one_line(folders: tuple[Path, Path], text: str) -> None:
    (folders[0] / "claims.yaml").write_text(text)
    message = r"claims\.yaml: .*see the head of results/claims\.yaml"
    with pytest.raises(SpatialbenchError, match=message) as error:
        readme(*folders)
    assert "\n" not in str(error.value)


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
    start = lines.index("| claim | paper | comparison | expected | difference | verdict |")
    shown = [line.strip("|").replace("\\|", "/") for line in lines[start + 2 : start + 5]]
    first, second, third = ([cell.strip() for cell in line.split("|")] for line in shown)
    texts = ["B is / better, they say.", "Someone 2024", "b - a, Same-mask AUC", "above 0"]
    assert first[:4] == texts
    assert first[4].startswith("**+")
    assert (first[5], second[5]) == ("held", "not held")
    assert third[2:] == ["r_sc_rla - a, All", "above -0.5", "–", "no row yet"]


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
