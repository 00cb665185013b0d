"""Whole analyses as tutorials of the Pangeo community write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from rasterio.features import geometry_mask
from rasterio.transform import from_origin
from shapely.geometry import Polygon

CLOUDS = [3, 8, 9, 10]
IDIOMS: dict[str, Callable[[xr.Dataset], Any]] = {}


def idiom(function: Callable[[xr.Dataset], Any]) -> Callable[[xr.Dataset], Any]:
    """Register an analysis under the name of its function."""
    IDIOMS[function.__name__] = function
    return function


@idiom
def greenest_month(ds: xr.Dataset) -> xr.DataArray:
    """NDVI, monthly, its greatest value per pixel."""
    ndvi = (ds.nir - ds.red) / (ds.nir + ds.red)
    return ndvi.resample(time="1MS").mean().max("time").rename("ndvi")


@idiom
def cloud_free_composite(ds: xr.Dataset) -> xr.Dataset:
    """A median of the pixels without clouds, in all bands."""
    clear = ds.where(~ds.scl.isin(CLOUDS))[["red", "nir", "swir"]]
    return clear.median("time")


@idiom
def monthly_climatology(ds: xr.Dataset) -> xr.Dataset:
    """Mean and spread by month of the year."""
    grouped = ds.nir.groupby("time.month")
    return xr.Dataset({"mean": grouped.mean(), "std": grouped.std()})


@idiom
def standardised_anomaly(ds: xr.Dataset) -> xr.DataArray:
    """How far each date is from the climatology of its month, in standard deviations."""
    grouped = ds.nir.groupby("time.month")
    anomaly = grouped - grouped.mean("time")
    return anomaly.groupby("time.month") / grouped.std("time")


@idiom
def seasonal_means(ds: xr.Dataset) -> xr.DataArray:
    """Means of seasons that are weighted with the days of their dates."""
    days = ds.time.dt.days_in_month
    weights = days.groupby("time.season") / days.groupby("time.season").sum()
    return (ds.red * weights).groupby("time.season").sum("time")


@idiom
def smoothed_series(ds: xr.Dataset) -> xr.DataArray:
    """A centred rolling mean of a clear NDVI, averaged over the area."""
    clear = ds.where(~ds.scl.isin(CLOUDS))
    ndvi = (clear.nir - clear.red) / (clear.nir + clear.red)
    return ndvi.rolling(time=3, center=True, min_periods=1).mean().mean(["y", "x"])


@idiom
def series_at_stations(ds: xr.Dataset) -> xr.DataArray:
    """Time series at the pixels nearest to stations."""
    stations = xr.Dataset(
        {
            "x": ("station", [679741.0, 679803.0, 679911.0]),
            "y": ("station", [5151101.0, 5151177.0, 5151133.0]),
        },
        {"station": ["a", "b", "c"]},
    )
    return ds.nir.sel(x=stations.x, y=stations.y, method="nearest")


@idiom
def series_of_fields(ds: xr.Dataset) -> xr.DataArray:
    """Mean NDVI of two fields over time."""
    west, east = (
        Polygon([(679725, 5151085), (679800, 5151100), (679760, 5151190)]),
        Polygon([(679820, 5151090), (679915, 5151095), (679905, 5151195), (679830, 5151150)]),
    )
    ndvi = (ds.nir - ds.red) / (ds.nir + ds.red)
    means = [ndvi.where(rasterize(ds, field)).mean(["y", "x"]) for field in (west, east)]
    return xr.concat(means, xr.Variable("field", ["west", "east"]))


@idiom
def vegetated_area(ds: xr.Dataset) -> xr.DataArray:
    """The area above a threshold on each date, in hectares."""
    ndvi = (ds.nir - ds.red) / (ds.nir + ds.red)
    return (ndvi > 0.4).sum(["y", "x"]) * 100 / 10_000


@idiom
def coarse_statistics(ds: xr.Dataset) -> xr.Dataset:
    """Blocks of 40 m: mean and greatest value of the period."""
    blocks = ds.nir.mean("time").coarsen(x=4, y=4, boundary="trim")
    return xr.Dataset({"mean": blocks.mean(), "max": blocks.max()})


@idiom
def regular_series(ds: xr.Dataset) -> xr.DataArray:
    """Gaps of clouds filled along time, and values at every tenth day."""
    clear = ds.red.where(~ds.scl.isin(CLOUDS))
    days = np.arange("2022-06-10", "2022-08-20", 10, "datetime64[D]").astype("datetime64[ns]")
    return clear.interpolate_na("time").interp(time=days)


@idiom
def water_frequency(ds: xr.Dataset) -> xr.DataArray:
    """How often each pixel is wet, of the clear dates."""
    clear = ~ds.scl.isin(CLOUDS)
    wet = ((ds.red - ds.swir) / (ds.red + ds.swir) > -0.1) & clear
    return (wet.sum("time") / clear.sum("time")).where(clear.any("time"))


@idiom
def change_between_months(ds: xr.Dataset) -> xr.DataArray:
    """The loss of greenness from June to August, where it is large."""
    ndvi = (ds.nir - ds.red) / (ds.nir + ds.red)
    change = ndvi.sel(time="2022-08").mean("time") - ndvi.sel(time="2022-06").mean("time")
    return change.where(abs(change) > 0.02)


def rasterize(ds: xr.Dataset, polygon: Polygon) -> xr.DataArray:
    """Pixels whose centres are in a polygon."""
    transform = from_origin(float(ds.x[0]) - 5, float(ds.y[0]) + 5, 10, 10)
    mask = geometry_mask([polygon], (ds.sizes["y"], ds.sizes["x"]), transform, invert=True)
    return xr.DataArray(mask, dims=("y", "x"), coords={"y": ds.y, "x": ds.x})
