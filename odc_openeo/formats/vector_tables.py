"""CSV, GeoJSON and Parquet: cubes as tidy tables, with or without geometries."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from odc_openeo.cube import GEOMETRY
from odc_openeo.errors import FormatUnsuitable
from odc_openeo.formats.assets import make_cube_asset
from odc_openeo.formats.model import Asset, Format, Options, Target
from odc_openeo.formats.options import MERGE
from odc_openeo.formats.properties import make_mixed_column, make_typed_column, to_plain
from odc_openeo.formats.vector import as_array, make_features, make_table

T = TypeVar("T", bound=pd.DataFrame)
ROWS: Final = 2_000_000
_TIDY: Final = (
    "one row per geometry and date (and label of further dimensions), with the columns feature_index, "
    "properties of the geometries, date, and one per band"
)


def check_table(data: Any, format_: str) -> None:
    """Raise `FormatUnsuitable` unless it is a cube that is not too large for a table."""
    if not isinstance(data, xr.DataArray | xr.Dataset):
        raise FormatUnsuitable(format=format_, reason="it is not a data cube. Use JSON.")
    if isinstance(data, xr.Dataset) and not data.data_vars and GEOMETRY not in data.dims:
        raise FormatUnsuitable(format=format_, reason="it has neither values nor a dimension 'geometry'.")
    size = as_array(data).size
    if size > ROWS:
        reason = f"{size} values are too many for a table (limit {ROWS}). Use netCDF, Zarr or GTiff."
        raise FormatUnsuitable(format=format_, reason=reason)


def check_csv(data: Any) -> None:
    """Raise `FormatUnsuitable` unless it is a small cube."""
    check_table(data, "CSV")


def check_parquet(data: Any) -> None:
    """Raise `FormatUnsuitable` unless it is a small cube."""
    check_table(data, "Parquet")


def check_geojson(data: Any) -> None:
    """Raise `FormatUnsuitable` unless it is a small vector cube."""
    check_table(data, "GeoJSON")
    if GEOMETRY not in data.dims:
        raise FormatUnsuitable(
            format="GeoJSON", reason="it has no geometries. Use GTiff, netCDF, CSV or JSON."
        )


def _compute_array(data: xr.DataArray | xr.Dataset, target: Target) -> xr.DataArray:
    return as_array(target.compute(data)[0])


def _convert_columns(rows: T, convert: Callable[[np.ndarray], np.ndarray]) -> T:
    """Convert the columns of objects other than geometries; names lose what is not a character."""
    for name in [c for c in rows.columns if rows[c].dtype == object]:
        rows[name] = pd.Series(convert(rows[name].to_numpy()), index=rows.index)
    return rows


def write_csv(data: xr.DataArray | xr.Dataset, target: Target, options: Options) -> list[Asset]:
    """Write one CSV file."""
    path = target.path("csv")
    rows = make_table(_compute_array(data, target), times_as_strings=True)
    rows = _convert_columns(rows, make_mixed_column)
    rows.to_csv(path, index=False, sep=options["separator"], lineterminator="\n", encoding="utf-8")
    return [make_cube_asset(path, CSV.media_type, data)]


def write_geojson(data: xr.DataArray | xr.Dataset, target: Target, options: Options) -> list[Asset]:
    """Write one GeoJSON FeatureCollection in longitude and latitude."""
    path = target.path("geojson")
    cube = _compute_array(data, target)
    rows = make_features(cube).to_crs(4326)
    texts = make_table(cube, times_as_strings=True)
    for name in texts.columns.intersection(rows.columns):
        rows[name] = pd.Series([to_plain(v) for v in texts[name]], dtype=object, index=rows.index)
    path.write_text(rows.to_json(drop_id=True, na="null"), encoding="utf-8")
    return [make_cube_asset(path, GEOJSON.media_type, data)]


def write_parquet(data: xr.DataArray | xr.Dataset, target: Target, options: Options) -> list[Asset]:
    """Write one (Geo)Parquet file."""
    path = target.path("parquet")
    cube = _compute_array(data, target)
    rows = make_features(cube) if GEOMETRY in cube.dims else make_table(cube, times_as_strings=False)
    rows = convert_parquet_columns(rows)
    rows.to_parquet(path, index=False, compression=options["compression"])
    return [make_cube_asset(path, PARQUET.media_type, data)]


def convert_parquet_columns(rows: T) -> T:
    """Convert columns of objects other than geometries to one type each."""
    return _convert_columns(rows, partial(make_typed_column, nullable=True))


CSV: Final = Format(
    name="CSV",
    title="Comma separated values",
    description=(
        f"Vector cubes as a tidy table: {_TIDY}. Other small cubes: one row per combination of labels. "
        "Dates are RFC 3339 in UTC, no-data is empty. Geometries are not included (see GeoJSON and Parquet)."
    ),
    gis_data_types=["vector", "table", "raster"],
    media_type="text/csv",
    extension="csv",
    write=write_csv,
    check=check_csv,
    stores_empty=True,
    parameters={
        "separator": {
            "type": "string",
            "description": "The separator of the columns.",
            "enum": [",", ";", "\t"],
            "default": ",",
        }
    },
)

GEOJSON: Final = Format(
    name="GeoJSON",
    title="GeoJSON",
    description=(
        f"Vector cubes as a FeatureCollection in longitude and latitude, tidy like CSV: {_TIDY}. No-data "
        "is null."
    ),
    gis_data_types=["vector"],
    media_type="application/geo+json",
    extension="geojson",
    write=write_geojson,
    check=check_geojson,
)

PARQUET: Final = Format(
    name="Parquet",
    title="(Geo)Parquet",
    description=(
        f"Vector cubes as GeoParquet in their reference system, tidy like CSV: {_TIDY}. Other small cubes "
        "as plain Parquet. Times are timestamps in UTC."
    ),
    gis_data_types=["vector", "table", "raster"],
    media_type="application/vnd.apache.parquet",
    extension="parquet",
    write=write_parquet,
    check=check_parquet,
    parameters={
        "compression": {
            "type": "string",
            "description": "The compression of the columns.",
            "enum": ["snappy", "zstd", "gzip"],
            "default": "snappy",
        },
        "merge": MERGE,
    },
)
