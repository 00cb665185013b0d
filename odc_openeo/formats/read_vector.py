"""Vector files of users as vector cubes without values; they are read at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import shapely
import xarray as xr

from odc_openeo import geometry
from odc_openeo.errors import FileContentInvalid, IncompatibleDataCubes, OpenEOError
from odc_openeo.user_crs import CrsRefusedError, check_crs, parse_crs

MOST_BYTES: Final = 512 * 2**20
MOST_CELLS: Final = 20_000_000
LONGITUDE: Final = ("lon", "longitude", "x")
LATITUDE: Final = ("lat", "latitude", "y")
WKT: Final = ("geometry", "wkt")


def read_geojson(paths: Sequence[Path]) -> xr.Dataset:
    """A vector cube without values: the features of all files, properties beside the geometries."""
    return _together(paths, [_geojson(path) for path in paths])


def _geojson(path: Path) -> gpd.GeoDataFrame:
    try:
        found = json.loads(_small(path).read_bytes())
        return geometry.from_geojson(found, "load_uploaded_files", "paths")
    except OpenEOError as error:
        raise FileContentInvalid(file=path.name, reason=error.message) from error
    except (ValueError, RecursionError) as error:
        raise FileContentInvalid(file=path.name, reason="it is no JSON.") from error


def read_parquet(paths: Sequence[Path]) -> xr.Dataset:
    """The same from GeoParquet."""
    return _together(paths, [_geoparquet(path) for path in paths])


def _geoparquet(path: Path) -> gpd.GeoDataFrame:
    try:
        _check_table_size(_small(path))
        found = gpd.read_parquet(path)
        if found.crs is not None:
            check_crs(found.crs)
    except OpenEOError:
        raise
    except (ValueError, OSError, CrsRefusedError) as error:
        reason = "it is no GeoParquet. Tables without geometries can't be loaded."
        raise FileContentInvalid(file=path.name, reason=reason) from error
    # Without a CRS GeoParquet means longitude and latitude.
    found = found.set_crs(4326) if found.crs is None else found
    return found.rename_geometry("geometry") if found.geometry.name != "geometry" else found


def _check_table_size(path: Path) -> None:
    """Refuse tables whose rows are many, whatever room they take: equal values take next to none."""
    metadata = pq.read_metadata(path)
    for column in json.loads((metadata.metadata or {}).get(b"geo", b"{}")).get("columns", {}).values():
        if column.get("crs") is not None:
            parse_crs(column["crs"])
    cells = metadata.num_rows * max(metadata.num_columns, 1)
    if cells > MOST_CELLS:
        reason = f"it has {metadata.num_rows} rows of {metadata.num_columns} columns, which is too much."
        raise FileContentInvalid(file=path.name, reason=f"{reason} Leave out columns, or split it.")


def read_csv(paths: Sequence[Path]) -> xr.Dataset:
    """The same from CSV: points by longitude and latitude, or geometries in WKT."""
    return _together(paths, [_csv(path) for path in paths])


def _csv(path: Path) -> gpd.GeoDataFrame:
    try:
        table = pd.read_csv(_small(path), encoding="utf-8")
        names = {str(column).strip().lower(): column for column in table.columns}
        wkt = next((names[n] for n in WKT if n in names), None)
        if wkt is not None:
            shapes = gpd.GeoSeries.from_wkt(table.pop(wkt))
        else:
            x, y = (next(names[n] for n in each if n in names) for each in (LONGITUDE, LATITUDE))
            shapes = gpd.points_from_xy(table.pop(x), table.pop(y))
        return gpd.GeoDataFrame(table, geometry=shapes, crs=4326)
    except (StopIteration, RuntimeError) as error:
        reason = "it needs the columns lon and lat (degrees), or a column geometry with WKT."
        raise FileContentInvalid(file=path.name, reason=reason) from error
    except (ValueError, TypeError, shapely.errors.ShapelyError) as error:
        reason = "it is no CSV in UTF-8 with commas and a header, or has bad coordinates."
        raise FileContentInvalid(file=path.name, reason=reason) from error


def _small(path: Path) -> Path:
    if path.stat().st_size > MOST_BYTES:
        reason = f"it is larger than {MOST_BYTES // 2**20} MiB, which is the limit of vector files."
        raise FileContentInvalid(file=path.name, reason=reason)
    return path


def _together(paths: Sequence[Path], frames: list[gpd.GeoDataFrame]) -> xr.Dataset:
    for path, frame in zip(paths, frames, strict=True):
        missing = np.flatnonzero(frame.geometry.isna())
        if missing.size:
            reason = f"row {missing[0] + 1} has no geometry. Leave out such rows."
            raise FileContentInvalid(file=path.name, reason=reason)
    if any(frame.crs != frames[0].crs for frame in frames):
        reason = "the files differ in CRS. Load them one by one and use vector_reproject."
        raise IncompatibleDataCubes(reason=reason)
    return geometry.from_frame(pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0])
