"""A note where a run or a row is kept though the code of its method has changed since the commit that made it.

Code is in no hash: hashed, it would make every row stale at every refactoring. What is looked at are the modules of the
page's class and its bases within this package, ``methods/spatial_attn.py``, ``connection.py``, ``method.py``, and those
of the pages that it starts from; comments and docstrings do not count. That is what someone who works on a method
edits; losses, towers and data, which others share and refactor, are left out.

It is said where somebody is about to take a kept run for one of today's code, by ``fit`` and ``run``, and by
``check-results`` of the pages that are named. In ``list`` and in a check of all it would be noise: on the day this was
written it stood at 16 of the 21 rows of rooms. Whether the numbers changed is not for a note to say, but for
``spatialbench reproduce`` and the smoke runs of ``check-results``.

Nothing is said without git, of a commit that this checkout does not have, and of an installed package. One call of git
for each commit, one for all of them, and one for each file that differs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from spatialbench import provenance
from spatialbench.pages import Page
from spatialbench.signatures import import_class

PACKAGE = "spatialbench"
FORCE = "--force makes it again"


def note(name: str, pages: Iterable[Page], made: Iterable[tuple[str, bool]], advice: str = FORCE) -> str:
    """The line on a run or a row; empty where there is nothing to say.

    Args:
        name: of what is kept.
        pages: whose methods made it.
        made: commit and dirty flag of its runs; the first is told of that there is something to say of. Where tracked
            files differed from the commit, so may have this one, and a file that was never committed did: the line then
            says no more than that it differs.
        advice: what to do.

    Raises:
        SpatialbenchError: the class of a page is gone.
    """
    files = list(dict.fromkeys(path for page in pages for path in _files(page)))
    for commit, dirty in dict.fromkeys(made):
        changed = [path for path in files if path in _differing(commit) and not _same_code(commit, path)]
        if not changed:
            continue
        since = f"changed since commit {commit[:8]} made it"
        if dirty or not _never_committed().isdisjoint(changed):
            differ = "differs" if len(changed) == 1 else "differ"
            since = f"{differ} from commit {commit[:8]}, which made it with uncommitted changes"
        return f"{name}: {', '.join(changed)} {since}; {advice}"
    return ""


def _files(page: Page) -> list[str]:
    """``spatialbench/methods/clip.py``, ``spatialbench/method.py``: the modules of the class and its bases."""
    method = import_class(page.config["model"]["class_path"], f"page {page.path}")
    modules = [cls.__module__ for cls in method.__mro__ if cls.__module__.startswith(f"{PACKAGE}.")]
    return [f"{module.replace('.', '/')}.py" for module in modules]


@cache
def _differing(commit: str) -> frozenset[str]:
    """The files of the package that are not as in a commit; none where git does not know it."""
    changed = provenance.changed_since(commit) if commit else None
    return frozenset() if changed is None else _paths(changed) | _never_committed()


@cache
def _same_code(commit: str, path: str) -> bool:
    """Whether a file and that of a commit differ in nothing but comments, docstrings and layout."""
    file = path.removeprefix(f"{PACKAGE}/")
    before = provenance.text_at(commit, file)
    if before is None:
        return False
    try:
        now = (Path(provenance.__file__).resolve().parent / file).read_text(encoding="utf-8")
        return _code(before) == _code(now)
    except (OSError, ValueError, SyntaxError):
        return False


def _code(text: str) -> str:
    """A module without what does nothing: comments, and strings that stand alone."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@cache
def _never_committed() -> frozenset[str]:
    return _paths(provenance.never_committed())


def _paths(files: Sequence[str]) -> frozenset[str]:
    return frozenset(f"{PACKAGE}/{file}" for file in files)
