"""``spatialbench report``: the file, section by section.

The page asks for nothing outside of itself: a content security policy forbids every request, and allows exactly the one
script and the one style that stand in it. Nothing depends on the clock: the same files give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from spatialbench.evaluation.paired import TESTED
from spatialbench.report.html import agreement_section as agree
from spatialbench.report.html import curves, figures, maps, tables, verdicts
from spatialbench.report.html import provenance_section as origin
from spatialbench.report.html import record_browser as failures
from spatialbench.report.html import record_choice as sample
from spatialbench.report.html.elements import Child, Html, digest, join, tag
from spatialbench.report.html.inputs import Material
from spatialbench.results.files import STORED_BUDGET
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.progress import progress

STYLES = ("report.css",)
SCRIPTS = ("page.js", "records.js")
MAP_KIND = "disagreement"
"""Of each relation the first record chosen for this has its maps drawn."""


@dataclass(frozen=True)
class Section:
    """A part of the page; ``intro`` says how it is read."""

    name: str
    title: str
    intro: str
    content: Child


def write_report(
    out: str | Path = "results/report.html",
    results: str | Path = "results",
    benchmarks: str | Path = "benchmarks",
    track: str = "rooms",
    runs: str | Path = "runs",
    budget: str = STORED_BUDGET,
    records: int = 12,
    relevance: bool = True,
) -> Path:
    """Writes the report of a track; returns its path.

    Args:
        results, benchmarks, runs: folders; what is gone from ``runs`` is said in the report.
        budget: ``full`` for the stored rows.
        records: of each relation in the browser of records; 0: none, and no picture is made.
        relevance: draw the maps of rows whose weights are there.

    Raises:
        SpatialbenchError: no rows, a damaged row, rows of different data, or the file cannot be written.
    """
    material = Material.read(Path(results), Path(benchmarks), track, budget, Path(runs))
    path = Path(out)
    write_atomic(path, html(material, records, relevance))
    return path


def html(material: Material, records: int, relevance: bool) -> str:
    """The whole file."""
    sections = list(_sections(material, records, relevance))
    style, script = (_joined(names) for names in (STYLES, SCRIPTS))
    policy = (
        f"default-src 'none'; style-src {digest(style)}; script-src {digest(script)}; img-src data:"
    )
    title = f"spatialbench: {material.track}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(style)),
    )
    links = [tag("li", tag("a", one.title, href=f"#{one.name}")) for one in sections]
    body = tag(
        "body",
        tag("header", _heading(material)),
        tag("nav", tag("ul", links), aria_label="Sections"),
        tag("main", [_drawn(one) for one in sections]),
        tag(
            "footer",
            tag(
                "p",
                "Made by spatialbench report from the stored rows; the same files give the same bytes.",
            ),
        ),
        tag("div", id="tip", role="tooltip", hidden=True),
        tag("script", Html(script)),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _joined(names: tuple[str, ...]) -> str:
    folder = resources.files("spatialbench.report.html")
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def _heading(material: Material) -> Html:
    first, stale = material.rows[0].result, sum(bool(row.stale) for row in material.rows)
    theme = tag("button", "light / dark", type="button", id="theme", hidden=True)
    facts = f"{len(material.rows)} rows, budget {first.budget}, {first.n} records, data {first.data_fingerprint}"
    facts += f"; {stale} stale" if stale else ""
    text = (
        "A record is a picture, a true caption and its negation, the two objects exchanged; right when the true "
        "caption scores higher, a tie one half, chance 50. ± is the standard deviation over seeds, every interval a "
        "95 % bootstrap over scenes and seeds."
    )
    return join(
        theme,
        tag("h1", f"spatialbench: {material.track}"),
        tag("p", facts, class_="note"),
        tag("p", text),
    )


def _drawn(one: Section) -> Html:
    intro = tag("p", one.intro) if one.intro else None
    return tag("section", tag("h2", one.title), intro, one.content, id=one.name)


def _sections(material: Material, records: int, relevance: bool) -> Iterator[Section]:
    yield Section(
        "table",
        "Table",
        "A heading sorts its column. A number in green is the best of its column, where the paired test tells it from "
        "the second; its interval appears on hover or focus (arrow keys move).",
        tables.pairs_table(material),
    )
    for name, title, content in (
        ("beside", "Beside the pairs", tables.measures_table(material)),
        ("images", "Image selection", tables.selection_table(material)),
    ):
        if content is not None:
            yield Section(name, title, "", content)
    intro = "Mean over seeds and 95 % interval, n records and a dot for each row; the broken line is chance, 50."
    yield Section("relations", "Relations", intro, figures.accuracy(material))
    intro = "A line for each seed; a long one is averaged over neighbouring steps."
    yield Section("curves", "Training", intro, curves.curves(material))
    yield Section(
        "cost",
        "Cost",
        "All against what a row costs; bars are 95 % intervals.",
        figures.cost(material),
    )
    intro = (
        "Paired differences in percentage points, bars are 95 % intervals: right is gained on the pairs, down is "
        "forgotten; the broken lines are no difference."
    )
    yield Section("forgetting", "Forgetting", intro, figures.forgetting(material))
    intro = (
        "The share of records that two rows have both right or both wrong, in percent, over all pairs of their seeds; "
        "on the diagonal seeds of one row. Shaded by Cohen’s kappa, what is left when chance is taken away."
    )
    yield Section("agreement-section", "Agreement", intro, agree.agreements(material))
    with _steps("comparing every pair of rows", len(TESTED), "columns") as advance:
        content = join(verdicts.matrices(material, advance), verdicts.claims(material))
    yield Section("verdicts", "Verdicts", "", content)
    yield from _pictures(material, records, relevance)
    yield Section("origin", "Provenance", "", origin.origin(material))


def _pictures(material: Material, records: int, relevance: bool) -> Iterator[Section]:
    """The records and their maps; one line where the test set is not here."""
    if not records:
        return
    titles = ("records", "Records"), ("relevance", "Relevance")
    try:
        found = sample.test_set(material)
    except SpatialbenchError as error:
        text = f"No pictures: {' '.join(str(error).split())}."
        yield from (
            Section(name, title, "", tag("p", text, class_="gone")) for name, title in titles
        )
        return
    chosen = sample.choose(material, records)
    with _steps("drawing records", len(chosen), "records") as advance:
        content: Child = failures.browser(material, found, chosen, advance)
    intro = (
        f"{len(chosen)} records of the test, of each relation those that set the most rows apart, the hardest and "
        "the easiest: no fair sample of the test. Margin: the score of the true caption minus that of the negated "
        "one, above 0 is right; ✓ right, ✗ wrong, = tie. Arrow keys step, Home and End jump; a picture is drawn larger "
        "than the models see it."
    )
    yield Section(*titles[0], intro, content)
    if relevance:
        first = {
            material.rows[0].outcomes.relation[one.place]: one
            for one in reversed(chosen)
            if one.kind == MAP_KIND
        }
        picked = [one for one in chosen if one in first.values()]
        with _steps("drawing relevance", len(material.rows), "rows") as advance:
            content = maps.maps(material, found, picked, advance)
        intro = (
            "Of the first seed of a row. Attention: what the embedding of the picture attends to, whatever the "
            "caption, rolled out over all blocks (Abnar and Zuidema 2020). Relevance: where it looks when it scores "
            "the picture against the true caption, attention times its gradient, rolled out likewise (Chefer et al. "
            "2021). Bright is relative to the brightest patch of the same picture. Green the subject; orange, broken, "
            "the object."
        )
        yield Section(*titles[1], intro, content)


@contextmanager
def _steps(text: str, total: int, unit: str) -> Iterator[Callable[[float], None]]:
    with progress(text, total, unit) as advance:
        yield advance
