"""``spatialbench export``: a trained CLIP as an ordinary checkpoint, compared with the method.

A method is a plain CLIP if its image, caption and patch embeddings are those of its student alone.
Where a side branch changes them, nothing is written.

Letters: B images, C captions, S pixels a side.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.config.experiment import resolve
from spatialbench.data.relations import RELATIONS, Statement
from spatialbench.methods.base import Method
from spatialbench.models.files.clip_export import read_open_clip, write_open_clip
from spatialbench.models.files.hf_export import read_hf, why_not_hf, write_hf
from spatialbench.models.towers import encode_dense, encode_image, encode_text
from spatialbench.results.run_folder import stamp
from spatialbench.training.score import load_method, readable_errors
from spatialbench.utils import provenance
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.say import say

FORMS = {"open_clip": (write_open_clip, read_open_clip), "hf": (write_hf, read_hf)}
TOLERANCE = 1e-5
"""Largest difference of entries of unit embeddings: other kernels sum float32 in another order."""
ORIGIN = "spatialbench.json"


def run(options: argparse.Namespace) -> None:
    """Run the command, with the options that ``spatialbench.cli.weights`` parses.

    Raises:
        SpatialbenchError: see :func:`export`; or the folder is not empty.
    """
    folder = Path(options.folder)
    if any(place.is_file() for place in (folder, *folder.parents)):
        raise SpatialbenchError(f"{folder} cannot be made, as a file is there; give a new folder")
    if folder.exists() and any(folder.iterdir()):
        raise SpatialbenchError(f"{folder} has something in it already; give a new folder")
    given = (options.config, options.track, options.budget, options.seed)
    resolved = resolve(*given, runs=options.runs)
    with readable_errors(resolved):
        model, checkpoint = load_method(resolved, options.ckpt_path, Path(options.runs))
        commit, dirty = provenance.commit()
        origin = {**stamp(resolved), "checkpoint": checkpoint and str(checkpoint)}
        origin |= {"commit": commit, "dirty": dirty, "versions": provenance.versions()}
        for line in export(model.cpu(), options.to, folder, origin):
            say(f"note: {line}")
    print(f"{folder}: {resolved.page.name} for {options.to}, embeddings compared: equal")


def export(
    model: Method, form: str, folder: Path, described: Mapping[str, object] | None = None
) -> list[str]:
    """Write a method's CLIP, in eval mode on the CPU, to a folder, complete or not at all.

    The folder must be new or empty; ``described`` goes into its ``ORIGIN``. Returns a line for each
    omission. A SpatialbenchError if the method is not a plain CLIP, the form does not support it,
    or the library reads back other embeddings.
    """
    if reason := why_not_plain(model):
        name = type(model).__qualname__
        raise SpatialbenchError(f"{name} leaves no plain CLIP to export: {reason}")
    if form == "hf" and (reason := why_not_hf(model.student)):
        raise SpatialbenchError(
            f"the student is no CLIPModel of transformers: {reason}; export it --to open_clip"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        temporary = Path(name) / "exported"
        temporary.mkdir()
        omitted = _write(model, form, temporary)
        (temporary / ORIGIN).write_text(json.dumps(described or {}, indent=2) + "\n")
        for path in temporary.iterdir():
            path.chmod(0o644)  # safetensors' 0600 would hide a shared folder from its other users
        if folder.exists():
            folder.rmdir()
        shutil.move(temporary, folder)
    return omitted


@torch.inference_mode()
def why_not_plain(model: Method) -> str:
    """Say where a method's embeddings differ from its student's; empty for a plain CLIP."""
    pixels, captions = _probe(model)
    tokens, normalised = model.tokenize(captions), _normalised(model, pixels)
    pairs = {
        "images": (model.image(pixels), encode_image(model.student, normalised)),
        "captions": (model.text(tokens), encode_text(model.student, tokens)),
        "patches": (model.dense(pixels), encode_dense(model.student, normalised)),
    }
    for what, (own, students) in pairs.items():
        if (distance := _distance(own, students)) > TOLERANCE:
            names = [n for n, _ in model.named_children() if n not in ("student", "outcomes")]
            side = f" ({', '.join(names)})" if names else ""
            return f"a side branch{side} changes its embeddings of {what}, by up to {distance:.2g}"
    return ""


@torch.inference_mode()
def _write(model: Method, form: str, folder: Path) -> list[str]:
    """Write the checkpoint; raise unless the library reads back the embeddings of the method."""
    (write, read), (pixels, captions) = FORMS[form], _probe(model)
    omitted = write(model.student, str(model.hparams["student"]), folder)
    image, text = read(folder, _normalised(model, pixels), captions)
    distances = {"images": _distance(model.image(pixels), image)}
    if text is not None:
        distances["captions"] = _distance(model.text(model.tokenize(captions)), text)
    for what, distance in distances.items():
        if not distance <= TOLERANCE:
            wrong = f"other embeddings of {what} than the method's ({distance:.2g} apart)"
            raise SpatialbenchError(f"{form} reads {wrong}, so nothing is written")
    return omitted


def _probe(model: Method) -> tuple[Tensor, list[str]]:
    """Images uint8 [B, 3, S, S] and captions [C]."""
    draw, side = torch.Generator().manual_seed(0), model.image_size
    pixels = torch.randint(0, 256, (4, 3, side, side), generator=draw, dtype=torch.uint8)
    return pixels, [Statement("sofa", relation, "floor lamp").caption for relation in RELATIONS]


def _normalised(model: Method, pixels: Tensor) -> Tensor:
    return (pixels.to(model.mean.dtype) - model.mean) / model.std


def _distance(a: Tensor, b: Tensor) -> float:
    return float((F.normalize(a.float(), dim=-1) - F.normalize(b.float(), dim=-1)).abs().max())
