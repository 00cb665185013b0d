"""Split a result into pieces with files of their own: one per feature, or per tile of a named grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr

from odc_openeo.cube import GEOMETRY, X, Y, has_raster_dimensions
from odc_openeo.errors import FormatUnsuitable, NoDataAvailable
from odc_openeo.formats.file_names import make_safe_names
from odc_openeo.formats.options import make_option_error
from odc_openeo.formats.raster import MAX_FILES
from odc_openeo.formats.vector import list_properties
from odc_openeo.spatial import rasterize, reproject
from odc_openeo.spatial.features import find_features
from odc_openeo.spatial.geometry_masks import clip_to_frame

DEGREES: Final = "wgs84-1degree"
UTM_TILES: Final = {"utm-10km": 10_000, "utm-20km": 20_000, "utm-100km": 100_000}
"""Sides in metres of the tiles of each grid; tiles begin at multiples of them."""
_EXACT_PIXELS: Final = 256**2
"""Up to this size of its bounding box it is checked whether a feature has any pixel."""

SPLITTING: Final[dict[str, dict[str, Any]]] = {
    "sample_by_feature": {
        "type": "boolean",
        "description": (
            "Write separate files for each feature of the geometries that the cube was limited to by "
            "filter_spatial (or by the spatial extent of its load), cropped to the feature; of vector cubes "
            "for each geometry."
        ),
        "default": False,
    },
    "feature_id_property": {
        "type": ["string", "null"],
        "description": (
            "The property that names the files of the features with sample_by_feature; by default their "
            "number, counted from 0."
        ),
        "default": None,
    },
    "tile_grid": {
        "type": ["string", "null"],
        "description": (
            "Write separate files for each tile of a grid. The tiles of utm-10km, utm-20km and utm-100km "
            "begin at multiples of that length in the UTM zone of the cube, those of wgs84-1degree at whole "
            "degrees. Cubes in other reference systems are not split, with a warning."
        ),
        "enum": [DEGREES, *UTM_TILES, None],
        "default": None,
    },
}
"""The options of formats whose files can be of pieces."""


@dataclass(frozen=True)
class Piece:
    """A part of a result: what its files are named, and how it is cut out of the cube (lazily)."""

    name: str
    cut: Callable[[Any], Any]


def list_pieces(data: Any, options: Mapping[str, Any]) -> tuple[list[Piece], list[str]]:
    """List the pieces that the options ask for, and warnings; without pieces the result is written whole.

    Raises:
        ProcessParameterInvalid: the options don't fit the data or one another.
        NoDataAvailable: no feature has a pixel.
        FormatUnsuitable: there are too many pieces.
    """
    by_feature, grid = options.get("sample_by_feature"), options.get("tile_grid")
    if by_feature and grid:
        raise make_option_error("options 'sample_by_feature' and 'tile_grid' can't be combined. Use one.")
    warnings: list[str] = []
    pieces: list[Piece] = []
    if by_feature:
        pieces, warnings = _list_features(data, options["feature_id_property"])
    elif grid:
        pieces, warnings = _list_tiles(data, grid)
    elif options.get("feature_id_property"):
        warnings = ["option 'feature_id_property' has no effect without 'sample_by_feature'."]
    if len(pieces) > MAX_FILES:
        reason = f"it would become {len(pieces)} pieces; the limit is {MAX_FILES}."
        raise FormatUnsuitable(format="files of pieces", reason=reason)
    return pieces, warnings


# --- Features ------------------------------------------------------------------------------------


def _list_features(data: Any, id_property: str | None) -> tuple[list[Piece], list[str]]:
    if isinstance(data, xr.DataArray | xr.Dataset) and GEOMETRY in data.dims:
        names = _name_geometries(data, id_property)
        return [Piece(name, partial(_select_geometry, i)) for i, name in enumerate(names)], []
    frame = find_features(data) if isinstance(data, xr.DataArray) and has_raster_dimensions(data) else None
    if frame is None:
        reason = "option 'sample_by_feature' needs a cube that filter_spatial has limited to geometries."
        raise make_option_error(f"{reason} Use filter_spatial, or leave the option out.")
    names = _name_features(frame, id_property)
    covered = _find_covered(data, frame)
    pieces = [
        Piece(name, partial(_clip_feature, frame.iloc[[i]])) for i, name in enumerate(names) if covered[i]
    ]
    if not pieces:
        raise NoDataAvailable(reason="no pixel of the cube is in any of the features to sample.")
    missing = [name for i, name in enumerate(names) if not covered[i]]
    listed = ", ".join(missing[:20]) + (", …" if len(missing) > 20 else "")
    return pieces, [f"{len(missing)} features have no pixel and get no file: {listed}."] if missing else []


def _name_features(frame: gpd.GeoDataFrame, id_property: str | None) -> list[str]:
    if id_property is None:
        return [str(i) for i in range(len(frame))]
    names = [str(c) for c in frame.columns if c != frame.geometry.name]
    if id_property not in names:
        raise _make_property_error(id_property, names)
    return make_safe_names([_get_id(value) for value in frame[id_property].tolist()])


def _name_geometries(data: xr.DataArray | xr.Dataset, id_property: str | None) -> list[str]:
    if id_property is None:
        return [str(i) for i in range(data.sizes[GEOMETRY])]
    variables = data.data_vars if isinstance(data, xr.Dataset) else {}
    names = [*list_properties(data), *(str(n) for n, v in variables.items() if v.dims == (GEOMETRY,))]
    if id_property not in names:
        raise _make_property_error(id_property, names)
    return make_safe_names([_get_id(value) for value in data[id_property].values.tolist()])


def _get_id(value: Any) -> Any:
    """The value of a property as part of a name; nothing for no value, whole numbers without a point."""
    if value is None or value != value:
        return ""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _make_property_error(name: str, names: list[str]) -> Exception:
    listed = ", ".join(names[:50]) or "no properties"
    return make_option_error(
        f"option 'feature_id_property': no feature has '{name[:100]}'. They have: {listed}."
    )


def _find_covered(data: xr.DataArray, frame: gpd.GeoDataFrame) -> np.ndarray:
    """Whether each feature has pixels; of large ones it is assumed."""
    grid = rasterize.get_grid(data, "save_result")
    covered = []
    for shape in reproject.project_to_grid(frame, grid):
        window = rasterize.find_window(shape, grid)
        if window is None or shapely.is_empty(shape):
            covered.append(False)
            continue
        part = grid[window]
        is_small = part.shape.x * part.shape.y <= _EXACT_PIXELS
        covered.append(not is_small or bool(rasterize.mask_pixels(shape, part).any()))
    return np.array(covered)


def _clip_feature(feature: gpd.GeoDataFrame, data: xr.DataArray) -> xr.DataArray:
    return clip_to_frame(data, feature, "save_result")


def _select_geometry(position: int, data: Any) -> Any:
    return data.isel({GEOMETRY: [position]})


# --- Tiles ---------------------------------------------------------------------------------------


def _list_tiles(data: Any, grid: str) -> tuple[list[Piece], list[str]]:
    is_raster = isinstance(data, xr.DataArray) and has_raster_dimensions(data)
    crs = data.odc.crs if is_raster else None
    if crs is None or not (crs.geographic if grid == DEGREES else _is_utm(crs)):
        kind = "in degrees" if grid == DEGREES else "in a UTM zone"
        return [], [f"option 'tile_grid': {grid} needs a raster cube {kind}; the result is not split."]
    side = 1 if grid == DEGREES else UTM_TILES[grid]
    rows, columns = _group_pixels(data, Y, side), _group_pixels(data, X, side)
    name_tile = _name_degrees if grid == DEGREES else _name_kilometres
    pieces = [
        Piece(name_tile(left * side, bottom * side), partial(_select_tile, row, column))
        for bottom, row in rows.items()
        for left, column in columns.items()
    ]
    return pieces, []


def _is_utm(crs: Any) -> bool:
    return bool(crs.epsg) and (32601 <= crs.epsg <= 32660 or 32701 <= crs.epsg <= 32760)


def _group_pixels(data: xr.DataArray, dimension: str, side: int) -> dict[int, slice]:
    """The pixels of each tile along a dimension, by the number of the tile: those with their centre in it."""
    centres = data.coords[dimension].values
    # Rounding must not move a centre across an edge.
    numbers = np.floor(np.round(centres / side, 9)).astype(np.int64)
    tiles, starts, counts = np.unique(numbers, return_index=True, return_counts=True)
    return {int(t): slice(int(s), int(s + n)) for t, s, n in zip(tiles, starts, counts, strict=True)}


def _select_tile(rows: slice, columns: slice, data: xr.DataArray) -> xr.DataArray:
    return data.isel({Y: rows, X: columns})


def _name_degrees(left: int, bottom: int) -> str:
    south, west = bottom < 0, left < 0
    return f"{'S' if south else 'N'}{abs(bottom):02}{'W' if west else 'E'}{abs(left):03}"


def _name_kilometres(left: int, bottom: int) -> str:
    return f"E{left // 1000}N{bottom // 1000}"
