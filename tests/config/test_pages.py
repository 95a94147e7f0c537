"""Pages and tracks: what is read, what wins, and what a mistake says."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from spatialbench.config.experiment import compose, deep_merge, resolve, weights_digests
from spatialbench.config.pages import discover, load_page, load_track
from spatialbench.config.signatures import import_class, parameters, prune, unknown_key
from spatialbench.config.yaml_files import parse_yaml
from spatialbench.results.stale import track_hash
from spatialbench.training.build import dump_config
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean
from tests.support import BENCHMARKS

PAGES = sorted([*BENCHMARKS.glob("*.yaml"), *BENCHMARKS.glob("pretrain/*.yaml")])
TRACKS = sorted(BENCHMARKS.glob("tracks/*.yaml"))


@dataclass
class Settings:
    lr: float = 0.1
    steps: int = 1


class Base:
    def __init__(self, student: str = "s", settings: Settings | None = None) -> None: ...


class Child(Base):
    def __init__(self, width: int = 1, **kwargs: object) -> None: ...


class Bare(Base):
    def __init__(self, width: int = 1) -> None: ...


PAGE = """\
# A method with a
# long title (Someone 2024).
#   spatialbench fit --config benchmarks/x.yaml
# Cost  4 min on 2 CPU cores (rooms)      Result  results/rooms/x.json
model:
  class_path: tests.config.test_pages.Child
  init_args:
    width: 3
"""
TRACK = """\
name: t
seeds: [4, 5]
trainer: {max_steps: 1, precision: 32-true}
data: {train_images: 10, batch_images: 2}
model: {student: small, vfm: v, settings: {lr: 1e-3, unknown_to_child: 1}}
budgets:
  quick: {data: {train_images: 20}, trainer: {max_steps: 2}}
  full: {trainer: {max_steps: 9}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tracks").mkdir()
    (tmp_path / "tracks" / "t.yaml").write_text(TRACK)
    (tmp_path / "x.yaml").write_text(PAGE)
    return tmp_path


def write(folder: Path, text: str, name: str = "y.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
@pytest.mark.parametrize("budget", ["smoke", "quick", "full"])
def test_every_page_composes_and_its_printed_configuration_is_a_page(
    path: Path, budget: str, tmp_path: Path
) -> None:
    text = dump_config(resolve(path, "rooms", budget, 3))
    again = write(tmp_path, text, path.name)
    for seed in (3, 7):
        printed = dump_config(resolve(again, BENCHMARKS / "tracks" / "rooms.yaml", budget, seed))
        expected = text.replace("seed_everything: 3", f"seed_everything: {seed}")
        assert printed == expected.replace("  seed: 3", f"  seed: {seed}")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_page_has_a_header(path: Path) -> None:
    page, place = load_page(path), path.relative_to(BENCHMARKS.parent).as_posix()
    assert page.command == f"spatialbench fit --config {place}"
    assert page.paper
    assert page.cost
    if path.parent == BENCHMARKS:
        assert page.result == f"results/rooms/{page.name}.json"


@pytest.mark.parametrize("path", TRACKS, ids=lambda path: path.stem)
def test_every_default_of_a_track_is_taken_by_some_page(path: Path) -> None:
    """A misspelt key of the track's model block would reach nobody."""
    names = {page.config["model"]["class_path"] for page in discover(BENCHMARKS)}
    classes = [import_class(name, "test") for name in names]
    track = load_track(path)
    for layer in (track.config, *track.budgets.values()):
        for key, value in (layer.get("model") or {}).items():
            assert any(prune({key: value}, cls) == {key: value} for cls in classes), key


def test_a_page_is_read_with_its_header(folder: Path) -> None:
    page = load_page(folder / "x.yaml")
    assert page.name == "x"
    assert page.paper == "A method with a long title (Someone 2024)."
    assert page.command == "spatialbench fit --config benchmarks/x.yaml"
    assert page.cost == "4 min on 2 CPU cores (rooms)"
    assert page.result == "results/rooms/x.json"
    assert page.config["model"]["init_args"] == {"width": 3}
    assert [p.name for p in discover(folder)] == ["x"]


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_page_says_its_family(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert f"family: {load_page(path).family}" in lines


def test_the_family_is_in_no_hash(folder: Path) -> None:
    """A page that names none is of the family of pairs; one that is moved trains the same."""
    text = (folder / "x.yaml").read_text()
    before = load_page(folder / "x.yaml")
    after = load_page(write(folder, f"{text}\nfamily: readouts\n"))
    assert (before.family, after.family) == ("pairs", "readouts")
    assert (before.hash, before.config) == (after.hash, after.config)
    write(folder, f"{text}\nfamily: readout\n")
    with pytest.raises(SpatialbenchError, match=r"family 'readout' \(page .*\): did you mean"):
        load_page(folder / "y.yaml")


def test_the_hash_is_of_the_content_and_not_of_its_layout(folder: Path) -> None:
    text = "model: {init_args: {width: 3}, class_path: tests.config.test_pages.Child}"
    first, same = load_page(folder / "x.yaml").hash, load_page(write(folder, text)).hash
    other = load_page(write(folder, PAGE.replace("width: 3", "width: 4"))).hash
    assert first == same != other
    assert len(first) == 16


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("5E+2", 500.0), ("2.0e-5", 2e-5), ("-1e3", -1e3), ("12", 12), ("1e", "1e")],
)
def test_numbers_are_numbers(text: str, value: object) -> None:
    assert parse_yaml(f"a: {text}", "here") == {"a": value}


MODEL = "model: {class_path: a.B}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: {}", r"unknown key 'modle' \(page .*y\.yaml\): did you mean 'model'\?"),
        ("a: 1\nmodel: [1", r"page .*y\.yaml line 2: not valid YAML"),
        ("a\n", r"must be a mapping with the keys"),
        (MODEL + MODEL, r"the key 'model' appears twice"),
        ("trainer: {}", r"needs 'model: \{class_path"),
        ("model: {class_path: a.B, init_arg: {}}", r"unknown key 'model\.init_arg'.*'init_args'"),
        (MODEL + "trainer: 3", r"'trainer' must be a mapping, got 3"),
        (MODEL + "seed_everything: true", r"must be an explicit integer of 0 or more, got True"),
        (MODEL + "budgets: {full: {trianer: {}}}", r"budgets\)?: did you mean 'trainer'"),
    ],
)
def test_a_bad_page_is_one_line(folder: Path, text: str, message: str) -> None:
    with pytest.raises(SpatialbenchError, match=message) as error:
        load_page(write(folder, text))
    assert "\n" not in str(error.value)


