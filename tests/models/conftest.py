"""Every test of a model has a cache of its own."""

from tests.methods.conftest import own_cache

__all__ = ["own_cache"]
