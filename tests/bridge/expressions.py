"""Expressions of xarray that the bridge sends to a back-end, by the operation that they show.

Each takes a dataset with the variables red, nir, swir and scl and the dimensions time, y and x; the same
function runs on recorded arrays and on downloaded pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

CLOUDS = [3, 8, 9, 10]


@dataclass(frozen=True)
class Expression:
    """An expression, the operation that it shows, and the section of the table that it is in."""

    section: str
    code: str
    function: Callable[[xr.Dataset], Any]


EXPRESSIONS: list[Expression] = []


def section(name: str, **functions: Callable[[xr.Dataset], Any]) -> None:
    """Register expressions of a section."""
    for key, function in functions.items():
        EXPRESSIONS.append(Expression(name, key, function))


def mask_clouds(ds: xr.Dataset) -> xr.Dataset:
    return ds[["red", "nir"]].where(~ds.scl.isin(CLOUDS))


def ndvi(ds: xr.Dataset) -> xr.DataArray:
    return (ds.nir - ds.red) / (ds.nir + ds.red)


section(
    "arithmetic",
    add=lambda ds: ds.red + ds.nir,
    subtract=lambda ds: ds.red - 0.1,
    multiply=lambda ds: 2 * ds.red,
    divide=lambda ds: ds.red / ds.nir,
    floor_divide=lambda ds: ds.red // 0.03,
    remainder=lambda ds: ds.red % 0.03,
    power=lambda ds: ds.red**2,
    negative=lambda ds: -ds.red,
    absolute=lambda ds: abs(ds.red - 0.2),
    three_bands=lambda ds: ds.red + ds.nir * ds.swir,
    evi=lambda ds: 2.5 * (ds.nir - ds.red) / (ds.nir + 6 * ds.red + 1),
    different_times=lambda ds: ds.red - ds.nir.mean("time"),
    different_dimensions=lambda ds: ds.red.mean(["y", "x"]) * ds.nir,
    reverse_power=lambda ds: 2**ds.red,
    astype=lambda ds: (ds.red * 100 + 0.005).astype("int16"),
    integers=lambda ds: ds.scl.fillna(0).astype("uint8") + 1,
    outer_product=lambda ds: ds.red.mean("time") * xr.DataArray([1.0, 2.0], dims="factor"),
    boolean_sum=lambda ds: (ds.red > 0.1) + (ds.nir > 0.2) * 1,
)
section(
    "functions",
    sqrt=lambda ds: np.sqrt(ds.red),
    exp=lambda ds: np.exp(ds.red),
    log=lambda ds: np.log(ds.red),
    log10=lambda ds: np.log10(ds.red),
    log2=lambda ds: np.log2(ds.red),
    log1p=lambda ds: np.log1p(ds.red),
    expm1=lambda ds: np.expm1(ds.red),
    sin=lambda ds: np.sin(ds.red),
    cos=lambda ds: np.cos(ds.red),
    tan=lambda ds: np.tan(ds.red),
    arcsin=lambda ds: np.arcsin(ds.red),
    arctan=lambda ds: np.arctan(ds.red),
    arctan2=lambda ds: np.arctan2(ds.red, ds.nir),
    hypot=lambda ds: np.hypot(ds.red, ds.nir),
    tanh=lambda ds: np.tanh(ds.red),
    deg2rad=lambda ds: np.deg2rad(ds.red * 90),
    floor=lambda ds: np.floor(ds.red * 10),
    ceil=lambda ds: np.ceil(ds.red * 10),
    trunc=lambda ds: np.trunc(ds.red * 10),
    rint=lambda ds: np.rint(ds.red * 10 + 0.0103),
    round=lambda ds: (ds.red + 0.00005).round(2),
    sign=lambda ds: np.sign(ds.red - 0.2),
    square=lambda ds: np.square(ds.red),
    reciprocal=lambda ds: np.reciprocal(ds.nir),
    minimum=lambda ds: np.minimum(ds.red, ds.nir),
    maximum=lambda ds: np.maximum(ds.red, 0.2),
    fmax=lambda ds: np.fmax(ds.red.where(ds.scl == 4), ds.nir.where(ds.scl == 5)),
    clip=lambda ds: ds.red.clip(0.05, 0.2),
    clip_below=lambda ds: ds.red.clip(min=0.1),
)
section(
    "comparison and masks",
    greater=lambda ds: ds.red > 0.1,
    less_equal=lambda ds: ds.red <= ds.nir,
    equal_nan=lambda ds: ds.red.where(ds.scl == 4) == ds.red,
    not_equal_nan=lambda ds: ds.red.where(ds.scl == 4) != ds.red,
    and_or_not=lambda ds: ((ds.red > 0.1) & (ds.nir > 0.2)) | ~(ds.scl == 4),
    xor=lambda ds: (ds.red > 0.1) ^ (ds.nir > 0.2),
    isin=lambda ds: ds.scl.isin(CLOUDS),
    not_isin=lambda ds: ~ds.scl.isin(CLOUDS),
    where=lambda ds: ds.red.where(ds.scl == 4),
    where_value=lambda ds: ds.red.where(ds.scl == 4, -1),
    where_array=lambda ds: ds.red.where(ds.scl == 4, ds.nir),
    xr_where=lambda ds: xr.where(ds.red > 0.1, 1, 0),
    xr_where_arrays=lambda ds: xr.where(ds.red > 0.1, ds.red, ds.nir),
    where_broadcast=lambda ds: ds.red.where(ds.nir.mean("time") > 0.25),
    where_three_shapes=lambda ds: xr.where(ds.nir.mean("time") > 0.25, ds.red, ds.nir.max("time")),
    isnull=lambda ds: ds.red.where(ds.scl == 4).isnull(),
    notnull=lambda ds: ds.red.where(ds.scl == 4).notnull(),
    fillna=lambda ds: ds.red.where(ds.scl == 4).fillna(0),
    fillna_array=lambda ds: ds.red.where(ds.scl == 4).fillna(ds.nir),
    fillna_mean=lambda ds: ds.red.where(ds.scl == 4).fillna(ds.red.mean("time")),
    isfinite=lambda ds: np.isfinite(ds.red.where(ds.scl == 4)),
    combine_first=lambda ds: ds.red.where(ds.scl == 4).combine_first(ds.nir),
    client_mask=lambda ds: ds.red.where(make_circle(ds)),
    client_mask_and=lambda ds: (ds.red > 0.1) & make_circle(ds),
    client_times=lambda ds: ds.red.where(ds.time.dt.month == 7),
    dropped=lambda ds: ds.red.where(ds.x > ds.x.mean()),
)
section(
    "reductions",
    mean=lambda ds: ds.red.mean("time"),
    mean_nan=lambda ds: ds.red.where(ds.scl == 4).mean("time"),
    mean_no_skip=lambda ds: ds.red.where(ds.scl == 4).mean("time", skipna=False),
    median=lambda ds: mask_clouds(ds).red.median("time"),
    minimum_of=lambda ds: mask_clouds(ds).red.min("time"),
    maximum_of=lambda ds: mask_clouds(ds).red.max("time"),
    sum=lambda ds: mask_clouds(ds).red.sum("time"),
    sum_min_count=lambda ds: ds.red.where(ds.scl == 4).sum("time", min_count=5),
    prod=lambda ds: ds.red.prod("time"),
    std=lambda ds: mask_clouds(ds).red.std("time"),
    var=lambda ds: mask_clouds(ds).red.var("time"),
    std_ddof=lambda ds: ds.red.std("time", ddof=1),
    count=lambda ds: ds.red.where(ds.scl == 4).count("time"),
    any=lambda ds: (ds.red > 0.3).any("time"),
    all=lambda ds: (ds.red > 0.05).all("time"),
    quantile=lambda ds: ds.red.quantile(0.9, "time"),
    quantiles=lambda ds: ds.red.where(ds.scl == 4).quantile([0.1, 0.5], "time"),
    argmax=lambda ds: ds.red.argmax("time"),
    argmin=lambda ds: ds.red.argmin("time"),
    mean_of_pixels=lambda ds: ds.red.where(ds.scl == 4).mean(["y", "x"]),
    median_of_pixels=lambda ds: ds.red.median(["y", "x"]),
    std_of_pixels=lambda ds: ds.red.std(["y", "x"]),
    max_of_rows=lambda ds: ds.red.max("x"),
    mean_of_all=lambda ds: ds.red.mean(),
    sum_of_all=lambda ds: ds.red.sum(),
    count_of_all=lambda ds: (ds.red > 0.1).sum(),
    range_of=lambda ds: ds.red.max("time") - ds.red.min("time"),
    dataset_mean=lambda ds: ds[["red", "nir"]].mean("time").to_array("band"),
    to_array_mean=lambda ds: ds[["red", "nir", "swir"]].to_array("band").mean("band"),
    to_array_max=lambda ds: ds[["red", "nir", "swir"]].to_array("band").max("band"),
    cumsum=lambda ds: mask_clouds(ds).red.cumsum("time"),
    cumprod=lambda ds: ds.red.cumprod("time"),
)
section(
    "selection",
    isel_time=lambda ds: ds.red.isel(time=3),
    isel_last=lambda ds: ds.red.isel(time=-1),
    isel_slice=lambda ds: ds.red.isel(time=slice(2, 6)),
    isel_step=lambda ds: ds.red.isel(time=slice(None, None, 3)),
    isel_list=lambda ds: ds.red.isel(time=[5, 1, 3]),
    sel_day=lambda ds: ds.red.sel(time="2022-06-15"),
    sel_month=lambda ds: ds.red.sel(time="2022-07"),
    sel_slice=lambda ds: ds.red.sel(time=slice("2022-06-10", "2022-07-10")),
    sel_nearest=lambda ds: ds.red.sel(time="2022-07-01", method="nearest"),
    sel_box=lambda ds: ds.red.sel(x=slice(679760, 679840), y=slice(5151180, 5151120)),
    isel_pixel=lambda ds: ds.red.isel(x=4, y=5),
    isel_row=lambda ds: ds.red.isel(y=5),
    sel_pixel=lambda ds: ds.red.sel(x=679800, y=5151150, method="nearest"),
    points=lambda ds: ds.red.isel(
        x=xr.DataArray([1, 5, 7], dims="station"), y=xr.DataArray([2, 2, 9], dims="station")
    ),
    points_nearest=lambda ds: ds.red.sel(
        x=xr.DataArray([679741.0, 679803.0], dims="station"),
        y=xr.DataArray([5151101.0, 5151177.0], dims="station"),
        method="nearest",
    ),
    boolean_times=lambda ds: ds.red.isel(time=(ds.time.dt.month == 7).values),
    drop_sel=lambda ds: ds.red.drop_isel(time=[0, 2]),
    head=lambda ds: ds.red.head(time=2),
    thin=lambda ds: ds.red.thin(time=4),
    loc=lambda ds: ds.red.loc["2022-08"],
    reversed_time=lambda ds: ds.red.isel(time=slice(None, None, -1)),
    reversed_weights=lambda ds: ds.red.isel(time=slice(None, None, -1)) * np.arange(14).reshape(-1, 1, 1),
    reversed_mean=lambda ds: ds.red.isel(time=slice(None, None, -1)).rolling(time=2).mean(),
    reversed_rows=lambda ds: ds.red.sortby("y").mean("x").dot(make_row_weights(ds)),
    shuffled_months=lambda ds: ds.red.isel(time=[13, 0, 7, 2]).groupby("time.month").mean(),
    list_weights=lambda ds: ds.red.isel(time=[5, 1, 3]) * np.arange(3).reshape(-1, 1, 1),
    sortby_y=lambda ds: ds.red.sortby("y"),
    first_of_time=lambda ds: ds.red.resample(time="1MS").first(),
)
section(
    "groups of time",
    groupby_month_mean=lambda ds: ds.red.groupby("time.month").mean(),
    groupby_month_max=lambda ds: mask_clouds(ds).red.groupby("time.month").max(),
    groupby_season=lambda ds: ds.red.groupby("time.season").mean(),
    groupby_weekday=lambda ds: ds.red.groupby("time.dayofweek").mean(),
    groupby_parity=lambda ds: ds.red.groupby(ds.time.dt.day % 2).median(),
    groupby_sum=lambda ds: mask_clouds(ds).red.groupby("time.month").sum(),
    groupby_count=lambda ds: mask_clouds(ds).red.groupby("time.month").count(),
    groupby_std=lambda ds: ds.red.groupby("time.month").std(),
    resample_month=lambda ds: ds.red.resample(time="1MS").mean(),
    resample_median=lambda ds: mask_clouds(ds).red.resample(time="1MS").median(),
    resample_sum=lambda ds: mask_clouds(ds).red.resample(time="1MS").sum(),
    resample_gaps=lambda ds: ds.red.resample(time="3D").mean(),
    resample_10_days=lambda ds: ds.red.resample(time="10D").max(),
    resample_quarter=lambda ds: ds.red.resample(time="QS").mean(),
    anomaly=lambda ds: ds.red.groupby("time.month") - ds.red.groupby("time.month").mean(),
    anomaly_parity=lambda ds: anomaly_by(ds, ds.time.dt.day % 2),
    groupby_map=lambda ds: ds.red.groupby("time.month").map(lambda group: group - group.mean("time")),
    groupby_bins=lambda ds: ds.red.groupby_bins(ds.time.dt.dayofyear, [150, 180, 200, 250]).mean(),
)
section(
    "windows",
    rolling_mean=lambda ds: ds.red.rolling(time=3).mean(),
    rolling_center=lambda ds: ds.red.rolling(time=3, center=True).mean(),
    rolling_min_periods=lambda ds: mask_clouds(ds).red.rolling(time=3, min_periods=1).mean(),
    rolling_max=lambda ds: ds.red.rolling(time=3).max(),
    rolling_median=lambda ds: ds.red.rolling(time=3, min_periods=1).median(),
    rolling_sum=lambda ds: mask_clouds(ds).red.rolling(time=4, min_periods=2).sum(),
    rolling_pixels=lambda ds: ds.red.isel(time=0).rolling(x=3, y=3, center=True).mean(),
    rolling_pixels_min=lambda ds: ds.red.isel(time=0).rolling(x=3, center=True, min_periods=1).min(),
    rolling_pixels_count=lambda ds: ds.red.isel(time=0).rolling(x=3, y=3, center=True, min_periods=1).mean(),
    coarsen=lambda ds: ds.red.coarsen(x=2, y=2).mean(),
    coarsen_max=lambda ds: mask_clouds(ds).red.coarsen(x=4, y=3).max(),
    coarsen_trim=lambda ds: ds.red.coarsen(x=3, y=5, boundary="trim").median(),
    coarsen_time=lambda ds: ds.red.coarsen(time=2).mean(),
    shift=lambda ds: ds.red.shift(time=1),
    shift_back=lambda ds: ds.red.shift(time=-2),
    shift_pixels=lambda ds: ds.red.isel(time=0).shift(x=1),
    diff=lambda ds: ds.red.diff("time"),
    diff_second=lambda ds: ds.red.diff("time", n=2),
    diff_pixels=lambda ds: ds.red.isel(time=0).diff("x"),
    roll=lambda ds: ds.red.roll(time=2),
    pad_time=lambda ds: ds.red.pad(time=(1, 0), constant_values=0),
)
section(
    "weights and interpolation",
    weighted_time=lambda ds: ds.red.weighted(make_weights(ds)).mean("time"),
    weighted_sum=lambda ds: mask_clouds(ds).red.weighted(make_weights(ds)).sum("time"),
    weighted_rows=lambda ds: ds.red.weighted(make_row_weights(ds)).mean(["y", "x"]),
    dot=lambda ds: ds.red.dot(make_weights(ds), dim="time"),
    dot_bands=lambda ds: xr.dot(ds.red, ds.nir, dim="time"),
    times_vector=lambda ds: ds.red * make_weights(ds),
    interp_time=lambda ds: ds.red.interp(time=np.array(["2022-06-20", "2022-07-15T12:00"], "datetime64[ns]")),
    interpolate_na=lambda ds: mask_clouds(ds).red.interpolate_na("time"),
    differentiate=lambda ds: ds.red.differentiate("time", datetime_unit="D"),
    integrate=lambda ds: ds.red.integrate("time", datetime_unit="D"),
    cov=lambda ds: xr.cov(ds.red, ds.nir, "time"),
    corr=lambda ds: xr.corr(ds.red, ds.nir, "time"),
)
section(
    "shape",
    transpose=lambda ds: ds.red.transpose("x", "time", "y"),
    expand_dims=lambda ds: ds.red.expand_dims("band"),
    squeeze=lambda ds: ds.red.isel(time=[2]).squeeze("time"),
    concat_time=lambda ds: xr.concat([ds.red.isel(time=slice(0, 2)), ds.red.isel(time=slice(4, 6))], "time"),
    concat_bands=lambda ds: xr.concat([ds.red, ds.nir], "band"),
    to_array=lambda ds: ds[["red", "nir"]].to_array("band"),
    stack_reduced=lambda ds: xr.concat([ds.red.min("time"), ds.red.max("time")], "statistic"),
    rename=lambda ds: ds.red.rename(time="date").mean("date"),
    assign_coords=lambda ds: ds.red.assign_coords(time=ds.time.dt.dayofyear.values).sel(time=slice(160, 200)),
    full_like=lambda ds: xr.full_like(ds.red, 3.0),
    zeros_like=lambda ds: xr.zeros_like(ds.red),
    swap=lambda ds: ds.red.isel(time=0).T,
    reindex=lambda ds: ds.red.reindex(time=ds.time.values[[1, 3]]),
)
section(
    "combinations",
    months_less_shifted=lambda ds: monthly(ds.red) - monthly(ds.red).shift(time=1),
    months_diff=lambda ds: monthly(ds.red).diff("time"),
    months_rolling=lambda ds: monthly(ds.red).rolling(time=2).mean(),
    months_cumsum=lambda ds: ds.red.resample(time="1MS").sum().cumsum("time"),
    month_quantile=lambda ds: ds.red.groupby("time.month").quantile(0.3),
    other_anomaly=lambda ds: (ds.nir.groupby("time.month") - ds.red.groupby("time.month").mean()).std("time"),
    climatology_of_july=lambda ds: ds.red.groupby("time.month").mean().sel(month=7),
    parity_max=lambda ds: ds.red.groupby(ds.time.dt.day % 2).mean().max("day"),
    dataset_anomaly=lambda ds: anomaly_of(ds[["red", "nir"]]).to_array("band"),
    coarse_in_time_and_space=lambda ds: ds.red.coarsen(time=2).mean().coarsen(x=2, y=2).max(),
    coarse_difference=lambda ds: ds.red.coarsen(x=2, y=2).mean() - ds.nir.coarsen(x=2, y=2).max(),
    z_score=lambda ds: (ds.red - ds.red.mean("time")) / ds.red.std("time"),
    z_score_of_all=lambda ds: (ds.red - ds.red.mean()) / ds.red.std(),
    above_the_mean=lambda ds: ds.red.where(ds.red > ds.red.mean("time")).count("time"),
    slope=lambda ds: np.hypot(
        ds.red.isel(time=0).diff("x").isel(y=slice(1, None)),
        ds.red.isel(time=0).diff("y").isel(x=slice(1, None)),
    ),
    shift_rows_back=lambda ds: ds.red.isel(time=0).shift(y=-2),
    rolling_max_of_pixels=lambda ds: ds.red.isel(time=0).rolling(x=3, y=5, center=True, min_periods=1).max(),
    rolling_even=lambda ds: ds.red.isel(time=0).rolling(x=4, y=2, min_periods=1).mean(),
    correlation_of_series=lambda ds: xr.corr(ds.red.mean(["y", "x"]), ds.nir.mean(["y", "x"])),
    last_clear=lambda ds: ds.red.where(ds.scl == 4).resample(time="1MS").last(),
    later_before_earlier=lambda ds: xr.concat(
        [ds.red.sel(time="2022-08"), ds.red.sel(time="2022-06")], "time"
    ),
    points_of_an_index=lambda ds: (
        ndvi(ds)
        .isel(x=xr.DataArray([1, 5], dims="station"), y=xr.DataArray([2, 2], dims="station"))
        .mean("time")
    ),
    weighted_variance=lambda ds: ds.red.weighted(make_weights(ds)).var("time"),
    one_pixel=lambda ds: ds.red.isel(time=0, x=0, y=0),
)


def monthly(array: xr.DataArray) -> xr.DataArray:
    return array.resample(time="1MS").mean()


def anomaly_of(ds: xr.Dataset) -> xr.Dataset:
    grouped = ds.groupby("time.month")
    return grouped - grouped.mean()


def make_weights(ds: xr.Dataset) -> xr.DataArray:
    return xr.DataArray(np.linspace(1, 2, ds.sizes["time"]), dims="time", coords={"time": ds.time})


def make_row_weights(ds: xr.Dataset) -> xr.DataArray:
    return xr.DataArray(np.linspace(1, 2, ds.sizes["y"]), dims="y", coords={"y": ds.y})


def make_circle(ds: xr.Dataset) -> xr.DataArray:
    return (ds.x - ds.x.mean()) ** 2 + (ds.y - ds.y.mean()) ** 2 < 50**2


def anomaly_by(ds: xr.Dataset, labels: xr.DataArray) -> xr.DataArray:
    grouped = ds.red.groupby(labels.rename("label"))
    return grouped - grouped.mean()
