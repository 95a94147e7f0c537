"""The report without a browser: what stands in it, that nothing in it can run, that it is the same every time."""

from __future__ import annotations

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
from PIL import Image

from spatialbench.cli.main import main
from spatialbench.report.compare import compare_all, judged_pairs
from spatialbench.report.differences import Differences
from spatialbench.report.html import figures, picture, tables
from spatialbench.report.html import record_choice as sample
from spatialbench.report.html.charts import Point, Scale, lines, plane, short
from spatialbench.report.html.elements import Html, breakable, data_island, tag
from spatialbench.report.html.inputs import Material
from spatialbench.report.html.page import html
from spatialbench.results.curves import keep_curves
from tests.support import fakes
from tests.support import report as made

SECTIONS = "table beside images relations curves cost forgetting agreement-section verdicts records relevance origin"


@pytest.fixture(autouse=True)
def place(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(cache))
    monkeypatch.delenv("SPATIALBENCH_DEBUG", raising=False)


class Outline(HTMLParser):
    """Elements with an end that are open, ids, and the text of every section."""

    VOID = ("meta", "input", "img", "br", "wbr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self._section = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        self.ids += [found["id"] or ""] if "id" in found else []
        if tag == "section":
            self._section = found["id"] or ""
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._section:
            self.text[self._section] = self.text.get(self._section, "") + data


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    return Outline(page)


def records_data(page: str) -> dict:
    return json.loads(
        re.findall(r'<script type="application/json" id="records-data">(.*?)</script>', page, re.S)[
            0
        ]
    )


# ---- elements


def test_text_is_escaped_and_markup_is_not() -> None:
    assert tag("p", "<b>&", Html("<i>"), 3, None, ["a", "<"]) == "<p>&lt;b&gt;&amp;<i>3a&lt;</p>"
    assert (
        tag("p", class_="a", data_x=1.5, hidden=True, id=None)
        == '<p class="a" data-x="1.5" hidden></p>'
    )
    assert tag("p", title="\"<'") == '<p title="&quot;&lt;&#x27;"></p>'
    assert tag("br") == "<br>"
    assert breakable("a_<b") == "a_<wbr>&lt;b"


def test_an_island_cannot_be_ended_from_inside() -> None:
    text = data_island("x", {"name": f"{made.EVIL}<!-- & \u2028"})
    assert text.count("<") == 2
    assert (
        json.loads(text[text.index(">") + 1 : -len("</script>")])["name"]
        == f"{made.EVIL}<!-- & \u2028"
    )


def test_scales() -> None:
    assert Scale(40, 90, 0, 100).at(65) == 50
    assert Scale(40, 90, 0, 100).ticks() == [40, 50, 60, 70, 80, 90]
    assert Scale(-0.3, 0.3, 0, 1).ticks(3) == pytest.approx([-0.2, 0, 0.2])
    assert short(-20) == "−20"


# ---- the page


def test_sections_ids_and_elements(outline: Outline) -> None:
    assert outline.open == []
    sections = [found["id"] for name, found in outline.tags if name == "section"]
    assert sections == SECTIONS.split()
    assert len(outline.ids) == len(set(outline.ids))
    links = [found["href"] for name, found in outline.tags if name == "a"]
    assert links == [f"#{name}" for name in sections]


def test_nothing_is_asked_for_and_only_our_script_runs(page: str, outline: Outline) -> None:
    for _, found in outline.tags:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            value = found.get(name)
            assert value is None or value.startswith(("data:image/jpeg;base64,", "#"))
        assert not any(name.startswith("on") or name == "style" for name in found)
    style, (script,) = (
        re.findall(r"<style>(.*?)</style>", page, re.S),
        re.findall(r"<script>(.*?)</script>", page, re.S),
    )
    assert "url(" not in style[0]
    assert "@import" not in style[0]
    (policy,) = [found["content"] or "" for _, found in outline.tags if "http-equiv" in found]
    for kind, text in (("style-src", style[0]), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "fetch(",
        "XMLHttp",
    ):
        assert word not in script


def test_hostile_texts_are_texts(page: str, outline: Outline) -> None:
    assert "<img src=x" not in page
    assert made.EVIL in outline.text["origin"]
    assert f"b is better {made.EVIL}" in outline.text["verdicts"]
    assert "Someone <i>2024</i>" in outline.text["table"]


def test_the_table_and_what_stands_beside_it(material: Material, outline: Outline) -> None:
    result = material.rows[0].result
    assert result.name == "b", "the papers' order"
    assert f"{result.accuracy['all']:.1f} ±" in outline.text["table"]
    assert "71.5" in outline.text["table"]
    assert "Smallest paired gain" in outline.text["table"]
    assert "Same-mask AUC" in outline.text["beside"]
    assert "Without image selection: a, zeroshot." in outline.text["images"]
    assert "not held" in outline.text["verdicts"]
    tips = [found["data-tip"] or "" for _, found in outline.tags if "data-tip" in found]
    low, high = result.interval["all"] or (0, 0)
    assert any(f"95 % interval {low:.1f} to {high:.1f}, 2 seeds" in tip for tip in tips)


def test_what_is_gone_is_said(outline: Outline) -> None:
    assert "a: no curve is kept, and its run folder is gone (" in outline.text["curves"]
    assert "zeroshot: no curve is kept" in outline.text["curves"]
    assert "b: training loss" in outline.text["curves"]
    assert "b: no curve" not in outline.text["curves"]
    assert "3 of 4 rows without a curve" in outline.text["curves"]
    assert "3 of 4 rows without a map" in outline.text["relevance"]
    assert "Without Image R@1: a." in outline.text["forgetting"]
    assert "a: no checkpoint in" in outline.text["relevance"]
    assert "zeroshot: " not in outline.text["relevance"], "its weights are those it starts from"
    assert outline.text["relevance"].count("picturezeroshot, attentionzeroshot, relevance") == 6


def test_provenance(material: Material, outline: Outline) -> None:
    text, result = outline.text["origin"], material.rows[0].result
    assert f"spatialbench run {result.page} --track rooms --budget full --seeds 0,1 --force" in text
    for word in (
        result.page_hash,
        result.track_hash,
        result.data_fingerprint,
        result.outcomes.sha256,
        "a" * 40,
    ):
        assert word in text


def test_verdicts_are_those_of_compare(folders: tuple[Path, Path], material: Material) -> None:
    for column in ("all", "left"):
        expected = json.loads(compare_all(*folders, format="json", column=column))
        found, _ = judged_pairs(material.rows, column, material.differences)
        assert [(one.a, one.b, one.verdict) for one in found] == [
            (p["a"], p["b"], p["verdict"]) for p in expected
        ]
        assert [one.holm for one in found] == pytest.approx(
            [pair["p_holm"] for pair in expected], rel=1e-4
        )


def test_the_sample(material: Material, page: str) -> None:
    data = records_data(page)
    assert data["rows"] == material.names
    assert len(data["records"]) == 24
    kinds = [record["kind"] for record in data["records"][:4]]
    assert kinds == ["disagreement", "disagreement", "hardest", "easiest"]
    place = {str(name): k for k, name in enumerate(material.rows[0].outcomes.record_ids)}
    margins = material.differences.margins["b"]
    for record in data["records"]:
        found = record["margins"][data["rows"].index("b")]
        assert found == pytest.approx(margins[:, place[record["id"]]], rel=1e-2)
        assert record["picture"].startswith("data:image/jpeg;base64,")
        assert [box[0] for box in record["boxes"]] == record["caption"][:-1].replace(
            "The ", ""
        ).replace("the ", "").split()[:: len(record["caption"].split()) - 3]


def test_the_sample_sets_any_two_rows_apart() -> None:
    """By hand: the first record sets two pairs of rows from the third, the second is worth less than the third."""
    right = np.array([[1, 1, 1, 0.5], [1, 1, 0, 0.5], [0, 0, 0, 0.5]])
    apart = np.zeros((3, 3))
    assert sample._apart(right, np.arange(4), 4, apart) == [
        0,
        2,
        1,
        3,
    ]  # 2, then 1 + 1/4, then 1/16 + 1/4, then 0
    assert apart.tolist() == [[0, 1, 3], [0, 0, 2], [0, 0, 0]]


def test_the_same_files_give_the_same_bytes(folders: tuple[Path, Path], page: str) -> None:
    again = made.material(folders, folders[0].parent / "runs")
    assert html(again, 4, True) == page
    assert len(page) < 1_000_000


# ---- what may be missing


def test_rows_alone(tmp_path: Path) -> None:
    """One row: no measures, no papers, no claims, no records, no runs."""
    benchmarks = fakes.benchmarks(tmp_path / "benchmarks", "a")
    track = benchmarks / "tracks" / "rooms.yaml"
    track.write_text(track.read_text().replace("image_size: 96", "image_size: 96, path: gone.json"))
    fakes.store(tmp_path / "results", "a", benchmarks, seeds=(0,))
    text = html(made.material((tmp_path / "results", benchmarks), tmp_path / "runs"), 4, True)
    outline = Outline(text)
    assert outline.open == []
    assert "beside" not in outline.text
    assert "Fewer than two rows" in outline.text["forgetting"]
    assert "One row: nothing to compare." in outline.text["verdicts"]
    assert "No pictures: " in outline.text["records"]
    assert "gone.json" in outline.text["records"]
    assert "records-data" not in outline.ids


def test_other_test_records_and_stale_rows(folders: tuple[Path, Path], tmp_path: Path) -> None:
    benchmarks = tmp_path / "benchmarks"
    shutil.copytree(folders[1], benchmarks)
    data = json.loads((benchmarks / "test.json").read_text())
    (benchmarks / "test.json").write_text(json.dumps(data[:-6]))
    track = benchmarks / "tracks" / "rooms.yaml"
    track.write_text(
        track.read_text().replace(
            f"path: {folders[1]}/test.json", f"path: {benchmarks}/test.json", 1
        )
    )
    outline = Outline(html(made.material((folders[0], benchmarks), tmp_path / "runs"), 4, True))
    assert "are not those of the rows" in outline.text["records"]
    assert "a stale" in outline.text["table"]
    assert "a is stale: track rooms changed" in outline.text["table"]


def test_curves_kept_beside_the_row_are_drawn(
    material: Material, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the run folder is gone."""
    (row,) = [row for row in material.rows if row.result.name == "b"]
    results = shutil.copytree(folders[0], tmp_path / "results")
    kept = [material.run_folder(row, place) for place in range(len(row.result.runs))]
    assert keep_curves(results / "rooms" / "b.json", row.result, kept)
    outline = Outline(html(made.material((results, folders[1]), tmp_path / "nowhere"), 0, True))
    assert "b: training loss" in outline.text["curves"]
    assert "a: no curve is kept, and its run folder is gone (" in outline.text["curves"]


def test_a_measure_that_some_rows_have(material: Material) -> None:
    """Its column stays, with a dash for the others; a row without is named beside the figure, not drawn at 0."""
    stated, cut = [], {}

    def without(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name != "image_r1"}

    for row in material.rows:
        found = row.result.measures
        if row.result.name == "c" and found is not None:
            found = replace(found, value=without(found.value), interval=without(found.interval))
        stated.append(replace(row, result=replace(row.result, measures=found)))
    for name, known in material.measures.items():
        ratios = {
            key: ratio for key, ratio in known.ratios.items() if name != "c" or key != "image_r1"
        }
        cut[name] = replace(known, ratios=ratios)
    few = replace(
        material,
        rows=stated,
        measures=cut,
        differences=Differences(stated, cut, material.selection),
    )
    table = str(tables.measures_table(few))
    heads = re.findall(r"<th scope=\"col\".*?</th>", table)
    (place,) = [k for k, head in enumerate(heads) if "R@1" in head and "Image" in head]
    (line,) = re.findall(r"<tr><th scope=\"row\"[^>]*>c</th>.*?</tr>", table)
    assert re.findall(r"<td.*?</td>", line)[place - 1] == '<td class="number">–</td>'
    text = str(figures.forgetting(few))
    assert "Without Image R@1: a, c." in text
    assert text.count('data-row="c"') == 1, "in the legend alone"


def test_training_counts_the_stages_before_it(material: Material) -> None:
    b, a = material.rows[0], next(row for row in material.rows if row.result.name == "a")
    assert figures.minutes_in_all(material, b) == (figures.minutes(b), "")
    later = replace(b, result=replace(b.result, init_from={"a": "0" * 16, "gone": "0" * 16}))
    found, words = figures.minutes_in_all(material, later)
    assert found == pytest.approx(figures.minutes(a) + figures.minutes(b))
    assert "of a; not counted: gone" in words


def test_marks_of_machines_and_labels_that_stand_apart() -> None:
    crowd = [Point(f"r{k}", k, 1 + k / 1e3, 50.0, "", mark=k) for k in range(9)]
    text = str(plane("t", "x", "y", crowd))
    assert text.count('class="leader"') >= 4
    assert (text.count("dot empty"), text.count('width="8"')) == (7, 7)
    assert "reference" not in text
    assert str(plane("t", "x", "y", crowd, origin=True)).count("reference") == 2


def test_figures_of_one_value() -> None:
    assert "polyline" in lines("t", "l", [("seed 0", [(0.0, 1.0)])], True)


# ---- the command


def test_the_command(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--results", str(folders[0]), "--benchmarks", str(folders[1]), "--runs", str(tmp_path)]
    out = tmp_path / "deep" / "report.html"
    assert main(["report", "--out", str(out), *where, "--records", "1", "--no-maps"]) == 0
    assert capsys.readouterr().out == f"{out}: {out.stat().st_size / 1e6:.1f} MB\n"
    assert "Relevance" not in out.read_text()
    assert main(["report", "--out", str(out), *where, "--records", "-1"]) == 2
    assert main(["report", "--track", "none", *where]) == 2
    assert "no rows of track none" in capsys.readouterr().err


# ---- the README's picture


def test_pictures_one_above_the_other() -> None:
    parts = [Image.new("RGB", (30, 20), "red"), Image.new("RGB", (40, 10), "blue")]
    found = picture.stacked(parts, "white").convert("RGB")
    assert found.size == (40, 30)
    assert [found.getpixel(at) for at in ((0, 0), (39, 0), (39, 29))] == [
        (255, 0, 0),
        (255, 255, 255),
        (0, 0, 255),
    ]


def test_no_browser_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(picture, "programs", lambda: None)
    assert picture.main() == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "apt-get install chromium chromium-driver" in error
