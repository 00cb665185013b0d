"""Documents of the older metadata type ``eo`` as EO3 documents, as far as they have what EO3 has.

They name the corners of an image and its reference system. Its pixels come from, in this order: what the
document says of each band's file (``info`` with ``geotransform``, ``width`` and ``height``), the resolution
of the product (``storage`` or ``load``) in the same reference system, the ``cell_size`` of the bands.
Without any, the dataset has a place but no grid, and cannot be loaded.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from odc.geo import CRS

from odc_openeo.catalog.scenes import DEFAULT_GRID

EO_PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "eo:platform": ("platform", "code"),
    "eo:instrument": ("instrument", "name"),
    "odc:processing_datetime": ("creation_dt",),
    "odc:file_format": ("format", "name"),
    "odc:region_code": ("region_code",),
    "datetime": ("extent", "center_dt"),
    "dtr:start_datetime": ("extent", "from_dt"),
    "dtr:end_datetime": ("extent", "to_dt"),
}
"""Where documents of type ``eo`` have the properties of EO3."""

WHOLE: Final = 0.01
"""Pixels by which the corners of an image may be off a whole number of pixels."""

CORNERS: Final = ("ul", "ur", "lr", "ll")

Grid = tuple[tuple[int, int], tuple[float, ...]]
"""Rows and columns; the first six numbers of the transform."""


def as_eo3(document: Mapping[str, Any], definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a document as EO3 has it; ``definition`` is that of its product. Others stay as they are."""
    projection = _get(document, "grid_spatial", "projection")
    if "grids" in document or "$schema" in document or not isinstance(projection, Mapping):
        return document
    crs = projection.get("spatial_reference")
    bands = _get(document, "image", "bands")
    bands = bands if isinstance(bands, Mapping) else {}
    grids = dict(_find_grids(projection, bands, definition)) if crs else {}
    names = _name_grids(grids)
    outline = projection.get("valid_data") or _make_outline(projection)
    return {
        **document,
        "properties": {**_read_properties(document), **(document.get("properties") or {})},
        "measurements": {
            name: {**band, "grid": names[grids[name]]} if name in grids else band
            for name, band in bands.items()
            if isinstance(band, Mapping)
        },
        **({"crs": crs} if crs else {}),
        **({"geometry": outline} if crs and outline else {}),
        **(
            {"grids": {n: {"shape": list(g[0]), "transform": [*g[1], 0, 0, 1]} for g, n in names.items()}}
            if names
            else {}
        ),
    }


def _get(document: Any, *path: str) -> Any:
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def _read_properties(document: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: _get(document, *path) for name, path in EO_PATHS.items()}
    start, end = values["dtr:start_datetime"], values["dtr:end_datetime"]
    if values["datetime"] is None and start is not None and end is not None:
        values["datetime"] = _find_middle(start, end)
    if start == end:
        values["dtr:start_datetime"] = values["dtr:end_datetime"] = None
    return {name: value for name, value in values.items() if value is not None}


def _find_middle(start: Any, end: Any) -> str | None:
    try:
        first, last = (datetime.fromisoformat(str(value)) for value in (start, end))
    except ValueError:
        return None
    first, last = (t.replace(tzinfo=UTC) if t.tzinfo is None else t for t in (first, last))
    return (first + (last - first) / 2).isoformat()


def _name_grids(grids: Mapping[str, Grid]) -> dict[Grid, str]:
    """Name the grids; the one that most bands have is the default."""
    by_use = [grid for grid, _ in Counter(grids.values()).most_common()]
    return {grid: DEFAULT_GRID if i == 0 else f"g{i}" for i, grid in enumerate(by_use)}


def _find_grids(
    projection: Mapping[str, Any], bands: Mapping[str, Any], definition: Mapping[str, Any]
) -> Iterator[tuple[str, Grid]]:
    size = _find_resolution(definition, projection["spatial_reference"])
    for name, band in bands.items():
        if not isinstance(band, Mapping):
            continue
        cell = band.get("cell_size")
        own_size = (cell, cell) if isinstance(cell, int | float) else None
        grid = _read_grid(band.get("info")) or _divide(projection, size or own_size)
        if grid is not None:
            yield name, grid


def _read_grid(info: Any) -> Grid | None:
    """The grid of a file from its ``geotransform``, in the order of GDAL."""
    if not isinstance(info, Mapping):
        return None
    numbers, width, height = info.get("geotransform"), info.get("width"), info.get("height")
    if not isinstance(numbers, Sequence) or len(numbers) != 6 or not width or not height:
        return None
    left, dx, skew_x, top, skew_y, dy = map(float, numbers)
    return (int(height), int(width)), (dx, skew_x, left, skew_y, dy, top)


def _find_resolution(definition: Mapping[str, Any], crs: str) -> tuple[float, float] | None:
    """The pixel size (x, y) of a product in a reference system."""
    for section in (definition.get("storage"), definition.get("load")):
        resolution = _get(section, "resolution")
        if not resolution or not _is_same_crs(_get(section, "crs"), crs):
            continue
        size = read_pair(resolution, CRS(crs))
        if size is not None:
            return abs(size[0]), abs(size[1])
    return None


def read_pair(value: Any, crs: CRS) -> tuple[float, float] | None:
    """Read a pair of a product (x, y): by the names of the axes, or as a list with y first."""
    if isinstance(value, Mapping):
        y, x = (value.get(name) for name in crs.dimensions)
    elif isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        y, x = value
    else:
        return None
    pair = [v for v in (x, y) if isinstance(v, int | float) and math.isfinite(v)]
    return (float(pair[0]), float(pair[1])) if len(pair) == 2 else None


def _is_same_crs(one: Any, other: str) -> bool:
    try:
        return bool(CRS(one) == CRS(other))
    except Exception:  # odc-geo and pyproj raise several kinds of errors for what they do not understand
        return False


def _divide(projection: Mapping[str, Any], size: tuple[float, float] | None) -> Grid | None:
    """The grid of an axis-aligned image by its corners and its pixel size."""
    corners = _read_corners(projection)
    if size is None or corners is None or not all(size):
        return None
    (left, top), (right, up), (_, bottom), (west, down) = corners
    if not math.isclose(top, up) or not math.isclose(bottom, down) or not math.isclose(left, west):
        return None
    columns, rows = (right - left) / size[0], (top - bottom) / size[1]
    if min(columns, rows) < 0.5 or max(abs(v - round(v)) for v in (columns, rows)) > WHOLE:
        return None
    return (round(rows), round(columns)), (size[0], 0.0, left, 0.0, -size[1], top)


def _read_corners(projection: Mapping[str, Any]) -> list[tuple[float, float]] | None:
    points = projection.get("geo_ref_points")
    values = [(_get(points, corner, "x"), _get(points, corner, "y")) for corner in CORNERS]
    if not all(isinstance(v, int | float) and math.isfinite(v) for point in values for v in point):
        return None
    return [(float(x), float(y)) for x, y in values]


def _make_outline(projection: Mapping[str, Any]) -> dict[str, Any] | None:
    corners = _read_corners(projection)
    if corners is None:
        return None
    ring = [list(corner) for corner in (*corners, corners[0])]
    return {"type": "Polygon", "coordinates": [ring]}
