"""Parses arguments and prints: one file for each group of commands. Nothing imports it."""
