"""The notes below the table of an evaluation."""

from collections.abc import Sequence

from spatialbench.config.pages import Track
from spatialbench.evaluation.base import Evaluation
from spatialbench.evaluation.statistics import smallest_detectable_gain
from spatialbench.report.table_model import number
from spatialbench.results.files import Row
from spatialbench.results.schema import PAIRS

DISCORDANCES = (0.1, 0.2, 0.3)


def notes(rows: Sequence[Row], evaluation: str, cls: type[Evaluation]) -> list[str]:
    """Return the notes below a table: stale rows, the data, the resolution of the benchmark."""
    lines, ends = stale_notes(rows), one_run_notes(rows, evaluation)
    if evaluation == PAIRS:
        return [*lines, fingerprint_line(rows), "", resolution_line(rows), *ends]
    stored = next(r.result.evaluations[evaluation] for r in rows if evaluation in r.evidence)
    return [*lines, f"Evaluated on data {stored.data}, {stored.units} {cls.unit}.", *ends]


def one_run_notes(rows: Sequence[Row], evaluation: str) -> list[str]:
    """Name the rows of several seeds that all gave the same: one run, without a spread."""
    known = [row for row in rows if evaluation in row.evidence and len(row.result.seeds) > 1]
    names = [row.name for row in known if row.evidence[evaluation].runs == 1]
    return ["", f"One run, since every seed gives the same: {', '.join(names)}."] if names else []


def beside_papers(track: Track | None) -> str:
    """Say how the papers' numbers differ from ours, whose rows are of ``track``."""
    model = {} if track is None else track.config["model"]
    weight = model.get("finetuning", {}).get("own_negation_weight", 0)
    own = f" Rows trained on pairs here have own_negation_weight {weight:g}, the poster's 0."
    return (
        "The papers' numbers as printed there (other data, other models); their macro is the mean "
        f"of the printed relations.{own if weight else ''}"
    )


def stale_notes(rows: Sequence[Row]) -> list[str]:
    """One line for each stale row, and an empty one below them."""
    stale = [row for row in rows if row.stale]
    lines = [f"{row.name} is stale: {', '.join(row.stale)}; {row.result.command}" for row in stale]
    return [*lines, ""] if lines else []


def fingerprint_line(rows: Sequence[Row]) -> str:
    """Track, budget, data and captions that the rows share."""
    first = rows[0].result
    tracks = ", ".join(sorted({row.result.track_hash for row in rows}))
    return (
        f"Track {first.track} ({tracks}), budget {first.budget}, data {first.pairs.data}, "
        f"captions {first.grammar}; {first.pairs.units} records, chance is 50."
    )


def resolution_line(rows: Sequence[Row]) -> str:
    """Smallest gain that this number of records can show."""
    margins = rows[0].margins
    sizes = {"All": len(margins.units)}
    counts = {int((margins.group == column).sum()) for column in margins.columns}
    sizes |= {f"a relation of {size}": size for size in sorted(counts - {0})}
    parts = []
    for name, size in sizes.items():
        gains = [smallest_detectable_gain(size, discordance) for discordance in DISCORDANCES]
        parts.append(f"{' / '.join(number(gain) for gain in gains)} points on {name}")
    return (
        "Smallest paired gain that one seed can show (exact McNemar, 5 %, power 80 %; 10 / 20 / "
        f"30 % of the records answered differently): {'; '.join(parts)}."
    )
