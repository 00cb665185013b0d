"""Input formats: files of users as cubes, rasters lazily.

Files come from users, so only the driver of the named format opens them, and GDAL does not look at files
beside them: it would follow what those refer to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dask.array as da
import geopandas as gpd
import numpy as np
import odc.geo.xr  # noqa: F401  (registers the .odc accessor)
import pandas as pd
import rasterio
import xarray as xr
from dask.array.core import normalize_chunks
from dask.base import tokenize
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from odc_openeo import geometry
from odc_openeo.cube import BANDS, NODATA, X, Y
from odc_openeo.errors import FileContentInvalid, FileTypeInvalid, IncompatibleDataCubes, OpenEOError

CHUNK: Final = 1024
ALONE: Final = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}


@dataclass(frozen=True)
class InputFormat:
    """A format that can be read: ``read`` makes one cube of several files, in their order.

    Its errors: FileContentInvalid for a file that is none of this format, IncompatibleDataCubes for files
    that make no single cube.
    """

    name: str
    title: str
    description: str
    gis_data_types: Sequence[str]
    read: Callable[[Sequence[Path]], Any]

    def to_dict(self) -> dict[str, Any]:
        """The format as an entry of ``GET /file_formats``."""
        described = {"title": self.title, "description": self.description}
        return {**described, "gis_data_types": list(self.gis_data_types), "parameters": {}}


# --- Rasters -------------------------------------------------------------------------------------


def read_gtiff(paths: Sequence[Path]) -> xr.DataArray:
    """A cube with the dimensions ``bands``, ``y``, ``x``: the bands of all files, which share a grid."""
    rasters = [_raster(path) for path in paths]
    names = [name for each in rasters for name in each.coords[BANDS].values]
    if len(set(names)) < len(names):
        reason = "several files have the same band. Load them one by one and use merge_cubes."
        raise IncompatibleDataCubes(reason=reason)
    grids = {each.odc.geobox for each in rasters}
    kinds = {(each.dtype, str(each.attrs.get(NODATA))) for each in rasters}
    if len(grids) > 1 or len(kinds) > 1:
        reason = "the files differ in grid, data type or no-data value. Load them one by one."
        raise IncompatibleDataCubes(reason=reason)
    return xr.concat(rasters, BANDS, combine_attrs="override") if len(rasters) > 1 else rasters[0]


def _raster(path: Path) -> xr.DataArray:
    try:
        with rasterio.Env(**ALONE), rasterio.open(path, driver="GTiff") as file:
            grid = GeoBox(file.shape, file.transform, file.crs)
            names = [text or f"band_{i}" for i, text in enumerate(file.descriptions, 1)]
            dtype, missing = np.dtype(file.dtypes[0]), file.nodata
            tall, wide = file.block_shapes[0]
            whole = len(set(file.dtypes)) == 1 and len(set(names)) == len(names)
    except rasterio.errors.RasterioError as error:
        raise FileContentInvalid(file=path.name, reason="it is no GeoTIFF, or a damaged one.") from error
    if not whole or file.crs is None or not grid.axis_aligned:
        reason = "it needs a CRS, a north-up grid, one data type and distinct names of bands."
        raise FileContentInvalid(file=path.name, reason=reason)
    sides = (max(CHUNK // tall, 1) * tall, max(CHUNK // wide, 1) * wide)
    pixels = _lazy(path, (len(names), *grid.shape), sides, dtype, missing)
    return _cube(pixels, grid, names, missing)


def _lazy(path: Path, shape: Any, sides: tuple[int, int], dtype: np.dtype, missing: Any) -> da.Array:
    chunks = normalize_chunks((1, *sides), shape, dtype=dtype)
    status = path.stat()
    name = f"read-gtiff-{tokenize(str(path), status.st_mtime_ns, status.st_ino, status.st_size)}"
    meta = np.empty((0, 0, 0), dtype)
    return da.map_blocks(_block, str(path), missing, chunks=chunks, dtype=dtype, meta=meta, name=name)


def _block(path: str, missing: Any, block_info: Any = None) -> np.ndarray:
    (first, last), *window = block_info[None]["array-location"]
    with rasterio.Env(**ALONE), rasterio.open(path, driver="GTiff") as file:
        pixels = np.asarray(file.read(list(range(first + 1, last + 1)), window=tuple(window)))
    if pixels.dtype.kind == "f" and missing is not None:
        pixels[pixels == missing] = np.nan
    return pixels


def _cube(pixels: da.Array, grid: GeoBox, names: list[str], missing: Any) -> xr.DataArray:
    found = xr.DataArray(pixels, dims=(BANDS, *grid.dimensions), coords={**xr_coords(grid), BANDS: names})
    found = found.rename(dict(zip(grid.dimensions, (Y, X), strict=True)))
    if pixels.dtype.kind in "iu" and missing is not None:
        found.attrs[NODATA] = pixels.dtype.type(missing)
    return found


# --- Vectors -------------------------------------------------------------------------------------


def read_geojson(paths: Sequence[Path]) -> xr.Dataset:
    """A vector cube without values: the features of all files, properties beside the geometries."""
    return _together([_geojson(path) for path in paths])


def _geojson(path: Path) -> gpd.GeoDataFrame:
    try:
        found = json.loads(path.read_bytes())
        return geometry.from_geojson(found, "load_uploaded_files", "paths")
    except OpenEOError as error:
        raise FileContentInvalid(file=path.name, reason=error.message) from error
    except (ValueError, RecursionError) as error:
        raise FileContentInvalid(file=path.name, reason="it is no JSON.") from error


def read_parquet(paths: Sequence[Path]) -> xr.Dataset:
    """The same from GeoParquet."""
    return _together([_geoparquet(path) for path in paths])


def _geoparquet(path: Path) -> gpd.GeoDataFrame:
    try:
        found = gpd.read_parquet(path)
    except (ValueError, OSError) as error:
        reason = "it is no GeoParquet. Tables without geometries can't be loaded."
        raise FileContentInvalid(file=path.name, reason=reason) from error
    # Without a CRS GeoParquet means longitude and latitude.
    found = found.set_crs(4326) if found.crs is None else found
    return found.rename_geometry("geometry") if found.geometry.name != "geometry" else found


def _together(frames: list[gpd.GeoDataFrame]) -> xr.Dataset:
    if any(frame.crs != frames[0].crs for frame in frames):
        reason = "the files differ in CRS. Load them one by one and use vector_reproject."
        raise IncompatibleDataCubes(reason=reason)
    return geometry.from_frame(pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0])


INPUT_FORMATS: Final[dict[str, InputFormat]] = {
    f.name: f
    for f in (
        InputFormat(
            "GTiff",
            "GeoTIFF",
            "Rasters with a CRS and a north-up grid. Descriptions name the bands, else band_1, band_2 and so "
            "on. Several files on one grid become one cube with the bands of all.",
            ["raster"],
            read_gtiff,
        ),
        InputFormat(
            "GeoJSON",
            "GeoJSON",
            "Features become a vector cube without values; properties stay beside the geometries. Several "
            "files are put one after the other.",
            ["vector"],
            read_geojson,
        ),
        InputFormat(
            "Parquet",
            "GeoParquet",
            "Geometries become a vector cube without values; other columns stay beside the geometries. "
            "Several files are put one after the other.",
            ["vector"],
            read_parquet,
        ),
    )
}
_BY_LOWER_CASE: Final = {name.lower(): f for name, f in INPUT_FORMATS.items()}


def find_input_format(name: str) -> InputFormat:
    """The input format of a name in any casing; `FileTypeInvalid` if there is none."""
    found = _BY_LOWER_CASE.get(name.lower())
    if found is None:
        raise FileTypeInvalid(type=name, types=", ".join(INPUT_FORMATS))
    return found
