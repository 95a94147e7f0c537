"""Errors, files, caches, progress and the Hub. Imports nothing else of the package."""
