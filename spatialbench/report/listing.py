"""The pages of a folder, and whether each has a current row in the table."""

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from spatialbench.config.pages import Page
from spatialbench.results.files import STORED_BUDGET, read_result, result_path
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean


def listing(benchmarks: Path, results: Path, track: str) -> list[dict[str, str]]:
    """List the pages: name, paper, command, cost, status, and why.

    ``status`` is ``current``, ``stale`` or ``damaged``, with the reason in ``why``; ``missing``; or
    ``smoke only`` where there are rows of other budgets alone.

    Raises:
        SpatialbenchError: no pages in the folder, a page that cannot be read, or an unknown track.
    """
    today = Today.read(benchmarks)
    if not today.pages:
        raise SpatialbenchError(f"no pages in {benchmarks}/; give --benchmarks FOLDER")
    if track not in today.tracks:
        raise SpatialbenchError(f"unknown track {track!r}{did_you_mean(track, today.tracks)}")
    rows = []
    for page in today.pages.values():
        status, why = _status(page, results, track, today)
        row = {key: getattr(page, key) for key in ("name", "paper", "command", "cost")}
        rows.append({**row, "status": status, "why": why})
    return rows


def show(rows: Sequence[dict[str, str]], benchmarks: Path, track: str) -> None:
    """Print the rows as a table, and the commands below it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("page", no_wrap=True)
    table.add_column("method and source", ratio=3)
    table.add_column("cost", ratio=2)
    table.add_column("row", max_width=24)
    for row in rows:
        state = row["status"] + (f" ({row['why']})" if row["why"] else "")
        table.add_row(row["name"], row["paper"], row["cost"], state)
    console = Console(width=max(110, Console().width))
    console.print(table)
    page, where = benchmarks / "PAGE.yaml", "" if track == "rooms" else f" --track {track}"
    lines = [
        f"train and test a page:       spatialbench fit --config {page}{where}",
        f"its row, with every seed:    spatialbench run {page}{where}",
    ]
    for row in rows:
        file, folders = f"{row['name']}.yaml", (benchmarks, Path("benchmarks"))
        usual = [f"spatialbench fit --config {folder / file}" for folder in folders]
        if row["command"] not in ("", *usual):
            lines.append(f"{row['name']}:  {row['command']}")
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def _status(page: Page, results: Path, track: str, today: Today) -> tuple[str, str]:
    path = result_path(results, track, STORED_BUDGET, page.name)
    if not path.is_file():
        budgets = today.tracks[track].budgets
        others = [b for b in budgets if result_path(results, track, b, page.name).is_file()]
        return (f"{', '.join(others)} only" if others else "missing"), ""
    try:
        reasons = today.stale(read_result(path))
    except SpatialbenchError as error:
        return "damaged", str(error)
    return ("stale", ", ".join(reasons)) if reasons else ("current", "")
