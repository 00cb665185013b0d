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

from odc_openeo.errors import FileContentInvalid, IncompatibleDataCubes, OpenEOError
from odc_openeo.spatial import vector_cubes
from odc_openeo.untrusted.reference_systems import CrsRefusedError, check_crs, parse_crs

MAX_BYTES: Final = 512 * 2**20
MAX_CELLS: Final = 20_000_000
LONGITUDE: Final = ("lon", "longitude", "x")
LATITUDE: Final = ("lat", "latitude", "y")
WKT: Final = ("geometry", "wkt")


def read_geojson(paths: Sequence[Path]) -> xr.Dataset:
    """Read the features of GeoJSON files as a vector cube without values, with their properties."""
    return _join_frames(paths, [_read_geojson_frame(path) for path in paths])


def _read_geojson_frame(path: Path) -> gpd.GeoDataFrame:
    try:
        document = json.loads(_check_file_size(path).read_bytes())
        return vector_cubes.from_geojson(document, "load_uploaded_files", "paths")
    except OpenEOError as error:
        raise FileContentInvalid(file=path.name, reason=error.message) from error
    except (ValueError, RecursionError) as error:
        raise FileContentInvalid(file=path.name, reason="it is not valid JSON.") from error


def read_parquet(paths: Sequence[Path]) -> xr.Dataset:
    """Read GeoParquet files as a vector cube without values; other columns become properties."""
    return _join_frames(paths, [_read_geoparquet_frame(path) for path in paths])


def _read_geoparquet_frame(path: Path) -> gpd.GeoDataFrame:
    try:
        _check_table_size(_check_file_size(path))
        frame = gpd.read_parquet(path, to_pandas_kwargs={"integer_object_nulls": True})
        if frame.crs is not None:
            check_crs(frame.crs)
    except OpenEOError:
        raise
    except (ValueError, OSError, CrsRefusedError) as error:
        reason = "it is not valid GeoParquet. Tables without geometries can't be loaded."
        raise FileContentInvalid(file=path.name, reason=reason) from error
    # Without a CRS, coordinates in GeoParquet are longitude and latitude.
    frame = frame.set_crs(4326) if frame.crs is None else frame
    return frame.rename_geometry("geometry") if frame.geometry.name != "geometry" else frame


def _check_table_size(path: Path) -> None:
    """Refuse tables with too many cells, however small the file: equal values take next to no space."""
    metadata = pq.read_metadata(path)
    for column in json.loads((metadata.metadata or {}).get(b"geo", b"{}")).get("columns", {}).values():
        if column.get("crs") is not None:
            parse_crs(column["crs"])
    cells = metadata.num_rows * max(metadata.num_columns, 1)
    if cells > MAX_CELLS:
        reason = f"it has {metadata.num_rows} rows of {metadata.num_columns} columns, which are too many."
        raise FileContentInvalid(file=path.name, reason=f"{reason} Leave out columns, or split it.")


def read_csv(paths: Sequence[Path]) -> xr.Dataset:
    """Read CSV files as a vector cube without values: points by longitude and latitude, or WKT."""
    return _join_frames(paths, [_read_csv_frame(path) for path in paths])


def _read_csv_frame(path: Path) -> gpd.GeoDataFrame:
    try:
        table = pd.read_csv(_check_file_size(path), encoding="utf-8", dtype_backend="numpy_nullable")
        names = {str(column).strip().lower(): column for column in table.columns}
        wkt = next((names[n] for n in WKT if n in names), None)
        if wkt is not None:
            shapes = gpd.GeoSeries.from_wkt(table.pop(wkt))
        else:
            x, y = (next(names[n] for n in usual if n in names) for usual in (LONGITUDE, LATITUDE))
            shapes = gpd.points_from_xy(table.pop(x), table.pop(y))
        return gpd.GeoDataFrame(table, geometry=shapes, crs=4326)
    except (StopIteration, RuntimeError) as error:
        reason = "it needs the columns lon and lat (degrees), or a column geometry with WKT."
        raise FileContentInvalid(file=path.name, reason=reason) from error
    except (ValueError, TypeError, shapely.errors.ShapelyError) as error:
        reason = "it is not a CSV file in UTF-8 with commas and a header, or has invalid coordinates."
        raise FileContentInvalid(file=path.name, reason=reason) from error


def _check_file_size(path: Path) -> Path:
    if path.stat().st_size > MAX_BYTES:
        reason = f"it is larger than {MAX_BYTES // 2**20} MiB, which is the limit for vector files."
        raise FileContentInvalid(file=path.name, reason=reason)
    return path


def _join_frames(paths: Sequence[Path], frames: list[gpd.GeoDataFrame]) -> xr.Dataset:
    for path, frame in zip(paths, frames, strict=True):
        missing = np.flatnonzero(frame.geometry.isna())
        if missing.size:
            reason = f"row {missing[0] + 1} has no geometry. Leave out such rows."
            raise FileContentInvalid(file=path.name, reason=reason)
    if any(frame.crs != frames[0].crs for frame in frames):
        reason = "the files differ in CRS. Load them one by one and use vector_reproject."
        raise IncompatibleDataCubes(reason=reason)
    return vector_cubes.from_frame(pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0])
