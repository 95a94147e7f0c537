"""The mean of two students' weights."""

import pytest
import torch

from spatialbench.methods.clip import Clip
from spatialbench.methods.weight_ensemble import WeightEnsemble
from tests.support.checks import refused
from tests.support.models import batch, student


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
def test_every_weight_is_the_mean(alpha: float) -> None:
    made, trained = WeightEnsemble(student(), alpha), Clip(student())
    begun = {name: value.clone() for name, value in made.student.state_dict().items()}
    made.start_from(trained.state_dict(), "clip")
    after = made.student.state_dict()
    for name, value in trained.student.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(after[name], alpha * value + (1 - alpha) * begun[name])


def test_it_trains_nothing_and_takes_no_weight_outside_of_0_to_1() -> None:
    with refused(r"set trainer\.max_steps to 0"):
        WeightEnsemble(student()).training_step(batch(), 0)
    with refused(r"alpha is 1\.1"):
        WeightEnsemble(student(), 1.1)
