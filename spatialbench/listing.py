"""The pages of a folder, and whether each has a current row in the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from spatialbench.errors import SpatialbenchError
from spatialbench.results import STORED_BUDGET, read_result, result_path
from spatialbench.stale import Today

COLUMNS = ("name", "paper", "command", "cost", "status", "why")


def listing(benchmarks: Path, results: Path, track: str) -> list[dict[str, str]]:
    """One row of ``COLUMNS`` for each page; status is ``missing``, ``current``, ``stale`` or ``damaged``.

    Raises:
        SpatialbenchError: no pages in the folder, a page that cannot be read, or an unknown track.
    """
    today = Today.read(benchmarks)
    if not today.pages:
        raise SpatialbenchError(f"no pages in {benchmarks}/; give --benchmarks FOLDER")
    if track not in today.tracks:
        raise SpatialbenchError(f"unknown track {track!r}; known: {', '.join(today.tracks)}")
    rows = []
    for page in today.pages.values():
        status, why = _status(result_path(results, track, STORED_BUDGET, page.name), today)
        rows.append(
            {"name": page.name, "paper": page.paper, "command": page.command, "cost": page.cost}
            | {"status": status, "why": why}
        )
    return rows


def show(rows: Sequence[dict[str, str]]) -> None:
    """Prints the rows as a table; the command, the same for every page but its name, stands below."""
    table = Table()
    for column in ("page", "paper", "cost", "row"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            row["name"], row["paper"], row["cost"], row["status"] + (f" ({row['why']})" if row["why"] else "")
        )
    console = Console(width=max(100, Console().width))
    console.print(table)
    console.print("\n".join(row["command"] for row in rows if row["command"]), highlight=False, soft_wrap=True)


def _status(path: Path, today: Today) -> tuple[str, str]:
    if not path.is_file():
        return "missing", ""
    try:
        reasons = today.stale(read_result(path))
    except SpatialbenchError as error:
        return "damaged", str(error)
    return ("stale", ", ".join(reasons)) if reasons else ("current", "")
