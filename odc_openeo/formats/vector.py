"""Vector cubes as tables: one row per geometry, date and further label; one column per band."""

from __future__ import annotations

from typing import Any, Final

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
import xvec  # noqa: F401  (registers the .xvec accessor and its index)

from odc_openeo.cube import BANDS, GEOMETRY, VARIABLE, T, decode, dimensions_of_type, has_nodata, json_labels

FEATURE: Final = "feature_index"
DATE: Final = "date"


def as_array(data: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Convert a cube to one array: variables of a dataset become bands, or properties of the geometries."""
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
        # Only geometries: a table without any column of values.
        empty = cube.assign({VARIABLE: (GEOMETRY, np.zeros(data.sizes[GEOMETRY]))})[VARIABLE]
        return empty.rename(None).expand_dims({BANDS: []}, axis=-1)
    return cube[names].to_dataarray(BANDS)


def list_properties(data: xr.DataArray | xr.Dataset) -> list[str]:
    """List the coordinates that are properties of the geometries."""
    return [str(n) for n, c in data.coords.items() if c.dims == (GEOMETRY,) and n != GEOMETRY]


def make_table(data: xr.DataArray, *, times_as_strings: bool) -> pd.DataFrame:
    """Make a tidy table of a computed cube.

    Columns: ``feature_index`` (0, 1, 2 … in the order of the geometries), properties of the geometries,
    ``date``, further dimensions, then one column per band (``value`` if there are none). No-data is empty.
    """
    values = decode(data) if has_nodata(data) else data
    values = values.drop_vars([c for c in values.coords if c not in data.dims])
    if GEOMETRY in values.dims:
        values = values.drop_vars(GEOMETRY).assign_coords({GEOMETRY: np.arange(data.sizes[GEOMETRY])})
    band = next(iter(dimensions_of_type(data, "bands")), None)
    keys = [str(d) for d in data.dims if d != band]
    keys.sort(key=[GEOMETRY, T, *keys].index)
    columns = _make_columns(values, band, keys).assign_coords({k: values[k] for k in keys})
    rows = columns.to_dataframe(dim_order=keys).reset_index() if keys else _single_row(columns)
    if times_as_strings:
        for name in [c for c in rows.columns if rows[c].dtype.kind == "M"]:
            rows[name] = json_labels(rows[name].to_numpy())
    return _with_properties(rows.rename(columns={GEOMETRY: FEATURE, T: DATE}), data)


def _make_columns(values: xr.DataArray, band: str | None, keys: list[str]) -> xr.Dataset:
    if band is None:
        return values.to_dataset(name=_make_unique(str(values.name or "value"), keys))
    if band in values.coords:
        names = [str(v) for v in values[band].values]
    else:
        names = [f"band_{i}" for i in range(values.sizes[band])]
    taken: list[str] = [*keys, FEATURE, DATE]
    unique = []
    for name in names:
        unique.append(_make_unique(name, taken))
        taken.append(unique[-1])
    split = {n: values.isel({band: i}, drop=True) for i, n in enumerate(unique)}
    return xr.Dataset(split)


def _make_unique(name: str, taken: list[str]) -> str:
    while name in taken:
        name = f"{name}_"
    return name


def _single_row(columns: xr.Dataset) -> pd.DataFrame:
    return pd.DataFrame({str(n): [v.item()] for n, v in columns.data_vars.items()})


def _with_properties(rows: pd.DataFrame, data: xr.DataArray) -> pd.DataFrame:
    for position, name in enumerate(list_properties(data), 1):
        rows.insert(position, _make_unique(name, list(rows.columns)), data[name].values[rows[FEATURE]])
    return rows


def make_features(data: xr.DataArray) -> gpd.GeoDataFrame:
    """Make a table with geometries of a computed vector cube, in its CRS (EPSG:4326 if it has none)."""
    rows = make_table(data, times_as_strings=False)
    geometries = data[GEOMETRY].values[rows[FEATURE]]
    return gpd.GeoDataFrame(rows, geometry=geometries, crs=find_geometry_crs(data) or 4326)


def find_geometry_crs(data: xr.DataArray | xr.Dataset) -> Any:
    """The CRS of the geometries as a pyproj object; None if there is none."""
    return getattr(data.xindexes.get(GEOMETRY), "crs", None)


def format_crs(data: xr.DataArray) -> str | None:
    """Write the CRS as ``EPSG:code`` or WKT; None if there is none."""
    crs = find_geometry_crs(data) if GEOMETRY in data.dims else data.odc.crs
    if crs is None:
        return None
    epsg = crs.to_epsg()
    return f"EPSG:{epsg}" if epsg else str(crs.to_wkt())
