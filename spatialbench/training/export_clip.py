"""``spatialbench export``: an enhanced CLIP as an ordinary checkpoint, compared with the method before it is there.

Which methods leave one is found by asking them: a method whose picture, caption and patch embeddings are those of its
student alone is a plain CLIP; where a side branch has a say they differ, and nothing is written.

Letters: B images, C captions.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
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
"""Largest difference of two entries of unit embeddings: float32 through other kernels, in another order."""
ORIGIN = "spatialbench.json"


def run(options: argparse.Namespace) -> None:
    """Writes the folder.

    Args:
        options: config, track, budget, seed, ckpt_path, runs, to and folder, as ``spatialbench.cli.trust`` parses
            them.

    Raises:
        SpatialbenchError: the method is no plain CLIP, the form does not take it, or the folder has something in it.
    """
    folder = Path(options.folder)
    if any(place.is_file() for place in (folder, *folder.parents)):
        raise SpatialbenchError(
            f"{folder} cannot be a folder: a file is in its place; give a new folder"
        )
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
    """Where exported weights come from."""
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
    model: Method, form: str, folder: Path, told: dict[str, object] | None = None
) -> list[str]:
    """Writes a method's CLIP to a folder, complete or not at all.

    Args:
        model: in eval mode, on the CPU.
        form: one of ``FORMS``.
        folder: does not exist, or is empty.
        told: goes into ``ORIGIN`` beside.

    Returns:
        What the form has no place for, a line each.

    Raises:
        SpatialbenchError: see ``run``; or what the library reads back is not what the method says.
    """
    label = type(model).__qualname__
    if reason := why_not_plain(model):
        raise SpatialbenchError(f"{label} leaves no plain CLIP to export: {reason}")
    if form == "hf" and (reason := why_not_hf(model.student)):
        raise SpatialbenchError(
            f"the student is no CLIPModel of transformers: {reason}; export it --to open_clip"
        )
    spec = str(model.hparams["student"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        made = Path(name) / "made"
        made.mkdir()
        left: list[str] = []
        if form == "hf":
            left = write_hf(model.student, simple_tokenizer(spec), resize_mode(model.student), made)
            read = read_hf(made)
        else:
            write_open_clip(model.student, spec, made)
            read = read_open_clip(made)
        _compare(model, form, *read)
        (made / ORIGIN).write_text(json.dumps(told or {}, indent=2) + "\n", encoding="utf-8")
        for path in made.iterdir():
            path.chmod(
                0o644
            )  # safetensors leaves 0600, which hides a shared folder from its other users
        if folder.exists():
            folder.rmdir()
        shutil.move(made, folder)
    return left


@torch.inference_mode()
def why_not_plain(model: Method) -> str:
    """Where a method says something else than its student alone; empty where it is a plain CLIP.

    Compared on pictures of noise and on captions of every relation: embeddings of pictures, captions and patches.
    """
    pixels, captions = _probe(model)
    tokens, whitened = model.tokenize(captions), _whitened(model, pixels)
    pairs = {
        "pictures": (model.image(pixels), encode_image(model.student, whitened)),
        "captions": (model.text(tokens), encode_text(model.student, tokens)),
        "patches": (model.dense(pixels), encode_dense(model.student, whitened)),
    }
    for what, (own, students) in pairs.items():
        apart = _apart(own, students)
        if apart > TOLERANCE:
            beside = [
                name for name, _ in model.named_children() if name not in ("student", "outcomes")
            ]
            side = f" ({', '.join(beside)})" if beside else ""
            return f"a side branch{side} has a say in its embeddings of {what}, {apart:.2g} off its student's alone"
    return ""


@torch.inference_mode()
def _compare(
    model: Method,
    form: str,
    image: Callable[[Tensor], Tensor],
    text: Callable[[list[str]], Tensor] | None,
) -> None:
    """Raises unless the library reads back what the method says."""
    pixels, captions = _probe(model)
    apart = {"pictures": _apart(model.image(pixels), image(_whitened(model, pixels)))}
    if text is not None:
        apart["captions"] = _apart(model.text(model.tokenize(captions)), text(captions))
    for what, most in apart.items():
        if not most <= TOLERANCE:
            raise SpatialbenchError(
                f"{form} reads other embeddings of {what} than the method's ({most:.2g} apart): nothing is written"
            )


def _probe(model: Method) -> tuple[Tensor, list[str]]:
    """Pictures uint8 [B, 3, S, S] and captions [C]."""
    draw, side = torch.Generator().manual_seed(0), model.image_size
    pixels = torch.randint(0, 256, (4, 3, side, side), generator=draw, dtype=torch.uint8)
    return pixels, [Statement("sofa", relation, "floor lamp").caption for relation in RELATIONS]


def _whitened(model: Method, pixels: Tensor) -> Tensor:
    return (pixels.to(model.mean.dtype) - model.mean) / model.std


def _apart(a: Tensor, b: Tensor) -> float:
    return float((F.normalize(a.float(), dim=-1) - F.normalize(b.float(), dim=-1)).abs().max())
