"""The audit's table: effects by hand, recounts, and what is missing or stale."""

from pathlib import Path

import numpy as np
import pytest

from spatialbench.config.flaws import PAGES, Recount
from spatialbench.data.records import Record, RecordSet
from spatialbench.data.splits import whole_batches
from spatialbench.evaluation.evidence import Evidence
from spatialbench.report.audit_table import Audit, audit_table, counted, section
from spatialbench.report.differences import stream
from spatialbench.results.files import AUDIT, result_path
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError
from tests.support import fakes

SHIFTS = {("none", 0): 0.3, ("none", 1): 0.6, ("worse", 0): 0.0, ("worse", 1): 0.1, ("vfm", 1): 0.4}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Store an audit at budget quick, two seeds, and answers that differ by row."""
    benchmarks = fakes.audited(tmp_path / "benchmarks")
    for (flaw, page), shift in SHIFTS.items():
        store(tmp_path / "results", benchmarks, flaw, PAGES[page], shift)
    return tmp_path / "results", benchmarks


def store(
    results: Path, benchmarks: Path, flaw: str, page: str, shift: float, seeds: tuple = (0, 1)
) -> None:
    evidence = fakes.seeds_of("pairs", flaw + page, seeds, shift=shift)
    kind = {"budget": "quick", "track": f"rooms+{flaw}", "seeds": seeds, "pairs": evidence}
    fakes.store(results / AUDIT, page, benchmarks, **kind)


def pairs(folders: tuple[Path, Path], flaw: str, page: str) -> Evidence:
    path = result_path(folders[0] / AUDIT, f"rooms+{flaw}", "quick", page)
    return Today.read(folders[1], audit=True).read_row(path).pairs


def line(folders: tuple[Path, Path], name: str, column: str = "all") -> dict:
    records = audit_table(*folders, "rooms", "quick").records
    return dict(next(r for r in records if (r["name"], r["column"]) == (name, column)))


def test_an_effect_is_the_paired_difference_to_none(folders: tuple[Path, Path]) -> None:
    values = {}
    for page in PAGES:
        plain, worse = (pairs(folders, flaw, page) for flaw in ("none", "worse"))
        ratios = worse.ratios["all"], plain.ratios["all"]
        points, interval = plain.resampler.difference(*ratios, (stream(page), stream(page)))
        values[page] = plain.resampler.samples(ratios[0], stream(page))
        values[page] -= plain.resampler.samples(ratios[1], stream(page))
        found = line(folders, "worse")
        assert found[page] == pytest.approx(points, abs=1e-4)
        assert interval is not None
        assert (found[f"{page}_low"], found[f"{page}_high"]) == pytest.approx(interval, abs=1e-3)
    found = line(folders, "worse")
    assert found["gain"] == pytest.approx(found[PAGES[1]] - found[PAGES[0]], abs=2e-4)
    low, high = np.percentile(values[PAGES[1]] - values[PAGES[0]], [2.5, 97.5])
    assert (found["gain_low"], found["gain_high"]) == pytest.approx((low, high), abs=1e-3)


def test_the_first_line_has_accuracies_and_their_difference(folders: tuple[Path, Path]) -> None:
    plain = [pairs(folders, "none", page) for page in PAGES]
    found = line(folders, "none", "side")
    for page, evidence in zip(PAGES, plain, strict=True):
        sides = evidence.only(np.isin(evidence.known_margins.group, ["left", "right"]))
        assert found[page] == pytest.approx(sides.values()["all"], abs=1e-4)
    assert found["gain"] == pytest.approx(found[PAGES[1]] - found[PAGES[0]], abs=2e-4)
    text = audit_table(*folders, "rooms", "quick").write("md")
    assert f"| none | All | {plain[0].values()['all']:.1f} (" in text


def test_a_page_that_a_flaw_does_not_change_has_no_effect(folders: tuple[Path, Path]) -> None:
    found = line(folders, "vfm")
    assert (found[PAGES[0]], found[f"{PAGES[0]}_low"], found[f"{PAGES[0]}_high"]) == (0, 0, 0)
    assert found["gain"] == found[PAGES[1]] != 0
    assert "| vfm | All | 0 | " in audit_table(*folders, "rooms", "quick").write("md")


def test_ties_are_wrong_and_incomplete_batches_left_out() -> None:
    relation = np.array(["left"] * 5 + ["far"] * 3)
    evidence = fakes.answered(fakes.pairs(0), np.ones(120))
    evidence = evidence.only(np.arange(8))
    evidence = fakes.answered(evidence, np.array([1, 0, -1, 1, 1, 0, 1, 1]))
    margins = evidence.known_margins._replace(group=relation)
    evidence = Evidence(evidence.clusters, {}, "d", margins=margins)
    both = ("left", "far")
    assert counted(evidence, Recount(), both).seeds == pytest.approx(100 * 6 / 8)
    assert counted(evidence, Recount(ties_wrong=True), both).seeds == pytest.approx(100 * 5 / 8)
    assert counted(evidence, Recount(drop_last=2), both).seeds == pytest.approx(100 * 4 / 6)
    assert counted(evidence, Recount(True, 2), ("left",)).seeds == pytest.approx(50)
    records = [Record(f"{k}", 0, "a", name, "b") for k, name in enumerate(relation.tolist())]
    kept = whole_batches(RecordSet("", np.zeros((1, 2, 2, 3)), records, ""), 2).records
    mask = counted(evidence, Recount(drop_last=2), both).denominator[0, :, 0]
    assert [record.record_id for record in kept] == [str(k) for k in np.flatnonzero(mask)]


def test_what_is_not_made_yet_is_a_dash(folders: tuple[Path, Path]) -> None:
    results, benchmarks = folders
    store(results, benchmarks, "worse", PAGES[1], 0.1, seeds=(0, 1, 2))  # of more seeds than none
    found = line(folders, "worse")
    assert (found[PAGES[1]], found["gain"]) == (None, None)
    assert found[PAGES[0]] is not None
    text = audit_table(*folders, "rooms", "quick").write("md")
    command = "spatialbench audit --track rooms --budget quick --seeds 0,1"
    assert f"A dash: not made yet; {command}\n" in text
    result_path(results / AUDIT, "rooms+none", "quick", PAGES[0]).unlink()
    assert Audit.read(results, benchmarks, "rooms", "quick") is None
    message = "no audit of rooms at budget quick in .*: spatialbench audit --track rooms"
    with pytest.raises(SpatialbenchError, match=message):
        audit_table(*folders, "rooms", "quick")


def test_a_changed_flaw_is_stale_alone(folders: tuple[Path, Path]) -> None:
    fakes.audited(folders[1], fakes.FLAWS.replace("width: 2", "width: 5"))
    text = audit_table(*folders, "rooms", "quick").write("md")
    assert text.count("(stale)") == 2, "of both columns"
    assert "| worse (stale) | All |" in text


def test_results_readme_has_a_section_where_there_is_an_audit(folders: tuple[Path, Path]) -> None:
    lines = section(*folders, "rooms")
    assert lines[0] == "### Audit of the poster, budget quick"
    assert any(text.startswith("| worse | left, right |") for text in lines)
    assert section(*folders, "other") == section(folders[1], folders[1], "rooms") == []
