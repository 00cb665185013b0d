"""Cubes as CF datasets for netCDF and Zarr: variables, grid mapping, encodings."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import odc.geo.xr  # noqa: F401  (registers the .odc accessor)
import xarray as xr

from odc_openeo.cube import BANDS, X, Y, json_labels, nodata
from odc_openeo.cube.instants import find_period_bounds
from odc_openeo.cube.packing import Packing, agree_on_packing, make_packing_coordinates, read_packings
from odc_openeo.errors import FormatUnsuitable
from odc_openeo.formats.properties import choose_name
from odc_openeo.formats.raster import find_band_dimension, has_even_labels

GRID_MAPPING: Final = "spatial_ref"
CONVENTIONS: Final = "CF-1.11"
SECONDS: Final = {"units_metadata": "leap_seconds: none"}
"""NumPy's times have no leap seconds."""

UNNAMED: Final = "var"
"""The variable of a cube without bands, as other back-ends name it."""

CHUNK: Final = 1024
"""Largest side of a chunk in a file."""

LAYOUT: Final[dict[str, Any]] = {
    "type": "string",
    "description": (
        "'variables': each band is a variable with its own no-data value. 'cube': one variable 'data' has "
        "all dimensions, the bands are labels of one of them."
    ),
    "enum": ["variables", "cube"],
    "default": "variables",
}


def check_cf(data: Any, format_: str) -> None:
    """Raise `FormatUnsuitable` unless the data is a cube of numbers."""
    if not isinstance(data, xr.DataArray | xr.Dataset):
        raise FormatUnsuitable(format=format_, reason="it is not a data cube. Use JSON.")
    kinds = {v.dtype.kind for v in (data.data_vars.values() if isinstance(data, xr.Dataset) else [data])}
    if not kinds <= set("biuf"):
        raise FormatUnsuitable(format=format_, reason="it holds values other than real numbers. Use JSON.")


def make_dataset(data: xr.DataArray | xr.Dataset, layout: str, format_: str) -> xr.Dataset:
    """Make a dataset of a raster cube, ready to be stored; values stay as they are (lazy).

    The ``encoding`` of each variable holds ``_FillValue`` and grid mapping.
    """
    if isinstance(data, xr.Dataset):
        raise FormatUnsuitable(format=format_, reason="it is not a raster cube.")
    variables = _make_variables(data, layout)
    dimensions = {d for v in variables.values() for d in v.dims}
    coords = {name: c for name, c in make_coordinates(data).items() if c.dims[0] in dimensions}
    dataset = xr.Dataset(variables, coords=coords, attrs=make_attributes())
    return _add_grid(dataset, data)


def make_attributes() -> dict[str, str]:
    history = "Computed by an openEO process graph"
    return {"Conventions": CONVENTIONS, "title": "openEO data cube", "history": history}


def _make_variables(data: xr.DataArray, layout: str) -> dict[str, xr.DataArray]:
    band = find_band_dimension(data)
    missing = nodata(data)
    bare = xr.DataArray(data.variable)
    bare.attrs = {k: v for k, v in data.attrs.items() if isinstance(v, str | int | float) and k != "nodata"}
    if layout == "cube" or band is None:
        if isinstance(missing, xr.DataArray):
            raise FormatUnsuitable(
                format="netCDF", reason="bands have different no-data values. Use the layout 'variables'."
            )
        name = "data" if layout == "cube" else str(data.name or UNNAMED)
        packing = agree_on_packing(read_packings(data, band))
        return {
            name: set_encoding(bare, missing).assign_attrs(long_name=name, **make_packing_attributes(packing))
        }
    names = _choose_names(json_labels(data.coords[band].values) if band in data.coords else [], data)
    variables, packings = {}, read_packings(data, band)
    for i, (name, label) in enumerate(names):
        band_nodata = missing.values[i].item() if isinstance(missing, xr.DataArray) else missing
        attrs = {"long_name": label, **make_packing_attributes(packings[i])}
        variables[name] = set_encoding(bare.isel({band: i}), band_nodata).assign_attrs(attrs)
    return variables


def make_packing_attributes(packing: Packing) -> dict[str, Any]:
    """Make the attributes by which readers turn raw values into physical ones."""
    return packing.to_fields("units", "scale_factor", "add_offset")


def _choose_names(bands: list[Any], data: xr.DataArray) -> list[tuple[str, str]]:
    """Pair a legal, unique variable name that no dimension has with the label of each band."""
    used = {str(d) for d in (*data.dims, *make_coordinates(data), GRID_MAPPING)}
    names = []
    for label in bands or range(data.sizes[str(find_band_dimension(data))]):
        name = choose_name(label, used)
        used.add(name)
        names.append((name, str(label)))
    return names


def set_encoding(data: xr.DataArray, missing: Any) -> xr.DataArray:
    if data.dtype == np.float16:
        data = data.astype(np.float32, keep_attrs=True)
    fill = None if missing is None or data.dtype == bool else data.dtype.type(missing)
    if data.dtype.kind in "iu" and missing is not None and np.isnan(missing):
        fill = None
    encoding: dict[str, Any] = {"_FillValue": fill}
    if data.dtype == bool:
        data = data.astype(np.int8, keep_attrs=True).assign_attrs(dtype="bool")
    data.encoding = encoding
    return data


