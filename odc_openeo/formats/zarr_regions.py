"""Zarr stores that several processes write: a template is made first, regions are filled in later.

A region is aligned to the units that are written at once (shards, or chunks without shards), so that no two
writers touch the same object of the store, in any order and at any time.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import dask.array as da
import numpy as np
import odc.geo.xr  # noqa: F401  (registers the .odc accessor)
import xarray as xr
import zarr

from odc_openeo.cube import X, Y, has_raster_dimensions
from odc_openeo.formats.cf import CHUNK, choose_chunk_sizes, make_dataset
from odc_openeo.formats.geozarr import make_grid_attributes
from odc_openeo.formats.raster import find_band_dimension, has_even_labels

MOST_FILES: Final = 4096
"""Chunks of a variable above which they are packed into shards unless the options say otherwise."""
CHUNKS_OF_SHARD: Final = 4
"""Chunks along each side of a shard, unless the options say otherwise."""

Region = Mapping[str, slice]


class UnalignedRegion(ValueError):
    """A region does not begin and end where units of the store do."""


@dataclass(frozen=True)
class Tiling:
    """How arrays are cut: sizes along their dimensions, in pixels or labels; ``shards`` may be None."""

    chunks: Mapping[str, int]
    shards: Mapping[str, int] | None = None

    @property
    def units(self) -> Mapping[str, int]:
        """The sizes of what is written at once."""
        return self.shards or self.chunks


def choose_tiling(
    variable: xr.DataArray, chunk_size: int | None = None, shard_size: int | None = None
) -> Tiling:
    """Choose chunks and shards of an array; both sizes are sides in pixels.

    Without ``chunk_size``, chunks are even parts of dask's, at most `CHUNK` long. ``shard_size`` 0 means no
    shards; without it, shards are made only of arrays with more than `MOST_FILES` chunks. Shards are
    whole numbers of chunks: the size is rounded up. Along other dimensions, chunks have one label.
    """
    dims = [str(name) for name in variable.dims]
    chunks = dict(zip(dims, choose_chunk_sizes(variable), strict=True))
    sides = dims[-2:]
    if chunk_size is not None:
        chunks |= {name: max(1, min(chunk_size, variable.sizes[name])) for name in sides}
    count = math.prod(math.ceil(variable.sizes[name] / chunks[name]) for name in dims)
    if shard_size == 0 or (shard_size is None and count <= MOST_FILES):
        return Tiling(chunks)
    shards = dict(chunks)
    for name in sides:
        side = _choose_shard_side(variable, name, chunks[name]) if shard_size is None else shard_size
        most = math.ceil(variable.sizes[name] / chunks[name])
        shards[name] = chunks[name] * min(math.ceil(side / chunks[name]), most)
    return Tiling(chunks, shards)


def _choose_shard_side(variable: xr.DataArray, dimension: str, chunk: int) -> int:
    """Choose the side of shards: that of dask's chunks if it fits, as each is then written at once."""
    longest = max(variable.chunksizes.get(dimension, (chunk,)))
    return longest if longest > chunk and longest % chunk == 0 else chunk * CHUNKS_OF_SHARD


def create_template(
    store: Any,
    cube: xr.DataArray,
    layout: str = "variables",
    *,
    chunk_size: int | None = CHUNK,
    shard_size: int | None = None,
    group: str | None = None,
) -> dict[str, int]:
    """Create a Zarr store with all metadata, coordinates and GeoZarr attributes of a cube, but no pixels.

    ``store`` is a path, or a store of `zarr` (see `odc_openeo.storage.zarr_stores`). Only the shape, type,
    labels and attributes of ``cube`` are used: its values may be lazy and are never computed
    (`dask.array.empty` of its shape will do). What is never written reads as no-data, or 0 without one.

    Returns the sizes of the units by dimension, to which regions must be aligned.

    Raises:
        FormatUnsuitable: the layout can't hold the cube.
    """
    dataset = make_dataset(cube, layout, "Zarr")
    tilings = {
        str(name): choose_tiling(variable, chunk_size, shard_size)
        for name, variable in dataset.data_vars.items()
    }
    create_dataset_template(store, dataset, tilings, make_cube_attributes(cube), group)
    return dict(next(iter(tilings.values())).units)


def make_cube_attributes(cube: xr.DataArray | xr.Dataset) -> dict[str, Any]:
    """Make the GeoZarr attributes of a group; empty for cubes without an even grid."""
    if not isinstance(cube, xr.DataArray) or not has_raster_dimensions(cube):
        return {}
    if not all(has_even_labels(cube, dimension) for dimension in (X, Y)):
        return {}
    geobox = cube.odc.geobox
    return {} if geobox is None else make_grid_attributes(geobox, (Y, X))


