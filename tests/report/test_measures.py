"""Tables of the measures: the forms, the numbers in them, what is refused, and the section of results/README.md."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from spatialbench.cli.commands import RUN
from spatialbench.evaluation.measures import SELECTION, TITLES, MeasureResampler, Measures
from spatialbench.report.differences import stream
from spatialbench.report.measures import measures_table, print_measures
from spatialbench.report.readme import readme
from spatialbench.results.files import read_measures, read_result
from spatialbench.utils.errors import SpatialbenchError
from tests.support import fakes

NAMES = ["box_top1", "same_mask", "image_r1"]
BY_NAME = (stream("b"), stream("a"))
"""How the rows b and a draw their seeds."""


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Rows a (at 0.5), b (better), c (one seed, at 0.5) with measures, and plain without."""
    benchmarks = fakes.benchmarks(tmp_path / "benchmarks", "a", "b", "c", "plain")
    results = tmp_path / "results"
    fakes.store(results, "a", benchmarks, fakes.measures_of("a"))
    fakes.store(results, "b", benchmarks, fakes.measures_of("b", level=0.8))
    fakes.store(results, "c", benchmarks, fakes.measures_of("c", seeds=(0,)), seeds=(0,))
    fakes.store(results, "plain", benchmarks)
    return results, benchmarks


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def after(text: str, title: str) -> list[str]:
    """The lines of the first table below a line."""
    lines = text.splitlines()
    rest = lines[lines.index(title) :]
    start = next(number for number, line in enumerate(rest) if line.startswith("|"))
    stop = next(
        (n for n, line in enumerate(rest[start:], start) if not line.startswith("|")), len(rest)
    )
    return rest[start:stop]


def test_json_has_the_exact_form(folders: tuple[Path, Path]) -> None:
    rows = json.loads(measures_table(*folders, format="json"))
    assert [row["name"] for row in rows] == ["a", "b", "c", "plain"]
    for row in rows:
        assert list(row) == ["name", "measures", "seeds", "pictures"]
    assert rows[0]["seeds"] == [0, 1, 2]
    assert rows[0]["pictures"] == 60
    assert list(rows[0]["measures"]) == NAMES
    measures = fakes.measures_of("a")
    for name in NAMES:
        found = rows[0]["measures"][name]
        assert list(found) == ["value", "interval"]
        assert found["value"] == pytest.approx(measures.values()[name], abs=1e-4)
        interval = MeasureResampler(measures.scenes).interval(measures.ratios[name])
        assert found["interval"] == pytest.approx(list(interval), abs=1e-3)
    assert rows[3] == {"name": "plain", "measures": {}, "seeds": [0, 1, 2], "pictures": None}


def test_markdown_cells(folders: tuple[Path, Path]) -> None:
    lines = measures_table(*folders, format="md").splitlines()
    assert lines[0] == "| | Boxes top-1 | Same-mask AUC | Image R@1 | seeds | pictures |"
    seeds = [fakes.run_measures(1000 * seed + ord("a")).values()["box_top1"] for seed in range(3)]
    assert cells(lines[2]) == [
        "a",
        f"{np.mean(seeds):.1f} ± {np.std(seeds, ddof=1):.1f}",
        *cells(lines[2])[2:4],
        "3",
        "60",
    ]
    assert "±" not in lines[4]  # one seed has no spread
    assert cells(lines[5]) == ["plain", *["–"] * 5]
    assert all(line.count("|") == lines[0].count("|") for line in lines[:6])
    assert lines[-1] == f"Measured on data {'d' * 16}, 60 pictures."


def test_csv_reads_back(folders: tuple[Path, Path]) -> None:
    rows = list(csv.DictReader(io.StringIO(measures_table(*folders, format="csv"))))
    assert list(rows[0])[:5] == [
        "name",
        "box_top1",
        "box_top1_spread",
        "box_top1_low",
        "box_top1_high",
    ]
    assert {name for name in TITLES if name in rows[0]} == set(TITLES) - set(SELECTION)
    measures = read_result(folders[0] / "rooms/b.json").measures
    assert measures is not None
    assert float(rows[1]["same_mask"]) == measures.value["same_mask"]
    assert float(rows[1]["same_mask_high"]) == measures.interval["same_mask"][1]
    spread = np.std(fakes.measures_of("b", level=0.8).seed_values("same_mask"), ddof=1)
    assert float(rows[1]["same_mask_spread"]) == pytest.approx(spread, abs=1e-4)
    assert (rows[2]["box_top1_spread"], rows[1]["cluster"], rows[3]["box_top1"]) == ("", "", "")
    assert (rows[0]["seeds"], rows[0]["pictures"], rows[3]["pictures"]) == ("0 1 2", "60", "")


