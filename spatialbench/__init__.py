"""One protocol and one table for published methods that give CLIP a sense of space."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spatialbench.methods.base import Batch, FineTuning, Method
    from spatialbench.models.open_clip_student import load_clip
    from spatialbench.models.timm_vfm import load_vfm

__version__ = "0.1.0"
__all__ = ["PACKAGE", "WEIGHTS", "Batch", "FineTuning", "Method", "load_clip", "load_vfm"]

PACKAGE = Path(__file__).resolve().parent
"""The folder of the package."""
WEIGHTS = PACKAGE / "weights"
"""The weights that the package ships, by name."""

_HOME = dict.fromkeys(("Batch", "FineTuning", "Method"), "methods.base")
_HOME |= {"load_clip": "models.open_clip_student", "load_vfm": "models.timm_vfm"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``spatialbench --help`` does not load torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
