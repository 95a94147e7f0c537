"""Reasons that make a row stale, and changes that do not."""

from dataclasses import replace
from pathlib import Path

import pytest

from spatialbench.config.pages import Page, Track, load_page, load_track
from spatialbench.data import relations
from spatialbench.results.stale import (
    Today,
    ancestors,
    grammar_hash,
    page_hash,
    stale_reasons,
    track_hash,
)
from spatialbench.utils.errors import SpatialbenchError
from tests.support import fakes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fakes.benchmarks(tmp_path, "a", "b")


def load(folder: Path, name: str = "a") -> tuple[Page, Track]:
    return load_page(folder / f"{name}.yaml"), load_track(folder / "tracks/rooms.yaml")


def with_regions(track: Track) -> Track:
    """Change a setting of the track that concerns pages of regions only."""
    data = {**track.config["data"], "region_size": 64}
    return replace(track, config={**track.config, "data": data})


def test_every_reason_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = fakes.row("a", folder)
    assert Today.read(folder).stale(row.result) == []
    (folder / "a.yaml").write_text(fakes.page_text("  init_args: {width: 2}\ninit_from: b\n"))
    monkeypatch.setitem(relations.PHRASE, "under", "below")
    assert Today.read(folder).stale(row.result) == [
        "page a changed",
        "a page that it starts from changed, or the track in what concerns that page",
        "the captions changed",
    ]
    (folder / "tracks/rooms.yaml").unlink()
    gone = ["page a changed", "track rooms is gone", "the captions changed"]
    assert Today.read(folder).stale(row.result) == gone
    (folder / "a.yaml").unlink()
    assert Today.read(folder).stale(row.result)[0] == "page a is gone"


def test_only_the_budget_of_the_row_counts(folder: Path) -> None:
    page, track = load(folder)
    budgets = {"smoke": {"trainer": {"max_steps": 1}}}
    other = replace(page, config={**page.config, "budgets": budgets})
    assert page_hash(other, "full") == page_hash(page, "full")
    assert page_hash(other, "smoke") != page_hash(page, "smoke")
    more = replace(track, budgets={**track.budgets, "quick": {}}, seeds=(7,))
    assert track_hash(more, "full", page) == track_hash(track, "full", page)
    assert track_hash(more, "quick", page) != track_hash(track, "quick", page)
    without = replace(track, config={**track.config, "data": {}})
    assert track_hash(without, "full", page) != track_hash(track, "full", page)


def test_what_a_track_says_of_regions_counts_for_pages_of_regions(folder: Path) -> None:
    page, track = load(folder)
    own = {"class_path": "somewhere.RegionDataModule"}
    other = replace(page, config={**page.config, "data": own})
    layer = {**track.budgets["full"], "data": {"region_images": 3}}
    more = replace(with_regions(track), budgets={**track.budgets, "full": layer})
    assert track_hash(more, "smoke", page) == track_hash(track, "smoke", page)
    for budget in ("smoke", "full"):
        assert track_hash(more, budget, other) != track_hash(track, budget, other)


def test_a_page_s_own_weights_count(folder: Path) -> None:
    weights, hashes = folder / "w.safetensors", []
    student = f'  init_args: {{student: "rooms-student:{weights}"}}\n'
    (folder / "a.yaml").write_text(fakes.page_text(student))
    for content in (b"one", b"other"):
        weights.write_bytes(content)
        hashes.append(page_hash(load_page(folder / "a.yaml"), "full"))
    assert hashes[0] != hashes[1]


def test_starts_count_all_the_way_back(folder: Path) -> None:
    (folder / "b.yaml").write_text(fakes.page_text("init_from: a\n"))
    (folder / "c.yaml").write_text(fakes.page_text("init_from: b\n"))
    page, track = load(folder, "c")
    assert list(ancestors(page, "full", track)) == ["b", "a"]
    own = fakes.page_text("data: {class_path: tests.support.fakes.FakeMethod}\n")
    (folder / "a.yaml").write_text(own)  # settings of regions concern it, behind c itself
    more = with_regions(track)
    assert track_hash(more, "full", page) == track_hash(track, "full", page)
    assert ancestors(page, "full", more) != ancestors(page, "full", track)
    (folder / "a.yaml").write_text(fakes.page_text("init_from: c\n"))
    with pytest.raises(SpatialbenchError, match="circle"):
        ancestors(page, "full", track)


SELECTION = {"class_path": "spatialbench.evaluation.selection.ImageSelection"}
CHANGED = ["the settings of evaluation selection changed"]


@pytest.mark.parametrize(
    ("block", "reasons"),
    [
        ({**SELECTION, "budgets": {"smoke": {"pairs": 2}}}, []),
        ({**SELECTION, "init_args": {"pairs": 50}}, CHANGED),
        ({"class_path": "spatialbench.evaluation.regions.RegionEvaluation"}, CHANGED),
        (None, ["track rooms no longer has evaluation selection"]),
    ],
)
def test_an_evaluation_under_other_settings_is_stale(
    folder: Path, block: dict | None, reasons: list[str]
) -> None:
    page, track = load(folder)
    evaluations = {} if block is None else {"selection": block}
    other = replace(track, evaluations=evaluations)
    row = fakes.row("a", folder, selection=fakes.seeds_of("selection", "a"))
    assert stale_reasons(row.result, page, track) == []
    assert stale_reasons(row.result, page, other) == reasons
    assert stale_reasons(fakes.row("a", folder).result, page, other) == [], "it was not evaluated"
    assert track_hash(other, "full", page) == row.result.track_hash


def test_every_relation_is_in_the_hash_of_the_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    before = grammar_hash()
    for relation in relations.RELATIONS:
        with monkeypatch.context() as patch:
            patch.setitem(relations.PHRASE, relation, "beside")
            assert grammar_hash() != before
    assert grammar_hash() == before
