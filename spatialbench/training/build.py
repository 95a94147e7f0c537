"""From a configuration to live objects, through LightningCLI, with its traps closed (Lightning's issues 20801, 15796).

- A checkpoint's hyper-parameters never reach the parser: the page and the command line are what counts.
- ``--optimizer`` and ``--lr_scheduler`` are not added to the parser: a method configures its own.
- Lightning's own config.yaml callback (which refuses a second run in one folder) is replaced by :func:`dump_config`.
- A misspelt flag is one line with the nearest known name, not a nested dump.
"""

from __future__ import annotations

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
from spatialbench.config.signatures import import_class, unknown_key
from spatialbench.data.missing import check_files
from spatialbench.utils.checkpoints import AtomicCheckpoints
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

TRAINER_DEFAULTS = {"logger": False, "num_sanity_val_steps": 0, "enable_model_summary": False}


@dataclass(frozen=True)
class Built:
    """The objects of one run."""

    trainer: Trainer
    model: LightningModule
    data: LightningDataModule


class PageCLI(LightningCLI):
    """LightningCLI on a composed configuration and further flags; runs no subcommand.

    Args:
        config: {seed_everything, trainer, model, data}.
        flags: ``--trainer.max_steps 3`` and the like; they win over ``config``.
        callbacks: always present, whatever list of callbacks the configuration gives.
        instantiate: False: parse only.
    """

    def __init__(
        self,
        config: Config,
        flags: Sequence[str] = (),
        callbacks: Sequence[Callback] = (),
        instantiate: bool = True,
    ) -> None:
        own_data = "class_path" in config["data"]
        self._given, self._flags, self._build = config, list(flags), instantiate
        super().__init__(
            LightningModule,
            LightningDataModule if own_data else import_class(DATAMODULE, "spatialbench"),
            subclass_mode_model=True,
            subclass_mode_data=own_data,
            save_config_callback=None,
            trainer_defaults={**TRAINER_DEFAULTS, "callbacks": list(callbacks)},
            seed_everything_default=0,
            parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
            run=False,
            auto_configure_optimizers=False,
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_object(self._given)
        if self._flags:
            self.config = parser.parse_args(["--config", dump(parser, self.config), *self._flags])
            del self.config["config"]

    def instantiate_classes(self) -> None:
        if self._build:
            super().instantiate_classes()


def build(resolved: Resolved, callbacks: Sequence[Callback] = ()) -> Built:
    """Seeds everything and makes trainer, model and datamodule.

    Raises:
        SpatialbenchError: a value of the page has the wrong type, or a class refuses its arguments.
    """
    check_files(resolved.data_arguments)
    trainer = {**resolved.config["trainer"], "enable_progress_bar": False}
    trainer["default_root_dir"] = trainer.get("default_root_dir") or str(resolved.run_dir)
    config = {**resolved.config, "trainer": trainer}
    cli = _parse(config, f"page {resolved.page.path}", callbacks=callbacks, instantiate=True)
    cli.datamodule.allow_zero_length_dataloader_with_multiple_devices = (
        True  # few evaluation batches, many ranks
    )
    strategy = cli.trainer.strategy
    if type(strategy.checkpoint_io) is TorchCheckpointIO:  # a page may ask for another
        strategy.checkpoint_io = AtomicCheckpoints()
    return Built(cli.trainer, cli.model, cli.datamodule)


def dump_config(resolved: Resolved) -> str:
    """The complete configuration as YAML; given as a page it comes out the same.

    Raises:
        SpatialbenchError: a value has the wrong type or cannot be written as YAML.
    """
    cli = _parse(resolved.config, f"page {resolved.page.path}", instantiate=False)
    return _dumped(cli, f"page {resolved.page.path}")


def flag_overrides(resolved: Resolved, flags: Sequence[str], options: Sequence[str] = ()) -> Config:
    """What LightningCLI flags change, as a partial configuration for :func:`spatialbench.config.experiment.resolve`.

    Args:
        flags: for instance ``["--trainer.max_steps", "3", "--data.path=x.json"]``.
        options: the command's own options, for "did you mean".

    Raises:
        SpatialbenchError: unknown flag, or a value of the wrong type.
    """
    _check_flags(resolved.config, flags, options)
    page = f"page {resolved.page.path}"
    before = yaml.safe_load(_dumped(_parse(resolved.config, page, instantiate=False), page))
    cli = _parse(resolved.config, "command line", flags=flags, instantiate=False)
    after = yaml.safe_load(_dumped(cli, "command line"))
    return _difference(before, after)


def describe(config: Config) -> str:
    """The help text of every LightningCLI flag that this configuration has."""
    quiet()
    return PageCLI(config, instantiate=False).parser.format_help()


def quiet() -> None:
    """Lightning's tips and its advice on worker counts are not for our users; errors and warnings of substance are."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*smaller than the logging interval.*",
        ".*isinstance.*LeafSpec.*",
        ".*callbacks used to create the checkpoint need to be provided.*",
        ".*in eval mode at the start of training.*",
        ".*Cannot dispatch to fused implementation.*",  # a norm's float32 weight beside bfloat16: of speed only
        ".*resuming from a checkpoint that ended before the epoch ended.*",
        ".*when logging on epoch level in distributed setting.*",  # the scores are of all ranks' records already
    ):
        warnings.filterwarnings("ignore", message)


def dump(parser: LightningArgumentParser, config: Any) -> str:
    """YAML with every null in its place: dropping one would bring the default back when it is read again."""
    return (
        parser.dump(config, skip_unset=False, skip_link_targets=False, format="yaml").rstrip()
        + "\n"
    )


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
        if (mistake := _mistake(error)) is not None:
            raise SpatialbenchError(str(mistake)) from error
        if kwargs.get("instantiate") and _is_of_trainer(error):
            raise SpatialbenchError(f"{where}: trainer: {' '.join(str(error).split())}") from error
        if kwargs.get("instantiate") and not _is_parser_error(error):
            raise
        raise SpatialbenchError(f"{where}: {condense(str(error))}") from error


def _mistake(error: BaseException) -> SpatialbenchError | None:
    """What a class said of its arguments, in the errors that jsonargparse wraps around it; None: nothing of ours."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, SpatialbenchError):
        cause = cause.__cause__
    return cause


def _is_of_trainer(error: Exception) -> bool:
    """Whether Lightning refused a setting: a device that is not there, an unknown accelerator."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    refused = isinstance(error, ValueError) and frame.f_globals["__name__"].startswith(
        "lightning.pytorch.trainer"
    )
    return refused or isinstance(error, MisconfigurationException)


def _is_parser_error(error: Exception) -> bool:
    return type(error).__module__.startswith(("argparse", "jsonargparse"))


def _dumped(cli: PageCLI, where: str) -> str:
    try:
        return dump(cli.parser, cli.config)
    except Exception as error:
        raise SpatialbenchError(
            f"{where}: cannot be written as YAML ({condense(str(error))}); give every argument as a plain value"
        ) from error


def condense(message: str) -> str:
    """The useful line of jsonargparse's nested report: where the value stands, what was expected, what was given."""
    keys = [key for key in re.findall(r'[Kk]ey "([^"]+)"', message) if key != "config"]
    lines = [line.strip(" -\t") for line in message.splitlines() if line.strip()]
    useful = [line for line in lines if re.search(r"Expected an? .*Got value", line)]
    for given in [line for line in lines if line.startswith("Given value: ")][:1]:  # the innermost
        expected = [
            line for line in lines if re.match(r"Expected an? (?!<class 'NoneType'>)", line)
        ]
        useful += [f"{line}. Got value: {given.removeprefix('Given value: ')}" for line in expected]
    useful += [
        line
        for line in lines
        if re.search(r"not accepted|unrecognized|no attribute|cannot |expected |required", line)
    ]
    useful += [
        line
        for line in lines
        if not re.match(r"(Parser key|Subtypes|Errors|Does not validate)", line)
    ] + lines
    detail = re.sub(r"<class '([^']+)'>", r"\1", useful[0]) if useful else "refused"
    detail = (
        detail.replace("Expected a ", "expected ").replace(". Got value: ", ", got ").rstrip(".")
    )
    return f"{'.'.join(dict.fromkeys(keys))}: {detail}" if keys else detail


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Config:
    changed: Config = {}
    for key, value in after.items():
        old = before.get(key)
        if (
            isinstance(old, Mapping)
            and isinstance(value, Mapping)
            and old.get("class_path") == value.get("class_path")
        ):
            inner = _difference(old, value)
            if inner:
                changed[key] = (
                    inner
                    if "class_path" not in value
                    else {"class_path": value["class_path"], **inner}
                )
        elif key not in before or old != value:
            changed[key] = value
    return changed


def _check_flags(config: Config, flags: Sequence[str], options: Sequence[str]) -> None:
    """Names the nearest flag of a misspelt one; values are left to the parser."""
    classes = {
        "trainer": Trainer,
        "model": _flag_class(config, flags, "model"),
        "data": _flag_class(config, flags, "data"),
    }
    for flag in flags:
        match = re.match(r"^--(\w[\w-]*)(?:\.([\w.]+?))?\+?(?:=.*)?$", flag, re.DOTALL)
        if match is None:
            continue
        block, path = match[1], match[2]
        if block not in classes:
            raise SpatialbenchError(
                f"unknown option '--{block}'{did_you_mean('--' + block, [*options, '--trainer', '--model', '--data'])}"
            )
        parts = (path or "").removeprefix("init_args.").split(".")
        if parts[0] in ("", "help", "class_path", "init_args", "dict_kwargs"):
            continue
        cls = classes[block]
        bad = unknown_key({parts[0]: {parts[1]: None} if len(parts) > 1 else None}, cls)
        if bad is not None:
            key, known = bad
            hint = did_you_mean(key, known)
            name = "trainer" if cls is Trainer else f"{cls.__module__}.{cls.__qualname__}"
            raise SpatialbenchError(
                f"unknown key {key!r} for {name} (command line, {flag.split('=')[0]}){hint}"
            )


def _flag_class(config: Config, flags: Sequence[str], block: str) -> type:
    """The class that the flags speak of: the configuration's, unless ``--model CLASS`` names another."""
    path = config[block].get("class_path") or DATAMODULE
    for position, flag in enumerate(flags):
        name, _, value = flag.partition("=")
        if name in (f"--{block}", f"--{block}.class_path"):
            path = value or (flags[position + 1] if position + 1 < len(flags) else path)
    return import_class(path, f"command line, --{block}")
