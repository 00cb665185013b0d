"""Rows of a command's output, as a table for people or as CSV for programs."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence


def print_rows(header: Sequence[str], rows: Sequence[Sequence[str]], *, as_csv: bool) -> None:
    """Print rows below a header. In CSV, texts that spreadsheets would run as formulas begin with a quote."""
    if as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(header)
        writer.writerows([[_defuse_formula(value) for value in row] for row in rows])
        return
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = (_escape(value).ljust(width) for value, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _defuse_formula(value: str) -> str:
    return f"'{value}" if value[:1] in ("=", "+", "@", "\t", "\r") else value


def _escape(value: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in value)
