"""Vector cubes as CF datasets: geometries as CF encodes them, properties and values beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import xarray as xr

from odc_openeo.cube import GEOMETRY, dimensions_of_type, json_labels, nodata
from odc_openeo.cube.packing import read_packings
from odc_openeo.errors import FormatUnsuitable
from odc_openeo.formats.cf import (
    GRID_MAPPING,
    UNNAMED,
    make_attributes,
    make_coordinates,
    make_packing_attributes,
    set_encoding,
)
from odc_openeo.formats.properties import choose_name, make_typed_column
from odc_openeo.formats.vector import find_geometry_crs, list_properties

OF_GEOMETRIES: Final = (
    *("geometry_container", "node", "node_count", "part", "part_node_count", "interior_ring"),
    *("x", "y", "crd_x", "crd_y", "lon", "lat", GRID_MAPPING),
)
"""Names that the encoding of geometries may use."""


def make_vector_dataset(data: xr.DataArray | xr.Dataset, format_: str) -> xr.Dataset:
    """Make a dataset of a vector cube with its geometries encoded as in CF.

    Names that are not allowed, or used for something else, are changed; ``long_name`` keeps the original.
    Properties that have no type of CF are strings (JSON).

    Raises:
        FormatUnsuitable: geometries that CF cannot describe.
    """
    _check_geometries(data, format_)
    renamed = {str(d): f"{d}_" for d in data.dims if d in OF_GEOMETRIES}
    data = data.rename(renamed)
    used = {*map(str, data.dims), *OF_GEOMETRIES}
    dataset = _start_dataset(data)
    variables: dict[str, xr.DataArray] = {}
    for label, values in _iterate_variables(data):
        name = choose_name(label, used, "value")
        used.add(name)
        variables[name] = values.assign_attrs(long_name=str(label), **values.attrs)
    for label in _list_columns(data):
        name = choose_name(label, used, "property")
        used.add(name)
        attrs = {"long_name": label} if name != label else {}
        column = make_typed_column(data[label].values, nullable=False)
        dataset = dataset.assign_coords({name: (GEOMETRY, column, attrs)})
    dimensions = {d for v in variables.values() for d in v.dims} - {GEOMETRY}
    labels = {name: c for name, c in make_coordinates(data).items() if c.dims[0] in dimensions}
    return _encode_geometries(dataset.assign_coords(labels).assign(variables), format_)


def _start_dataset(data: xr.DataArray | xr.Dataset) -> xr.Dataset:
    """Make a dataset of the geometries alone, with their CRS, which is encoded as a grid mapping."""
    dataset = xr.Dataset(coords={GEOMETRY: data.coords[GEOMETRY].reset_coords(drop=True)})
    crs = find_geometry_crs(data)
    return dataset if crs is None else dataset.xvec.set_geom_indexes(GEOMETRY, crs=crs)


def _check_geometries(data: xr.DataArray | xr.Dataset, format_: str) -> None:
    shapes = data[GEOMETRY].values
    if not len(shapes) or any(shape is None or shape.is_empty for shape in shapes):
        reason = "it has features without geometry, which CF can't describe. Use GeoJSON or Parquet."
        raise FormatUnsuitable(format=format_, reason=reason if len(shapes) else "it has no features.")


def _list_columns(data: xr.DataArray | xr.Dataset) -> list[str]:
    columns = list_properties(data)
    if isinstance(data, xr.Dataset):
        columns += [str(n) for n, v in data.data_vars.items() if v.dtype.kind not in "biufM"]
    return columns


def _iterate_variables(data: xr.DataArray | xr.Dataset) -> Iterator[tuple[Any, xr.DataArray]]:
    """Yield labels and bare values of the bands, or of the variables of a dataset."""
    if isinstance(data, xr.Dataset):
        for name, variable in data.data_vars.items():
            if variable.dtype.kind in "biufM":
                yield str(name), xr.DataArray(variable.variable.to_base_variable())
        return
    band = next(iter(dimensions_of_type(data, "bands")), None)
    missing = nodata(data)
    bare = xr.DataArray(data.variable.to_base_variable())
    bare.attrs = {}
    if band is None:
        name = str(data.name or UNNAMED)
        yield name, set_encoding(bare, None if isinstance(missing, xr.DataArray) else missing)
        return
    labels = json_labels(data.coords[band].values) if band in data.coords else range(data.sizes[band])
    for i, (label, packing) in enumerate(zip(labels, read_packings(data, band), strict=True)):
        value = missing.values[i].item() if isinstance(missing, xr.DataArray) else missing
        encoded = set_encoding(bare.isel({band: i}), value)
        yield label, encoded.assign_attrs(make_packing_attributes(packing))


def _encode_geometries(dataset: xr.Dataset, format_: str) -> xr.Dataset:
    encodings = {name: dict(v.encoding) for name, v in dataset.variables.items()}
    try:
        encoded = dataset.xvec.encode_cf()
    except ValueError as error:
        reason = "CF geometries must be all points, all lines or all polygons. Use GeoJSON or Parquet."
        raise FormatUnsuitable(format=format_, reason=reason) from error
    for name, encoding in encodings.items():
        if name in encoded.variables:
            encoded[name].encoding = encoding
    return encoded.assign_attrs(make_attributes())
