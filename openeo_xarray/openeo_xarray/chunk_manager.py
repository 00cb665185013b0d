"""Recorded arrays as lazy ones of xarray: `.compute()` and `.load()` come here with all arrays at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from xarray.namedarray.parallelcompat import ChunkManagerEntrypoint

from openeo_xarray.array import RecordedArray, refuse_chunks
from openeo_xarray.errors import LOAD_FIRST, UnsupportedOperation
from openeo_xarray.functions import apply_function
from openeo_xarray.numpy_functions import reduce_array
from openeo_xarray.request import compute_arrays


class ConstantArrays:
    """Arrays of one value, which need no memory and no request."""

    @staticmethod
    def full(shape: Any, fill_value: Any, dtype: Any = None, **_options: Any) -> np.ndarray:
        return np.broadcast_to(np.asarray(fill_value, dtype), shape)


class OpenEOChunkManager(ChunkManagerEntrypoint[RecordedArray]):  # type: ignore[type-var]
    """Computes recorded arrays on their back-end."""

    array_cls: type[RecordedArray]

    def __init__(self) -> None:
        self.array_cls = RecordedArray

    def chunks(self, data: RecordedArray) -> Any:
        return data.chunks

    def normalize_chunks(self, *_arguments: Any, **_options: Any) -> Any:
        raise refuse_chunks()

    def from_array(self, data: Any, chunks: Any, **_options: Any) -> Any:
        """Keep masks and coordinates of the client as they are."""
        return data

    def rechunk(self, data: Any, chunks: Any, **_options: Any) -> Any:
        raise refuse_chunks()

    def compute(self, *data: Any, **_options: Any) -> tuple[np.ndarray[Any, Any], ...]:
        """Compute arrays with one request; others stay what they are."""
        recorded = [array for array in data if isinstance(array, RecordedArray)]
        values = iter(compute_arrays(*recorded))
        return tuple(next(values) if isinstance(array, RecordedArray) else array for array in data)

    def persist(self, *data: Any, **_options: Any) -> Any:
        raise UnsupportedOperation(
            "persist", "use .load(), or .openeo.save() to keep a result on the back-end"
        )

    @property
    def array_api(self) -> Any:
        return ConstantArrays

    def apply_gufunc(self, func: Callable[..., Any], signature: str, *args: Any, **options: Any) -> Any:
        return apply_function(func, signature, args, options)

    def map_blocks(self, func: Callable[..., Any], *_arguments: Any, **_options: Any) -> Any:
        raise UnsupportedOperation(f"map_blocks of {name_function(func)}", LOAD_FIRST)

    def blockwise(self, func: Callable[..., Any], *_arguments: Any, **_options: Any) -> Any:
        raise UnsupportedOperation(f"blockwise of {name_function(func)}", LOAD_FIRST)

    def unify_chunks(self, *args: Any, **_options: Any) -> tuple[Any, list[Any]]:
        return {}, list(args[::2])

    def store(self, sources: Any, targets: Any, **_options: Any) -> Any:
        """Write computed values into targets of xarray's writers."""
        for values, target in zip(self.compute(*sources), targets, strict=True):
            target[...] = values

    def scan(self, func: Callable[..., Any], *_arguments: Any, **_options: Any) -> Any:
        raise UnsupportedOperation(f"a scan with {name_function(func)}", LOAD_FIRST)

    def reduction(self, arr: Any, func: Callable[..., Any], *_arguments: Any, **_options: Any) -> Any:
        """Reduce with the functions for which xarray does not ask NumPy: the first and last values."""
        reducer = {"nanfirst": "first", "nanlast": "last"}.get(
            name_function(dict(func.keywords).get("op")) if isinstance(func, partial) else ""
        )
        if reducer is None:
            raise UnsupportedOperation(f"a reduction with {name_function(func)}", LOAD_FIRST)
        return reduce_array(
            np.nanmax, arr, reducer, _options["axis"], {"skipna": True}, bool(_options.get("keepdims"))
        )


def name_function(function: Any) -> str:
    """The name of a function for messages."""
    return str(
        getattr(function, "__name__", None)
        or getattr(getattr(function, "func", None), "__name__", "a function")
    )
