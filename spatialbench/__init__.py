"""spatialbench: one protocol and one table for every published way of giving CLIP a sense of space."""

__version__ = "0.1.0"
