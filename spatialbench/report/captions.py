"""Tables of a benchmark of captions, of one run: its own numbers beside the published ones, and pairs by relation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table

from spatialbench.data.account import Account
from spatialbench.data.captions.caption_set import CaptionSet
from spatialbench.evaluation.captions import CaptionScores, Value, by_relation, evaluate
from spatialbench.report.published import BACKBONES, Published, sources
from spatialbench.report.table_model import interval_cell, number, show

SHOWN = 12
"""Relations of a part that are printed, the most frequent ones; JSON has all."""


def captions_json(
    found: CaptionSet, scores: CaptionScores, published: Mapping[str, Published]
) -> dict[str, Any]:
    """``{measures: {name: {...}}, relations: {part: {relation: {...}}}, account, pictures, data}``, in percent."""
    measures = {}
    for measure in found.measures():
        value = evaluate(found, measure, scores.scores)
        known = published.get(measure.name)
        measures[measure.name] = {
            "title": measure.title,
            "value": value.value,
            "interval": list(value.interval),
            "n": value.n,
            "ties": value.ties,
            "chance": measure.chance,
            "published": {} if known is None else asdict(known),
        }
    relations = {
        part: {name: count._asdict() for name, count in counts.items()}
        for part, counts in by_relation(found, scores.scores).items()
    }
    account = found.account.json()
    pictures, records = len(found.images), len(found.records)
    return {"data": scores.data, "pairs": records, "pictures": pictures, "account": account} | {
        "measures": measures,
        "relations": relations,
    }


def print_captions(
    found: CaptionSet, scores: CaptionScores, published: Mapping[str, Published], title: str
) -> None:
    """Prints what ``captions_json`` holds, for people."""
    measures = found.measures()
    shown = [
        name
        for name in BACKBONES
        if any(name in published[m.name].clip for m in measures if m.name in published)
    ]
    drawn = Table(title=title, title_justify="left")
    drawn.add_column("")  # the only one that gives way where the terminal is narrow
    for heading in ("n", "ties", "chance", "%", "95 % interval", *shown):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for measure in measures:
        value = evaluate(found, measure, scores.scores)
        drawn.add_row(
            measure.title,
            *_cells(value, measure.chance),
            *_published(published.get(measure.name), shown),
        )
    counts = f"{len(found.records)} pairs on {len(found.images)} pictures, data {scores.data}"
    footer = [counts, *_account(found.account)]
    footer += sources(published, [measure.name for measure in measures]) if shown else []
    show(drawn, "\n".join(footer))
    _print_relations(found, scores)


def _cells(value: Value, chance: float) -> list[str]:
    return [
        str(value.n),
        str(value.ties),
        number(chance),
        number(value.value),
        interval_cell(value.interval),
    ]


def _published(known: Published | None, shown: list[str]) -> list[str]:
    mark = "*" if known is not None and known.note else ""
    values = [None if known is None else known.clip.get(name) for name in shown]
    return [number(value) + (mark if value is not None else "") for value in values]


def _account(account: Account) -> list[str]:
    return [f"{account.read} records read; a tie counts one half", *account.lines()]


def _print_relations(found: CaptionSet, scores: CaptionScores) -> None:
    drawn = Table(title="Pairs by relation", title_justify="left")
    for heading in ("", "relation", "n", "ties", "%"):
        drawn.add_column(
            heading, justify="left" if heading in ("", "relation") else "right", no_wrap=True
        )
    for part, counts in by_relation(found, scores.scores).items():
        for relation, count in list(counts.items())[:SHOWN]:
            drawn.add_row(part, relation, str(count.n), str(count.ties), number(count.accuracy))
        if len(counts) > SHOWN:
            rest = sum(count.n for count in list(counts.values())[SHOWN:])
            drawn.add_row(part, f"{len(counts) - SHOWN} more, in --format json", str(rest), "", "")
        drawn.add_section()
    show(drawn)
