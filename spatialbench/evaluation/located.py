r"""Where is the relation lost? What the embedding of an image holds of where named objects are.

The pair test without a text tower: a linear probe reads the place of each object from the
embedding, and the relation is judged by the two places. With v(I) the embedding of an image, n the
images of training that show one A, and p = (x, y, log depth) of A, in image sides and metres:

    (1)  \hat p_A(I) = \bar p + W_A z,  z = (v(I) - \bar v) / s,  W_A = (C_zz + l)^-1 C_zp
    (2)  l minimises  n RSS / (n - df)^2 over a grid,  df = 1 + sum_i e_i / (e_i + l)
    (3)  margin of "A is left of B" = x of \hat p_B - \hat p_A; right: its negative;
         above, under: y; close, far: log depth

e_i are the eigenvalues of C_zz. (2) is generalised cross-validation (Golub, Heath and Wahba,
Technometrics 21, 1979), on images of training alone. (3) changes its sign when A and B are swapped,
so a probe that knows nothing is at 50. A record of a name that fewer than ``LEAST`` images of
training show is a tie.

If (3) is right where the cosine is not, the image tower knows and the text tower, or what matches
the two, does not; if (3) is at chance, the embedding never had it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch

from spatialbench.data.records import Record
from spatialbench.data.rooms import RoomsSet, load
from spatialbench.data.selection_sets import fingerprint
from spatialbench.evaluation.base import Evaluation, Model
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.pairs import TITLES, answers
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

LEAST = 50
PENALTIES = np.logspace(-4, 2, 19)
"""Values of l, in units of a standardised feature's variance."""
AXIS = {"left": 0, "right": 0, "above": 1, "under": 1, "close": 2, "far": 2}
"""Relation -> place of x, y or log depth."""
SIGN = {"left": 1, "right": -1, "above": 1, "under": -1, "close": 1, "far": -1}
SCORERS = {"patches": "patches", "embedding": "embedding"}
"""What is read -> how tables and figures call it."""
_BATCH = 64  # images


class Located(Evaluation):
    """Pair accuracy of (3) by relation; the measures are ``<scorer>: <column>``.

    Args:
        train_images: scenes of training that the probe learns from.
        test_images: scenes of the test; None: the balanced test of the pairs.
    """

    name = "located"
    title = "Where the relation is lost"
    explanation = """\
Pair accuracy without the text tower: a linear probe reads x, y and log depth of every named object
from the *embedding* of the image, and the relation is judged by the two places. What a probe finds
and the cosine does not is in the image and lost between the towers; what it does not find is lost
before. The probe learns from boxes and depth of images of training: these numbers say what is
there, not what a method scores."""
    columns = {  # noqa: RUF012
        f"{scorer}: {column}": f"{title}, {TITLES[column]}"
        for scorer, title in SCORERS.items()
        for column in TITLES
    }
    unit = "records"

    def __init__(self, train_images: int = 4000, test_images: int | None = None) -> None:
        self.train_images, self.test_images = train_images, test_images

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
        margins = probe_margins(probes, embeddings(model, test), test.records)
        data = fingerprint(self.version, [test.record_set().fingerprint, self.train_images])
        return answers(test.records, {"embedding": margins}, data)


@torch.no_grad()
def embeddings(model: Model, rooms: RoomsSet) -> np.ndarray:
    """Embed all images, float64 [M, D]."""
    parts: list[np.ndarray] = []
    count = len(rooms.images)
    with (
        torch.autocast(model.device.type, enabled=False),
        progress(f"embedding {rooms.split}", count, "images") as advance,
    ):
        for start in range(0, count, _BATCH):
            part = np.array(rooms.images[start : start + _BATCH])  # [b, s, s, 3]
            pixels = torch.from_numpy(part).permute(0, 3, 1, 2).to(model.device)
            parts.append(model.image(pixels).double().cpu().numpy())
            advance(len(part))
    found = np.concatenate(parts)
    if not np.isfinite(found).all():
        raise SpatialbenchError("located: an embedding is not finite; the training diverged")
    return found


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


def probe_margins(probes: dict[str, Probe], x: np.ndarray, records: Sequence[Record]) -> np.ndarray:
    """Return (3) of records, float64 [N], from embeddings [M, D] of their images."""
    places = {name: probe(x) for name, probe in probes.items()}
    margins = np.zeros(len(records))
    for row, record in enumerate(records):
        if {record.subject, record.object} <= places.keys():
            first, second = (places[name][record.image] for name in (record.subject, record.object))
            margins[row] = SIGN[record.relation] * (second - first)[AXIS[record.relation]]  # (3)
    return margins
