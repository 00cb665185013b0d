"""A Zarr store that is made first and filled region by region, by any number of processes.

Regions begin and end where chunks do: each chunk is written once, by whoever has its region.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import dask.array as da
import xarray as xr
import zarr

from odc_openeo.formats.blocks import Region, stream_batches
from odc_openeo.formats.cf import make_dataset
from odc_openeo.formats.model import Compute, Options
from odc_openeo.formats.zarr import create_store, make_zarr_encoding

METADATA: Final = "zarr.json"

Starts = Mapping[str, Sequence[int]]
"""Where regions begin along dimensions."""


def write_template(data: xr.DataArray, path: Path, options: Options, starts: Starts) -> None:
    """Write a store of a whole cube with everything but its values; ``data`` may be a sketch."""
    cf_dataset = make_dataset(data, options["layout"], "Zarr")
    encoding = {}
    for name in cf_dataset.data_vars:
        variable = cf_dataset[name]
        encoding[str(name)] = _align_chunks(variable, make_zarr_encoding(variable), starts)
        zeros = da.zeros(variable.shape, dtype=variable.dtype, chunks=variable.shape)
        kept = dict(variable.encoding)
        cf_dataset[name] = variable.copy(data=zeros)
        cf_dataset[name].encoding = kept
    create_store(cf_dataset, path, encoding)


def _align_chunks(variable: xr.DataArray, encoding: dict[str, object], starts: Starts) -> dict[str, object]:
    chunks = encoding.get("chunks")
    if not isinstance(chunks, tuple):
        return encoding
    aligned = [
        align_chunk(size, starts.get(str(name), ())) for name, size in zip(variable.dims, chunks, strict=True)
    ]
    return {**encoding, "chunks": tuple(aligned)}


def align_chunk(size: int, starts: Sequence[int]) -> int:
    """Choose the length of chunks closest below ``size`` with an edge at each start of a region."""
    step = math.gcd(*starts)
    if step == 0:
        return size
    return max(n for n in range(1, min(size, step) + 1) if step % n == 0)


def write_region(
    data: xr.DataArray, path: Path, options: Options, offsets: Mapping[str, int], compute: Compute
) -> None:
    """Write the values of a part of a cube; ``offsets`` are its first indices along dimensions of the whole.

    The store at ``path`` has the metadata of the whole; the chunks that are written appear beside them.
    """
    cf_dataset = make_dataset(data, options["layout"], "Zarr")
    for name in cf_dataset.data_vars:
        variable = cf_dataset[name]
        array = zarr.open_array(path / str(name), mode="r+")
        first = [offsets.get(str(dimension), 0) for dimension in variable.dims]
        stream_batches(variable, compute, _WriteShifted(array, first))


class _WriteShifted:
    """Writes regions of a part where they are in the whole."""

    def __init__(self, array: zarr.Array, first: Sequence[int]) -> None:
        self.array, self.first = array, first

    def __call__(self, region: Region, values: object) -> None:
        shifted = (slice(s.start + f, s.stop + f) for s, f in zip(region, self.first, strict=True))
        self.array[tuple(shifted)] = values
