"""``spatialbench export``: a trained CLIP as an ordinary checkpoint, compared with the method.

A method is a plain CLIP if its image, caption and patch embeddings are those of its student alone.
Where a side branch changes them, nothing is written.

Letters: B images, C captions, S pixels a side.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.config.experiment import Resolved, resolve
from spatialbench.data.relations import RELATIONS, Statement
from spatialbench.methods.base import Method
from spatialbench.models.files.clip_export import read_open_clip, simple_tokenizer, write_open_clip
from spatialbench.models.files.hf_export import read_hf, why_not_hf, write_hf
from spatialbench.models.open_clip_student import resize_mode
from spatialbench.models.towers import encode_dense, encode_image, encode_text
from spatialbench.training.score import load_method, readable_errors, say
from spatialbench.utils import provenance
from spatialbench.utils.errors import SpatialbenchError

FORMS = ("open_clip", "hf")
TOLERANCE = 1e-5
"""Largest difference of entries of unit embeddings: other kernels sum float32 in another order."""
ORIGIN = "spatialbench.json"


def run(options: argparse.Namespace) -> None:
    """Run the command, with the options that ``spatialbench.cli.trust`` parses.

    Raises:
        SpatialbenchError: the method is not a plain CLIP, the form does not support it, or the
            folder is not empty.
    """
    folder = Path(options.folder)
    if any(place.is_file() for place in (folder, *folder.parents)):
        raise SpatialbenchError(f"{folder} cannot be made, as a file is there; give a new folder")
    if folder.exists() and any(folder.iterdir()):
        raise SpatialbenchError(f"{folder} has something in it already; give a new folder")
    resolved = resolve(
        options.config, options.track, options.budget, options.seed, runs=options.runs
    )
    with readable_errors(resolved):
        model, checkpoint = load_method(resolved, options.ckpt_path, Path(options.runs))
        for line in export(model.cpu(), options.to, folder, origin(resolved, checkpoint)):
            say(f"note: {line}")
    print(f"{folder}: {resolved.page.name} for {options.to}, embeddings compared: equal")


def origin(resolved: Resolved, checkpoint: Path | None) -> dict[str, object]:
    """Describe where exported weights come from."""
    commit, dirty = provenance.commit()
    return {
        "page": resolved.page.name,
        "track": resolved.track.name,
        "budget": resolved.budget,
        "seed": resolved.seed,
        "config_hash": resolved.config_hash,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "commit": commit,
        "dirty": dirty,
        "versions": provenance.versions(),
    }


def export(
    model: Method, form: str, folder: Path, described: Mapping[str, object] | None = None
) -> list[str]:
    """Write a method's CLIP, in eval mode on the CPU, to a folder, complete or not at all.

    The folder must not exist or be empty; ``described`` goes into its ``ORIGIN``. A line is
    returned for everything that the form has no place for.

    Raises:
        SpatialbenchError: see ``run``; or the library reads back other embeddings.
    """
    if reason := why_not_plain(model):
        raise SpatialbenchError(
            f"{type(model).__qualname__} leaves no plain CLIP to export: {reason}"
        )
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
    """Say where a method differs from its student alone; empty where it is a plain CLIP.

    Embeddings of images, captions and patches are compared, on noise and captions of all relations.
    """
    pixels, captions = _probe(model)
    tokens, normalised = model.tokenize(captions), _normalised(model, pixels)
    pairs = {
        "images": (model.image(pixels), encode_image(model.student, normalised)),
        "captions": (model.text(tokens), encode_text(model.student, tokens)),
        "patches": (model.dense(pixels), encode_dense(model.student, normalised)),
    }
    for what, (own, students) in pairs.items():
        if (distance := _distance(own, students)) > TOLERANCE:
            names = [name for name, _ in model.named_children()]
            branches = [name for name in names if name not in ("student", "outcomes")]
            side = f" ({', '.join(branches)})" if branches else ""
            return f"a side branch{side} changes its embeddings of {what}, by up to {distance:.2g}"
    return ""


@torch.inference_mode()
def _write(model: Method, form: str, folder: Path) -> list[str]:
    """Write the checkpoint; raise unless the library reads back the embeddings of the method."""
    spec, omitted = str(model.hparams["student"]), []
    if form == "hf":
        omitted = write_hf(
            model.student, simple_tokenizer(spec), resize_mode(model.student), folder
        )
        image, text = read_hf(folder)
    else:
        write_open_clip(model.student, spec, folder)
        image, text = read_open_clip(folder)
    pixels, captions = _probe(model)
    distances = {"images": _distance(model.image(pixels), image(_normalised(model, pixels)))}
    if text is not None:
        distances["captions"] = _distance(model.text(model.tokenize(captions)), text(captions))
    for what, distance in distances.items():
        if not distance <= TOLERANCE:
            raise SpatialbenchError(
                f"{form} reads other embeddings of {what} than the method's ({distance:.2g} "
                "apart), so nothing is written"
            )
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