def test_text_for_a_terminal(folders: tuple[Path, Path]) -> None:
    text = measures_table(*folders)
    assert "rooms, budget full: measures in %" in text
    value = fakes.measures_of("b", level=0.8).values()["box_top1"]
    assert re.search(rf"│ b +│ {value:.1f} ± ", text)
    assert re.search(r"│ plain +│ +– │", text)


def test_every_measure_fits_beside_its_spread(tmp_path: Path) -> None:
    benchmarks, rng = (
        fakes.benchmarks(tmp_path / "benchmarks", "spatial_attn_no_negatives"),
        np.random.default_rng(0),
    )
    runs = [
        Measures.of(
            [f"room {i}" for i in range(20)],
            {name: (rng.random(20), np.ones(20)) for name in TITLES},
            "x",
        )
        for _ in range(2)
    ]
    fakes.store(
        tmp_path / "results",
        "spatial_attn_no_negatives",
        benchmarks,
        Measures.join(runs),
        seeds=(0, 1),
    )
    text = measures_table(tmp_path / "results", benchmarks)
    assert "…" not in text
    assert text.count(" ± ") == len(TITLES)


def test_stale_rows_are_marked(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (folders[1] / "a.yaml").write_text(fakes.page_text("  init_args: {width: 2}\n"))
    text = measures_table(*folders, format="md")
    assert "| a (stale) |" in text
    assert "a is stale: page a changed; spatialbench run" in text
    assert len(json.loads(measures_table(*folders, format="json"))) == 4
    assert "a is stale: page a changed" in capsys.readouterr().err


def test_refusals(folders: tuple[Path, Path]) -> None:
    results, benchmarks = folders
    with pytest.raises(SpatialbenchError, match="unknown format 'xml'"):
        measures_table(*folders, format="xml")
    with pytest.raises(SpatialbenchError, match="no rows of track embspatial"):
        measures_table(*folders, track="embspatial")
    fakes.store(results, "plain", benchmarks, budget="smoke")
    with pytest.raises(
        SpatialbenchError, match=r"no row of track rooms at budget smoke .* has measures: "
    ):
        measures_table(*folders, budget="smoke")
    (results / "rooms/b.measures.npz").write_bytes(b"x")
    with pytest.raises(SpatialbenchError, match=r"b\.measures\.npz"):
        measures_table(*folders)


def test_rows_measured_on_other_data_are_not_compared(folders: tuple[Path, Path]) -> None:
    fakes.store(folders[0], "c", folders[1], fakes.measures_of("c", data="e" * 16))
    message = rf"c measured on other data \({'e' * 16}\) than a \({'d' * 16}\) cannot share a table"
    for use in (lambda: measures_table(*folders), lambda: readme(*folders)):
        with pytest.raises(SpatialbenchError, match=message):
            use()


def test_the_same_hash_of_other_pictures_is_refused(folders: tuple[Path, Path]) -> None:
    other = fakes.measures_of("c")
    renamed = Measures(other.scenes[::-1].copy(), other.ratios, other.data)
    fakes.store(folders[0], "c", folders[1], renamed)
    with pytest.raises(
        SpatialbenchError, match="measures of c and a have the same hash of data but not the same"
    ):
        measures_table(*folders)


def test_the_command(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--results", str(folders[0]), "--benchmarks", str(folders[1])]
    for format in ("text", "md", "json", "csv"):
        assert RUN["table"](["--measures", "--format", format, *where]) == 0
        assert capsys.readouterr().out == measures_table(*folders, format=format)
    with pytest.raises(
        SpatialbenchError, match="--reported has no numbers to set beside --measures"
    ):
        RUN["table"](["--measures", "--reported", *where])


def test_print_measures_fits_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    measures = fakes.run_measures(0)
    print_measures("a (rooms)", measures)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("a (rooms)")
    assert max(map(len, lines)) <= 100
    bounds = MeasureResampler(measures.scenes).interval(measures.ratios["same_mask"])
    line = next(line for line in lines if "Same-mask AUC" in line)
    numbers = [measures.values()["same_mask"], *bounds]
    assert re.findall(r"\d+\.\d", line) == [f"{number:.1f}" for number in numbers]
    assert sum(title in line for line in lines for title in TITLES.values()) == 3
    assert lines[-1] == f"60 pictures of 30 scenes, data {'d' * 16}"


# -------------------------------------------------------------------------------------------------------- README.md


def test_the_section_stands_after_the_differences_on_all(folders: tuple[Path, Path]) -> None:
    titles = [line for line in readme(*folders).splitlines() if line.startswith("### ")]
    place = titles.index("### Regions, dense quality, retrieval")
    assert titles[place - 1] == "### Paired differences on All"
    assert titles[place + 1] == "### Cost"


def test_no_section_without_measures(folders: tuple[Path, Path]) -> None:
    for name in ("a", "b", "c"):
        fakes.store(folders[0], name, folders[1])
    assert "Regions, dense quality" not in readme(*folders)


def test_the_sections_tables(folders: tuple[Path, Path]) -> None:
    text = readme(*folders)
    values = after(text, "### Regions, dense quality, retrieval")
    assert values == measures_table(*folders, format="md").splitlines()[:6]
    intervals = after(text, "95 % intervals:")
    stored = read_result(folders[0] / "rooms/b.json").measures
    assert stored is not None
    assert cells(intervals[3]) == [
        "b",
        *("{:.1f} to {:.1f}".format(*stored.interval[name]) for name in NAMES),
    ]
    assert [cells(line)[0] for line in intervals[2:]] == ["a", "b", "c"]


def test_differences_minus_the_first_row_with_measures(folders: tuple[Path, Path]) -> None:
    """Bold where the interval excludes 0: box_top1 of b, 0.8 against 0.5; not that of c, at 0.5 too."""
    table = after(readme(*folders), "Paired differences:")
    assert cells(table[0]) == ["minus a", "Boxes top-1", "Same-mask AUC", "Image R@1"]
    assert [cells(line)[0] for line in table[2:]] == ["b", "c"]
    a, b = fakes.measures_of("a"), fakes.measures_of("b", level=0.8)
    gain = b.values()["box_top1"] - a.values()["box_top1"]
    bold = re.fullmatch(r"\*\*\+(\d+\.\d) \(\+(\d+\.\d) to \+(\d+\.\d)\)\*\*", cells(table[2])[1])
    assert bold is not None
    assert float(bold[1]) == pytest.approx(gain, abs=0.051)
    _, interval = MeasureResampler(a.scenes).difference(
        b.ratios["box_top1"], a.ratios["box_top1"], BY_NAME
    )
    assert [float(bold[2]), float(bold[3])] == pytest.approx(list(interval), abs=0.051)
    assert re.fullmatch(r"[+-]\d\.\d \(-\d+\.\d to \+\d+\.\d\)", cells(table[3])[1])


def test_a_measure_that_one_row_lacks_is_a_dash(folders: tuple[Path, Path]) -> None:
    fewer = fakes.measures_of("c")
    fakes.store(
        folders[0],
        "c",
        folders[1],
        Measures(fewer.scenes, {"same_mask": fewer.ratios["same_mask"]}, fewer.data),
    )
    text = readme(*folders)
    for title in (
        "### Regions, dense quality, retrieval",
        "95 % intervals:",
        "Paired differences:",
    ):
        line = next(line for line in after(text, title) if cells(line)[0] == "c")
        assert cells(line)[1] == "–"
        assert cells(line)[2] != "–"


def test_one_row_with_measures_has_no_differences(folders: tuple[Path, Path]) -> None:
    for name in ("a", "c"):
        fakes.store(folders[0], name, folders[1])
    text = readme(*folders)
    assert "95 % intervals:" in text
    assert "Paired differences:" not in text
    assert (
        read_measures(folders[0] / "rooms/b.json", read_result(folders[0] / "rooms/b.json"))
        is not None
    )
