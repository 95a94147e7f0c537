"""Evaluations by name: what stored evidence depends on, and what is refused."""

import pytest

from spatialbench.config.evaluations import EvaluationSpec, evaluations_of
from spatialbench.config.pages import load_track
from spatialbench.evaluation.regions import RegionEvaluation
from spatialbench.utils.errors import SpatialbenchError
from tests.support import BENCHMARKS


def test_another_version_or_budget_is_another_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    track = load_track(BENCHMARKS / "tracks" / "rooms.yaml")

    def settings(budget: str) -> tuple[str, str]:
        specs = evaluations_of(track, budget)
        return specs["regions"].settings, specs["selection"].settings

    before = settings("full")
    assert not set(before) & set(settings("smoke"))
    monkeypatch.setattr(RegionEvaluation, "version", 99)
    after = settings("full")
    assert (after[0] == before[0], after[1] == before[1]) == (False, True)


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("spatialbench.methods.clip.Clip", {}, "here: .* is not an Evaluation"),
        ("spatialbench.evaluation.regions.RegionEvaluation", {"sorce": 1}, "did you mean 'source'"),
        ("spatialbench.evaluation.regions.RegionEvaluation", {}, "here: .*missing"),
    ],
)
def test_a_wrong_evaluation_is_one_line(path: str, arguments: dict, message: str) -> None:
    with pytest.raises(SpatialbenchError, match=message):
        EvaluationSpec(path, arguments, "here").load()
