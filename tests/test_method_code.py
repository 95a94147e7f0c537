"""The note on code that changed: in a repository of its own, what changed, what did not, and what git cannot say."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from spatialbench import method_code, provenance
from spatialbench.errors import SpatialbenchError
from spatialbench.method_code import note
from spatialbench.pages import Page, load_page
from tests import fakes

OWN, CONNECTION, METHOD = (f"spatialbench/{name}.py" for name in ("methods/spatial_attn", "connection", "method"))


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What git said is kept for a process; here the files change in between."""
    yield
    _forget()


def _forget() -> None:
    method_code._differing.cache_clear()
    method_code._never_committed.cache_clear()
    method_code._same_code.cache_clear()


class Checkout:
    """A repository with empty files of the names of this package, which it takes for the package's own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "-q")
        for path in (OWN, CONNECTION, METHOD, "spatialbench/objectives.py", "spatialbench/provenance.py"):
            self.edit(path, "")
        monkeypatch.setattr(provenance, "__file__", str(folder / "spatialbench/provenance.py"))

    def git(self, *words: str) -> str:
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        done = subprocess.run(["git", *who, *words], cwd=self.folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def edit(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-qm", "x", "--allow-empty")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    return Checkout(tmp_path / "checkout", monkeypatch)


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return _page(tmp_path, "spatialbench.methods.spatial_attn.SpatialAttention")


def _page(folder: Path, class_path: str) -> Page:
    (folder / "mine.yaml").write_text(fakes.page_text().replace("tests.fakes.FakeMethod", class_path))
    return load_page(folder / "mine.yaml")


def said(page: Page, *made: tuple[str, bool]) -> str:
    _forget()
    return note("mine", [page], made)


def test_the_class_and_its_bases_count_and_nothing_else(checkout: Checkout, page: Page) -> None:
    one = checkout.commit()
    checkout.edit("spatialbench/objectives.py", "x = 1")
    checkout.edit("outside.md", "")
    checkout.commit()
    assert said(page, (one, False)) == ""
    checkout.edit(METHOD, "x = 1")  # not committed
    assert said(page, (one, False)) == f"mine: {METHOD} changed since commit {one[:8]} made it; --force makes it again"
    checkout.edit(OWN, "x = 1")
    two = checkout.commit()
    assert said(page, (one, False)).startswith(f"mine: {OWN}, {METHOD} changed since commit {one[:8]} made it")
    assert said(page, (two, False)) == ""
    assert said(page, (two, False), (one, False)) == said(page, (one, False))


def test_a_method_that_was_never_committed_is_dirty(checkout: Checkout) -> None:
    one = checkout.commit()
    checkout.edit("results/rooms/mine.json", "{}")
    checkout.edit("notes.md", "")
    assert provenance.commit() == (one, False)
    checkout.edit("spatialbench/methods/mine.py", "x = 1")
    assert provenance.commit() == (one, True)
    two = checkout.commit()
    assert provenance.commit() == (two, False)
    checkout.edit("benchmarks/mine.yaml", "x: 1")
    assert provenance.commit()[1]


def test_the_commit_of_another_repository_is_not_this_ones(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package installed in a virtual environment within somebody's own repository."""
    checkout.edit(".gitignore", "venv\n")
    checkout.commit()
    checkout.edit("venv/spatialbench/provenance.py", "")
    monkeypatch.setattr(provenance, "__file__", str(checkout.folder / "venv/spatialbench/provenance.py"))
    assert provenance.commit() == ("", False)


def test_comments_and_docstrings_are_not_code(checkout: Checkout, page: Page) -> None:
    checkout.edit(OWN, '"""One."""\n\nRATE = 1  # fast\n"""Of what."""\n\n\ndef f(x):\n    """Two."""\n    return x\n')
    one = checkout.commit()
    checkout.edit(OWN, '"""Other."""\nRATE = 1\n\n\ndef f(x):\n    # a word\n    return (x)\n')
    assert said(page, (one, False)) == ""
    checkout.edit(OWN, '"""Other."""\nRATE = 2\n\n\ndef f(x):\n    return x\n')
    assert said(page, (one, False)).startswith(f"mine: {OWN} changed")
    checkout.edit(OWN, "def f(x:\n")
    assert said(page, (one, False)).startswith(f"mine: {OWN} changed")


def test_of_changes_without_a_commit_it_says_no_more_than_it_knows(checkout: Checkout, page: Page) -> None:
    (checkout.folder / OWN).unlink()
    one = checkout.commit()
    assert said(page, (one, True)) == ""
    unknown = f"mine: {OWN} differs from commit {one[:8]}, which made it with uncommitted changes; --force"
    checkout.edit(OWN, "x = 1")  # a new method, never added
    assert said(page, (one, False)).startswith(unknown)
    checkout.git("add", "-A")
    assert said(page, (one, True)).startswith(unknown)


def test_without_an_answer_of_git_nothing_is_said(
    checkout: Checkout, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = checkout.commit()
    checkout.edit(OWN, "x = 1")
    assert said(page, ("", False), ("d" * 40, False)) == ""
    assert said(_page(tmp_path, "tests.fakes.FakeMethod"), (one, False)) == ""
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))  # no repository
    assert said(page, (one, False)) == ""
    monkeypatch.setenv("PATH", "")
    assert said(page, (one, False)) == ""
    with pytest.raises(SpatialbenchError, match="no class"):
        said(_page(tmp_path, "spatialbench.methods.clip.Clap"), (one, False))


def test_git_is_asked_once_for_a_commit(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(provenance, "changed_since", lambda commit: asked.append(commit) or [])
    monkeypatch.setattr(provenance, "never_committed", lambda: [])
    _forget()
    for _ in range(3):
        note("mine", [page], [("a" * 40, False), ("b" * 40, False)])
    assert asked == ["a" * 40, "b" * 40]
