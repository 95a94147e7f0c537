"""spatialbench: one protocol and one table for every published way of giving CLIP a sense of space."""

from pathlib import Path

__version__ = "0.1.0"

PACKAGE = Path(__file__).resolve().parent
"""The folder of the package."""
WEIGHTS = PACKAGE / "weights"
"""The weights that the package ships, by name."""
