"""Cells of a CSV file that a spreadsheet shows as they are."""

from __future__ import annotations

# A text that begins with one of these is a formula to a spreadsheet, and may read files and ask the network.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(value: object) -> object:
    """`value`, a text behind an apostrophe where it would be a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
