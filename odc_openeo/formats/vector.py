"""Vector cubes as tables: one row for each geometry, date and further label; one column a band."""

from __future__ import annotations

import json
from typing import Any, Final

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
import xvec  # noqa: F401  (registers the .xvec accessor and its index)

from odc_openeo.cube import BANDS, GEOMETRY, T, decode, dimensions_of_type, has_nodata, json_labels

FEATURE: Final = "feature_index"
DATE: Final = "date"


def as_array(data: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """A cube as one array: variables of a dataset become bands, those of geometries alone properties."""
    if isinstance(data, xr.DataArray):
        return data
    if BANDS in data.coords and BANDS not in data.dims:
        data = data.rename({BANDS: f"property_{BANDS}"})
    names = [n for n, v in data.data_vars.items() if set(v.dims) - {GEOMETRY} or v.dtype.kind in "biuf"]
    properties = [n for n in data.data_vars if n not in names]
    cube = data.set_coords(properties)
    if len(names) == 1:
        return cube[names[0]]
    if not names:
        # Geometries alone: a table without any column of values.
        one = cube.assign(nothing=(GEOMETRY, np.zeros(data.sizes[GEOMETRY])))["nothing"]
        return one.rename(None).expand_dims({BANDS: []}, axis=-1)
    return cube[names].to_dataarray(BANDS)


def properties(data: xr.DataArray) -> list[str]:
    """Coordinates that say something of each geometry."""
    return [str(n) for n, c in data.coords.items() if c.dims == (GEOMETRY,) and n != GEOMETRY]


def describe_objects(values: np.ndarray) -> np.ndarray:
    """Values of a property as strings if some are: others become JSON, what is missing an empty string.

    Formats whose columns are of one type can't hold lists and objects, or numbers beside strings.
    """
    if values.dtype != object or all(isinstance(v, shapely.Geometry) for v in values):
        return values
    texts = ["" if v is None or v is pd.NA or v != v else _as_text(v) for v in values]
    return np.array(texts, dtype=str)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def table(data: xr.DataArray, *, times_as_text: bool) -> pd.DataFrame:
    """A computed cube as a tidy table.

    Columns: ``feature_index`` (0, 1, 2 … in the order of the geometries), properties of the geometries,
    ``date``,
    further dimensions, then one column for each band (``value`` if there are none). No-data is empty.
    """
    values = decode(data) if has_nodata(data) else data
    values = values.drop_vars([c for c in values.coords if c not in data.dims])
    if GEOMETRY in values.dims:
        values = values.drop_vars(GEOMETRY).assign_coords({GEOMETRY: np.arange(data.sizes[GEOMETRY])})
    band = next(iter(dimensions_of_type(data, "bands")), None)
    keys = [str(d) for d in data.dims if d != band]
    keys.sort(key=[GEOMETRY, T, *keys].index)
    columns = _columns(values, band, keys).assign_coords({k: values[k] for k in keys})
    rows = columns.to_dataframe(dim_order=keys).reset_index() if keys else _single_row(columns)
    if times_as_text:
        for name in [c for c in rows.columns if rows[c].dtype.kind == "M"]:
            rows[name] = json_labels(rows[name].to_numpy())
    return _with_properties(rows.rename(columns={GEOMETRY: FEATURE, T: DATE}), data)


def _columns(values: xr.DataArray, band: str | None, keys: list[str]) -> xr.Dataset:
    if band is None:
        return values.to_dataset(name=_free(str(values.name or "value"), keys))
    if band in values.coords:
        names = [str(v) for v in values[band].values]
    else:
        names = [f"band_{i}" for i in range(values.sizes[band])]
    taken: list[str] = [*keys, FEATURE, DATE]
    unique = []
    for name in names:
        unique.append(_free(name, taken))
        taken.append(unique[-1])
    split = {n: values.isel({band: i}, drop=True) for i, n in enumerate(unique)}
    return xr.Dataset(split)


def _free(name: str, taken: list[str]) -> str:
    while name in taken:
        name = f"{name}_"
    return name


def _single_row(columns: xr.Dataset) -> pd.DataFrame:
    return pd.DataFrame({str(n): [v.item()] for n, v in columns.data_vars.items()})


def _with_properties(rows: pd.DataFrame, data: xr.DataArray) -> pd.DataFrame:
    for at, name in enumerate(properties(data), 1):
        rows.insert(at, _free(name, list(rows.columns)), data[name].values[rows[FEATURE]])
    return rows


def features(data: xr.DataArray) -> gpd.GeoDataFrame:
    """A computed vector cube as a table with geometries, in the cube's CRS (EPSG:4326 if none)."""
    rows = table(data, times_as_text=False)
    geometries = data[GEOMETRY].values[rows[FEATURE]]
    return gpd.GeoDataFrame(rows, geometry=geometries, crs=geometry_crs(data) or 4326)


def geometry_crs(data: xr.DataArray | xr.Dataset) -> Any:
    """The CRS of the geometries as pyproj has it; None if there is none."""
    return getattr(data.xindexes.get(GEOMETRY), "crs", None)


def crs_text(data: xr.DataArray) -> str | None:
    """The CRS as ``EPSG:code`` or WKT; None if there is none."""
    crs = geometry_crs(data) if GEOMETRY in data.dims else data.odc.crs
    if crs is None:
        return None
    epsg = crs.to_epsg()
    return f"EPSG:{epsg}" if epsg else str(crs.to_wkt())
