"""``spatialbench controls``: prints, stores, and fails where a control is broken."""

from pathlib import Path

import numpy as np
import pytest

from spatialbench.cli.main import main
from spatialbench.evaluation.controls import heuristics
from spatialbench.evaluation.controls.checks import BrokenControl
from spatialbench.report.controls import below_table, controls_table, section
from spatialbench.results.files import read_row, result_path
from spatialbench.utils.errors import SpatialbenchError
from tests.support import tiny

PATH = result_path(Path("results"), "tiny", "controls", "zero")


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    folder = tiny.benchmark(tmp_path / "benchmarks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    track = folder / "tracks" / "tiny.yaml"
    track.write_text(track.read_text() + "  full: {}\n")
    page = tiny.page(folder, "zero", rest="trainer: {max_steps: 0}\n")
    return ["controls", "--config", str(page), "--track", "tiny"]


def test_controls_are_printed_and_stored(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--write"]) == 0
    text = capsys.readouterr().out
    assert "zero, swapped" in text
    assert "Not of these records: depth, no depth is known of these records." in text
    evidence = read_row(PATH).evidence["controls"]
    assert next(iter(evidence.ratios)) == "constant: close"
    assert "### Controls" in section(Path("results"), Path("benchmarks"), "tiny")
    table = controls_table("results", "benchmarks", "tiny", "md")
    assert table in below_table("results", "benchmarks", "tiny", "full", "md")
    assert below_table("results", "benchmarks", "tiny", "full", "csv") == ""
    page = Path("benchmarks/zero.yaml")
    page.write_text(page.read_text() + "seed_everything: 3\n")
    stale = controls_table("results", "benchmarks", "tiny", "md")
    assert "The controls of zero are stale: page zero changed" in stale


def test_a_broken_control_fails_the_run_and_stores_nothing(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--write"]) == 0
    capsys.readouterr()
    PATH.unlink()
    broken = heuristics.directions
    monkeypatch.setattr(heuristics, "directions", lambda records: np.abs(broken(records)))
    assert main([*arguments, "--write"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    message = "spatialbench: zero: broken control: boxes, mirrored has 100.00"
    assert printed.err.splitlines()[-1].startswith(message)
    assert not PATH.exists()
    assert main([*arguments, "--write", "--budget", "smoke"]) == 2
    assert issubclass(BrokenControl, SpatialbenchError)
