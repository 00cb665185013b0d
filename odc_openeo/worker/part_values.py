"""Values of parts, kept in files until the last part joins them, and the skeleton of the whole."""

from __future__ import annotations

import contextlib
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import dask
import dask.array as da
import numpy as np
import xarray as xr

from odc_openeo.cube import has_raster_dimensions
from odc_openeo.errors import StorageFailure
from odc_openeo.formats.blocks import stream_batches
from odc_openeo.formats.model import Compute
from odc_openeo.formats.write_errors import as_storage_failure
from odc_openeo.storage import Storage
from odc_openeo.worker.part_layouts import SplitPlan, compute_digest
from odc_openeo.worker.provenance import compute_multihash

PIXELS: Final = "value.npy"
PICKLED: Final = "value.pickle"


def write_value(data: Any, folder: Path, compute: Compute) -> Path:
    """Compute a value and write it to a file: pixels of raster cubes as they are, other values pickled."""
    if isinstance(data, xr.DataArray) and has_raster_dimensions(data):
        path = folder / PIXELS
        with as_storage_failure():
            target = np.lib.format.open_memmap(path, "w+", data.dtype, data.shape)
        stream_batches(data, compute, target.__setitem__)
        target.flush()
        return path
    (value,) = compute(data)
    path = folder / PICKLED
    with as_storage_failure():
        path.write_bytes(pickle.dumps(value))
    return path


def fetch_value(store: Storage, folder: str, asset: Mapping[str, Any], scratch: Path) -> Any:
    """Return the value in a file of a part: lazy pixels of a raster cube, or a value in memory.

    Files of buckets are copied to ``scratch`` first, where they must not be removed before all is computed.

    Raises:
        StorageFailure: the file is not the one that was recorded.
    """
    path = _fetch_file(store, f"{folder}/{asset['path']}", scratch / f"part-{asset['part']}-{asset['name']}")
    if path.stat().st_size != asset["file:size"]:
        raise StorageFailure
    if asset["name"] == PIXELS:
        pixels = np.load(path, mmap_mode="r")
        return da.from_delayed(dask.delayed(_read_pixels)(path), pixels.shape, dtype=pixels.dtype)
    # Only what this service has written itself is ever unpickled.
    if compute_multihash(path) != asset["file:checksum"]:
        raise StorageFailure
    return pickle.loads(path.read_bytes())


def _fetch_file(store: Storage, key: str, copy: Path) -> Path:
    local = store.find_local_path(key)
    if local is not None:
        return local
    with contextlib.closing(store.open(key)) as source, as_storage_failure(), copy.open("wb") as target:
        shutil.copyfileobj(source, target)
    return copy


def _read_pixels(path: Path) -> np.ndarray:
    return np.asarray(np.load(path, mmap_mode="r"))


def read_skeleton(store: Storage, folder: str, plan: SplitPlan) -> xr.DataArray:
    """Read the whole result without its values.

    Raises:
        StorageFailure: the file is not the one that was recorded.
    """
    skeleton: xr.DataArray = pickle.loads(_read_recorded(store, f"{folder}/.parts/skeleton", plan.skeleton))
    return skeleton


def read_schema(store: Storage, folder: str, plan: SplitPlan) -> bytes:
    """Read the serialized schema that the tables of all parts have.

    Raises:
        StorageFailure: the file is not the one that was recorded.
    """
    return _read_recorded(store, f"{folder}/.parts/schema", plan.schema)


def _read_recorded(store: Storage, key: str, digest: str | None) -> bytes:
    with contextlib.closing(store.open(key)) as source:
        content = source.read()
    if compute_digest(content) != digest:
        raise StorageFailure
    return content
