"""The evaluations of a track, by name: which class, with which arguments, under which hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from spatialbench.config.experiment import deep_merge
from spatialbench.config.pages import Config, Track, content_hash
from spatialbench.config.signatures import import_class, unknown_key
from spatialbench.data.download.status import ROOT
from spatialbench.evaluation.base import Evaluation
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

CAPTIONS = "spatialbench.evaluation.caption_benchmark.CaptionBenchmark"
SELECTION = "spatialbench.evaluation.selection.ImageSelection"
PUBLISHED = {
    "mmvp": (SELECTION, "spatialbench.data.captions.mmvp.Mmvp"),
    "whatsup": (CAPTIONS, "spatialbench.data.captions.whatsup.WhatsUp"),
    "vsr": (CAPTIONS, "spatialbench.data.captions.vsr.Vsr"),
    "sugarcrepe": (CAPTIONS, "spatialbench.data.captions.sugarcrepe.SugarCrepe"),
    "aro": (CAPTIONS, "spatialbench.data.captions.aro.Aro"),
    "cvbench": (CAPTIONS, "spatialbench.data.captions.cvbench.CvBench"),
    "cocoqa": (CAPTIONS, "spatialbench.data.captions.whatsup_qa.CocoQa"),
    "vgqa": (CAPTIONS, "spatialbench.data.captions.whatsup_qa.VgQa"),
    "spatialsense": (CAPTIONS, "spatialbench.data.captions.spatialsense.SpatialSense"),
}
"""Published benchmarks: name -> evaluation, and the class that reads the downloaded folder."""


@dataclass(frozen=True)
class EvaluationSpec:
    """An evaluation that is not loaded yet.

    Attributes:
        name: in results and on the command line.
        class_path: a subclass of ``Evaluation``.
        arguments: of its ``__init__``; a nested ``{class_path, init_args}`` is an object.
        where: for messages.
    """

    name: str
    class_path: str
    arguments: Config
    where: str

    @cached_property
    def cls(self) -> type[Evaluation]:
        """The class.

        Raises:
            SpatialbenchError: there is no such class, or it is not an evaluation.
        """
        cls = import_class(self.class_path, self.where)
        if not issubclass(cls, Evaluation):
            raise SpatialbenchError(f"{self.where}: {self.class_path} is not an Evaluation")
        return cls

    @property
    def settings(self) -> str:
        """Hash of class, version and arguments."""
        return content_hash([self.cls.version, self.class_path, self.arguments])

    def load(self) -> Evaluation:
        """Make the evaluation.

        Raises:
            SpatialbenchError: an unknown argument, or data that cannot be read.
        """
        return _instance(self.cls, self.arguments, self.where)


def evaluations_of(track: Track, budget: str) -> dict[str, EvaluationSpec]:
    """Return what a track evaluates beside the pairs, by name."""
    found = {}
    for name, block in track.evaluations.items():
        sizes = (block.get("budgets") or {}).get(budget) or {}
        arguments = deep_merge(block.get("init_args") or {}, sizes)
        where = f"track {track.path}: {name}"
        found[name] = EvaluationSpec(name, block["class_path"], arguments, where)
    return found


def named_evaluation(name: str, track: Track, budget: str, path: str | None) -> EvaluationSpec:
    """Find an evaluation by name: of the track, or a published benchmark.

    Args:
        path: the folder of a downloaded benchmark; None: where ``data download`` puts it.

    Raises:
        SpatialbenchError: an unknown name, or a path that is missing or not wanted.
    """
    own = evaluations_of(track, budget)
    name = "selection" if name == "counterfactual" and "selection" in own else name
    if name in own:
        if path is not None:
            raise SpatialbenchError(f"--evaluation {name} takes no --evaluation_path")
        return own[name]
    if name not in PUBLISHED:
        known = did_you_mean(name, [*own, *PUBLISHED])
        raise SpatialbenchError(f"--evaluation: unknown evaluation {name!r}{known}")
    class_path, source = PUBLISHED[name]
    where = f"--evaluation {name}"
    if path is None and not (ROOT / name).is_dir():
        folder = import_class(source, where).source  # type: ignore[attr-defined]
        raise SpatialbenchError(
            f"{where}: there is no folder {ROOT / name}; get it by spatialbench data download "
            f"{name}, or give --evaluation_path FOLDER, {folder}"
        )
    arguments = {"source": {"class_path": source, "init_args": {"path": path or str(ROOT / name)}}}
    return EvaluationSpec(name, class_path, arguments, where)


def _instance(cls: type, arguments: Mapping[str, Any], where: str) -> Any:
    bad = unknown_key(arguments, cls)
    if bad is not None:
        key, known = bad
        near = did_you_mean(key, known)
        raise SpatialbenchError(f"unknown key {key!r} for {cls.__qualname__} ({where}){near}")
    made = {}
    for key, value in arguments.items():
        if isinstance(value, Mapping) and "class_path" in value:
            inner = import_class(value["class_path"], where)
            value = _instance(inner, value.get("init_args") or {}, where)
        made[key] = value
    try:
        return cls(**made)
    except TypeError as error:
        raise SpatialbenchError(f"{where}: {error}") from error
