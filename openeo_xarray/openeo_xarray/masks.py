"""Masks of pixels that the client has, as polygons along the edges of pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from openeo_xarray.errors import UnsupportedOperation
from openeo_xarray.nodes import Constant

MOST_RECTANGLES = 20_000


def make_mask_polygons(constant: Constant, crs: Any) -> dict[str, Any]:
    """Rectangles that cover the true pixels of a mask and no others, as a GeoJSON FeatureCollection."""
    x, y = constant.dims["x"].labels, constant.dims["y"].labels
    order = [a.name for a in constant.axes]
    values = constant.values if order == ["y", "x"] else constant.values.T
    rectangles = list(list_rectangles(values.astype(bool)))
    if len(rectangles) > MOST_RECTANGLES:
        raise UnsupportedOperation(
            f"a mask of {len(rectangles)} rectangles", "calculate it from the collection, or use fewer pixels"
        )
    features = [
        {"type": "Feature", "properties": {}, "geometry": _make_polygon(rectangle, x, y)}
        for rectangle in rectangles
    ]
    name = f"urn:ogc:def:crs:EPSG::{crs}"
    return {
        "type": "FeatureCollection",
        "features": features,
        "crs": {"type": "name", "properties": {"name": name}},
    }


def list_rectangles(mask: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """Rectangles of true pixels: first and last row, first and last column. Equal rows go together."""
    open_runs: dict[tuple[int, int], int] = {}
    for row in range(mask.shape[0] + 1):
        runs = set(_list_runs(mask[row])) if row < mask.shape[0] else set()
        for run in [run for run in open_runs if run not in runs]:
            yield open_runs.pop(run), row - 1, *run
        for run in runs:
            open_runs.setdefault(run, row)


def _list_runs(line: np.ndarray) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
    for start, end in edges.reshape(-1, 2).tolist():
        yield start, end - 1


def _make_polygon(rectangle: tuple[int, int, int, int], x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    top, bottom, left, right = rectangle
    dx, dy = abs(float(x[1] - x[0])) / 2, abs(float(y[1] - y[0])) / 2
    columns, rows = x[[left, right]], y[[top, bottom]]
    west, east = float(columns.min()) - dx, float(columns.max()) + dx
    south, north = float(rows.min()) - dy, float(rows.max()) + dy
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}
