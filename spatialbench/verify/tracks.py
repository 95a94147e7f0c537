"""Which tracks can run on this machine now; of the others why not, and the command that mends it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatialbench.config.pages import Track, load_track
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.verify.holdings import Holding, checked, data

WEIGHTS = ("student", "vfm", "diffusion")
"""Parameters of a track's model block that name weights."""
_BESIDE = ("path", "masks", "images", "captions", "folder")
"""Arguments of what is measured beside the pairs that name files."""


@dataclass(frozen=True)
class Readiness:
    """Whether a track can run.

    Attributes:
        name: the track; of a page that cannot be read, its file.
        ready: everything that it names is here.
        why: the first thing that is missing, and how many more are; a warning where it is ready.
        mend: the commands that bring what is missing, each once.
        holdings: everything that it names.
    """

    name: str
    ready: bool
    why: str
    mend: list[str]
    holdings: list[Holding]


def tracks(benchmarks: Path, accelerated: bool, problem: str = "") -> list[Readiness]:
    """Looks at every track of a folder of pages.

    Args:
        benchmarks: the folder that holds ``tracks``.
        accelerated: whether there is a GPU.
        problem: why nothing can run; empty where that is not so.
    """
    return [
        _readiness(path, accelerated, problem)
        for path in sorted((benchmarks / "tracks").glob("*.yaml"))
    ]


def needs(track: Track) -> Iterator[Holding]:
    """What a track's configuration names: weights, and files or folders of data."""
    model = track.config["model"]
    for kind in WEIGHTS:
        if isinstance(model.get(kind), str):
            yield checked(kind, model[kind], model.get("hashes") or {})
    for key, value in track.config["data"].items():
        if isinstance(value, str) and (key == "path" or key.endswith(("_path", "_folder"))):
            yield data(value, f"data.{key}")
    for name, block in (("regions", track.regions), ("selection", track.selection)):
        arguments: Mapping[str, Any] = (block or {}).get("init_args") or {}
        for key, value in arguments.items():
            if isinstance(value, str) and key in _BESIDE:
                yield data(value, f"{name}.{key}")


def _readiness(path: Path, accelerated: bool, problem: str) -> Readiness:
    try:
        track = load_track(path)
        holdings = list(needs(track))
    except SpatialbenchError as error:
        return Readiness(path.name, False, str(error), [], [])
    missing = [holding for holding in holdings if not holding.here]
    mend = list(dict.fromkeys(holding.mend for holding in missing))
    if problem:
        return Readiness(track.name, False, problem, [], holdings)
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        return Readiness(
            track.name,
            False,
            f"{missing[0].kind} {missing[0].name} is not here{more}",
            mend,
            holdings,
        )
    small = all(holding.here == "shipped" for holding in holdings)
    warning = "" if accelerated or small else "there is no GPU: it will be slow"
    return Readiness(track.name, True, warning, [], holdings)
