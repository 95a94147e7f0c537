"""``spatialbench doctor``: print what this machine can run."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from spatialbench.cli.parser import Parser
from spatialbench.verify.doctor import findings


def doctor(argv: list[str]) -> int:
    """Run ``spatialbench doctor``; 1 where the installation is broken."""
    parser = Parser("doctor", "what this machine can run, and how to get what is missing; offline")
    parser.flag("--json", "the findings for machines")
    parser.common("benchmarks")
    options = parser.parse_args(argv)
    report = findings(Path(options.benchmarks))
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)
    return 1 if report["problems"] else 0


def show(report: dict[str, Any]) -> None:
    """Print the findings as text."""
    for problem in report["problems"]:
        print(f"broken: {problem}")
    if "machine" not in report:
        return
    print("\n".join(_machine(report)))
    weights = [row for row in report["weights"] if row["here"] != "random"]
    weights.sort(key=lambda row: row["kind"])
    _table("weights for here", ((row["name"], row["kind"], row["here"] or "no") for row in weights))
    print("data sets  spatialbench data download --list\n")
    tracks = report["tracks"]
    if not tracks:
        print("no tracks here: run it in a checkout of spatialbench, or give --benchmarks FOLDER")
        return
    ready = ((row["name"], "yes" if row["ready"] else "no", row["why"]) for row in tracks)
    _table("track can_run why", ready)
    for row in tracks:
        if row["fix"]:
            print(f"{row['name']} needs:", *row["fix"], sep="\n  ")


def _table(columns: str, rows: Iterable[tuple[str, ...]]) -> None:
    table = Table()
    for column in columns.split():
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=max(120, Console().width), highlight=False).print(table)


def _machine(report: dict[str, Any]) -> Iterator[str]:
    here, cache, hub = report["machine"], report["disks"]["cache"], report["disks"]["hub"]
    versions = (f"{name} {version}" for name, version in here["versions"].items())
    yield f"packages   {', '.join(versions)}"
    yield f"processor  {here['cpu']}, {here['cores']} usable cores, {here['threads']} threads"
    yield f"memory     {here['memory_gb']} GB"
    for gpu in here["gpus"]:
        kind = "bfloat16" if gpu["bf16"] else "no native bfloat16"
        yield f"GPU        {gpu['name']}, {gpu['memory_gb']:.0f} GB, {kind}"
    if not here["gpus"]:
        yield f"GPU        {'Apple, through MPS' if here['mps'] else 'none'}"
    folder = f"{cache['folder']}, {cache['free_gb']} GB free"
    yield f"cache      {cache['problem'] or folder}"
    yield f"Hub cache  {hub['folder']}{', HF_HUB_OFFLINE is set' if hub['offline'] else ''}"
    for row in report["packages"]:
        if not row["ok"]:
            yield f"optional   {row['name']}: pip install 'spatialbench[{row['extra']}]'"
