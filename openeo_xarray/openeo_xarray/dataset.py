"""Datasets of recorded arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from openeo_xarray.array import RecordedArray, apply_elementwise
from openeo_xarray.collection import BBOX_SIDES, Band, Source, find_crs, find_dimension, read_axes, read_bands
from openeo_xarray.nodes import Axis, Load
from openeo_xarray.request import compute_arrays

NAMES = {"time": "time", "x": "x", "y": "y"}
"""Names of dimensions in xarray by kind; others keep theirs."""


def open_collection(
    connection: Any,
    collection: str,
    *,
    bbox: Sequence[float] | Mapping[str, Any] | None = None,
    time: Any = None,
    bands: Sequence[str] | str | None = None,
    crs: Any = None,
    properties: Mapping[str, Any] | None = None,
    labels: Mapping[str, Any] | None = None,
    mask_and_scale: bool = True,
) -> xr.Dataset:
    """Open a collection as a dataset whose pixels stay on the back-end.

    `bbox` is west, south, east and north in degrees, or in the units of `crs` (an EPSG code); `time` an
    interval whose end is not in it, or a single year, month or day; `bands` names or aliases. Each band is
    a variable with the dimensions time, y and x. With `mask_and_scale`, no-data are NaN and values those of
    the declared scale and offset. `labels` are those of dimensions that the back-end does not say itself:
    times, or the centres of pixels along x or y.
    """
    metadata = connection.describe_collection(collection)
    names = [bands] if isinstance(bands, str) else bands
    source = Source(
        connection,
        collection,
        read_extent(bbox, crs),
        read_interval(time),
        read_bands(metadata, names),
        find_dimension(metadata, "bands"),
        properties,
        labels=labels,
    )
    axes = read_axes(source, metadata)
    source = _with_crs(source, find_crs(source, metadata, axes))
    return make_dataset(source, axes, mask_and_scale)


def _with_crs(source: Source, crs: Any) -> Source:
    from dataclasses import replace

    return replace(source, crs=crs)


def read_extent(bbox: Any, crs: Any) -> dict[str, Any] | None:
    """The argument `spatial_extent` for a bounding box."""
    if bbox is None:
        return None
    extent = dict(bbox) if isinstance(bbox, Mapping) else dict(zip(BBOX_SIDES, map(float, bbox), strict=True))
    if crs is not None:
        extent["crs"] = int(str(crs).upper().removeprefix("EPSG:"))
    return extent


def read_interval(time: Any) -> tuple[str | None, str | None] | None:
    """The argument `temporal_extent` for an interval, or for a year, month or day."""
    if time is None:
        return None
    if isinstance(time, slice):
        time = (time.start, time.stop)
    if isinstance(time, str):
        start = np.datetime64(time)
        return _format_day(start), _format_day(start + 1)
    start, end = time
    return _format_day(start), _format_day(end)


def _format_day(time: Any) -> str | None:
    if time is None or (isinstance(time, str) and len(time) >= 10):
        return time
    moment = np.datetime64(time)
    unit = "D" if moment == moment.astype("datetime64[D]") else "s"
    return str(moment.astype(f"datetime64[{unit}]")) + ("Z" if unit == "s" else "")


def make_dataset(source: Source, axes: Sequence[Axis], mask_and_scale: bool) -> xr.Dataset:
    """A dataset with a variable for each band."""
    dims = [NAMES.get(axis.kind, axis.name) for axis in axes]
    coords: dict[str, Any] = {}
    for dim, axis in zip(dims, axes, strict=True):
        coords[dim] = (dim, axis.labels, describe_axis(axis))
    if source.crs is not None:
        coords["spatial_ref"] = ((), 0, {"spatial_ref": f"EPSG:{source.crs}"})
    variables: dict[str, xr.Variable] = {}
    for band in source.bands:
        array = record_band(source, axes, band, mask_and_scale)
        variables[band.name] = UnwrappedVariable(dims, array, describe_band(band, mask_and_scale, source.crs))
    return xr.Dataset(variables, coords, {"openeo_collection": source.collection})


class UnwrappedVariable(xr.Variable):
    """A variable that xarray's `open_dataset` can't wrap.

    It wraps the data of all variables for copying on write and caching, behind which `.load()` would not
    see that they are lazy. Recorded arrays never change, so they need neither. Once that is past, this is
    an ordinary variable.
    """

    __slots__ = ()

    @property
    def data(self) -> Any:
        return xr.Variable.data.fget(self)  # type: ignore[attr-defined]

    @data.setter
    def data(self, data: Any) -> None:
        self.__class__ = xr.Variable  # type: ignore[assignment]
        content: Any = self._data
        if not isinstance(content, RecordedArray):
            self.data = data


def describe_axis(axis: Axis) -> dict[str, str]:
    """Attributes of a coordinate, as CF names them."""
    return {"axis": {"time": "T"}.get(axis.kind, axis.kind.upper())} if axis.kind in NAMES else {}


def describe_band(band: Band, mask_and_scale: bool, crs: Any) -> dict[str, Any]:
    """Attributes of a variable."""
    attributes = {"long_name": band.name, **band.attributes}
    if not mask_and_scale:
        attributes |= {"scale": band.scale, "offset": band.offset}
    return attributes if crs is None else {**attributes, "grid_mapping": "spatial_ref"}


def record_band(source: Source, axes: Sequence[Axis], band: Band, mask_and_scale: bool) -> RecordedArray:
    """A band as a recorded array."""
    dtype = choose_dtype(band, mask_and_scale)
    array = RecordedArray(Load(tuple(axes), dtype, source, (band.name,)), tuple(axis.name for axis in axes))
    if mask_and_scale and band.scale != 1:
        array = apply_elementwise("multiply", array, band.scale)
    if mask_and_scale and band.offset != 0:
        array = apply_elementwise("add", array, band.offset)
    return array


def choose_dtype(band: Band, mask_and_scale: bool) -> np.dtype[Any]:
    """The dtype that xarray would give to the band of a file, so that no-data can be NaN."""
    if mask_and_scale and (band.scale != 1 or band.offset != 0):
        return np.dtype("float64")
    if band.dtype.kind == "f" or band.nodata is None:
        return band.dtype
    return np.dtype("float32" if band.dtype.itemsize <= 2 else "float64")


def compute(*objects: xr.Dataset | xr.DataArray) -> tuple[Any, ...]:
    """Compute datasets and arrays with one request, as `dask.compute` does; returns new objects."""
    datasets = [o if isinstance(o, xr.Dataset) else o._to_temp_dataset() for o in objects]
    contents: list[tuple[int, Any, Any]] = [
        (k, name, variable._data)
        for k, dataset in enumerate(datasets)
        for name, variable in dataset.variables.items()
    ]
    recorded = [content for content in contents if isinstance(content[2], RecordedArray)]
    values = compute_arrays(*(array for _, _, array in recorded))
    results = [dataset.copy() for dataset in datasets]
    for (k, name, _), data in zip(recorded, values, strict=True):
        results[k][name] = results[k][name].copy(data=data)
    return tuple(
        result if isinstance(o, xr.Dataset) else o._from_temp_dataset(result)
        for o, result in zip(objects, results, strict=True)
    )
