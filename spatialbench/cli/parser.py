"""The argument parser of the commands."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line and suggest the nearest known option."""

    def __init__(self, command: str, description: str, **kwargs: Any) -> None:
        super().__init__(
            f"spatialbench {command}", description=description, allow_abbrev=False, **kwargs
        )

    def error(self, message: str) -> NoReturn:
        """Raise SpatialbenchError instead of exiting."""
        if message.startswith("unrecognized arguments: "):
            word = message.removeprefix("unrecognized arguments: ").split()[0]
            options = [option for option in self._option_string_actions if option.startswith("--")]
            message = f"unknown option {word!r}{did_you_mean(word, options)}"
        message = message.replace("invalid int value: ", "needs an integer, got ")
        raise SpatialbenchError(f"{message.removeprefix('argument ')} ({self.prog} --help)")
