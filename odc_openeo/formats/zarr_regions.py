"""Zarr stores that several processes write: a template is made first, regions are filled in later.

A region is aligned to the units that are written at once (shards, or chunks without shards), so that no two
writers touch the same object of the store, in any order and at any time.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dask.array as da
import odc.geo.xr  # noqa: F401  (registers the .odc accessor)
import xarray as xr
import zarr

from odc_openeo.cube import X, Y, has_raster_dimensions
from odc_openeo.formats.blocks import stream_batches
from odc_openeo.formats.cf import choose_chunk_sizes, make_dataset
from odc_openeo.formats.geozarr import make_grid_attributes
from odc_openeo.formats.model import Compute, Options
from odc_openeo.formats.raster import has_even_labels

MOST_FILES: Final = 4096
"""Chunks of a variable above which they are packed into shards unless the options say otherwise."""
CHUNKS_OF_SHARD: Final = 4
"""Chunks along each side of a shard, unless the options say otherwise."""

SHARED_SHARD: Final = 2048
"""Most pixels of a side of a shard that parts write, unless the options say otherwise."""
SHARED_CHUNK: Final = 512
"""Most pixels of a side of its chunks."""

METADATA: Final = "zarr.json"

Region = Mapping[str, slice]

Starts = Mapping[str, Sequence[int]]
"""Where regions begin along dimensions."""


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


def choose_tilings(cf_dataset: xr.Dataset, options: Options) -> dict[str, Tiling]:
    """Choose chunks and shards of all arrays of numbers, by name; the options are those of the format."""
    return {
        str(name): choose_tiling(variable, options["chunk_size"], options["shard_size"])
        for name, variable in cf_dataset.data_vars.items()
        if variable.dims and variable.size and variable.dtype.kind in "biuf"
    }


def align_tiling(tiling: Tiling, starts: Starts) -> Tiling:
    """Shorten chunks and shards so that units begin at each start of a region."""
    chunks, shards = dict(tiling.chunks), dict(tiling.shards or {})
    for name in chunks:
        step = math.gcd(*starts.get(name, ()))
        if step == 0:
            continue
        chunks[name] = _find_divisor(step, chunks[name])
        if shards:
            shards[name] = chunks[name] * _find_divisor(step // chunks[name], shards[name] // chunks[name])
    return Tiling(chunks, shards or None)


def choose_shared_tiling(variable: xr.DataArray, options: Options, starts: Starts, tiling: Tiling) -> Tiling:
    """Choose chunks and shards of an array that parts write; ``tiling`` is that of an array written at once.

    Each region begins with a shard. If the options say nothing, shards are as large as that allows, up to
    `SHARED_SHARD` pixels, of chunks that are small enough for maps.
    """
    if options["chunk_size"] is not None or options["shard_size"] is not None:
        if options["shard_size"] is None and tiling.shards is None:
            sides = [str(name) for name in variable.dims[-2:]]
            shards = {name: tiling.chunks[name] * CHUNKS_OF_SHARD for name in sides}
            tiling = Tiling(tiling.chunks, {**tiling.chunks, **shards})
        return align_tiling(tiling, starts)
    chunks, shards = dict(tiling.chunks), dict(tiling.chunks)
    for name in [str(dimension) for dimension in variable.dims[-2:]]:
        size = variable.sizes[name]
        step = math.gcd(*starts.get(name, ())) or math.ceil(size / SHARED_CHUNK) * SHARED_CHUNK
        shards[name] = _find_divisor(step, SHARED_SHARD)
        chunks[name] = _find_divisor(shards[name], max(1, min(SHARED_CHUNK, shards[name] // 2)))
    return align_tiling(Tiling(chunks, shards), starts)


def _find_divisor(number: int, most: int) -> int:
    """Find the largest divisor of a number that is not above ``most``."""
    return max(size for size in range(1, max(1, min(number, most)) + 1) if number % size == 0)


def create_template(
    store: Any, cube: xr.DataArray, options: Options, starts: Starts, *, consolidated: bool = True
) -> None:
    """Create a Zarr store with all metadata, coordinates and GeoZarr attributes of a cube, but no pixels.

    Only the shape, type, labels and attributes of ``cube`` are used: its values may be lazy and are never
    computed. What is never written reads as no-data, or 0 without one. ``store`` is a folder or a store of
    zarr; ``starts`` tell where the regions of parts begin.

    Raises:
        FormatUnsuitable: the layout can't hold the cube.
    """
    cf_dataset = make_dataset(cube, options["layout"], "Zarr")
    tilings = {
        name: choose_shared_tiling(cf_dataset[name], options, starts, tiling)
        for name, tiling in choose_tilings(cf_dataset, options).items()
    }
    attributes = make_cube_attributes(cube)
    create_dataset_template(store, cf_dataset, tilings, attributes, consolidated=consolidated)


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
    *,
    consolidated: bool | None = None,
) -> None:
    """Create a group with all of a CF dataset but the values of the variables that have a tiling.

    Metadata are ``consolidated`` by default if the group is the top of the store.
    """
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
            consolidated=group is None if consolidated is None else consolidated,
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


def write_region(
    part: xr.DataArray, store: Any, options: Options, offsets: Mapping[str, int], compute: Compute
) -> None:
    """Write the values of a part of a cube into a store made by `create_template` for the whole.

    ``offsets`` are the first indices of the part along dimensions of the whole, 0 where there is none. The
    ``store``, a folder or a store of zarr, needs only the metadata of its arrays. Writing a region again
    replaces it.

    Raises:
        UnalignedRegion: the part does not begin and end at edges of units.
    """
    cf_dataset = make_dataset(part, options["layout"], "Zarr")
    for name, variable in cf_dataset.data_vars.items():
        array = zarr.open_array(store, path=str(name), mode="r+")
        region = {
            str(dimension): slice(offsets.get(str(dimension), 0), offsets.get(str(dimension), 0) + size)
            for dimension, size in variable.sizes.items()
        }
        stream_batches(variable, compute, _ShiftedArray(array, find_window(array, region)))


class _ShiftedArray:
    """Takes regions of a part and writes them where they are in the whole."""

    def __init__(self, array: zarr.Array, window: Sequence[slice]) -> None:
        self.array, self.window = array, window

    def __call__(self, region: Sequence[slice], values: Any) -> None:
        shifted = [
            slice(edge.start + place.start, edge.start + place.stop)
            for edge, place in zip(self.window, region, strict=True)
        ]
        self.array[tuple(shifted)] = values


def list_variables(node: zarr.Group) -> dict[str, zarr.Array]:
    """List the arrays of a group of xarray that are neither coordinates nor their bounds."""
    arrays = dict(node.arrays())
    coordinate_names = {name for array in arrays.values() for name in find_dimensions(array)}
    for attributes in (node.attrs, *(array.attrs for array in arrays.values())):
        for key in ("coordinates", "bounds", "grid_mapping"):
            coordinate_names |= set(str(attributes.get(key, "")).split())
    return {name: array for name, array in arrays.items() if name not in coordinate_names}


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
