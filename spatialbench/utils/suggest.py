"""Suggestions for a misspelled word."""

import difflib
from collections.abc import Iterable

MANY = 40
"""A longer list of known names is not printed."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``: did you mean 'lr'?``, else the known names if they are few, else nothing.

    The last part of a dotted name is compared too: ``lrr`` is close to ``finetuning.lr``.
    """
    known = [str(name) for name in known]
    for names in (
        {name.lower(): name for name in reversed(known)},
        {name.lower().rpartition(".")[2]: name for name in reversed(known)},
    ):
        near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
        if near:
            return f": did you mean {names[near[0]]!r}?"
    listed = [name for name in known if "." not in name] or known
    return f"; known: {', '.join(listed)}" if 0 < len(listed) <= MANY else ""
