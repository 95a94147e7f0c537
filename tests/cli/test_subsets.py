"""Subsets by hand: which record is in which, and what a row is worth there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spatialbench.cli import subsets as command
from spatialbench.cli.main import main
from spatialbench.data.records import Box, Record, RecordSet
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation import subsets as facts
from spatialbench.evaluation.outcomes import RunOutcomes
from spatialbench.evaluation.subsets import Fact
from spatialbench.report.stored_rows import Row
from spatialbench.report.subsets import subsets_table
from spatialbench.results.files import ResultOutcomes
from spatialbench.utils.errors import SpatialbenchError
from tests.support import fakes


def record(
    number: int, relation: str, a: Box, b: Box, names: tuple[str, str] = ("sofa", "lamp")
) -> Record:
    first, second = names
    return Record(
        f"r{number}",
        number,
        first,
        relation,
        second,
        {first: a, second: b},
        (100, 100),
        "x",
        f"s{number}",
    )


# ------------------------------------------------------------------------------------------------------------ the table
def made_rows(folder: Path) -> tuple[list[Row], RecordSet]:
    """Two rows on six records of each relation: ``a`` right on the first half of the records, ``b`` on all."""
    folder = fakes.benchmarks(folder, "a", "b")
    base = fakes.run_outcomes(0, per_relation=10)
    n = len(base.record_ids)
    first = np.arange(n) < n // 2
    rows = []
    for name, right in (("a", first), ("b", np.ones(n, bool))):
        run = RunOutcomes(
            base.record_ids,
            base.relation,
            base.cluster,
            right.astype(np.float32),
            np.full(n, 0.5, np.float32),
        )
        rows.append(Row(fakes.result_of(name, folder, [run]), ResultOutcomes.join([run]), []))
    box = Box(0, 0, 1, 1)
    records = [
        replace(record(k, RELATIONS[k % 6], box, box), record_id=str(key))
        for k, key in enumerate(base.record_ids)
    ]
    return rows, RecordSet(
        "made up", np.zeros((1, 4, 4, 3), np.uint8), records[::-1], "f"
    )  # in another order


def test_rows_in_subsets_by_hand(tmp_path: Path) -> None:
    rows, record_set = made_rows(tmp_path)
    n = len(record_set.records)
    labels = np.where(np.arange(n) < n // 2, "last", "first")  # of the reversed records
    some = Fact("half", "which half", ("first", "last", "none"), labels)
    missing = Fact("depth ratio", "about", absent="known of the rooms as rendered only")
    found = json.loads(subsets_table(rows, record_set, [some, missing], than="a", format="json"))
    assert [(each["subset"], each["n"]) for each in found] == [
        ("first", n // 2),
        ("last", n // 2),
        ("none", 0),
    ]
    by_row = [[row["accuracy"] for row in each["rows"]] for each in found]
    assert by_row == [[100, 100], [0, 100], []]
    assert found[1]["rows"][1]["difference"] == 100
    assert found[1]["rows"][0]["difference"] is None
    text = subsets_table(rows, record_set, [some, missing], ["b"], "a", "md")
    assert "| b | 100.0 (100.0 to 100.0) | **100.0 (100.0 to 100.0), +100.0** | – |" in text
    assert "depth ratio (about): not of these records, known of the rooms as rendered only." in text
    lines = subsets_table(rows, record_set, [some], than="a", format="csv").splitlines()
    assert lines[0].startswith("fact,subset,n,name,accuracy,low,high,than")
    assert len(lines) == 5


def test_few_records_are_not_emphasised(tmp_path: Path) -> None:
    rows, record_set = made_rows(tmp_path)
    labels = np.full(len(record_set.records), "")
    labels = np.where(np.arange(len(labels)) < 29, "few", labels)
    assert "**" not in subsets_table(
        rows, record_set, [Fact("x", "y", ("few",), labels)], than="a", format="md"
    )


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    rows, record_set = made_rows(tmp_path)
    with pytest.raises(SpatialbenchError, match="no stored row 'c'"):
        subsets_table(rows, record_set, [], ["c"])
    other = replace(record_set, records=record_set.records[1:])
    with pytest.raises(SpatialbenchError, match="scored on other records than made up has today"):
        subsets_table(rows, other, [])


def test_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line, on records of a folder of rows."""
    rows, record_set = made_rows(tmp_path / "benchmarks")
    for name in ("a", "b"):
        fakes.store(tmp_path / "results", name, tmp_path / "benchmarks")
    ids = rows[0].outcomes.record_ids
    n = 6 * 20
    records = [
        replace(record_set.records[0], record_id=f"rooms-test-{k:05d}", relation=RELATIONS[k % 6])
        for k in range(n)
    ]
    assert set(ids) <= {each.record_id for each in records}
    monkeypatch.setattr(
        command, "test_set", lambda resolved: (replace(record_set, records=records), 8)
    )
    monkeypatch.setattr(command, "trained_on", lambda resolved: (None, "not rendered here"))
    folders = ["--results", str(tmp_path / "results"), "--benchmarks", str(tmp_path / "benchmarks")]
    assert main(["subsets", "a", *folders]) == 0
    text = capsys.readouterr().out
    assert "size: accuracy in %" in text
    assert "training pairs (records of training" in text
    assert "not of these records, not rendered here." in text
    monkeypatch.setattr(
        command, "test_set", lambda resolved: pytest.fail("minutes of facts before a misspelt name")
    )
    assert main(["subsets", "q", *folders]) == 2
