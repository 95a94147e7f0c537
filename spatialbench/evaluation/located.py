r"""Pairs answered by the places that the patches and the embedding of an image give to objects.

The pair test by places in the stead of a cosine. Of the patches, the places are those of the value
readout, (1) to (5) of methods/readout.py. Of the embedding a linear probe reads them. With v(I) the
embedding of an image, n the images of training that show one A, and p = (x, y, log depth) of A, in
image sides and metres:

    (1)  \hat p_A(I) = \bar p + W_A z,  z = (v(I) - \bar v) / s,  W_A = (C_zz + l)^-1 C_zp
    (2)  l minimises  n RSS / (n - df)^2 over a grid,  df = 1 + sum_i e_i / (e_i + l)
    (3)  margin of "A is left of B" = x of \hat p_B - \hat p_A; right: its negative;
         above, under: y; close, far: log depth

e_i are the eigenvalues of C_zz. (2) is generalised cross-validation (Golub, Heath and Wahba,
Technometrics 21, 1979), on images of training alone. (3) changes its sign when A and B are swapped,
so a probe that knows nothing is at 50. A record of a name that fewer than ``LEAST`` images of
training show is a tie.

If the patches are right and the embedding is at chance, the relation is lost on the way to the
embedding; if the embedding is right and the cosine is not, between the towers.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from spatialbench.data.records import Record
from spatialbench.data.rooms import RoomsSet, load
from spatialbench.data.selection_sets import fingerprint
from spatialbench.evaluation.base import Evaluation, Model
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.pairs import TITLES, answers
from spatialbench.models.places import AXIS, SIGN, centres, patch_depth, phrase
from spatialbench.models.timm_vfm import depth_head, load_vfm
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

LEAST = 20
PENALTIES = np.logspace(-4, 2, 19)
"""Values of l, in units of a standardised feature's variance."""
SCORERS = {"patches": "patches", "embedding": "embedding"}
"""Part of the model that is read -> its name in tables and figures."""
_BATCH = 64  # images


class Located(Evaluation):
    """Pair accuracy of (3) by relation; the measures are ``<scorer>: <column>``.

    Args:
        train_images: scenes of training that the probe learns from.
        test_images: scenes of the test; None: the balanced test of the pairs.
        vfm: whose depth head says how far a patch is, for *close* and *far* of the patches; without
            a head they are ties.
    """

    name = "located"
    title = "Where the relation is lost"
    explanation = """\
Pair accuracy by the places of the two named objects in the stead of a cosine. *Patches*: the value
readout of the row's own weights, with the VFM's depth. *Embedding*: a linear probe of the embedding
of the image, which learns from boxes and depth of images of training. A relation that the patches
know and the embedding does not is lost on the way to the embedding; one that the embedding knows
and the cosine does not, between the towers. These numbers say what is there, not what a method
scores."""
    columns = {  # noqa: RUF012
        f"{scorer}: {column}": f"{title}, {TITLES[column]}"
        for scorer, title in SCORERS.items()
        for column in TITLES
    }
    unit = "records"

    def __init__(
        self, train_images: int = 4000, test_images: int | None = None, vfm: str = "rooms-vfm"
    ) -> None:
        self.train_images, self.test_images, self.vfm = train_images, test_images, vfm

    def run(self, model: Model) -> Evidence:
        """Fit a probe for each name, and answer the records; see :meth:`Evaluation.run`."""
        train = load("train", self.train_images, model.image_size)
        test = load("test", self.test_images, model.image_size)
        probes = fit_probes(embeddings(model, train), train)
        if not probes:
            raise SpatialbenchError(
                f"{self.name}: no object is seen in {LEAST} of the {self.train_images} images of "
                "training: raise train_images"
            )
        seen, values, notes = embeddings(model, test), {}, {}
        if "attend" in inspect.signature(model.dense).parameters:
            values["patches"] = margins(readout(model, test, self.vfm), test.records)
        else:
            notes["patches"] = "not measured: the model's dense takes no attend, see Method.dense"
        found = {name: probe(seen) for name, probe in probes.items()}
        values["embedding"] = margins(found, test.records)
        data = fingerprint(self.version, [test.record_set().fingerprint, self.train_images])
        return answers(test.records, values, data, notes)


def embeddings(model: Model, rooms: RoomsSet) -> np.ndarray:
    """Embed all images, float64 [M, D]."""
    with torch.inference_mode(), torch.autocast(model.device.type, enabled=False):
        parts = [model.image(pixels).double().cpu().numpy() for pixels in batches(model, rooms)]
    found = np.concatenate(parts)
    if not np.isfinite(found).all():
        raise SpatialbenchError("located: an embedding is not finite; the training diverged")
    return found


