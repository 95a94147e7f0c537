"""``spatialbench doctor``: everything looked at once, printed for people or for machines."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from spatialbench.data.download.manifest import data_sets
from spatialbench.data.download.status import state
from spatialbench.verify.holdings import SHIPPED, Holding, shipped_problems
from spatialbench.verify.machine import disks, machine, packages, unloadable
from spatialbench.verify.tracks import tracks

SHOWN = (
    *(
        "torch",
        "torchvision",
        "lightning",
        "open_clip_torch",
        "timm",
        "diffusers",
        "transformers",
        "peft",
    ),
    *("huggingface_hub", "numpy"),
)
"""Packages whose version stands in the text; all of them are in the JSON."""


def run(options: Namespace) -> int:
    """Prints the findings.

    Returns:
        0; 1 where something of the installation is broken: a package, a shipped weight.
    """
    found = findings(Path(options.benchmarks))
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)
    return 1 if found["problems"] else 0


def findings(benchmarks: Path) -> dict[str, Any]:
    """Everything as JSON: ``problems`` of the installation, ``machine``, ``packages``, ``disks``, ``weights``,
    ``data_sets`` and ``tracks``. The network is not asked.
    """
    installed = packages()
    problems = [
        f"{row['name']} {row['installed'] or 'is not installed'}; {row['wanted'] or 'any version'} is needed: "
        f"pip install '{row['name']}{row['wanted']}'"
        for row in installed
        if not row["ok"] and not row["extra"]
    ]
    problems += unloadable()
    if problems:  # nothing of what follows can be trusted to import
        return {"problems": problems, "packages": installed}
    problems += shipped_problems()
    here, places = machine(), disks()
    found = tracks(benchmarks, bool(here["gpus"]) or here["mps"], places["cache"]["problem"])
    named = [holding for track in found for holding in track.holdings if holding.kind != "data"]
    weights = {(holding.kind, holding.name): holding for holding in (*SHIPPED, *named)}
    return {
        "problems": problems,
        "machine": here,
        "packages": installed,
        "disks": places,
        "weights": [asdict(holding) for holding in weights.values()],
        "data_sets": [_data_set(name) for name in data_sets()],
        "tracks": [asdict(track) for track in found],
    }


def _data_set(name: str) -> dict[str, Any]:
    found = state(data_sets()[name])
    mend = "" if found.complete else f"spatialbench data download {name}"
    return {
        "name": name,
        "complete": found.complete,
        "state": str(found),
        "missing": found.missing,
        "mend": mend,
    }


def show(found: dict[str, Any]) -> None:
    """Prints the findings as text."""
    console = Console(width=max(120, Console().width), highlight=False)
    for problem in found["problems"]:
        console.print(f"broken: {problem}", markup=False, soft_wrap=True)
    if "machine" not in found:
        return
    for line in (*_machine_lines(found), *_disk_lines(found["disks"])):
        console.print(line, markup=False, soft_wrap=True)
    console.print()
    _print_weights(console, found["weights"])
    _print_data(console, found["data_sets"])
    _print_tracks(console, found["tracks"])


def _machine_lines(found: dict[str, Any]) -> list[str]:
    here = found["machine"]
    versions = {row["name"]: row["installed"] for row in found["packages"] if row["name"] in SHOWN}
    said = [f"{name} {version}" for name, version in {**here["versions"], **versions}.items()]
    gpus = [
        f"{gpu['name']}, {gpu['memory_gb']:.0f} GB, {'bfloat16' if gpu['bf16'] else 'no bfloat16 of its own'}"
        for gpu in here["gpus"]
    ] or ["Apple's, through MPS" if here["mps"] else "none"]
    absent = [
        f"{row['name']} (pip install 'spatialbench[{row['extra']}]')"
        for row in found["packages"]
        if not row["ok"]
    ]
    lines = [
        f"packages   {', '.join(said)}",
        f"processor  {here['cpu']}, cores for this process: {here['cores']}, threads: {here['threads']}",
        f"memory     {here['memory_gb']} GB, {here['memory_free_gb']} GB of it free",
        *(f"GPU        {gpu}" for gpu in gpus),
    ]
    return lines + ([f"optional   not installed: {', '.join(absent)}"] if absent else [])


def _disk_lines(places: dict[str, Any]) -> list[str]:
    cache, hub = places["cache"], places["hub"]
    own = (
        cache["problem"]
        or f"{cache['folder']}, {cache['size_mb']} MB, {cache['free_gb']} GB free on its disk"
    )
    offline = "; HF_HUB_OFFLINE is set: nothing is loaded from the Hub" if places["offline"] else ""
    return [
        f"cache      {own}",
        f"Hub cache  {hub['folder']}, {hub['size_mb']} MB, {hub['free_gb']} GB free on its disk{offline}",
    ]


def _print_weights(console: Console, weights: list[dict[str, Any]]) -> None:
    table = _table("weights", "for", "here")
    for row in sorted((Holding(**row) for row in weights), key=lambda row: row.kind):
        if row.here != "random":
            table.add_row(row.name, row.kind, row.here or "no")
    console.print(table)


def _print_data(console: Console, rows: list[dict[str, Any]]) -> None:
    table = _table("data set", "here")
    for row in rows:
        table.add_row(row["name"], "no" if row["state"] == "-" else row["state"])
    console.print(table)
    if any(row["mend"] for row in rows):
        console.print(
            "spatialbench data download NAME brings a data set; --list says more\n", markup=False
        )


def _print_tracks(console: Console, rows: list[dict[str, Any]]) -> None:
    if not rows:
        console.print(
            "no tracks here: start it in a checkout of spatialbench, or give --benchmarks FOLDER",
            markup=False,
        )
        return
    table = _table("track", "can run", "why")
    for row in rows:
        table.add_row(row["name"], "yes" if row["ready"] else "no", row["why"])
    console.print(table)
    for row in rows:
        if row["mend"]:
            console.print(f"{row['name']} needs:", markup=False)
            for command in row["mend"]:
                console.print(f"  {command}", markup=False, soft_wrap=True)
    if any(
        holding["kind"] != "data" and not holding["here"]
        for row in rows
        for holding in row["holdings"]
    ):
        console.print("(a run loads weights by itself where there is a network)", markup=False)


def _table(*columns: str) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
