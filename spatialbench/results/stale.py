"""Whether a stored row is what would be made today: hashes of the page, the track and the captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spatialbench.config.evaluations import region_settings, selection_settings
from spatialbench.config.experiment import data_of, model_of, weights_digests
from spatialbench.config.pages import Page, Track, content_hash, discover, load_page, load_track
from spatialbench.data.relations import RELATIONS, Statement
from spatialbench.results.files import Result
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean


def page_hash(page: Page, budget: str) -> str:
    """Hash of what a page says for a budget, weights files that it names among it.

    The blocks of other budgets do not make a row stale.
    """
    own = {key: value for key, value in page.config.items() if key != "budgets"}
    weights = weights_digests(model_of(page.config))
    return content_hash(
        {**own, "budget": (page.config.get("budgets") or {}).get(budget, {}), "weights": weights}
    )


def ancestors(page: Page, budget: str, track: Track) -> dict[str, str]:
    """Name -> hash of the pages whose weights are the start of ``page``, all the way back, each with its track.

    Raises:
        SpatialbenchError: see :func:`starts`.
    """
    return {
        one.name: content_hash([page_hash(one, budget), track_hash(track, budget, one)])
        for one in starts(page)
    }


def starts(page: Page) -> list[Page]:
    """The pages whose weights are the start of ``page``, all the way back; itself not among them.

    Raises:
        SpatialbenchError: ``init_from`` names no page, or goes in a circle.
    """
    found: dict[str, Page] = {}
    while page.init_from is not None:
        page = load_page(page.init_from)
        if page.name in found:
            raise SpatialbenchError(f"page {page.path}: init_from goes in a circle")
        found[page.name] = page
    return list(found.values())


def track_hash(track: Track, budget: str, page: Page) -> str:
    """Hash of the controlled variables of a track at a budget, the shipped weights among them.

    Of the data block those keys count that concern the page. The list of seeds is the row's own matter.
    """
    layer = track.budgets.get(budget)
    config = {**track.config, "data": data_of(track.config["data"], page)}
    if layer and "data" in layer:
        layer = {**layer, "data": data_of(layer["data"], page)}
    return content_hash(
        {"name": track.name, **config, "budget": layer, "weights": weights_digests(config["model"])}
    )


def grammar_hash() -> str:
    """Hash of the captions and negated captions of the six relations: another wording is another test."""
    statements = [Statement("sofa", relation, "floor lamp") for relation in RELATIONS]
    return content_hash(
        [[statement.caption, statement.negated.caption] for statement in statements]
    )


def stale_reasons(result: Result, page: Page | None, track: Track | None) -> list[str]:
    """Why a row is not what would be made today of its page and track (None: gone); empty when it is."""
    reasons = []
    if page is None:
        reasons.append(f"page {result.name} is gone")
    else:
        if page_hash(page, result.budget) != result.page_hash:
            reasons.append(f"page {result.name} changed")
        if track is not None and ancestors(page, result.budget, track) != result.init_from:
            reasons.append(
                "a page that it starts from changed, or the track in what concerns that page"
            )
    if track is None:
        reasons.append(f"track {result.track} is gone")
    elif page is not None and track_hash(track, result.budget, page) != result.track_hash:
        reasons.append(f"track {result.track} changed")
    if (
        track is not None
        and result.measures
        and result.measures.settings != region_settings(track, result.budget)
    ):
        reasons.append("what is measured beside the pairs changed")
    if (
        track is not None
        and result.selection
        and result.selection.settings != selection_settings(track, result.budget)
    ):
        reasons.append("the pairs of image selection changed")
    if result.grammar != grammar_hash():
        reasons.append("the captions changed")
    return reasons


@dataclass(frozen=True)
class Today:
    """The pages and tracks as they stand now: name -> page or track."""

    pages: Mapping[str, Page]
    tracks: Mapping[str, Track]

    @classmethod
    def read(cls, benchmarks: Path) -> Today:
        """Reads ``benchmarks/*.yaml`` and ``benchmarks/tracks/*.yaml``.

        Raises:
            SpatialbenchError: no such folder, or a page or track that cannot be read.
        """
        if not benchmarks.is_dir():
            raise SpatialbenchError(
                f"no pages in {benchmarks}, which is no folder; give --benchmarks FOLDER"
            )
        tracks = [load_track(path) for path in sorted((benchmarks / "tracks").glob("*.yaml"))]
        pages = {page.name: page for page in discover(benchmarks)}
        return cls(pages, {track.name: track for track in tracks})

    def only(self, names: Sequence[str]) -> Today:
        """These pages alone, named or given by their paths.

        Raises:
            SpatialbenchError: an unknown page.
        """
        by_path = {page.path.resolve(): page.name for page in self.pages.values()}
        chosen = [by_path.get(Path(name).resolve(), name) for name in names]
        for name in chosen:
            if name not in self.pages:
                raise SpatialbenchError(
                    f"unknown page {name!r}{did_you_mean(Path(name).stem, self.pages)}"
                )
        return Today({name: self.pages[name] for name in chosen}, self.tracks)

    def stale(self, result: Result) -> list[str]:
        """See :func:`stale_reasons`."""
        return stale_reasons(result, self.pages.get(result.name), self.tracks.get(result.track))