def readout(model: Model, rooms: RoomsSet, vfm: str) -> dict[str, np.ndarray]:
    """Return name -> its place by the patches of every image, float [M, 3]; depth 0 without a head.

    (1), with the value attention, to (5) of methods/readout.py.
    """
    head = depth_head(vfm)
    eye = None if head is None else load_vfm(vfm, model.image_size, cache=False).to(model.device)
    names = sorted({name for scene in rooms.scenes for name in scene.named})
    parts = []
    with torch.inference_mode(), torch.autocast(model.device.type, enabled=False):
        texts = model.text(model.tokenize([phrase(name) for name in names]))
        for pixels in batches(model, rooms):
            dense = model.dense(pixels, lambda v: v)
            depth = dense.new_zeros(*dense.shape[:3], 1)
            if head is not None and eye is not None:
                grid = (dense.shape[1], dense.shape[2])
                depth = patch_depth(head.to(pixels.device), eye.patches(pixels), grid)
            parts.append(centres(dense, depth[..., 0], texts).cpu().numpy())  # [b, K, 3]
    return dict(zip(names, np.concatenate(parts).swapaxes(0, 1), strict=True))


def batches(model: Model, rooms: RoomsSet) -> Iterator[Tensor]:
    """Yield the images, uint8 [b, 3, S, S] on the model's device."""
    count = len(rooms.images)
    with progress(f"locating in {rooms.split}", count, "images") as advance:
        for start in range(0, count, _BATCH):
            part = np.array(rooms.images[start : start + _BATCH])  # [b, S, S, 3]
            yield torch.from_numpy(part).permute(0, 3, 1, 2).to(model.device)
            advance(len(part))


class Probe(NamedTuple):
    """(1) of one name."""

    centre: np.ndarray  # of the embeddings, [D]
    scale: np.ndarray  # [D]; infinite where a feature is constant
    weight: np.ndarray  # [D, 3]
    place: np.ndarray  # mean place, [3]

    @classmethod
    def fit(cls, x: np.ndarray, y: np.ndarray) -> Self:
        """Fit (1) and (2) on embeddings [n, D] and places [n, 3]."""
        centre, scale, place = x.mean(0), x.std(0), y.mean(0)
        scale = np.where(scale > 1e-9, scale, np.inf)
        u, s, vt = np.linalg.svd((x - centre) / scale, full_matrices=False)
        n, values, projected = len(x), s**2 / len(x), u.T @ (y - place)  # eigenvalues of C_zz
        kept = values / (values + PENALTIES[:, None])  # [G, r]
        rest = ((y - place) ** 2).sum(0) - ((1 - (1 - kept[..., None]) ** 2) * projected**2).sum(1)
        free = n - 1 - kept.sum(1, keepdims=True)
        best = np.where(free > 1, n * rest / free**2, np.inf).argmin(0)  # (2), by target
        weight = vt.T @ (kept[best].T * projected / np.where(s > 0, s, np.inf)[:, None])
        return cls(centre, scale, weight, place)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Places [n, 3] of embeddings [n, D]."""
        return self.place + (x - self.centre) / self.scale @ self.weight  # (1)


def fit_probes(x: np.ndarray, rooms: RoomsSet) -> dict[str, Probe]:
    """Fit a probe to every name that ``LEAST`` images show, from embeddings [M, D]."""
    seen: dict[str, list[tuple[int, list[float]]]] = {}
    for row, scene in enumerate(rooms.scenes):
        for name, view in scene.named.items():
            column, line = (part / scene.size for part in view.box.centre)
            seen.setdefault(name, []).append((row, [column, line, np.log(view.depth)]))
    return {
        name: Probe.fit(x[[row for row, _ in found]], np.array([place for _, place in found]))
        for name, found in seen.items()
        if len(found) >= LEAST
    }


def margins(places: Mapping[str, np.ndarray], records: Sequence[Record]) -> np.ndarray:
    """Return (3) of records, float64 [N], from the places of names in every image, [M, 3] each."""
    found = np.zeros(len(records))
    for row, record in enumerate(records):
        if {record.subject, record.object} <= places.keys():
            first, second = (places[name][record.image] for name in (record.subject, record.object))
            found[row] = SIGN[record.relation] * (second - first)[AXIS[record.relation]]  # (3)
    return found
