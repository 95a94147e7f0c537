"""The worked examples of CONTRIBUTING.md: a method and an evaluation, added as it says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.slow
PAGES = ("clip_zeroshot", "clip_finetune")


def blocks(language: str) -> list[str]:
    """Code blocks of the document, in order."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the repository and add both examples."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("spatialbench", "tests", "tools"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copytree(ROOT / "benchmarks" / "tracks", folder / "benchmarks" / "tracks")
    for page in PAGES:
        shutil.copy(ROOT / "benchmarks" / f"{page}.yaml", folder / "benchmarks")
    shutil.copy(ROOT / "pyproject.toml", folder)
    method, method_test, evaluation, evaluation_test = blocks("python")
    page, line = blocks("yaml")
    (folder / "spatialbench/methods/value_query.py").write_text(method)
    (folder / "tests/methods/test_value_query.py").write_text(method_test)
    (folder / "benchmarks/value_query.yaml").write_text(page)
    (folder / "spatialbench/evaluation/mirror.py").write_text(evaluation)
    (folder / "tests/evaluation/test_mirror.py").write_text(evaluation_test)
    track = folder / "benchmarks/tracks/rooms.yaml"
    text = track.read_text()
    assert text.count("\nbudgets:\n") == 1, "the evaluations stand right above the budgets"
    track.write_text(text.replace("\n\nbudgets:\n", f"\n{line}\nbudgets:\n"))
    return folder


def run(folder: Path, *words: str) -> str:
    """Run Python in the copy; return its standard output."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, *words]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def spatialbench(folder: Path, *words: str) -> str:
    code = "import sys; from spatialbench.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return run(folder, "-c", code, *words)


def test_their_tests_pass(checkout: Path) -> None:
    names = ("tests/methods/test_value_query.py", "tests/evaluation/test_mirror.py")
    assert " passed" in run(checkout, "-m", "pytest", "-q", *names, "tests/test_layers.py")


def test_the_row_has_the_evaluation_everywhere(checkout: Path) -> None:
    pages = [f"benchmarks/{name}.yaml" for name in (*PAGES[1:], "value_query")]
    budget = ("--budget", "smoke")
    spatialbench(checkout, "run", *pages, *budget, "--seeds", "0,1")
    assert (checkout / "results/rooms/smoke/value_query.mirror.npz").is_file()
    table = spatialbench(checkout, "table", *budget, "--evaluation", "mirror", "--format", "csv")
    assert "mirror_nearest_low" in table.splitlines()[0]
    names = [line.split(",")[0] for line in table.splitlines()[1:]]
    assert names == ["clip_finetune", "value_query"]
    mirror = (*budget, "--evaluation", "mirror")
    text = spatialbench(checkout, "compare", "value_query", "clip_finetune", *mirror)
    assert "Nearest is the mirror image" in text
    alone = ("test", "--config", "benchmarks/clip_zeroshot.yaml")
    assert "16 images" in spatialbench(checkout, *alone, *mirror)
    spatialbench(checkout, "check-results", "value_query", "--no-smoke")
    track = checkout / "benchmarks/tracks/rooms.yaml"
    text = track.read_text()
    track.write_text(text.replace("smoke: {images: 16}", "smoke: {images: 17}"))
    assert "value_query (stale)" in spatialbench(checkout, "table", *mirror)
