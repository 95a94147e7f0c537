"""Runs again and compares: stored results against what the code makes today."""
