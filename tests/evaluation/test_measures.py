"""Measures: the formula as a loop, files, and the resampling against one written out in plain Python."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spatialbench.evaluation.measures import TITLES, MeasureResampler, Measures, Ratio

from spatialbench.evaluation.statistics import BOOTSTRAP_SEED, draws
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.npz import npz_bytes

PICTURES, GROUPS = 24, 5


def one(seed: int, data: str = "d" * 16) -> Measures:
    """Two measures of one seed, by group and by picture; scenes of three pictures; the last group never occurs."""
    rng = np.random.default_rng(seed)
    regions = rng.integers(0, 3, (PICTURES, GROUPS)).astype(float)
    regions[:, -1] = 0
    there = rng.random(PICTURES) < 0.7
    ratios = {
        "same_mask": (rng.random(PICTURES) * there, there.astype(float)),
        "box_top1": (rng.binomial(regions.astype(int), 0.4).astype(float), regions),
    }
    return Measures.of([f"room {index // 3}" for index in range(PICTURES)], ratios, data)


@pytest.fixture
def three() -> Measures:
    return Measures.join([one(seed) for seed in range(3)])


def formula(above: list[list[float]], below: list[list[float]]) -> float:
    """(1) as it is printed, over any list of pictures: float [M][G]."""
    found = []
    for group in range(len(below[0])):
        hits, regions = 0.0, 0.0
        for picture in range(len(below)):
            hits += above[picture][group]
            regions += below[picture][group]
        if regions > 0:
            found.append(hits / regions)
    return 100 * sum(found) / len(found)


# ----------------------------------------------------------------------------------------------------------- values


def test_values_are_the_formula(three: Measures) -> None:
    for name, (above, below) in three.ratios.items():
        expected = [formula(above[seed].tolist(), below[seed].tolist()) for seed in range(3)]
        assert three.seed_values(name) == pytest.approx(expected, abs=1e-9)
        assert three.values()[name] == pytest.approx(sum(expected) / 3, abs=1e-9)


def test_a_value_by_hand_without_the_group_that_never_occurs() -> None:
    above = np.array([[1.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    below = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
    found = Measures.of(["a", "b"], {"box_top1": (above, below)}, "x")
    assert found.values() == {
        "box_top1": pytest.approx(100 * (1 / 2 + 3 / 4) / 2)
    }  # a third group would make it 41.7
    assert found.groups == {"box_top1": 3}


def test_a_picture_without_a_value_counts_nothing() -> None:
    found = Measures.of(
        ["a", "b"], {"same_mask": (np.array([0.8, 0.0]), np.array([1.0, 0.0]))}, "x"
    )
    assert found.values()["same_mask"] == pytest.approx(80, abs=1e-5)
    assert found.ratios["same_mask"].numerator.shape == (1, 2, 1)


def test_measures_stand_in_the_order_of_the_tables(three: Measures) -> None:
    assert list(three.values()) == ["box_top1", "same_mask"]
    assert list(TITLES).index("box_top1") < list(TITLES).index("same_mask")


def test_a_measure_without_any_denominator_is_left_out() -> None:
    none = np.zeros((2, 3))
    found = Measures.of(
        ["a", "b"], {"stuff_top1": (none, none), "text_r1": (np.ones(2), np.ones(2))}, "x"
    )
    assert found.values() == {"text_r1": 100}
    with pytest.raises(SpatialbenchError, match="no measure has a value"):
        Measures.of(["a", "b"], {"stuff_top1": (none, none)}, "x")


# ------------------------------------------------------------------------------------------------------------ seeds


def test_joining_keeps_every_seed(three: Measures) -> None:
    assert (three.seeds, three.pictures, three.data) == (3, PICTURES, "d" * 16)
    for seed in range(3):
        for name, ratio in one(seed).ratios.items():
            assert np.array_equal(three.ratios[name].numerator[seed], ratio.numerator[0])
            assert np.array_equal(three.ratios[name].denominator[seed], ratio.denominator[0])


def test_seeds_that_do_not_belong_together_are_not_joined() -> None:
    first = one(0)
    fewer = replace(first, ratios={"box_top1": first.ratios["box_top1"]})
    two = Ratio(*(part[:, :, :2] for part in first.ratios["box_top1"]))
    narrower = replace(first, ratios={**first.ratios, "box_top1": two})
    for other, message in [
        (one(1, data="e" * 16), "different data; run them again with --force"),
        (replace(one(1), scenes=first.scenes[::-1].copy()), "different data"),
        (fewer, "different measures; run them again with --force"),
        (narrower, "different measures"),
    ]:
        with pytest.raises(SpatialbenchError, match=message):
            Measures.join([first, other])


# ------------------------------------------------------------------------------------------------------------ files


def test_round_trip(three: Measures, tmp_path: Path) -> None:
    three.save(tmp_path / "measures.npz")
    again = Measures.load(tmp_path / "measures.npz")
    assert again.digest == three.digest
    assert again.values() == three.values()
    assert again.scenes.tolist() == three.scenes.tolist()
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "measures.npz").read_bytes()


def test_the_same_numbers_are_the_same_bytes_however_they_lie_in_memory(three: Measures) -> None:
    turned = {
        name: Ratio(*(np.asfortranarray(part.astype(float)) for part in r))
        for name, r in three.ratios.items()
    }
    other = Measures(three.scenes, dict(reversed(turned.items())), three.data)
    assert other.digest == three.digest
    assert npz_bytes(other.arrays()) == npz_bytes(three.arrays())


def test_the_digest_sees_every_part(three: Measures) -> None:
    moved = Ratio(three.ratios["same_mask"].numerator * 0.5, three.ratios["same_mask"].denominator)
    others = [
        replace(three, data="e" * 16),
        replace(three, scenes=three.scenes[::-1].copy()),
        replace(three, ratios={**three.ratios, "same_mask": moved}),
        replace(three, ratios={"box_top1": three.ratios["box_top1"]}),
    ]
    assert len({three.digest, *(other.digest for other in others)}) == 5


def test_damaged_files_are_refused_in_one_line(three: Measures, tmp_path: Path) -> None:
    path = tmp_path / "measures.npz"
    with pytest.raises(SpatialbenchError, match="no such file; restore it"):
        Measures.load(path, "restore it")
    three.save(path)
    content = path.read_bytes()
    np.save(tmp_path / "one.npy", np.zeros(3))
    npy = (tmp_path / "one.npy").read_bytes()
    cut = [content[:length] for length in range(0, len(content), len(content) // 7)]
    for damage in (*cut, b"not a zip", content[:60] + b"\0" * 60 + content[120:], npy):
        path.write_bytes(damage)
        with pytest.raises(
            SpatialbenchError, match=r"measures\.npz: .*run it again with --force"
        ) as error:
            Measures.load(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scenes": None}, "scenes"),
        ({"box_top1.denominator": None}, r"box_top1\.denominator"),
        ({"box_top1.half": np.zeros(3)}, "holds .*box_top1.half"),
        ({"margin": np.zeros(3)}, "holds .*margin"),
        (
            {"speed.numerator": np.ones((1, 24, 1)), "speed.denominator": np.ones((1, 24, 1))},
            "unknown measure 'speed'",
        ),
        ({"scenes": np.zeros(24)}, "scenes are float64"),
        ({"scenes": np.array([["a"] * 24])}, "not one name for each picture"),
        ({"data": np.array(["a", "b"])}, "not a readable file"),
        ({"scenes": np.array(["a"] * 23)}, r"not \[seeds, 23, groups\] alike"),
        ({"box_top1.denominator": np.ones((3, 24, 4))}, "groups] alike"),
        (
            {
                "box_top1.numerator": np.zeros((0, 24, 5)),
                "box_top1.denominator": np.zeros((0, 24, 5)),
            },
            "groups] alike",
        ),
        (
            {"same_mask.numerator": np.full((3, 24, 1), np.nan)},
            "measure same_mask: not a finite number",
        ),
        ({"same_mask.numerator": np.full((3, 24, 1), 1.5)}, "not between 0 and its denominator"),
        ({"same_mask.numerator": np.full((3, 24, 1), -0.1)}, "not between 0 and its denominator"),
        ({"same_mask.numerator": np.full((3, 24, 1), "x")}, "not a readable file"),
        (
            {f"same_mask.{part}": np.zeros((3, 24, 1)) for part in Ratio._fields},
            "a seed without any denominator",
        ),
        (
            {f"same_mask.{part}": np.ones((2, 24, 1)) for part in Ratio._fields},
            "different numbers of seeds",
        ),
    ],
)
def test_foreign_content_is_refused(
    three: Measures, tmp_path: Path, change: dict[str, np.ndarray | None], message: str
) -> None:
    arrays = {
        name: array for name, array in {**three.arrays(), **change}.items() if array is not None
    }
    path = tmp_path / "measures.npz"
    path.write_bytes(npz_bytes(arrays))
    with pytest.raises(SpatialbenchError, match=message) as error:
        Measures.load(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "measures.npz", scenes=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SpatialbenchError, match="not a readable file of measures"):
        Measures.load(tmp_path / "measures.npz")


# ------------------------------------------------------------------------------------------------------- resampling


@pytest.mark.parametrize("row", [0, 3])
def test_samples_are_the_loop_one_would_write(three: Measures, row: int) -> None:
    """The same draws of scenes and seeds, each picture taken as often as its scene was drawn."""
    resamples = 40
    names = sorted(set(three.scenes.tolist()))
    scenes = draws((BOOTSTRAP_SEED, 0), len(names), resamples).astype(int)
    seeds = draws((BOOTSTRAP_SEED, 1, row), 3, resamples).astype(int)
    resampler = MeasureResampler(three.scenes, resamples)
    for ratio in three.ratios.values():
        found = resampler.samples(ratio, row)
        for b in range(resamples):
            pictures = [
                m
                for m, scene in enumerate(three.scenes.tolist())
                for _ in range(scenes[b, names.index(scene)])
            ]
            values = [
                formula(
                    ratio.numerator[seed][pictures].tolist(),
                    ratio.denominator[seed][pictures].tolist(),
                )
                for seed in range(3)
                for _ in range(seeds[b, seed])
            ]
            assert found[b] == pytest.approx(sum(values) / 3, abs=1e-4)


def test_one_seed_is_not_drawn() -> None:
    ratio = one(0).ratios["box_top1"]
    found = MeasureResampler(one(0).scenes, 50)
    assert np.array_equal(found.samples(ratio, 0), found.samples(ratio, 5))
    three = Measures.join([one(seed) for seed in range(3)]).ratios["box_top1"]
    assert not np.array_equal(found.samples(three, 0), found.samples(three, 5))


def test_the_interval_holds_the_share_of_samples_it_says(three: Measures) -> None:
    resampler = MeasureResampler(three.scenes)
    for level in (0.5, 0.95):
        samples = resampler.samples(three.ratios["box_top1"])
        low, high = resampler.interval(three.ratios["box_top1"], level)
        assert np.mean((samples >= low) & (samples <= high)) == pytest.approx(level, abs=0.01)
        assert np.mean(samples < low) == pytest.approx((1 - level) / 2, abs=0.01)


def test_a_row_minus_itself_is_nothing(three: Measures) -> None:
    resampler = MeasureResampler(three.scenes)
    for name, ratio in three.ratios.items():
        assert resampler.difference(ratio, ratio, (0, 0)) == (0.0, (0.0, 0.0))
        single = one(0).ratios[name]
        assert resampler.difference(single, single) == (0.0, (0.0, 0.0))
    gain, interval = resampler.difference(
        three.ratios["box_top1"], three.ratios["box_top1"]
    )  # other seeds each
    assert gain == 0
    assert interval.low < 0 < interval.high


def test_a_difference_is_paired_by_scene() -> None:
    """A row that is better by the same everywhere: scenes differ by 60 points, the difference hardly at all."""
    rng = np.random.default_rng(0)
    level = rng.choice([0.2, 0.8], 40)
    base, better = (
        Measures.of(
            [f"room {i}" for i in range(40)], {"same_mask": (level + up, np.ones(40))}, "x"
        ).ratios["same_mask"]
        for up in (0, 0.02 + 0.001 * rng.random(40))
    )
    resampler = MeasureResampler(np.array([f"room {i}" for i in range(40)]))
    gain, interval = resampler.difference(better, base)
    assert 2.0 < interval.low < gain < interval.high < 2.1
    alone = resampler.interval(base)
    assert alone.high - alone.low > 10
    assert resampler.difference(base, better)[0] == pytest.approx(-gain)


def test_pictures_of_one_scene_are_drawn_together() -> None:
    values = np.repeat(np.random.default_rng(0).random(30), 4)
    ratio = Measures.of(["x"] * 120, {"same_mask": (values, np.ones(120))}, "x").ratios["same_mask"]
    scenes = np.array([f"room {index // 4:02d}" for index in range(120)])
    alone = np.array([f"picture {index:03d}" for index in range(120)])
    together, apart = (MeasureResampler(names).interval(ratio) for names in (scenes, alone))
    assert together.high - together.low == pytest.approx(
        2 * (apart.high - apart.low), rel=0.15
    )  # sqrt of 4


def test_resamples_without_any_denominator_are_left_out() -> None:
    """A value on one picture of eight: a third of the resamples do not draw it."""
    below = np.eye(1, 8)[0]
    ratio = Measures.of(
        [f"room {i}" for i in range(8)], {"same_mask": (0.5 * below, below)}, "x"
    ).ratios["same_mask"]
    resampler = MeasureResampler(np.array([f"room {i}" for i in range(8)]))
    assert 0.2 < np.isnan(resampler.samples(ratio)).mean() < 0.5
    assert resampler.interval(ratio) == (50, 50)


def test_the_interval_covers_the_truth() -> None:
    """Scenes of three alike pictures, a true value of 50: 95 % of intervals should hold it, of 200 tries 180 to 199."""
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        level = np.repeat(rng.beta(2, 2, 60), 3)
        regions = rng.integers(1, 4, 180).astype(float)
        hits = rng.binomial(regions.astype(int), level).astype(float)
        scenes = np.array([f"room {index // 3}" for index in range(180)])
        ratio = Measures.of(scenes.tolist(), {"box_top1": (hits, regions)}, "x").ratios["box_top1"]
        low, high = MeasureResampler(scenes, resamples=300, seed=seed).interval(ratio)
        held += low <= 50 <= high
    assert 180 <= held <= 199