def make_coordinates(data: xr.DataArray | xr.Dataset) -> dict[str, xr.Variable]:
    coordinates: dict[str, xr.Variable] = {}
    for dimension in data.dims:
        if dimension not in data.coords or dimension in (X, Y):
            continue
        coord = data.coords[dimension].variable.to_base_variable().copy(deep=False)
        coord.attrs, coord.encoding = {}, {}
        bounds = find_period_bounds(data.coords[dimension]) if dimension != BANDS else None
        if coord.dtype.kind == "M":
            coord = _encode_times(str(dimension), coord.values)
        elif bounds is not None:
            coordinates |= _encode_periods(str(dimension), coord, *bounds)
            continue
        elif dimension == BANDS:
            coord.attrs = {"long_name": "band"}
        coordinates[str(dimension)] = coord
    packings = read_packings(data, BANDS) if BANDS in data.dims else []
    if any(p != packings[0] for p in packings):
        # In the layout 'cube' attributes of the variable cannot tell what differs by band.
        columns = make_packing_coordinates(packings)
        coordinates |= {name: xr.Variable(dims, values) for name, (dims, values) in columns.items()}
    return coordinates


def _encode_times(dimension: str, times: np.ndarray) -> xr.Variable:
    attrs = {"standard_name": "time", "long_name": "time", "axis": "T", **SECONDS}
    unit = "seconds" if bool((times == times.astype("datetime64[s]")).all()) else "microseconds"
    encoding = {"units": f"{unit} since 1970-01-01T00:00:00", "calendar": "standard", "dtype": "int64"}
    return xr.Variable((dimension,), times, attrs, encoding)


def _encode_periods(
    dimension: str, labels: xr.Variable, starts: np.ndarray, ends: np.ndarray
) -> dict[str, xr.Variable]:
    """Encode calendar periods as in CF: when they begin, their bounds, and their labels beside them."""
    bounds, label = f"{dimension}_bnds", f"{dimension}_label"
    times = _encode_times(dimension, starts)
    times.attrs["bounds"] = bounds
    edges = xr.Variable((dimension, "bnds"), np.stack([starts, ends], axis=1), {}, dict(times.encoding))
    names = xr.Variable((dimension,), labels.values.astype(str), {"long_name": "calendar period"})
    return {dimension: times, bounds: edges, label: names}


def _add_grid(dataset: xr.Dataset, data: xr.DataArray) -> xr.Dataset:
    """Add coordinates x and y and the grid mapping."""
    geographic = data.odc.crs is not None and data.odc.crs.geographic
    names = {
        X: ("longitude", "degrees_east") if geographic else ("projection_x_coordinate", None),
        Y: ("latitude", "degrees_north") if geographic else ("projection_y_coordinate", None),
    }
    for dimension, (standard, unit) in names.items():
        if dimension in data.dims and dimension in data.coords:
            unit = unit or _normalize_unit(data.coords[dimension].attrs.get("units"))
            attrs = {
                "standard_name": standard,
                "axis": dimension.upper(),
                **({"units": unit} if unit else {}),
            }
            values = data.coords[dimension].values
            dataset = dataset.assign_coords({dimension: ((dimension,), values, attrs)})
            dataset[dimension].encoding = {"_FillValue": None}
    crs = data.odc.crs
    if crs is None:
        return dataset
    dataset = dataset.assign_coords(
        {GRID_MAPPING: ((), np.int32(crs.to_epsg() or 0), _describe_grid_mapping(data))}
    )
    for name in dataset.data_vars:
        dataset[name].encoding["grid_mapping"] = GRID_MAPPING
    return dataset


def _normalize_unit(unit: Any) -> str | None:
    return "m" if unit in ("metre", "meter", "m") else unit


def _describe_grid_mapping(data: xr.DataArray) -> dict[str, Any]:
    attrs = {k: v for k, v in data.odc.crs.proj.to_cf().items() if v is not None}
    attrs["spatial_ref"] = attrs["crs_wkt"]
    geobox = data.odc.geobox
    if geobox is not None and all(has_even_labels(data, dimension) for dimension in (X, Y)):
        attrs["GeoTransform"] = " ".join(repr(float(v)) for v in geobox.transform.to_gdal())
    return attrs


def choose_chunk_sizes(variable: xr.Variable | xr.DataArray) -> tuple[int, ...]:
    """Choose the chunks in a file: along y and x even parts of dask's, at most `CHUNK` long, else 1."""
    chunks = variable.chunks or tuple((n,) for n in variable.shape)
    sizes = []
    for axis, parts in enumerate(chunks):
        longest = max(parts) if axis >= len(chunks) - 2 else 1
        sizes.append(max(1, math.ceil(longest / math.ceil(max(longest, 1) / CHUNK))))
    return tuple(sizes)
