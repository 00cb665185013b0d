"""Each rule from NumPy's calls back to openEO: the processes that a recorded expression becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.bridge.expressions import CLOUDS, ndvi
from tests.bridge.processes import list_child_processes, list_processes

LOAD = ["load_collection"]
LOAD_RED = [*LOAD, "drop_dimension"]
SCALE = [*LOAD_RED, "apply"]

RULES: dict[str, tuple[Callable[[xr.Dataset], Any], list[str]]] = {
    "arithmetic of bands of one collection is a reduction of one load": (ndvi, [*LOAD, "reduce_dimension"]),
    "functions of one cube are one apply": (lambda ds: np.sqrt(ds.red * 2 + 1), SCALE),
    "a mask of the same collection is in the same load": (
        lambda ds: ds.red.where(~ds.scl.isin(CLOUDS)),
        [*LOAD, "reduce_dimension"],
    ),
    "isnan and where fill gaps": (lambda ds: ds.blue.fillna(0), SCALE),
    "reductions that leave out NaN": (lambda ds: ds.blue.mean("time"), [*LOAD_RED, "reduce_dimension"]),
    "extremes of x and y one after the other": (
        lambda ds: ds.blue.max(["y", "x"]),
        [*LOAD_RED, "reduce_dimension", "reduce_dimension"],
    ),
    "means of x and y of all pixels at once": (
        lambda ds: ds.blue.mean(["y", "x"]),
        [*LOAD_RED, "flatten_dimensions", "reduce_dimension"],
    ),
    "groups of consecutive times": (
        lambda ds: ds.blue.groupby_bins(ds.time.dt.dayofyear, [150, 175, 201, 250]).mean(),
        [*LOAD_RED, "aggregate_temporal"],
    ),
    "months": (lambda ds: ds.blue.resample(time="1MS").mean(), [*LOAD_RED, "aggregate_temporal_period"]),
    "months of the year in one year": (
        lambda ds: ds.blue.groupby("time.month").mean(),
        [*LOAD_RED, "aggregate_temporal_period"],
    ),
    "periods without data": (
        lambda ds: ds.blue.resample(time="4D").mean(),
        [*LOAD_RED, "aggregate_temporal"],
    ),
    "groups of scattered times are selected and merged": (
        lambda ds: ds.blue.groupby(ds.time.dt.day % 2).mean(),
        [
            *LOAD_RED,
            *["aggregate_temporal", "reduce_dimension", "add_dimension"] * 2,
            "merge_cubes",
        ],
    ),
    "rolling along time overlaps": (
        lambda ds: ds.blue.rolling(time=3, min_periods=1).max(),
        [*LOAD_RED, *["apply", "aggregate_temporal"] * 2, "merge_cubes"],
    ),
    "rolling in space is a kernel": (
        lambda ds: (
            ds.blue.isel(time=0)
            .fillna(0)
            .rolling(x=3, y=3, center=True, min_periods=1)
            .construct(x="i", y="j", fill_value=0)
            .sum(["i", "j"], skipna=False)
        ),
        ["apply_kernel"],
    ),
    "coarsening is a spatial window": (
        lambda ds: ds.blue.coarsen(x=2, y=2).mean(),
        [*LOAD_RED, "aggregate_spatial_window"],
    ),
    "coarsening of time": (lambda ds: ds.blue.coarsen(time=2).mean(), [*LOAD_RED, "aggregate_temporal"]),
    "variables of one collection are one load": (
        lambda ds: ds[["red", "nir"]].mean("time"),
        [*LOAD, "apply", "reduce_dimension"],
    ),
    "bands stacked and reduced": (
        lambda ds: ds[["red", "nir"]].to_array("band").max("band"),
        [*LOAD, "apply", "reduce_dimension"],
    ),
    "slices of time": (lambda ds: ds.blue.sel(time="2022-07"), [*LOAD_RED, "filter_temporal"]),
    "scattered times": (lambda ds: ds.blue.isel(time=[5, 1]), [*LOAD_RED, "aggregate_temporal"]),
    "one time": (
        lambda ds: ds.blue.isel(time=3),
        [*LOAD_RED, "filter_temporal", "reduce_dimension"],
    ),
    "slices of space": (
        lambda ds: ds.blue.sel(x=slice(679760, 679840)),
        [*LOAD_RED, "filter_bbox"],
    ),
    "points": (
        lambda ds: ds.blue.isel(x=xr.DataArray([1, 5], dims="p"), y=xr.DataArray([2, 2], dims="p")),
        [*LOAD_RED, "aggregate_spatial"],
    ),
    "another order of labels is none": (lambda ds: ds.blue.sortby("y"), LOAD_RED),
    "another order of axes is none": (lambda ds: ds.blue.transpose("x", "y", "time"), LOAD_RED),
    "masks of the client are polygons": (
        lambda ds: ds.blue.where((ds.x - 679800) ** 2 + (ds.y - 5151150) ** 2 < 2500),
        [*LOAD_RED, "mask_polygon"],
    ),
    "weights along time": (
        lambda ds: ds.blue * xr.DataArray(np.arange(14.0), dims="time"),
        [*LOAD_RED, "apply_dimension"],
    ),
    "cumulative sums": (lambda ds: ds.blue.cumsum("time"), [*LOAD_RED, "apply", "apply_dimension"]),
    "gaps along time": (lambda ds: ds.blue.interpolate_na("time"), [*LOAD_RED, "apply_dimension"]),
    "shifted times": (lambda ds: ds.blue.shift(time=1), [*LOAD_RED, "aggregate_temporal"]),
    "cubes of different dimensions": (
        lambda ds: ds.blue - ds.blue.mean("time"),
        [*LOAD_RED, "reduce_dimension", "merge_cubes"],
    ),
    "quantiles": (lambda ds: ds.blue.quantile(0.9, "time"), [*LOAD_RED, "reduce_dimension"]),
}


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: str, offline: xr.Dataset) -> None:
    expression, expected = RULES[rule]
    processes = list_processes(expression(offline))
    if expected[0] == "load_collection":
        assert sorted(processes) == sorted(expected)
    else:
        assert set(expected) <= set(processes)


CHILDREN: dict[str, tuple[Callable[[xr.Dataset], Any], set[str]]] = {
    "comparisons say false for no-data": (lambda ds: ds.scl > 3, {"gt", "is_nodata", "not", "and"}),
    "comparisons of integers need no test": (
        lambda ds: ds.scl.fillna(0).astype("uint8") > 3,
        {"gt", "int", "if", "is_nodata", "not"},
    ),
    "nanmean": (lambda ds: ds.scl.mean("time"), {"mean"}),
    "deviation of the population": (
        lambda ds: ds.scl.std("time"),
        {"mean", "array_apply", "subtract", "power", "sqrt"},
    ),
    "deviation of a sample": (lambda ds: ds.scl.std("time", ddof=1), {"sd"}),
    "quantile": (lambda ds: ds.scl.quantile(0.5, "time"), {"quantiles", "array_element"}),
    "argmax": (lambda ds: ds.scl.argmax("time"), {"max", "array_find", "if", "is_nodata", "ln", "nan"}),
    "clip": (lambda ds: ds.scl.clip(1, 5), {"min", "max"}),
    "isin": (lambda ds: ds.scl.isin([3, 8]), {"eq", "any", "is_nodata", "not", "and"}),
}


@pytest.mark.parametrize("rule", CHILDREN)
def test_child_processes(rule: str, offline: xr.Dataset) -> None:
    expression, expected = CHILDREN[rule]
    assert list_child_processes(expression(offline)) <= expected | {"multiply"}
    assert expected - {"if", "is_nodata", "ln", "nan"} <= list_child_processes(expression(offline))


def test_arguments_of_a_graph(offline: xr.Dataset) -> None:
    graph = offline.red.sel(time="2022-07").mean("time").openeo.graph()
    load = next(n for n in graph.values() if n["process_id"] == "load_collection")
    assert load["arguments"]["bands"] == ["B04"]
    assert load["arguments"]["temporal_extent"] == ["2022-06-01", "2022-09-01"]
    filtered = next(n for n in graph.values() if n["process_id"] == "filter_temporal")
    assert filtered["arguments"]["extent"] == ["2022-07-06T10:10:31Z", "2022-07-27T10:10:32Z"]
    assert sum(n.get("result", False) for n in graph.values()) == 1


def test_what_is_used_twice_is_in_the_graph_once(offline: xr.Dataset) -> None:
    mean = offline.red.mean("time")
    processes = list_processes(xr.Dataset({"a": mean + 1, "b": (mean + 1) * 2, "c": mean.max()}))
    assert processes.count("load_collection") == 1
    assert sum(p == "reduce_dimension" for p in processes) <= 4
