"""Subsets of a track's test by hand: what a row is worth in each, and the command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spatialbench.cli import subsets as command
from spatialbench.cli.main import main
from spatialbench.data.records import Box, Record, RecordSet
from spatialbench.evaluation.record_facts import Fact
from spatialbench.report.subsets import subsets_table
from spatialbench.results.files import Row
from spatialbench.utils.errors import SpatialbenchError
from tests.support import fakes

RECORDS = 120


def made_rows(folder: Path) -> tuple[list[Row], RecordSet]:
    """Two rows: ``a`` right on the first half of the records, ``b`` on all; and the records."""
    folder, base = fakes.benchmarks(folder, "a", "b"), fakes.pairs(0)
    assert base.margins is not None
    first = np.where(np.arange(RECORDS) < RECORDS // 2, 0.5, -0.5)
    answers = {"a": first, "b": np.full(RECORDS, 0.5)}
    rows = [
        fakes.row(name, folder, seeds=(0,), pairs=[fakes.answered(base, margins)])
        for name, margins in answers.items()
    ]
    boxes, size = {"sofa": Box(0, 0, 1, 1), "lamp": Box(0, 0, 1, 1)}, (100, 100)
    units = zip(base.margins.units.tolist(), base.margins.group.tolist(), strict=True)
    records = [Record(name, 0, "sofa", relation, "lamp", boxes, size) for name, relation in units]
    images = np.zeros((1, 4, 4, 3), np.uint8)
    return rows, RecordSet("made up", images, records[::-1], "f")  # in another order


def test_rows_in_subsets_by_hand(tmp_path: Path) -> None:
    rows, record_set = made_rows(tmp_path)
    n = len(record_set.records)
    labels = np.where(np.arange(n) < n // 2, "last", "first")  # of the reversed records
    some = Fact("half", "which half", ("first", "last", "none"), labels)
    missing = Fact("depth ratio", "about", absent="known of the rooms as rendered only")
    found = json.loads(subsets_table(rows, record_set, [some, missing], than="a", format="json"))
    assert [(each["subset"], each["n"], each["name"]) for each in found] == [
        *(("first", n // 2, "a"), ("first", n // 2, "b")),
        *(("last", n // 2, "a"), ("last", n // 2, "b")),
    ]
    assert [each["accuracy"] for each in found] == [100, 100, 0, 100]
    assert [each["difference"] for each in found] == [None, 0, None, 100]
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


def test_rows_of_other_records_are_refused(tmp_path: Path) -> None:
    rows, record_set = made_rows(tmp_path)
    other = replace(record_set, records=record_set.records[1:])
    with pytest.raises(SpatialbenchError, match="scored on other records than made up has today"):
        subsets_table(rows, other, [])


def test_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run from the command line, on records of a folder of rows."""
    _, record_set = made_rows(tmp_path / "benchmarks")
    for name in ("a", "b"):
        fakes.store(tmp_path / "results", name, tmp_path / "benchmarks")
    monkeypatch.setattr(command, "test_set", lambda resolved: (record_set, 8))
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