BUDGETS = "budgets: {quick: {}}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BUDGETS + "seeds: [true]", r"seeds must be an explicit integer of 0 or more, got True"),
        (BUDGETS + "seeds: 3", r"seeds must be a list of integers, got 3"),
        ("budgets: {}", r"needs 'budgets: "),
        ("budgets: [1]", r"must map budgets to settings"),
        ("budget: {}", r"unknown key 'budget' .*: did you mean 'budgets'\?"),
        (BUDGETS + "evaluations: {a: {class_path: b.C, budgets: {quik: {}}}}", "mean 'quick'"),
        (BUDGETS + "regions: {init_args: {}}", "regions needs 'class_path'"),
    ],
)
def test_a_bad_track_is_one_line(folder: Path, text: str, message: str) -> None:
    with pytest.raises(SpatialbenchError, match=message):
        load_track(write(folder, text))


def test_the_former_key_of_an_evaluation_is_read(folder: Path) -> None:
    text = "regions: {class_path: b.C, init_args: {size: 3}, budgets: {quick: {size: 2}}}"
    assert load_track(write(folder, BUDGETS + text)).evaluations["regions"] == {
        "class_path": "spatialbench.evaluation.regions.RegionEvaluation",
        "init_args": {"source": {"class_path": "b.C", "init_args": {"size": 3}}},
        "budgets": {"quick": {"source": {"init_args": {"size": 2}}}},
    }


def test_a_missing_page_or_track_names_its_neighbour(folder: Path) -> None:
    with pytest.raises(SpatialbenchError, match=r"no such page: .*: did you mean '.*x\.yaml'"):
        load_page(folder / "xx.yaml")
    with pytest.raises(SpatialbenchError, match=r"unknown track 'tt': did you mean 't'\?"):
        load_track("tt", near=folder / "x.yaml")


def test_the_page_wins_over_the_budget_over_the_track_and_the_command_line_over_all(
    folder: Path,
) -> None:
    page, track = load_page(folder / "x.yaml"), load_track("t", near=folder / "x.yaml")
    config = compose(page, track, "quick", 4)
    assert config["seed_everything"] == 4
    assert config["trainer"] == {"max_steps": 2, "precision": "32-true"}
    assert config["data"] == {"seed": 4, "train_images": 20, "batch_images": 2}
    arguments = {"student": "small", "settings": {"lr": 1e-3}, "width": 3}
    assert config["model"]["init_args"] == arguments
    blocks = "trainer: {max_steps: 7}\nbudgets: {full: {trainer: {max_steps: 8}}}"
    own = load_page(write(folder, PAGE + blocks))
    assert compose(own, track, "quick", 4)["trainer"]["max_steps"] == 7
    assert compose(own, track, "full", 4)["trainer"]["max_steps"] == 8
    given = {"trainer": {"max_steps": 1}, "model": {"init_args": {"settings": {"steps": 5}}}}
    config = compose(own, track, "full", 4, given)
    assert config["trainer"]["max_steps"] == 1
    assert config["model"]["init_args"]["settings"] == {"lr": 1e-3, "steps": 5}


def test_a_page_may_name_its_own_data(folder: Path) -> None:
    data = {"class_path": "tests.support.tiny.OtherData", "init_args": {"size": 6}}
    config = resolve(write(folder, PAGE + yaml.safe_dump({"data": data})), "t", "quick").config
    assert config["data"] == {**data, "init_args": {"seed": 4, "size": 6}}


