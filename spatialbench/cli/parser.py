"""Argument parsing shared by the commands: one-line errors, and the options that several take."""

import argparse
from typing import Any, NoReturn

from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

FORMATS = ("text", "md", "csv", "latex", "json")
"""The formats of a table; the same as in ``report.table_model``, whose import takes seconds."""
OPTIONS: dict[str, dict[str, Any]] = {
    "track": {"help": "name or path of the track", "default": "rooms"},
    "budget": {"help": "smoke, quick or full, as the track names them"},
    "seed": {"help": "default: the track's first seed", "type": int, "metavar": "N"},
    "runs": {"help": "folder of the run folders", "default": "runs", "metavar": "FOLDER"},
    "results": {"help": "folder of the result files", "default": "results", "metavar": "FOLDER"},
    "benchmarks": {"help": "folder of the pages", "default": "benchmarks", "metavar": "FOLDER"},
    "ckpt_path": {
        "help": "a checkpoint, or LAST: the newest run of page, track, budget and seed (default, "
        "where the page needs one)",
        "metavar": "FILE|LAST",
    },
    "format": {"help": "how the result is printed", "default": "text", "choices": FORMATS},
}
"""Options that mean the same in every command that takes them."""


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line with the nearest known option."""

    def __init__(self, command: str, description: str, **kwargs: Any) -> None:
        prog = f"spatialbench {command}"
        super().__init__(prog, description=description, allow_abbrev=False, **kwargs)

    def common(self, *names: str, **defaults: Any) -> None:
        """Add shared options: ``names``, and ``name=default`` for another default."""
        for name in (*names, *defaults):
            settings = dict(OPTIONS[name])
            if name in defaults:
                settings["default"] = defaults[name]
            if name == "format" and defaults.get("format") == "json|text":
                settings |= {"default": "text", "choices": ("text", "json")}
            if settings.get("default") is not None:
                settings["help"] += f" (default: {settings['default']})"
            flags = ["--seed", "--seed_everything"] if name == "seed" else [f"--{name}"]
            self.add_argument(*flags, **settings)

    def add(self, name: str, text: str, metavar: str | None = None, **settings: Any) -> None:
        """Add an argument with a help text."""
        self.add_argument(name, help=text, metavar=metavar, **settings)

    def flag(self, name: str, text: str) -> None:
        """Add a switch that is off by default."""
        self.add_argument(name, help=text, action="store_true")

    @property
    def flags(self) -> list[str]:
        """The long options."""
        return [option for option in self._option_string_actions if option.startswith("--")]

    def error(self, message: str) -> NoReturn:
        """Raise the message as one line."""
        if message.startswith("unrecognized arguments: "):
            word = message.removeprefix("unrecognized arguments: ").split()[0]
            message = f"unknown option {word!r}{did_you_mean(word, self.flags)}"
        message = message.replace("invalid int value: ", "needs an integer, got ")
        raise SpatialbenchError(f"{message.removeprefix('argument ')} ({self.prog} --help)")


def integers(text: str) -> list[int]:
    """Parse ``0,1,2``."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"needs integers with commas, as 0,1,2; got {text!r}")
    return [int(word) for word in words]


def count(text: str) -> int:
    """Parse a whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"needs a whole number, 0 or more; got {text!r}")
    return int(text)
