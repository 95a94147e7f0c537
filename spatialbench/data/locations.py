"""Where the two objects of a record are, as numbers to regress."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from spatialbench.data.images import Resize, place
from spatialbench.data.records import Record

NOWHERE = (math.nan, math.nan, math.nan)


def locations(records: Sequence[Record], resize: Resize) -> np.ndarray:
    """Return x, y and log depth of subject and object, float32 [R, 2, 3]; NaN where unknown.

    x and y are the centre of the box in the resized image, in units of its side, y downwards; depth
    is in metres.
    """
    both = [[_location(r, name, resize) for name in (r.subject, r.object)] for r in records]
    return np.array(both, dtype=np.float32).reshape(len(records), 2, 3)


def _location(record: Record, name: str, resize: Resize) -> tuple[float, float, float]:
    if name not in record.boxes:
        return NOWHERE
    x, y = place(record.boxes[name], record.image_size, 1.0, resize).centre
    return x, y, math.log(record.depths[name]) if name in record.depths else math.nan