HERE = r"tests\.config\.test_pages"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("width", "widht", rf"'widht' for {HERE}\.Child \(page .*\): did you mean 'width'\?$"),
        ("width", "lrr", r"did you mean 'settings\.lr'\?$"),
        ("width: 3", "settings: {lrr: 3}", r"'settings\.lrr' .* did you mean 'settings\.lr'\?$"),
        ("Child", "Chidl", rf"no class 'Chidl' in '{HERE}': did you mean 'Child'\?$"),
        ("test_pages", "test_page", rf"no module '.*test_page' .*: did you mean '{HERE}'\?$"),
        ("model:", "trainer: {max_step: 3}\nmodel:", r"for trainer .* did you mean 'max_steps'"),
        ("model:", "data: {bach_images: 3}\nmodel:", r"DataModule .* did you mean 'batch_images'"),
    ],
)
def test_a_misspelt_key_names_the_nearest_one(
    folder: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(SpatialbenchError, match=message):
        resolve(write(folder, PAGE.replace(old, new)), "t", "quick")


def test_runs_of_one_configuration_share_a_folder_but_for_the_seed(folder: Path) -> None:
    first = resolve(folder / "x.yaml", "t", "quick")
    other = resolve(folder / "x.yaml", "t", "quick", 9, runs="elsewhere")
    assert first.seed == 4, "the track's first seed"
    assert first.config_hash == other.config_hash
    assert first.run_dir == Path("runs/t/quick/x") / first.config_hash[:8] / "seed4"
    assert other.run_dir == Path("elsewhere/t/quick/x") / first.config_hash[:8] / "seed9"
    changed = resolve(folder / "x.yaml", "t", "quick", overrides={"trainer": {"max_steps": 3}})
    assert changed.config_hash != first.config_hash


def test_another_class_takes_nothing_over() -> None:
    old = {"model": {"class_path": "a.A", "init_args": {"lr": 1}}}
    new = {"model": {"class_path": "a.B", "init_args": {"d": 2}}}
    assert deep_merge(old, new) == new
    merged = deep_merge(old, {"model": {"init_args": {"d": 2}}})
    assert merged["model"]["init_args"] == {"lr": 1, "d": 2}
    lists = deep_merge({"a": [1, 2], "b": {"c": 1}}, {"a": [3], "b": {"d": 2}})
    assert lists == {"a": [3], "b": {"c": 1, "d": 2}}


def test_parameters_follow_the_chain_for_as_long_as_it_is_open() -> None:
    assert list(parameters(Child)) == ["width", "student", "settings"]
    assert list(parameters(Bare)) == ["width"]
    values = {"width": 1, "vfm": "v", "settings": {"lr": 1, "x": 2}}
    assert prune(values, Child) == {"width": 1, "settings": {"lr": 1}}
    assert unknown_key({"width": 1, "settings": {"lr": 2}}, Child) is None
    assert unknown_key({"student": "x"}, Bare) == ("student", ["width"])


def test_did_you_mean() -> None:
    assert did_you_mean("smok", ["smoke", "quick"]) == ": did you mean 'smoke'?"
    assert did_you_mean("LR", ["lr"]) == ": did you mean 'lr'?"
    assert did_you_mean("zzz", ["a", "b.c"]) == "; known: a"
    assert did_you_mean("zzz", []) == ""


def test_the_printed_configuration_keeps_nulls() -> None:
    """A null that is not the default would come back as the default if it were left out."""
    text = dump_config(resolve(BENCHMARKS / "clip_finetune.yaml", "rooms", "smoke", 0))
    assert yaml.safe_load(text)["trainer"]["check_val_every_n_epoch"] is None


def test_other_weights_under_the_same_name_are_another_run_and_another_track(
    tmp_path: Path,
) -> None:
    weights, hashes = tmp_path / "x.safetensors", set()
    page = load_page(BENCHMARKS / "spatial_attn.yaml")
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        student = {"model": {"init_args": {"student": f"rooms-student:{weights}"}}}
        hashes.add(resolve(page, overrides=student).config_hash)
        track = load_track(BENCHMARKS / "tracks" / "rooms.yaml")
        track.config["model"]["vfm"] = f"rooms-vfm:{weights}"
        hashes.add(track_hash(track, "full", page))
    assert len(hashes) == 4
    both = {"student": "rooms-student", "vfm": "rooms-vfm:random"}
    assert set(weights_digests(both)) == {"student"}


def test_the_track_of_unseen_pairs_differs_in_nothing_else() -> None:
    folder = BENCHMARKS / "tracks"
    rooms, unseen = (load_track(folder / f"{name}.yaml") for name in ("rooms", "rooms_unseen"))
    assert unseen.config["data"] == {**rooms.config["data"], "unseen_pairs": 0.2}
    assert {**unseen.config, "data": None} == {**rooms.config, "data": None}
    assert (unseen.budgets, unseen.evaluations) == (rooms.budgets, rooms.evaluations)
