"""Live objects from a configuration, through LightningCLI, with its traps closed.

- A checkpoint's hyper-parameters never reach the parser: page and flags win (Lightning #20801).
- ``--optimizer`` and ``--lr_scheduler`` are not added: a method configures its own.
- :func:`dump_config` replaces Lightning's callback that writes config.yaml, which refuses a second
  run in one folder.
- A misspelt flag is one line with the nearest known name.
"""

import logging
import re
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from spatialbench.config.experiment import DATAMODULE, Resolved
from spatialbench.config.pages import Config
from spatialbench.config.signatures import import_class, refuse_unknown
from spatialbench.data.setting_checks import check_files
from spatialbench.utils.checkpoints import AtomicCheckpoints
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

QUIET = (
    ".*does not have many workers.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*smaller than the logging interval.*",
    ".*isinstance.*LeafSpec.*",
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*in eval mode at the start of training.*",
    ".*Cannot dispatch to fused implementation.*",  # float32 norms beside bfloat16: speed only
    ".*resuming from a checkpoint that ended before the epoch ended.*",
    ".*when logging on epoch level in distributed setting.*",  # scores cover all ranks already
)
"""Warnings of no use to the user."""


@dataclass(frozen=True)
class Built:
    """The objects of one run."""

    trainer: Trainer
    model: LightningModule
    data: LightningDataModule


