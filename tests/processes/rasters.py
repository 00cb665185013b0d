"""Small raster cubes on real grids as loads make them, eager and in dask chunks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

UTM = "EPSG:32632"


def grid(
    rows: int,
    columns: int,
    size: float = 10.0,
    left: float = 680000.0,
    top: float = 5152000.0,
    crs: str = UTM,
) -> GeoBox:
    """A north-up grid with square pixels."""
    return GeoBox((rows, columns), Affine(size, 0, left, 0, -size, top), crs)


def raster(values: np.ndarray, geobox: GeoBox, chunks: Any = None, nodata: Any = None) -> xr.DataArray:
    """A cube of ``(y, x)``, ``(t, y, x)`` or ``(t, bands, y, x)`` values; lazy if ``chunks`` is given.

    It carries what loads know of bands, beside their names.
    """
    names = ("t", "bands", "y", "x") if values.ndim == 4 else ("t", "y", "x")[-values.ndim :]
    coords: dict[str, Any] = dict(xr_coords(geobox, crs_coord_name="spatial_ref", always_yx=True))
    if "t" in names:
        start = np.datetime64("2022-06-01", "ns")
        coords["t"] = start + np.arange(values.shape[0]) * np.timedelta64(5, "D")
    if "bands" in names:
        coords |= describe_bands(values.shape[1])
    cube = xr.DataArray(values, dims=names, coords=coords, attrs={"source": "a grid of 10 m"})
    if nodata is not None:
        cube.attrs["nodata"] = nodata
    # As in loads, only the values are lazy.
    return cube if chunks is None else cube.copy(data=cube.chunk(chunks).data)


def describe_bands(count: int) -> dict[str, Any]:
    """The coordinates along the bands of a load: names, and for each what its metadata say."""
    numbers = range(1, count + 1)
    metadata = {
        "common_name": np.array(["" if i % 4 == 3 else f"common{i}" for i in numbers]),
        "center_wavelength": np.array([np.nan if i % 4 == 3 else 0.4 + i / 10 for i in numbers]),
        "unit": np.array(["K" if i % 2 else "" for i in numbers]),
        "scale": np.array([0.01 * i for i in numbers]),
        "offset": np.array([float(i) for i in numbers]),
    }
    return {"bands": [f"B{i:02}" for i in numbers], **{k: ("bands", v) for k, v in metadata.items()}}


@contextmanager
def nothing_computes() -> Iterator[None]:
    """Fails if dask computes anything inside."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("dask computed something")

    with dask.config.set(scheduler=refuse):
        yield
