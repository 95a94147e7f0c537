"""A whole run works offline, with its weights in a folder and in the Hub's cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
from safetensors.torch import save_file

from spatialbench.models.timm_vfm import load_vfm
from tests.support import ROOT, models, tiny

pytestmark = pytest.mark.slow
NAME = models.TWO_HEADS.partition(":")[0]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NO_NETWORK = (
    "import os, socket, sys, traceback\n"
    "def no(*a, **k):\n"
    "    print('a network call', *traceback.format_stack(), file=sys.stderr, flush=True)\n"
    "    os._exit(9)\n"
    "socket.socket.connect = socket.socket.connect_ex = no\n"
    "socket.getaddrinfo = socket.create_connection = no\n"
    "import tests.support.models\n"
    "from spatialbench.cli.main import main\n"
    "if __name__ == '__main__': sys.exit(main(sys.argv[1:]))\n"
)


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process that cannot reach any address and is not told to stay offline."""
    places = {name: str(tmp_path / "home") for name in ("SPATIALBENCH_CACHE", "HF_HOME", "HOME")}
    places["HF_HUB_CACHE"] = str(tmp_path / "hub")
    env = {**os.environ, **places, "PYTHONPATH": str(ROOT)}
    for name in ("HF_HUB_OFFLINE", "SPATIALBENCH_WEIGHTS"):
        env.pop(name, None)
    argv = [sys.executable, "-c", NO_NETWORK, *arguments]
    return subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True)


def page(tmp_path: Path, vfm: str) -> list[str]:
    """Write a page of spatial attention whose student is read from a file; return its flags."""
    folder = tiny.benchmark(tmp_path / "benchmarks")
    weights = folder / "tiny-student.safetensors"
    save_file(open_clip.CLIP(**tiny.STUDENT).state_dict(), weights)
    rest = f"  init_args: {{student: '{folder / 'tiny-student.json'}:{weights}', vfm: '{vfm}'}}\n"
    written = tiny.page(folder, "attn", "spatialbench.methods.spatial_attn.SpatialAttention", rest)
    return ["--config", str(written), "--track", "tiny", "--budget", "smoke"]


def test_a_whole_run_asks_for_nothing(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--owner--name" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)  # as huggingface_hub keeps it
    save_file(load_vfm(models.TWO_HEADS).model.state_dict(), snapshot / "model.safetensors")
    flags = page(tmp_path, f"{NAME}:owner/name@{COMMIT}/model.safetensors")
    for command in (["fit", *flags], ["test", *flags, "--ckpt_path", "LAST"]):
        done = run(tmp_path, *command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "attn" in done.stdout


def test_a_file_that_is_not_there_is_asked_for(tmp_path: Path) -> None:
    """So that the test above can fail."""
    done = run(tmp_path, "fit", *page(tmp_path, f"{NAME}:owner/name@{COMMIT}/model.safetensors"))
    assert done.returncode == 9
    assert "a network call" in done.stderr
