"""Flaws of the audit: read, merged, laid over a track; and the shipped ones on the rooms."""

from pathlib import Path

import pytest

from spatialbench.config.experiment import compose
from spatialbench.config.flaws import PAGES, Recount, audited, read_flaws
from spatialbench.config.pages import load_page, load_track
from spatialbench.utils.errors import SpatialbenchError
from tests.support import BENCHMARKS

FLAWS = """\
budgets: {smoke: {trainer: {max_steps: 1}}}
flaws:
  - {name: none, about: a}
  - {name: steps, about: b, layer: {trainer: {max_steps: 7}, data: {split: record}}}
  - {name: lr, about: c, layer: {data: {held_out: 0.5}}, budgets: {smoke: {data: {seed: 3}}}}
  - {name: ties, about: d, recount: {ties_wrong: true}}
  - {name: both, about: e, of: [steps, lr, ties], recount: {drop_last: 8}}
"""


def write(folder: Path, text: str) -> Path:
    (folder / "audit").mkdir(exist_ok=True)
    (folder / "audit" / "flaws.yaml").write_text(text)
    return folder


def test_flaws_of_flaws_are_merged_and_shared_budgets_reach_all(tmp_path: Path) -> None:
    flaws = {flaw.name: flaw for flaw in read_flaws(write(tmp_path, FLAWS))}
    assert flaws["both"].layer == {
        "trainer": {"max_steps": 7},
        "data": {"split": "record", "held_out": 0.5},
    }
    assert flaws["both"].budgets == {"smoke": {"trainer": {"max_steps": 1}, "data": {"seed": 3}}}
    assert flaws["both"].recount == Recount(ties_wrong=True, drop_last=8)
    assert flaws["none"].budgets == {"smoke": {"trainer": {"max_steps": 1}}}
    assert [name for name, flaw in flaws.items() if not flaw.trained] == ["ties"]


def test_a_track_of_the_rooms_with_each_flaw(tmp_path: Path) -> None:
    tracks = {name: load_track(BENCHMARKS / f"tracks/{name}.yaml") for name in ("rooms", "coco")}
    made = audited(tracks, read_flaws(write(tmp_path, FLAWS)))
    assert list(made) == ["rooms+none", "rooms+steps", "rooms+lr", "rooms+both"]
    rooms, steps = tracks["rooms"], made["rooms+steps"]
    quick = rooms.budgets["quick"]["trainer"]
    assert steps.budgets["quick"]["trainer"] == {**quick, "max_steps": 7}
    assert steps.budgets["smoke"]["trainer"]["max_steps"] == 1, "a single budget wins"
    assert (steps.config, steps.evaluations) == (rooms.config, {})
    assert made["rooms+none"].budgets["full"] == rooms.budgets["full"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("of: [steps,", "of: [stepz,", r"both is of an unknown flaw 'stepz': did you mean 'steps'"),
        ("about: b", "about: b, pages: [clip]", r"field 'flaws\[1\]': unknown page 'clip' of flaw"),
        ("layer: {trainer", "layer: {trainr", r"unknown key 'trainr'"),
        ("drop_last: 8", "drop: 8", r"field 'flaws\[4\]\.recount\.drop': unknown field"),
        ("flaws:", "flawz:", r"unknown key 'flawz'"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in FLAWS
    with pytest.raises(SpatialbenchError, match=message):
        read_flaws(write(tmp_path, FLAWS.replace(old, new, 1)))


def test_without_a_file_there_are_no_flaws(tmp_path: Path) -> None:
    assert read_flaws(tmp_path) == []


def test_every_shipped_flaw_changes_what_it_says_and_no_more() -> None:
    flaws, rooms = read_flaws(BENCHMARKS), load_track(BENCHMARKS / "tracks" / "rooms.yaml")
    tracks = audited({"rooms": rooms}, flaws)
    assert flaws[0].layer == {}
    for flaw in flaws[1:]:
        for name in flaw.pages if flaw.trained else ():
            page = load_page(BENCHMARKS / f"{name}.yaml")
            for budget in rooms.budgets:
                plain, made = (
                    leaves(compose(page, tracks[f"rooms+{own}"], budget, 0))
                    for own in (flaws[0].name, flaw.name)
                )
                changed = {key for key in made if made[key] != plain.get(key)}
                assert plain.keys() <= made.keys()
                assert changed == {
                    key.replace("model.", "model.init_args.")
                    for layer in (flaw.layer, flaw.budgets.get(budget, {}))
                    for key, value in leaves(layer).items()
                    if plain.get(key) != value
                }, flaw.name
    assert [flaw.pages for flaw in flaws if flaw.pages != [*PAGES]] == [["spatial_attn"]]


def leaves(config: dict, prefix: str = "") -> dict[str, object]:
    found = {}
    for key, value in config.items():
        inner = isinstance(value, dict)
        found |= leaves(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found
