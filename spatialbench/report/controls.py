"""The stored controls of a track, as a block below its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from spatialbench.evaluation.controls.suite import Controls
from spatialbench.evaluation.pairs import TITLES
from spatialbench.report.rows import read_rows
from spatialbench.report.table_model import (
    Column,
    Record,
    Table,
    interval_cell,
    number_column,
    text_column,
)
from spatialbench.results.files import STORED_BUDGET, Row
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError
