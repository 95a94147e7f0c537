"""The speed of a training, by hand."""

import itertools
from pathlib import Path

import pytest

from spatialbench.methods.clip import Clip
from spatialbench.training import speed
from spatialbench.training.speed import Speed
from spatialbench.utils.flops import Peak, StepFlops
from tests.methods.test_base import Data, silent, trainer
from tests.support import tiny
from tests.support.models import student


def test_the_rate_is_of_the_steps_after_the_warm_up_without_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Use a clock that moves a second at every look.

    Started at step 3, stopped at the validation after step 4, started again, stopped at the end:
    two seconds for steps 4 to 6, of 4 images each.
    """
    seconds = itertools.count()
    monkeypatch.setattr(speed, "perf_counter", lambda: next(seconds))
    watch = Speed()
    watch._peak = Peak(0.5, "by hand")
    often = {"val_check_interval": 4, "check_val_every_n_epoch": None}
    run = trainer(tmp_path, max_steps=6, callbacks=[watch], **often)
    run.fit(Clip(student()), datamodule=Data())
    found = watch.summary()
    assert found["images_per_second"] == 3 * 4 / 2
    assert found["peak_memory_mb"] > 50
    assert capsys.readouterr().err.startswith("training: 6 images/s, peak memory ")
    assert watch.summary(world=2)["mfu"] == pytest.approx(found["tflop_per_image"] * 6 / 0.5 / 2)

    flops, method = StepFlops(), silent(Clip(student()))
    batch = next(iter(Data().train_dataloader()))
    flops.start()
    method.training_step(batch, 0).backward()
    flops.stop()
    once = flops.once / 4 / 1e12
    assert found["tflop_per_image"] == pytest.approx(once, rel=0.2)  # captions differ by batch
    assert f"MFU {100 * found['mfu']:.1f} % of " in watch.line(found)


def test_batches_without_pixels_are_not_counted(tmp_path: Path) -> None:
    watch = Speed()
    watch._peak = Peak(0.5, "by hand")
    run = trainer(tmp_path, max_steps=2, callbacks=[watch])
    run.fit(tiny.Other(), datamodule=tiny.OtherData())
    assert StepFlops._counting is None


def test_a_training_shorter_than_the_warm_up_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Speed()
    trainer(tmp_path, max_steps=2, callbacks=[watch]).fit(Clip(student()), datamodule=Data())
    assert watch.summary() == {}
    assert "images/s" not in capsys.readouterr().err
