"""Cut grids and rows of labels into pieces of about the same size."""

from __future__ import annotations

import itertools

from odc_openeo.parts.model import PixelWindow, Range


def cut_squares(shape: tuple[int, int], side: int) -> list[PixelWindow]:
    """Cut a grid (rows, columns) into squares of ``side`` pixels, row by row; the last ones are smaller."""
    return [
        PixelWindow(rows, columns)
        for rows, columns in itertools.product(cut_range(shape[0], side), cut_range(shape[1], side))
    ]


def cut_range(size: int, length: int) -> list[Range]:
    """Cut ``size`` labels into ranges of ``length``; the last one may be shorter."""
    return [(first, min(first + length, size)) for first in range(0, size, length)]
