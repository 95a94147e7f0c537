"""Evidence: formula (1) as a loop, answers, joining, aligning, and files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.ratio import Margins, Ratio, compact
from spatialbench.utils.npz import npz_bytes
from tests.support.checks import refused

UNITS, GROUPS = 24, 5


def one(seed: int, data: str = "d" * 16) -> Evidence:
    """Two measures of one seed; scenes of three images; the last group never occurs."""
    rng = np.random.default_rng(seed)
    regions = rng.integers(0, 3, (UNITS, GROUPS)).astype(float)
    regions[:, -1] = 0
    known = rng.random(UNITS) < 0.7
    ratios = {
        "box": (rng.binomial(regions.astype(int), 0.4).astype(float), regions),
        "area": (rng.random(UNITS) * known, known.astype(float)),
    }
    return Evidence.of([f"room {index // 3}" for index in range(UNITS)], ratios, data)


def answered(rows: list[list[float]], group: list[str], **changes: object) -> Evidence:
    """Evidence of margins [S][U]; scenes of two units."""
    units = np.array([f"r{place}" for place in range(len(group))])
    margins = Margins(units, np.array(group), {"": np.array(rows, np.float32)}, RELATIONS)
    clusters = np.array([f"s{place // 2}" for place in range(len(group))])
    return Evidence(clusters, {}, "d", margins=margins._replace(**changes))


@pytest.fixture
def three() -> Evidence:
    return Evidence.join([one(seed) for seed in range(3)])


def formula(above: list[list[float]], below: list[list[float]]) -> float:
    """(1) as it is printed, over any list of units: float [U][G]."""
    terms = []
    for group in range(len(below[0])):
        hits, regions = 0.0, 0.0
        for unit in range(len(below)):
            hits += above[unit][group]
            regions += below[unit][group]
        if regions > 0:
            terms.append(hits / regions)
    return 100 * sum(terms) / len(terms)


def test_values_are_the_formula(three: Evidence) -> None:
    for name, (above, below) in three.ratios.items():
        expected = [formula(above[seed].tolist(), below[seed].tolist()) for seed in range(3)]
        assert three.seed_values(name) == pytest.approx(expected, abs=1e-9)
        assert three.values()[name] == pytest.approx(sum(expected) / 3, abs=1e-9)
        assert three.spread(name) == pytest.approx(np.std(expected, ddof=1))
    assert one(0).spread("box") is None


def test_values_by_hand() -> None:
    """Neither a group that never occurs nor a unit without a value counts."""
    above = np.array([[1.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    below = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
    ratios = {
        "box": (above, below),
        "area": (np.array([[0.8, 0, 0], [0, 0, 0]]), np.array([[1.0, 0, 0], [0, 0, 0]])),
        "none": (np.zeros((2, 3)), np.zeros((2, 3))),
    }
    evidence = Evidence.of(["a", "b"], ratios, "x", labels="abc")
    expected = {"box": 100 * (1 / 2 + 3 / 4) / 2, "area": 80}
    assert evidence.values() == pytest.approx(expected, abs=1e-5)
    assert evidence.group_values("box") == pytest.approx(
        {"a": 50, "b": 75, "c": np.nan}, nan_ok=True
    )
    with refused("no measure has a value"):
        Evidence.of(["a", "b"], {"none": ratios["none"]}, "x")
    with refused("2 group names, but the measures have"):
        Evidence.of(["a", "b"], {"box": (above, below)}, "x", labels="ab")


def test_answers_by_hand() -> None:
    """A tie is one half; a relation without records has no value and no part in macro."""
    group = ["left", "left", "left", "far", "far", "under"]
    values = answered([[0.1, 0.0, -0.1, 0.2, 0.3, -0.2]], group).values()
    assert list(values) == [*RELATIONS, "all", "macro"]
    assert (values["left"], values["far"], values["under"]) == (50, 100, 0)
    assert values["all"] == pytest.approx(100 * 3.5 / 6)
    assert values["macro"] == pytest.approx(50)
    assert np.isnan(values["close"])
    assert answered([[0.0] * 6], group).interval("all") == (50, 50)
    assert answered([[0.0] * 6], group).interval("close") is None


def test_float16_keeps_every_sign() -> None:
    margins = np.array([1e-9, -1e-9, 0.0, 0.25, -3e-8], np.float32)
    assert np.sign(compact(margins)).tolist() == np.sign(margins).tolist()
    joined = Evidence.join([answered([margins.tolist()], ["left"] * 5)] * 2)
    assert joined.answers().dtype == np.float16
    assert joined.seed_values("left").tolist() == [50, 50]


def test_joining_keeps_every_seed(three: Evidence) -> None:
    assert (three.seeds, three.units, three.data) == (3, UNITS, "d" * 16)
    for seed in range(3):
        assert three.seed(seed).digest == one(seed).digest
    rows = [answered([[0.5, -0.25]], ["left", "far"]), answered([[0.0, 0.25]], ["left", "far"])]
    assert Evidence.join(rows).seed(1).answers().tolist() == rows[1].answers().tolist()


def test_seeds_that_do_not_belong_together_are_not_joined() -> None:
    first = one(0)
    two_groups = Ratio(*(part[:, :, :2] for part in first.ratios["box"]))
    for other, message in [
        (one(1, data="e" * 16), "different data; run it again with --force"),
        (replace(one(1), clusters=first.clusters[::-1].copy()), "different data"),
        (replace(first, ratios={"box": first.ratios["box"]}), "different measures"),
        (replace(first, ratios={**first.ratios, "box": two_groups}), "different measures"),
    ]:
        with refused(message):
            Evidence.join([first, other])


def test_rows_are_aligned_by_the_names_of_their_units() -> None:
    first = answered([[0.1, 0.2, 0.3, 0.4]], ["left", "left", "far", "far"])
    order = np.array([3, 0, 2, 1])
    other = first.only(order)
    assert other.answers().tolist() == [[np.float32(v) for v in (0.4, 0.1, 0.3, 0.2)]]
    assert other.aligned(first).digest == first.digest
    assert first.only(np.array([True, False, True, False])).values()["far"] == 100
    for changed in (
        answered([[0.1] * 4], ["left", "left", "far", "far"], units=np.array([*"abcd"])),
        answered([[0.1] * 4], ["left", "far", "far", "far"]),
        replace(first, clusters=np.array(["s9"] * 4)),
    ):
        with refused("cannot be compared; run them again"):
            changed.aligned(first)
    with refused("cannot be compared"):
        first.aligned(one(0))


@pytest.mark.parametrize("kind", ["ratios", "margins"])
def test_round_trip(three: Evidence, tmp_path: Path, kind: str) -> None:
    evidence = three if kind == "ratios" else answered([[0.5, 0.0]], ["left", "far"])
    evidence = replace(evidence, settings="s", commits=("c",), notes={"exact": "all"})
    evidence.save(tmp_path / "box.npz")
    again = Evidence.load(tmp_path / "box.npz")
    assert again.digest == evidence.digest
    assert again.values() == pytest.approx(evidence.values(), nan_ok=True)
    assert (again.settings, again.commits, again.notes) == ("s", ("c",), {"exact": "all"})
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "box.npz").read_bytes()


def test_the_digest_sees_every_part_and_no_memory_layout(three: Evidence) -> None:
    turned = {
        name: Ratio(*(np.asfortranarray(part.astype(float)) for part in ratio))
        for name, ratio in three.ratios.items()
    }
    assert npz_bytes(replace(three, ratios=turned).arrays()) == npz_bytes(three.arrays())
    moved = Ratio(three.ratios["area"].numerator * 0.5, three.ratios["area"].denominator)
    others = [
        three,
        replace(three, data="e" * 16),
        replace(three, clusters=three.clusters[::-1].copy()),
        replace(three, ratios={**three.ratios, "area": moved}),
        replace(three, ratios={"box": three.ratios["box"]}),
        replace(three, notes={"a": "b"}),
    ]
    assert len({other.digest for other in others}) == len(others)


def test_damaged_files_are_refused_in_one_line(three: Evidence, tmp_path: Path) -> None:
    path = tmp_path / "box.npz"
    with refused("no such file; restore it"):
        Evidence.load(path, "restore it")
    three.save(path)
    content = path.read_bytes()
    np.save(tmp_path / "one.npy", np.zeros(3))
    damaged = [content[:length] for length in range(0, len(content), len(content) // 7)]
    damaged += [b"not a zip", content[:60] + b"\0" * 60 + content[120:]]
    for damage in (*damaged, (tmp_path / "one.npy").read_bytes()):
        path.write_bytes(damage)
        with refused(r"box\.npz: .*--force"):
            Evidence.load(path)
    np.savez(path, clusters=np.array([{"a": 1}], dtype=object))
    with refused("not a readable evidence file"):
        Evidence.load(path)


def both(name: str, part: np.ndarray) -> dict[str, np.ndarray | None]:
    return {f"{name}.{field}": part for field in Ratio._fields}


WRONG: list[tuple[dict[str, np.ndarray | None], str]] = [
    ({"clusters": None}, "clusters"),
    ({"box.denominator": None}, r"box\.denominator"),
    ({"box.half": np.zeros(3)}, "unexpected arrays .*box.half"),
    ({"margin": np.zeros(3)}, "unexpected arrays .*margin"),
    ({"clusters": np.array([["a"] * 24])}, "one name for each unit"),
    ({"data": np.array(["a", "b"])}, "not a readable evidence file"),
    ({"clusters": np.array(["a"] * 23)}, r"not both \[seeds, 23, groups\]"),
    (both("box", np.zeros((0, 24, 5))), "groups]"),
    ({"area.numerator": np.full((3, 24, 1), np.nan)}, "area: not a finite number"),
    ({"area.numerator": np.full((3, 24, 1), -0.1)}, "not between 0 and its denominator"),
    (both("area", np.zeros((3, 24, 1))), "a seed without any denominator"),
    (both("area", np.ones((2, 24, 1))), "different numbers of seeds"),
]
WRONG_ANSWERS: list[tuple[dict[str, np.ndarray | None], str]] = [
    ({"group": np.array(["left", "behind"])}, "unknown group 'behind'; known: close, far"),
    ({"units": np.array(["a", "a"])}, "a record id appears twice"),
    ({"units": np.array(["a"])}, "differ in length"),
    ({"margins.": np.zeros((1, 3))}, r"margins \(1, 3\) of 2 records"),
    ({"margins.": np.array([[0, np.inf]])}, "a margin is not a finite number"),
    ({"margins.": None}, "no measure has a value"),
    ({"columns": None}, "columns"),
]


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [*(("ratios", *case) for case in WRONG), *(("margins", *case) for case in WRONG_ANSWERS)],
)
def test_foreign_content_is_refused(
    three: Evidence, tmp_path: Path, kind: str, change: dict, message: str
) -> None:
    evidence = three if kind == "ratios" else answered([[0.5, 0.0]], ["left", "far"])
    arrays = {**evidence.arrays(), **change}
    path = tmp_path / "box.npz"
    path.write_bytes(npz_bytes({name: a for name, a in arrays.items() if a is not None}))
    with refused(message) as error:
        Evidence.load(path)
    assert str(error.value).startswith(str(path))