def create_dataset_template(
    store: Any,
    dataset: xr.Dataset,
    tilings: Mapping[str, Tiling],
    attributes: Mapping[str, Any],
    group: str | None = None,
) -> None:
    """Create a group with all of a CF dataset but the values of the variables that have a tiling."""
    placeholders = {name: _make_placeholder(dataset[name]) for name in tilings}
    encoding = {name: _make_encoding(dataset[name], tiling) for name, tiling in tilings.items()}
    template = dataset.assign(placeholders).assign_attrs(attributes)
    with warnings.catch_warnings():
        # Consolidated metadata and string labels are not yet in the specification of version 3.
        warnings.filterwarnings("ignore", module="zarr")
        template.to_zarr(
            store,
            group=group,
            mode="w-",
            zarr_format=3,
            consolidated=group is None,
            compute=False,
            encoding=encoding,
            safe_chunks=False,
        )


def _make_placeholder(variable: xr.DataArray) -> xr.DataArray:
    lazy = da.empty(variable.shape, dtype=variable.dtype, chunks=-1)
    return xr.DataArray(lazy, dims=variable.dims, attrs=variable.attrs)


def _make_encoding(variable: xr.DataArray, tiling: Tiling) -> dict[str, Any]:
    """Make the encoding of an array; what is never written reads as no-data."""
    dims = [str(name) for name in variable.dims]
    encoding = {**variable.encoding, "chunks": tuple(tiling.chunks[name] for name in dims)}
    if encoding.get("_FillValue") is not None:
        encoding["fill_value"] = encoding["_FillValue"]
    if tiling.shards is not None:
        encoding["shards"] = tuple(tiling.shards[name] for name in dims)
    return encoding


def write_region(store: Any, part: xr.DataArray, region: Region, group: str | None = None) -> None:
    """Write the values of a part of a cube into a store made by `create_template` for the whole.

    ``part`` has the dimensions of the cube in any order, all of its bands, and values in memory. ``region``
    tells by dimension which labels or pixels of the whole it has; dimensions that are left out are whole.
    Writing a region again replaces it.

    Raises:
        UnalignedRegion: it does not begin and end at edges of units, or its size is not that of the part.
    """
    node = zarr.open_group(store, path=group or "", mode="r+")
    for name, values in _split_variables(node, part).items():
        array = node[name]
        assert isinstance(array, zarr.Array)
        window = find_window(array, region)
        ordered = values.transpose(*find_dimensions(array))
        shape = tuple(edge.stop - edge.start for edge in window)
        if ordered.shape != shape:
            raise UnalignedRegion(f"the part has the shape {ordered.shape}, its region {shape}")
        array[window] = np.asarray(ordered.values, dtype=array.dtype)


def _split_variables(node: zarr.Group, part: xr.DataArray) -> dict[str, xr.DataArray]:
    """Pair the arrays of a group with the values of a cube that belong there."""
    arrays = list_variables(node)
    dims = {str(dimension) for dimension in part.dims}
    for name, array in arrays.items():
        if set(find_dimensions(array)) == dims:
            return {name: part}
    band = find_band_dimension(part)
    names = {
        str(array.attrs.get("long_name")): name
        for name, array in arrays.items()
        if set(find_dimensions(array)) == dims - {band}
    }
    labels = [str(label) for label in part.coords[band].values] if band in part.coords else []
    if sorted(labels) != sorted(names):
        raise UnalignedRegion(f"the part has the bands {labels}, the store {sorted(names)}")
    return {names[label]: part.isel({band: i}) for i, label in enumerate(labels)}


def list_variables(node: zarr.Group) -> dict[str, zarr.Array]:
    """List the arrays of a group of xarray that are neither coordinates nor their bounds."""
    arrays = dict(node.arrays())
    others = {name for array in arrays.values() for name in find_dimensions(array)}
    for attributes in (node.attrs, *(array.attrs for array in arrays.values())):
        for key in ("coordinates", "bounds", "grid_mapping"):
            others |= set(str(attributes.get(key, "")).split())
    return {name: array for name, array in arrays.items() if name not in others}


def find_dimensions(array: zarr.Array) -> tuple[str, ...]:
    """Find the names of the dimensions of an array."""
    return tuple(str(name) for name in array.metadata.dimension_names or ())


def find_window(array: zarr.Array, region: Region) -> tuple[slice, ...]:
    """Find the window of an array that a region is, with whole numbers of units.

    Raises:
        UnalignedRegion: it is outside of the array, or cuts units.
    """
    units = array.shards or array.chunks
    window = []
    for name, size, unit in zip(find_dimensions(array), array.shape, units, strict=True):
        edge = region.get(name, slice(0, size))
        start, stop = edge.start or 0, size if edge.stop is None else edge.stop
        if edge.step not in (None, 1) or not 0 <= start < stop <= size:
            raise UnalignedRegion(f"{start}:{stop} along {name} is not within 0:{size}")
        if start % unit or (stop % unit and stop != size):
            raise UnalignedRegion(f"{start}:{stop} along {name} is not aligned to {unit}")
        window.append(slice(start, stop))
    return tuple(window)
