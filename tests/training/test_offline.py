"""A whole run works offline, with its weights in a folder and in the Hub's cache."""

from pathlib import Path

import open_clip
import pytest
from safetensors.torch import save_file

from spatialbench.models.timm_vfm import load_vfm
from tests.support import models, offline, tiny

pytestmark = pytest.mark.slow
NAME = models.TWO_HEADS.partition(":")[0]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
VFM = f"{NAME}:owner/name@{COMMIT}/model.safetensors"


def page(tmp_path: Path) -> list[str]:
    """Write a page of spatial attention whose student is read from a file; return its flags."""
    folder = tiny.benchmark(tmp_path / "benchmarks")
    weights = folder / "tiny-student.safetensors"
    save_file(open_clip.CLIP(**tiny.STUDENT).state_dict(), weights)
    rest = f"  init_args: {{student: '{folder / 'tiny-student.json'}:{weights}', vfm: '{VFM}'}}\n"
    written = tiny.page(folder, "attn", "spatialbench.methods.spatial_attn.SpatialAttention", rest)
    return ["--config", str(written), "--track", "tiny", "--budget", "smoke"]


def test_a_whole_run_asks_for_nothing(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--owner--name" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)  # as huggingface_hub keeps it
    save_file(load_vfm(models.TWO_HEADS).model.state_dict(), snapshot / "model.safetensors")
    flags = page(tmp_path)
    for command in (["fit", *flags], ["test", *flags, "--ckpt_path", "LAST"]):
        done = offline.run(tmp_path, *command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "attn" in done.stdout


def test_a_file_that_is_not_there_is_asked_for(tmp_path: Path) -> None:
    """So that the test above can fail."""
    done = offline.run(tmp_path, "fit", *page(tmp_path))
    assert done.returncode == 9
    assert "a network call" in done.stderr
