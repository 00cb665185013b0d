"""A recorded dataset of no back-end: its process graphs can be looked at, but not computed."""

from __future__ import annotations

import numpy as np
import xarray as xr
from openeo_xarray.collection import Band, Source
from openeo_xarray.dataset import make_dataset
from openeo_xarray.nodes import Axis
from openeo_xarray.options import switch_off_accelerators

BANDS = {"B02": "blue", "B04": "red", "B08": "nir", "B11": "swir", "SCL": "scl"}


def make_offline_dataset() -> xr.Dataset:
    """Five bands like those of Sentinel-2 on a grid of 20 x 12 pixels, weekly for three months."""
    switch_off_accelerators()
    bands = tuple(
        Band(name, np.dtype("uint8" if name == "SCL" else "uint16"), 0.0, *scale, resolution, {})
        for name, scale, resolution in (
            ("B02", (1.0, 0.0), 10.0),
            ("B04", (0.0001, -0.01), 10.0),
            ("B08", (0.0001, -0.01), 10.0),
            ("B11", (0.0001, -0.01), 20.0),
            ("SCL", (1.0, 0.0), 20.0),
        )
    )
    extent = {"west": 679720.0, "south": 5151080.0, "east": 679920.0, "north": 5151200.0, "crs": 32632}
    source = Source(None, "s2", extent, ("2022-06-01", "2022-09-01"), bands, "bands", None, 32632)
    times = np.arange("2022-06-01T10:10:31", "2022-08-31T12:00:00", np.timedelta64(7, "D"), "datetime64[s]")
    axes = (
        Axis("t", times.astype("datetime64[ns]"), "time"),
        Axis("y", 5151195.0 - 10 * np.arange(12), "y"),
        Axis("x", 679725.0 + 10 * np.arange(20), "x"),
    )
    return make_dataset(source, axes, mask_and_scale=True).rename(BANDS)
