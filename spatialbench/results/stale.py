"""Check that a stored row is what would be made today, by hashes of page, track and captions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from spatialbench.config.evaluations import evaluations_of
from spatialbench.config.experiment import data_of, model_of, weights_digests
from spatialbench.config.flaws import audited, read_flaws
from spatialbench.config.pages import (
    FAMILY,
    Page,
    Track,
    content_hash,
    discover,
    load_page,
    load_track,
)
from spatialbench.data.relations import RELATIONS, Statement
from spatialbench.results.files import Row, read_row
from spatialbench.results.schema import PAIRS, Result
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean


def page_hash(page: Page, budget: str) -> str:
    """Hash a page at a budget, with the weights files that it names; other budgets do not count."""
    config = {key: value for key, value in page.config.items() if key != "budgets"}
    layer = (page.config.get("budgets") or {}).get(budget, {})
    weights = weights_digests(model_of(page.config))
    return content_hash({**config, "budget": layer, "weights": weights})


def ancestors(page: Page, budget: str, track: Track) -> dict[str, str]:
    """Hash, by name, every page that :func:`starts` lists, each with its track.

    Raises:
        SpatialbenchError: see :func:`starts`.
    """
    return {
        start.name: content_hash([page_hash(start, budget), track_hash(track, budget, start)])
        for start in starts(page)
    }


def starts(page: Page) -> list[Page]:
    """Follow ``init_from`` all the way back; the page itself is not included.

    Raises:
        SpatialbenchError: ``init_from`` names no page, or goes in a circle.
    """
    pages: dict[str, Page] = {}
    while page.init_from is not None:
        page = load_page(page.init_from)
        if page.name in pages:
            raise SpatialbenchError(f"page {page.path}: init_from goes in a circle")
        pages[page.name] = page
    return list(pages.values())


def track_hash(track: Track, budget: str, page: Page) -> str:
    """Hash the controlled variables of a track at a budget, with the shipped weights.

    Only those keys of the data block count that concern the page. The list of seeds does not count.
    """
    layer = track.budgets.get(budget)
    config = {**track.config, "data": data_of(track.config["data"], page)}
    if layer and "data" in layer:
        layer = {**layer, "data": data_of(layer["data"], page)}
    weights = weights_digests(config["model"])
    return content_hash({"name": track.name, **config, "budget": layer, "weights": weights})


def grammar_hash() -> str:
    """Hash the captions and negated captions of the six relations."""
    statements = [Statement("sofa", relation, "floor lamp") for relation in RELATIONS]
    return content_hash([[each.caption, each.negated.caption] for each in statements])


def stale_reasons(result: Result, page: Page | None, track: Track | None) -> list[str]:
    """List why a row is not what would be made today; None: page or track is gone.

    An evaluation of the track that the row lacks is no reason.
    """
    budget = result.budget
    reasons = [f"page {result.name} is gone"] if page is None else []
    if page is not None and page_hash(page, budget) != result.page_hash:
        reasons.append(f"page {result.name} changed")
    if page is not None and track is not None:
        if ancestors(page, budget, track) != result.init_from:
            start = "a page that it starts from changed, or the track in what concerns that page"
            reasons.append(start)
        if track_hash(track, budget, page) != result.track_hash:
            reasons.append(f"track {result.track} changed")
    reasons += [f"track {result.track} is gone"] if track is None else []
    reasons += [] if track is None else _changed_evaluations(result, track)
    return reasons + (["the captions changed"] if result.grammar != grammar_hash() else [])


def _changed_evaluations(result: Result, track: Track) -> Iterator[str]:
    specs = evaluations_of(track, result.budget)
    for name, stored in result.evaluations.items():
        if name in specs and stored.settings != specs[name].settings:
            yield f"the settings of evaluation {name} changed"
        elif name not in specs and name != PAIRS and PAIRS in result.evaluations:
            yield f"track {track.name} no longer has evaluation {name}"


@dataclass(frozen=True)
class Today:
    """The pages and tracks as they stand now, by name."""

    pages: Mapping[str, Page]
    tracks: Mapping[str, Track]

    @classmethod
    def read(cls, benchmarks: Path, audit: bool = False) -> Self:
        """Read ``benchmarks/*.yaml`` and ``benchmarks/tracks/*.yaml``.

        ``audit``: with the tracks of the audit's flaws.

        Raises:
            SpatialbenchError: no such folder, or a page or track that cannot be read.
        """
        if not benchmarks.is_dir():
            what = f"no pages in {benchmarks}, which is no folder"
            raise SpatialbenchError(f"{what}; give --benchmarks FOLDER")
        tracks = [load_track(path) for path in sorted((benchmarks / "tracks").glob("*.yaml"))]
        known = {track.name: track for track in tracks}
        known |= audited(known, read_flaws(benchmarks)) if audit else {}
        return cls({page.name: page for page in discover(benchmarks)}, known)

    def only(self, names: Sequence[str]) -> Self:
        """Keep the given pages alone, named or given by their paths.

        Raises:
            SpatialbenchError: an unknown page.
        """
        by_path = {page.path.resolve(): page.name for page in self.pages.values()}
        chosen = [by_path.get(Path(name).resolve(), name) for name in names]
        for name in chosen:
            if name not in self.pages:
                hint = did_you_mean(Path(name).stem, self.pages)
                raise SpatialbenchError(f"unknown page {name!r}{hint}")
        return replace(self, pages={name: self.pages[name] for name in chosen})

    def stale(self, result: Result) -> list[str]:
        """See :func:`stale_reasons`."""
        return stale_reasons(result, self.pages.get(result.name), self.tracks.get(result.track))

    def read_row(self, path: Path) -> Row:
        """Read a row, recounted as :func:`files.read_row` does; note family and why it is stale.

        Raises:
            SpatialbenchError: the file, or the evidence beside it, is missing or damaged.
        """
        row = read_row(path)
        page = self.pages.get(row.name)
        return replace(row, stale=self.stale(row.result), family=page.family if page else FAMILY)
