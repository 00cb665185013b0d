"""Ordinary xarray code on any openEO back-end.

`open` gives a dataset whose pixels stay on the back-end. xarray records what is done with it; `.compute()`
and `.load()` send it as one process graph.
"""

from __future__ import annotations

from typing import Any

import xarray as xr

from openeo_xarray import accessor, numpy_functions
from openeo_xarray.backend import OpenEOBackend
from openeo_xarray.dataset import compute
from openeo_xarray.errors import UnsupportedOperation
from openeo_xarray.options import set_options

__version__ = "0.1.0"


def open(connection: Any, collection: str, **arguments: Any) -> xr.Dataset:  # noqa: A001
    """Open a collection of a connection; the arguments are those of `open_collection`."""
    return OpenEOBackend().open_dataset(collection, connection=connection, **arguments)


__all__ = [
    "OpenEOBackend",
    "UnsupportedOperation",
    "accessor",
    "compute",
    "numpy_functions",
    "open",
    "set_options",
]
