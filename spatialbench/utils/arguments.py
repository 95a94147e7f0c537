"""Arguments of our own commands: argparse with complaints of one line, and the nearest known word."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable
from typing import Any, NoReturn

from spatialbench.utils.errors import SpatialbenchError

FORMATS = ("text", "md", "csv", "latex", "json")
"""Of a table, as ``report.sheet`` writes them; here, where nothing heavy is imported."""


MANY = 40
"""Names that are not listed any more."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``: did you mean 'lr'?``, or the list of what is known when nothing comes near; nothing of a long one.

    A dotted name is also found by its last part: ``lrr`` is near ``finetuning.lr``.
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


class Parser(argparse.ArgumentParser):
    """An argparse parser whose complaints are one line with the nearest known option."""

    def __init__(self, command: str, description: str, **kwargs: Any) -> None:
        super().__init__(
            f"spatialbench {command}", description=description, allow_abbrev=False, **kwargs
        )

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            word = message.removeprefix("unrecognized arguments: ").split()[0]
            options = [option for option in self._option_string_actions if option.startswith("--")]
            message = f"unknown option {word!r}{did_you_mean(word, options)}"
        if "invalid int value: " in message:
            message = message.replace("invalid int value: ", "needs an integer, got ")
        raise SpatialbenchError(f"{message.removeprefix('argument ')} ({self.prog} --help)")
