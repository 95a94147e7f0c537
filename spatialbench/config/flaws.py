"""Flaws of a protocol, each a layer over a track: benchmarks/audit/flaws.yaml.

The first flaw of the file is none: the protocol with which the others are compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from spatialbench.config.experiment import deep_merge
from spatialbench.config.pages import LAYER_KEYS, Config, Track, read_mapping
from spatialbench.config.yaml_files import check_keys
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean
from spatialbench.utils.typed_files import parse

PAGES = ("clip_finetune", "spatial_attn")
"""The two rows of the audit: the second minus the first is the gain that the poster claims."""
FILE = Path("audit", "flaws.yaml")
"""Within the folder of the pages."""
ADVICE = "see the head of benchmarks/audit/flaws.yaml for its form"


@dataclass(frozen=True)
class Recount:
    """Rule by which stored margins are counted."""

    ties_wrong: bool = False  # a tie is wrong; else one half
    drop_last: int = 0  # leave out what does not fill a batch of so many records of a relation


@dataclass(frozen=True)
class Flaw:
    """One flaw; see the head of benchmarks/audit/flaws.yaml."""

    name: str
    about: str
    pages: list[str] = field(default_factory=lambda: [*PAGES])
    layer: dict[str, Config] = field(default_factory=dict)
    budgets: dict[str, dict[str, Config]] = field(default_factory=dict)
    recount: Recount = field(default_factory=Recount)
    of: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for page in self.pages:
            if page not in PAGES:
                raise ValueError(f"unknown page {page!r} of flaw {self.name}; {', '.join(PAGES)}")

    @property
    def trained(self) -> bool:
        """False if it only recounts the rows of the first."""
        return bool(self.layer) or self.recount == Recount()

    def track(self, track: Track) -> Track:
        """Lay the flaw over every budget of a track; evaluations beside the pairs are left out."""
        budgets = {
            budget: deep_merge(sizes, self.layer, self.budgets.get(budget, {}))
            for budget, sizes in track.budgets.items()
        }
        name = f"{track.name}+{self.name}"
        return replace(track, name=name, budgets=budgets, evaluations={})


@dataclass(frozen=True)
class _FlawsFile:
    flaws: list[Flaw]
    budgets: dict[str, dict[str, Config]] = field(default_factory=dict)


def read_flaws(benchmarks: Path) -> list[Flaw]:
    """Read the flaws in the order of the file, complete; an empty list without a file.

    Raises:
        SpatialbenchError: bad YAML, a wrong field, an unknown flaw in ``of``.
    """
    path = benchmarks / FILE
    if not path.is_file():
        return []
    _, content = read_mapping(path, "audit", ("flaws", "budgets"))
    file, known = parse(_FlawsFile, content, str(path), ADVICE), dict[str, Flaw]()
    for flaw in file.flaws:
        for layer in (flaw.layer, *flaw.budgets.values(), *file.budgets.values()):
            check_keys(layer, LAYER_KEYS, f"{path}: {flaw.name}")
        for name in flaw.of:
            if name not in known:
                near = did_you_mean(name, known)
                raise SpatialbenchError(f"{path}: {flaw.name} is of an unknown flaw {name!r}{near}")
        whole = replace(flaw, budgets=deep_merge(file.budgets, flaw.budgets))
        known[flaw.name] = _merged([*(known[name] for name in flaw.of), whole])
    return [*known.values()]


def _merged(flaws: Sequence[Flaw]) -> Flaw:
    """Return the last flaw with the layers and recounts of all."""
    recounts = [flaw.recount for flaw in flaws]
    return replace(
        flaws[-1],
        layer=deep_merge(*(flaw.layer for flaw in flaws)),
        budgets=deep_merge(*(flaw.budgets for flaw in flaws)),
        recount=Recount(
            any(each.ties_wrong for each in recounts), max(each.drop_last for each in recounts)
        ),
    )


def audited(tracks: Mapping[str, Track], flaws: Sequence[Flaw]) -> dict[str, Track]:
    """Return the tracks of the flaws that are trained, by name: of every track of the rooms."""
    rooms = [track for track in tracks.values() if track.config["data"].get("source") == "rooms"]
    made = [flaw.track(track) for track in rooms for flaw in flaws if flaw.trained]
    return {track.name: track for track in made}
