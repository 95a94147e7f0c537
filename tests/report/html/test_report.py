"""The report: its sections, that nothing in it can run, that it is the same every time."""

import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spatialbench.cli.main import main
from spatialbench.report.compare import compare_all
from spatialbench.report.differences import Differences
from spatialbench.report.html import figures, record_browser, tables
from spatialbench.report.html.inputs import ReportInputs
from spatialbench.report.html.page import html
from tests.support import fakes
from tests.support import report as made

SECTIONS = [
    *("table", "other", "relations", "curves", "cost", "forgetting"),
    *("agreement-section", "verdicts", "records", "relevance", "origin"),
]


@pytest.fixture(autouse=True)
def place(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(cache))
    monkeypatch.delenv("SPATIALBENCH_DEBUG", raising=False)


class Outline(HTMLParser):
    """Open elements, ids, elements with their attributes, and the text of every section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self._section = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"] or ""] if "id" in attributes else []
        if tag == "section":
            self._section = attributes["id"] or ""
        if tag not in ("meta", "input", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._section:
            self.text[self._section] = self.text.get(self._section, "") + data

    def values(self, attribute: str) -> list[str]:
        return [a[attribute] or "" for _, a in self.tags if attribute in a]


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    return Outline(page)


def test_sections_ids_and_elements(outline: Outline) -> None:
    assert outline.open == []
    assert [a["id"] for name, a in outline.tags if name == "section"] == SECTIONS
    assert len(outline.ids) == len(set(outline.ids))
    assert [a["href"] for n, a in outline.tags if n == "a"] == [f"#{s}" for s in SECTIONS]
    labels = [a.get("aria-label") for name, a in outline.tags if name == "svg"]
    assert len(labels) > 15
    assert all(labels), "every figure says its numbers to a screen reader"


def test_nothing_is_asked_for_and_only_our_script_runs(page: str, outline: Outline) -> None:
    for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
        assert all(v.startswith(("data:image/jpeg;base64,", "#")) for v in outline.values(name))
    names = {name for _, attributes in outline.tags for name in attributes}
    assert not any(name.startswith("on") or name == "style" for name in names)
    (style,) = re.findall(r"<style[^>]*>(.*?)</style>", page, re.S)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert not re.search(r"url\(|@import", style)
    (policy,) = [a["content"] or "" for _, a in outline.tags if "http-equiv" in a]
    for kind, text in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not re.search(r"#0000\d\d", page), "figures follow the colours of the page"
    unsafe = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\("
    assert not re.search(unsafe, script)


def test_hostile_texts_are_texts(page: str, outline: Outline) -> None:
    assert "<img src=x" not in page
    assert made.EVIL in outline.text["origin"]
    assert f"b is better {made.EVIL}" in outline.text["verdicts"]
    assert "Someone <i>2024</i>" in outline.text["table"]


def test_the_table_and_other_measures(inputs: ReportInputs, outline: Outline) -> None:
    assert inputs.names[0] == "b", "the papers' order"
    row = inputs.rows[0]
    mean, deviation = row.result.pairs.value["all"], row.pairs.spread("all")
    low, high = row.result.pairs.interval["all"] or (0, 0)
    shown = f"{mean:.1f} ± {deviation:.1f}{low:.1f} to {high:.1f}"
    assert all(part in outline.text["table"] for part in (shown, "71.5", "Smallest paired gain"))
    tip = f"95 % interval {low:.1f} to {high:.1f}, 2 seeds"
    assert any(tip in title for title in outline.values("title"))
    assert str(mean) in outline.values("data-value"), "sorted by the number"
    assert "Same‑mask AUC" in outline.text["other"]
    assert "Not evaluated: a, zeroshot." in outline.text["other"]


def test_missing_parts_are_named(outline: Outline) -> None:
    assert "a: no curve is kept, and its run folder is gone (" in outline.text["curves"]
    assert "b: training loss, 1 of 2 seeds" in outline.text["curves"]
    assert "b: no curve" not in outline.text["curves"]
    assert "3 of 4 rows without a curve" in outline.text["curves"]
    assert "Without Image R@1: a." in outline.text["forgetting"]
    assert "3 of 4 rows without a map" in outline.text["relevance"]
    assert "a: no checkpoint in" in outline.text["relevance"]
    titles = re.findall(r"zeroshot, (attention|relevance)\n", outline.text["relevance"])
    assert titles == ["attention", "relevance"] * 6, "its weights are those it starts from"


def test_provenance(inputs: ReportInputs, outline: Outline) -> None:
    text, result = outline.text["origin"], inputs.rows[0].result
    assert f"spatialbench run {result.page} --track rooms --budget full --seeds 0,1 --force" in text
    facts = result.page_hash, result.track_hash, result.pairs.data, result.pairs.sha256, "a" * 40
    assert all(word in text for word in facts)


def test_verdicts_are_those_of_compare(folders: tuple[Path, Path], inputs: ReportInputs) -> None:
    matrices = tables.verdict_matrices(inputs)
    assert next(iter(matrices)) == "all"
    for column in ("all", "left"):
        shown = {
            (row, other): cell
            for row, line in zip(inputs.names, matrices[column].lines, strict=True)
            for other, cell in zip(inputs.names, line.cells[1:], strict=True)
        }
        for pair in json.loads(compare_all(*folders, format="json", column=column)):
            there, back = shown[pair["a"], pair["b"]], shown[pair["b"], pair["a"]]
            assert there.value == pytest.approx(pair["difference"], abs=1e-3)
            assert back.value == -there.value
            assert f": {pair['verdict']}" in there.tip
            kinds = {"better": "worse", "worse": "better", "same": "same"}
            assert back.kind == kinds[there.kind]


def test_the_sample(inputs: ReportInputs, page: str) -> None:
    pattern = r'<script type="application/json" id="records-data">(.*?)</script>'
    data = json.loads(re.findall(pattern, page, re.S)[0])
    assert data["rows"] == inputs.names
    assert len(data["records"]) == 24
    kinds = [record["kind"] for record in data["records"][:4]]
    assert kinds == ["disagreement", "disagreement", "hardest", "easiest"]
    answers = inputs.rows[0].margins
    places = {str(name): k for k, name in enumerate(answers.units)}
    margins = answers.values[""]
    assert inputs.names[0] == "b"
    for record in data["records"]:
        shown = record["margins"][data["rows"].index("b")]
        assert shown == pytest.approx(margins[:, places[record["id"]]], rel=1e-2)
        assert record["picture"].startswith("data:image/jpeg;base64,")
        subject, object_ = (box[0] for box in record["boxes"])
        assert record["caption"].lower().startswith(f"the {subject} is")
        assert record["caption"].endswith(f" {object_}.")


def test_the_sample_sets_any_two_rows_apart() -> None:
    """Count by hand: the first record sets two pairs of rows apart, the second repeats one."""
    right = np.array([[1, 1, 1, 0.5], [1, 1, 0, 0.5], [0, 0, 0, 0.5]])
    apart = np.zeros((3, 3))
    taken = record_browser._set_apart(right, np.arange(4), 4, apart)
    assert taken == [0, 2, 1, 3]  # 2, then 1 + 1/4, then 1/16 + 1/4, then 0
    assert apart.tolist() == [[0, 1, 3], [0, 0, 2], [0, 0, 0]]


@pytest.mark.slow
def test_rows_alone(tmp_path: Path) -> None:
    """One row: no measures, no papers, no claims, no records, no runs."""
    benchmarks = fakes.benchmarks(tmp_path / "benchmarks", "a")
    fakes.store(tmp_path / "results", "a", benchmarks, seeds=(0,))
    inputs = made.read((tmp_path / "results", benchmarks), tmp_path / "runs")
    outline = Outline(html(inputs, "the file gone.json is missing", {}))
    assert outline.open == []
    assert "other" not in outline.text
    assert "Fewer than two rows" in outline.text["forgetting"]
    assert "One row: nothing to compare." in outline.text["verdicts"]
    assert "No images: the file gone.json is missing" in outline.text["records"]
    assert "records-data" not in outline.ids


def test_a_measure_that_some_rows_have(inputs: ReportInputs) -> None:
    """Its column stays, with a dash for the others; a row without is named, not drawn at 0."""

    def without(values: Any) -> Any:
        return {name: value for name, value in values.items() if name != "image_r1"}

    rows = {row.name: row for row in inputs.rows}
    stored, evidence = rows["c"].result.evaluations["regions"], rows["c"].evidence["regions"]
    parts = {name: without(getattr(stored, name)) for name in ("value", "interval", "by_seed")}
    evaluations = {**rows["c"].result.evaluations, "regions": replace(stored, **parts)}
    cut = {**rows["c"].evidence, "regions": replace(evidence, ratios=without(evidence.ratios))}
    result = replace(rows["c"].result, evaluations=evaluations)
    rows["c"] = replace(rows["c"], result=result, evidence=cut)
    few = replace(inputs, rows=[*rows.values()], differences=Differences([*rows.values()]))
    table = tables.evaluation_table(few, "regions")
    (line,) = [line for line in table.lines if line.cells[0].shown == "c"]
    assert line.cells[list(table.header).index("Image R@1")].shown == "–"
    drawn, notes = figures.forgetting(few) or ([], [])
    assert "Without Image R@1: a, c." in notes
    (drawing,) = [drawing for drawing in drawn if drawing.title.startswith("Image R@1")]
    assert [text.split()[1] for text in drawing.numbers] == ["zeroshot:"]


def test_training_counts_the_stages_before_it(inputs: ReportInputs) -> None:
    b, a = inputs.rows[0], next(row for row in inputs.rows if row.name == "a")
    own, other = (figures.seconds(row, "train") / 60 for row in (b, a))
    assert figures.training_minutes(inputs, b) == (own, "")
    later = replace(b, result=replace(b.result, init_from={"a": "0" * 16, "gone": "0" * 16}))
    minutes, words = figures.training_minutes(inputs, later)
    assert minutes == pytest.approx(own + other)
    assert "of a; not counted: gone" in words


@pytest.mark.slow
def test_the_command(
    folders: tuple[Path, Path], page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Writes the same bytes as before, says what it cannot show, and makes mistakes one line."""
    where = ["--results", str(folders[0]), "--benchmarks", str(folders[1])]
    runs, out = str(folders[0].parent / "runs"), tmp_path / "deep" / "report.html"
    assert main(["report", "--out", str(out), *where, "--runs", runs, "--records", "4"]) == 0
    assert capsys.readouterr().out == f"{out}: {out.stat().st_size / 1e6:.1f} MB\n"
    assert out.read_text() == page
    assert main(["report", "--out", str(out), *where, "--records", "1", "--no-maps"]) == 0
    assert "Relevance" not in out.read_text()
    assert main(["report", "--out", str(out), *where, "--records", "-1"]) == 2
    assert main(["report", "--track", "none", *where]) == 2
    assert "no rows of track none" in capsys.readouterr().err
    benchmarks = shutil.copytree(folders[1], tmp_path / "benchmarks")
    data = json.loads((benchmarks / "test.json").read_text())
    (benchmarks / "test.json").write_text(json.dumps(data[:-6]))
    track = benchmarks / "tracks" / "rooms.yaml"
    track.write_text(track.read_text().replace(str(folders[1] / "test"), f"{benchmarks}/test", 1))
    where[-1] = str(benchmarks)
    assert main(["report", "--out", str(out), *where]) == 0
    outline = Outline(out.read_text())
    assert "are not those of the rows" in outline.text["records"]
    assert "a (stale)" in outline.text["table"]
    assert "a is stale: track rooms changed" in outline.text["table"]
