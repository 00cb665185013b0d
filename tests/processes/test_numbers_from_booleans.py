"""What is computed from booleans is a number: it can be compared with numbers again."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.cube.elementwise import is_boolean, mark_boolean
from odc_openeo.graph import evaluate

GRID = GeoBox((12, 18), Affine(10, 0, 680000, 0, -10, 5151000), "EPSG:32632")
TIMES = np.array(["2022-01-01", "2022-01-02", "2022-02-01", "2022-02-05"], "datetime64[ns]")
VALUES = (np.random.default_rng(1).random((4, 2, 12, 18)) > 0.5).astype("float32")
CUBE = {"from_parameter": "cube"}
X = {"from_parameter": "x"}


def make_booleans() -> xr.DataArray:
    """Booleans with room for no-data, as comparisons of cubes give them."""
    coords = {"t": TIMES, "bands": ["a", "b"], **xr_coords(GRID, dims=("y", "x"))}
    lazy = da.from_array(VALUES, chunks=(1, 1, 12, 18))
    return mark_boolean(xr.DataArray(lazy, dims=("t", "bands", "y", "x"), coords=coords))


def child(process_id: str, **arguments: Any) -> dict[str, Any]:
    arguments = arguments or {"data": {"from_parameter": "data"}}
    return {"process_graph": {"n": {"process_id": process_id, "arguments": arguments, "result": True}}}


def on_cube(process_id: str, **arguments: Any) -> dict[str, Any]:
    return {"process_id": process_id, "arguments": {"data": CUBE, **arguments}}


def reduce(process_id: str, dimension: str = "t") -> dict[str, Any]:
    return on_cube("reduce_dimension", dimension=dimension, reducer=child(process_id))


def over_time(process_id: str, **arguments: Any) -> dict[str, Any]:
    data = {"data": {"from_parameter": "data"}} if arguments else {}
    return on_cube("apply_dimension", dimension="t", process=child(process_id, **data, **arguments))


BLOCKS = [{"dimension": d, "value": 6, "unit": "px"} for d in "xy"]
NUMBERS = {
    **{name: reduce(name) for name in ("mean", "sum", "sd", "count", "median", "product", "max")},
    "mean of bands": reduce("mean", "bands"),
    "product with one": on_cube("apply", process=child("multiply", x=X, y=1)),
    "condition": on_cube("apply", process=child("if", value=X, accept=5, reject=2)),
    "cumsum": over_time("cumsum"),
    "quantiles": over_time("quantiles", probabilities=[0.3]),
    "apply_kernel": on_cube("apply_kernel", kernel=[[1, 1, 1]] * 3),
    "months": on_cube("aggregate_temporal_period", period="month", reducer=child("mean")),
    "windows": on_cube("aggregate_spatial_window", size=[2, 2], reducer=child("mean")),
    "average": on_cube("resample_spatial", resolution=20, method="average"),
    "bilinear": on_cube("resample_spatial", resolution=7, method="bilinear"),
    "neighborhood": on_cube("apply_neighborhood", size=BLOCKS, process=child("multiply", x=CUBE, y=3)),
    "merge": {
        "process_id": "merge_cubes",
        "arguments": {
            "cube1": CUBE,
            "cube2": CUBE,
            "overlap_resolver": child("add", x=X, y={"from_parameter": "y"}),
        },
    },
}
NUMBERS["neighborhood"]["arguments"]["process"] = child("multiply", x={"from_parameter": "data"}, y=3)
BOOLEANS = {
    **{name: reduce(name) for name in ("first", "last", "any", "all")},
    "not": on_cube("apply", process=child("not", x=X)),
    "filter": on_cube("filter_bands", bands=["a"]),
    "near": on_cube("resample_spatial", resolution=20, method="near"),
    "months": on_cube("aggregate_temporal_period", period="month", reducer=child("any")),
}


def run(node: dict[str, Any], process: dict[str, Any] | None = None) -> xr.DataArray:
    nodes = {"n": {**node, "result": process is None}}
    if process is not None:
        arguments = {"data": {"from_node": "n"}, "process": process}
        nodes["compared"] = {"process_id": "apply", "arguments": arguments, "result": True}
    return evaluate({"process_graph": nodes}, parameters={"cube": make_booleans()})


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_compared_with_numbers(name: str) -> None:
    computed = run(NUMBERS[name])
    assert not is_boolean(computed)
    compared = run(NUMBERS[name], child("gt", x=X, y=0.4))
    values = np.asarray(computed.values, dtype=float)
    np.testing.assert_array_equal(np.asarray(compared.values == 1), values > 0.4)
    assert (values > 0.4).any()


@pytest.mark.parametrize("name", BOOLEANS)
def test_booleans_stay_booleans(name: str) -> None:
    assert is_boolean(run(BOOLEANS[name]))
    compared = run(BOOLEANS[name], child("eq", x=X, y=True))
    np.testing.assert_array_equal(compared.values == 1, run(BOOLEANS[name]).values == 1)
