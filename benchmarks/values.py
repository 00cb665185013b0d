"""Read the results of the sides as arrays that can be compared."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import netCDF4
import numpy as np
import rasterio
import xarray as xr
from rasterio.io import MemoryFile
from xarray.backends import NetCDF4DataStore

MOST_PADDING: Final = 1024


def read_cube(folder: Path) -> np.ndarray:
    """Read the values of all files in a folder, stacked, no-data as NaN; axes of length 1 are removed."""
    arrays = [
        values for path in sorted(folder.iterdir()) for values in _open_file(path.name, path.read_bytes())
    ]
    return np.squeeze(np.stack(arrays))


def _open_file(name: str, content: bytes) -> Iterator[np.ndarray]:
    if content[:4] == b"PK\x03\x04":
        archive = zipfile.ZipFile(io.BytesIO(content))
        for member in sorted(archive.namelist()):
            yield from _open_file(member, archive.read(member))
    elif content[:6] == b"\x93NUMPY":
        yield np.load(io.BytesIO(content))
    elif content[:4] in (b"II*\x00", b"II+\x00"):
        with MemoryFile(content) as memory, memory.open() as file:
            yield _without_nodata(file)
    elif content[:3] not in (b"CDF", b"\x89HD"):
        yield np.atleast_1d(json.loads(content))
    else:
        store = NetCDF4DataStore(netCDF4.Dataset("memory", memory=content))
        cube = xr.open_dataset(store, decode_times=False)
        # Besides the values there may be other variables, such as corners of geometries.
        yield max((cube[name] for name in cube.data_vars), key=lambda variable: variable.ndim).values


def _without_nodata(file: rasterio.DatasetReader) -> np.ndarray:
    values = file.read()
    if file.nodata is None or np.isnan(file.nodata):
        return values
    return (
        np.where(values == file.nodata, np.nan, values.astype("float32"))
        if (values == file.nodata).any()
        else values
    )


def compare_values(one: np.ndarray, other: np.ndarray) -> float:
    """Compute the largest difference, relative for values over 1; infinite if shapes or no-data differ.

    Images may be padded with no-data on the right and at the bottom, as some writers do.
    """
    one, other = _parameters_first(one), _parameters_first(other)
    if one.ndim != other.ndim or not one.size or not other.size:
        return float("inf")
    if max(abs(a - b) for a, b in zip(one.shape, other.shape, strict=True)) > MOST_PADDING:
        return float("inf")
    common = tuple(slice(0, min(a, b)) for a, b in zip(one.shape, other.shape, strict=True))
    return max(_largest_difference(a, b) for a, b in zip(one[common], other[common], strict=True))


def _largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    if (np.isnan(one) != np.isnan(other)).any():
        return float("inf")
    apart = np.abs(one.astype(float) - other.astype(float)) / np.maximum(1, np.abs(other))
    return 0.0 if np.isnan(apart).all() else float(np.nanmax(apart))


def _parameters_first(values: np.ndarray) -> np.ndarray:
    """Move the axis of the shortest dimension, such as dates or parameters, to the front."""
    short = int(np.argmin(values.shape))
    return np.moveaxis(values, short, 0)
