"""What makes a row stale, and what does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from spatialbench.config.evaluations import region_settings, selection_settings
from spatialbench.config.pages import load_page, load_track
from spatialbench.data import relations
from spatialbench.results.schema import MeasuresFile
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


def test_a_row_of_today_is_not_stale(folder: Path) -> None:
    result, _ = fakes.row("a", folder)
    assert Today.read(folder).stale(result) == []


def test_every_reason_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = fakes.row("a", folder)
    (folder / "a.yaml").write_text(fakes.page_text("  init_args: {width: 2}\ninit_from: b\n"))
    monkeypatch.setitem(relations.PHRASE, "under", "below")
    assert Today.read(folder).stale(result) == [
        "page a changed",
        "a page that it starts from changed, or the track in what concerns that page",
        "the captions changed",
    ]
    (folder / "tracks/rooms.yaml").unlink()
    assert Today.read(folder).stale(result) == [
        "page a changed",
        "track rooms is gone",
        "the captions changed",
    ]
    (folder / "a.yaml").unlink()
    assert Today.read(folder).stale(result)[0] == "page a is gone"


def test_only_the_budget_of_the_row_counts(folder: Path) -> None:
    page, track = load_page(folder / "a.yaml"), load_track(folder / "tracks/rooms.yaml")
    other = replace(
        page, config={**page.config, "budgets": {"smoke": {"trainer": {"max_steps": 1}}}}
    )
    assert page_hash(other, "full") == page_hash(page, "full")
    assert page_hash(other, "smoke") != page_hash(page, "smoke")
    more = replace(track, budgets={**track.budgets, "quick": {}}, seeds=(7,))
    assert track_hash(more, "full", page) == track_hash(track, "full", page)
    assert track_hash(more, "quick", page) != track_hash(track, "quick", page)
    assert track_hash(
        replace(track, config={**track.config, "data": {}}), "full", page
    ) != track_hash(track, "full", page)


def test_what_a_track_says_of_regions_counts_for_pages_of_regions(folder: Path) -> None:
    page, track = load_page(folder / "a.yaml"), load_track(folder / "tracks/rooms.yaml")
    other = replace(
        page, config={**page.config, "data": {"class_path": "somewhere.RegionDataModule"}}
    )
    more = replace(
        track,
        config={**track.config, "data": {**track.config["data"], "region_size": 64}},
        budgets={**track.budgets, "full": {**track.budgets["full"], "data": {"region_images": 3}}},
    )
    assert track_hash(more, "smoke", page) == track_hash(track, "smoke", page)
    for budget in ("smoke", "full"):
        assert track_hash(more, budget, other) != track_hash(track, budget, other)


def test_a_page_s_own_weights_count(folder: Path) -> None:
    weights, hashes = folder / "w.safetensors", []
    (folder / "a.yaml").write_text(
        fakes.page_text(f'  init_args: {{student: "rooms-student:{weights}"}}\n')
    )
    for content in (b"one", b"other"):
        weights.write_bytes(content)
        hashes.append(page_hash(load_page(folder / "a.yaml"), "full"))
    assert hashes[0] != hashes[1]


def test_starts_all_the_way_back(folder: Path) -> None:
    (folder / "b.yaml").write_text(fakes.page_text("init_from: a\n"))
    (folder / "c.yaml").write_text(fakes.page_text("init_from: b\n"))
    page, track = load_page(folder / "c.yaml"), load_track(folder / "tracks/rooms.yaml")
    assert list(ancestors(page, "full", track)) == ["b", "a"]
    (folder / "a.yaml").write_text(fakes.page_text("init_from: c\n"))
    with pytest.raises(SpatialbenchError, match="circle"):
        ancestors(page, "full", track)


def test_what_concerns_a_start_concerns_the_row(folder: Path) -> None:
    """The settings of regions, behind a page that itself has nothing to do with regions."""
    (folder / "a.yaml").write_text(
        fakes.page_text("data: {class_path: tests.support.fakes.FakeMethod}\n")
    )
    (folder / "b.yaml").write_text(fakes.page_text("init_from: a\n"))
    page, track = load_page(folder / "b.yaml"), load_track(folder / "tracks/rooms.yaml")
    more = replace(
        track, config={**track.config, "data": {**track.config["data"], "region_size": 64}}
    )
    assert track_hash(more, "full", page) == track_hash(track, "full", page)
    assert ancestors(page, "full", more) != ancestors(page, "full", track)


def test_measures_of_other_settings_are_stale(folder: Path) -> None:
    page, track = load_page(folder / "a.yaml"), load_track(folder / "tracks/rooms.yaml")
    block = {
        "class_path": "somewhere.Regions",
        "init_args": {"size": 192},
        "budgets": {"smoke": {"images": 3}},
    }
    regions = replace(track, regions=block)
    result, _ = fakes.row("a", folder)
    assert stale_reasons(result, page, regions) == []  # not measured
    found = MeasuresFile("a.measures.npz", "", 1, "", region_settings(regions, "full"), [], {"box_top1": 1.0},
                         {"box_top1": [0.0, 2.0]})  # fmt: skip
    measured = replace(result, measures=found)
    assert stale_reasons(measured, page, regions) == []
    for other in (
        {**block, "init_args": {"size": 96}},
        {**block, "class_path": "somewhere.Others"},
        None,
    ):
        reasons = stale_reasons(measured, page, replace(track, regions=other))
        assert reasons == ["what is measured beside the pairs changed"]
    assert region_settings(regions, "smoke") != region_settings(regions, "full")


def test_image_selection_is_stale_by_its_own_settings_and_a_row_without_is_not(
    folder: Path,
) -> None:
    page, track = load_page(folder / "a.yaml"), load_track(folder / "tracks/rooms.yaml")
    block = {
        "class_path": "somewhere.Pairs",
        "init_args": {"pairs": 100},
        "budgets": {"smoke": {"pairs": 2}},
    }
    asks = replace(track, selection=block)
    result, _ = fakes.row("a", folder)
    assert stale_reasons(result, page, asks) == []  # not measured
    assert track_hash(asks, "full", page) == result.track_hash
    own = replace(fakes.selection_of("a"), settings=selection_settings(asks, "full"))
    measured, _ = fakes.row("a", folder, selection=own)
    assert stale_reasons(measured, page, asks) == []
    for other in (
        {**block, "init_args": {"pairs": 50}},
        {**block, "class_path": "somewhere.Others"},
        None,
    ):
        assert stale_reasons(measured, page, replace(track, selection=other)) == [
            "the pairs of image selection changed"
        ]
    assert selection_settings(asks, "smoke") != selection_settings(asks, "full")
    assert selection_settings(track, "full") == ""


def test_every_relation_is_in_the_hash_of_the_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    before = grammar_hash()
    for relation in relations.RELATIONS:
        with monkeypatch.context() as patch:
            patch.setitem(relations.PHRASE, relation, "beside")
            assert grammar_hash() != before
    assert grammar_hash() == before
