"""The evaluations of a track, by name: which class, with which arguments, under which hash."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from spatialbench.config.experiment import deep_merge
from spatialbench.config.pages import Config, Track, content_hash
from spatialbench.config.signatures import import_class, refuse_unknown
from spatialbench.data.download.manifest import ROOT
from spatialbench.evaluation.base import Evaluation
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

CAPTIONS = "spatialbench.evaluation.caption_benchmark.CaptionBenchmark"
SELECTION = "spatialbench.evaluation.selection.ImageSelection"
PUBLISHED = {
    "mmvp": "mmvp.Mmvp",
    "whatsup": "whatsup.WhatsUp",
    "vsr": "vsr.Vsr",
    "sugarcrepe": "sugarcrepe.SugarCrepe",
    "aro": "aro.Aro",
    "cvbench": "cvbench.CvBench",
    "cocoqa": "whatsup_qa.CocoQa",
    "vgqa": "whatsup_qa.VgQa",
    "spatialsense": "spatialsense.SpatialSense",
}
"""Published benchmarks: name -> the class of ``data.captions`` that reads the downloaded folder."""


@dataclass(frozen=True)
class EvaluationSpec:
    """An evaluation that is not loaded yet."""

    class_path: str  # a subclass of ``Evaluation``
    arguments: Config  # of its ``__init__``; a nested ``{class_path, init_args}`` is an object
    where: str  # for messages

    @cached_property
    def cls(self) -> type[Evaluation]:
        """The class; an error if there is none, or it is not an evaluation."""
        cls = import_class(self.class_path, self.where)
        if not issubclass(cls, Evaluation):
            raise SpatialbenchError(f"{self.where}: {self.class_path} is not an Evaluation")
        return cls

    @property
    def settings(self) -> str:
        """Hash of class, version and arguments."""
        return content_hash([self.cls.version, self.class_path, self.arguments])

    def load(self) -> Evaluation:
        """Make the evaluation; an error for an unknown argument, or data that cannot be read."""
        return _instance(self.cls, self.arguments, self.where)


def evaluations_of(track: Track, budget: str) -> dict[str, EvaluationSpec]:
    """Return the evaluations of a track beside the pairs, by name."""
    specs = {}
    for name, block in track.evaluations.items():
        sizes = (block.get("budgets") or {}).get(budget) or {}
        arguments = deep_merge(block.get("init_args") or {}, sizes)
        specs[name] = EvaluationSpec(block["class_path"], arguments, f"track {track.path}: {name}")
    return specs


def named_evaluation(name: str, track: Track, budget: str, path: str | None) -> EvaluationSpec:
    """Find an evaluation by name: of the track, or a published benchmark.

    ``path`` is the folder of a downloaded benchmark, by default where ``data download`` puts it. A
    SpatialbenchError for an unknown name, or a path that is missing or not wanted.
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
    folder = path or str(ROOT / name)
    if path is None and not Path(folder).is_dir():
        raise SpatialbenchError(
            f"--evaluation {name}: there is no folder {folder}; get it by spatialbench data "
            f"download {name}, or give --evaluation_path FOLDER"
        )
    source = f"spatialbench.data.captions.{PUBLISHED[name]}"
    arguments = {"source": {"class_path": source, "init_args": {"path": folder}}}
    class_path = SELECTION if name == "mmvp" else CAPTIONS
    return EvaluationSpec(class_path, arguments, f"--evaluation {name}")


def _instance(cls: type, arguments: Mapping[str, Any], where: str) -> Any:
    refuse_unknown(arguments, cls, where)
    made = dict(arguments)
    for key, value in arguments.items():
        if isinstance(value, Mapping) and "class_path" in value:
            inner = import_class(value["class_path"], where)
            made[key] = _instance(inner, value.get("init_args") or {}, where)
    try:
        return cls(**made)
    except TypeError as error:
        raise SpatialbenchError(f"{where}: {error}") from error