class PageCLI(LightningCLI):
    """LightningCLI on a composed configuration; runs no subcommand.

    Args:
        config: {seed_everything, trainer, model, data}.
        flags: ``--trainer.max_steps 3`` and the like; they win over ``config``.
        callbacks: always present, whatever callbacks the configuration lists.
        instantiate: False: parse only.
    """

    def __init__(
        self,
        config: Config,
        flags: Sequence[str] = (),
        callbacks: Sequence[Callback] = (),
        instantiate: bool = True,
    ) -> None:
        quiet = {"logger": False, "num_sanity_val_steps": 0, "enable_model_summary": False}
        own_data = "class_path" in config["data"]
        self._given, self._flags, self._build = config, list(flags), instantiate
        super().__init__(
            LightningModule,
            LightningDataModule if own_data else import_class(DATAMODULE, "spatialbench"),
            subclass_mode_model=True,
            subclass_mode_data=own_data,
            save_config_callback=None,
            trainer_defaults={**quiet, "callbacks": list(callbacks)},
            seed_everything_default=0,
            parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
            run=False,
            auto_configure_optimizers=False,
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the given configuration, then the flags."""
        self.config = parser.parse_object(self._given)
        if self._flags:
            self.config = parser.parse_args(["--config", self.dump(), *self._flags])
            del self.config["config"]

    def instantiate_classes(self) -> None:
        """Make the objects, where they are wanted."""
        if self._build:
            super().instantiate_classes()

    def dump(self) -> str:
        """Return the configuration as YAML, with every null: else the default would come back."""
        options = {"skip_unset": False, "skip_link_targets": False, "format": "yaml"}
        return self.parser.dump(self.config, **options).rstrip() + "\n"


def build(resolved: Resolved, callbacks: Sequence[Callback] = ()) -> Built:
    """Seed everything and make trainer, model and datamodule.

    Raises:
        SpatialbenchError: a value of the page has the wrong type, or a class refuses its arguments.
    """
    check_files(resolved.data_arguments)
    trainer = {**resolved.config["trainer"], "enable_progress_bar": False}
    trainer["default_root_dir"] = trainer.get("default_root_dir") or str(resolved.run_dir)
    config = {**resolved.config, "trainer": trainer}
    cli = _parse(config, _where(resolved), callbacks=callbacks, instantiate=True)
    # there may be fewer evaluation batches than ranks
    cli.datamodule.allow_zero_length_dataloader_with_multiple_devices = True
    strategy = cli.trainer.strategy
    if type(strategy.checkpoint_io) is TorchCheckpointIO:  # a page may ask for another
        strategy.checkpoint_io = AtomicCheckpoints()
    return Built(cli.trainer, cli.model, cli.datamodule)


def dump_config(resolved: Resolved) -> str:
    """Return the complete configuration as YAML; given as a page, it comes out the same.

    Raises:
        SpatialbenchError: a value has the wrong type or cannot be written as YAML.
    """
    return _dumped(resolved.config, _where(resolved))


def flag_overrides(resolved: Resolved, flags: Sequence[str], options: Sequence[str] = ()) -> Config:
    """Return what LightningCLI flags change, as a partial configuration.

    Args:
        flags: for instance ``["--trainer.max_steps", "3", "--data.path=x.json"]``.
        options: the command's own options, for "did you mean".

    Raises:
        SpatialbenchError: unknown flag, or a value of the wrong type.
    """
    _check_flags(resolved.config, flags, options)
    before = yaml.safe_load(_dumped(resolved.config, _where(resolved)))
    after = yaml.safe_load(_dumped(resolved.config, "command line", flags))
    return _changes(before, after)


def describe(config: Config) -> str:
    """Return the help text of every LightningCLI flag of a configuration."""
    quiet()
    return PageCLI(config, instantiate=False).parser.format_help()


def quiet() -> None:
    """Silence Lightning's tips and advice; errors and substantial warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in QUIET:
        warnings.filterwarnings("ignore", message)


def _where(resolved: Resolved) -> str:
    return f"page {resolved.page.path}"


def _parse(config: Config, where: str, **kwargs: Any) -> PageCLI:
    quiet()
    try:
        return PageCLI(config, **kwargs)
    except SpatialbenchError:
        raise
    except SystemExit as error:  # jsonargparse's --model.help and --data.help end this way
        if error.code == 0:
            raise
        raise SpatialbenchError(f"{where}: the configuration was refused") from error
    except Exception as error:
        cause: BaseException | None = error  # jsonargparse wraps what a class raised
        while cause is not None and not isinstance(cause, SpatialbenchError):
            cause = cause.__cause__
        if cause is not None:
            raise SpatialbenchError(str(cause)) from error
        if kwargs.get("instantiate") and _is_of_trainer(error):
            raise SpatialbenchError(f"{where}: trainer: {' '.join(str(error).split())}") from error
        of_parser = type(error).__module__.startswith(("argparse", "jsonargparse"))
        if kwargs.get("instantiate") and not of_parser:
            raise
        raise SpatialbenchError(f"{where}: {condense(str(error))}") from error


def _is_of_trainer(error: Exception) -> bool:
    """Return whether Lightning refused a setting: an absent device, an unknown accelerator."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    trainer = frame.f_globals["__name__"].startswith("lightning.pytorch.trainer")
    return isinstance(error, MisconfigurationException) or (
        isinstance(error, ValueError) and trainer
    )


def _dumped(config: Config, where: str, flags: Sequence[str] = ()) -> str:
    cli = _parse(config, where, flags=flags, instantiate=False)
    try:
        return cli.dump()
    except Exception as error:
        what = f"{where}: cannot be written as YAML ({condense(str(error))})"
        raise SpatialbenchError(f"{what}; give every argument as a plain value") from error


def condense(message: str) -> str:
    """Return the key, the expected type and the value from jsonargparse's nested report."""
    keys = [key for key in re.findall(r'[Kk]ey "([^"]+)"', message) if key != "config"]
    lines = [line.strip(" -\t") for line in message.splitlines() if line.strip()]

    def matching(pattern: str) -> list[str]:
        return [line for line in lines if re.search(pattern, line)]

    useful = matching(r"Expected an? .*Got value")
    for given in matching("^Given value: ")[:1]:  # the innermost
        value = given.removeprefix("Given value: ")
        expected = matching(r"^Expected an? (?!<class 'NoneType'>)")
        useful += [f"{line}. Got value: {value}" for line in expected]
    useful += matching(r"not accepted|unrecognized|no attribute|cannot |expected |required")
    useful += matching(r"^(?!Parser key|Subtypes|Errors|Does not validate)")
    detail = re.sub(r"<class '([^']+)'>", r"\1", [*useful, *lines, "refused"][0])
    detail = detail.replace("Expected a ", "expected ").replace(". Got value: ", ", got ")
    return ": ".join([".".join(dict.fromkeys(keys)), detail.rstrip(".")]).removeprefix(": ")


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Config:
    changed: Config = {}
    for key, value in after.items():
        old: Any = before.get(key)
        blocks = isinstance(old, Mapping) and isinstance(value, Mapping)
        if blocks and old.get("class_path") == value.get("class_path"):
            if inner := _changes(old, value):
                name = {"class_path": value["class_path"]} if "class_path" in value else {}
                changed[key] = {**name, **inner}
        elif key not in before or old != value:
            changed[key] = value
    return changed


def _check_flags(config: Config, flags: Sequence[str], options: Sequence[str]) -> None:
    """Name the nearest flag of a misspelt one; values are left to the parser."""
    classes: dict[str, type] = {"trainer": Trainer}
    classes |= {block: _flag_class(config, flags, block) for block in ("model", "data")}
    for flag in flags:
        match = re.match(r"^--(\w[\w-]*)(?:\.([\w.]+?))?\+?(?:=.*)?$", flag, re.DOTALL)
        if match is None:
            continue
        block, path = match[1], match[2]
        if block not in classes:
            hint = did_you_mean(f"--{block}", [*options, *(f"--{name}" for name in classes)])
            raise SpatialbenchError(f"unknown option '--{block}'{hint}")
        first, *rest = (path or "").removeprefix("init_args.").split(".")
        if first in ("", "help", "class_path", "init_args", "dict_kwargs"):
            continue
        value = {rest[0]: None} if rest else None
        refuse_unknown({first: value}, classes[block], f"command line, {flag.split('=')[0]}")


def _flag_class(config: Config, flags: Sequence[str], block: str) -> type:
    """Class that a block's flags configure: the page's, unless ``--model CLASS`` names another."""
    path = config[block].get("class_path") or DATAMODULE
    for position, flag in enumerate(flags):
        name, _, value = flag.partition("=")
        if name in (f"--{block}", f"--{block}.class_path"):
            path = value or (flags[position + 1] if position + 1 < len(flags) else path)
    return import_class(path, f"command line, --{block}")
