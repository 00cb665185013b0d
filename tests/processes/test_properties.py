"""What holds for any cube: laziness, chunks and the order of dimensions change no value, the CRS stays."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.graph import evaluate
from tests.support.graphs import child, value

QUICK = settings(max_examples=6, deadline=None)


def reducing(process_id: str, dimension: str, **arguments: Any) -> dict[str, Any]:
    reducer = child(process_id, data=value("data"), **arguments)
    return child("reduce_dimension", data=value("cube"), dimension=dimension, reducer=reducer)


def along(process_id: str, dimension: str, **arguments: Any) -> dict[str, Any]:
    inner = child(process_id, data=value("data"), **arguments)
    return child("apply_dimension", data=value("cube"), dimension=dimension, process=inner)


MEAN = child("mean", data=value("data"))
REDUCERS = ["min", "max", "sum", "product", "mean", "median", "sd", "variance", "first", "last", "count"]
GRAPHS: dict[str, dict[str, Any]] = {
    **{f"{id_} over {d}": reducing(id_, d) for id_ in REDUCERS for d in ("t", "bands")},
    "quantiles": along("quantiles", "t", probabilities=[0.3, 0.8]),
    **{id_: along(id_, "t") for id_ in ("cumsum", "cummax", "array_interpolate_linear", "sort")},
    "apply": child("apply", data=value("cube"), process=child("sqrt", x=value("x"))),
    "spatial": child("reduce_spatial", data=value("cube"), reducer=MEAN),
    "months": child("aggregate_temporal_period", data=value("cube"), period="month", reducer=MEAN),
    "kernel": child("apply_kernel", data=value("cube"), kernel=[[0, 1, 0], [1, 1, 1], [0, 1, 0]]),
    "window": child("aggregate_spatial_window", data=value("cube"), size=[2, 2], reducer=MEAN),
    "ndvi": child("ndvi", data=value("cube"), red="red", nir="nir"),
    "grid": child("resample_spatial", data=value("cube"), resolution=20, method="bilinear"),
    "labels": child("filter_bands", data=value("cube"), bands=["nir"]),
}


@st.composite
def cubes(draw: st.DrawFn) -> xr.DataArray:
    """Small cubes of integers with no-data, or of floats with NaN."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dates, height, width = draw(st.integers(2, 6)), draw(st.integers(2, 5)), draw(st.integers(2, 5))
    shape = (dates, 2, height, width)
    missing = random.random(shape) < draw(st.sampled_from([0, 0.2, 0.9]))
    grid = GeoBox.from_bbox(
        (600000, 5000000, 600000 + width * 10, 5000000 + height * 10), 32632, resolution=10
    )
    times = np.datetime64("2022-01-10", "ns") + np.arange(dates) * np.timedelta64(13, "D")
    coords = {"t": times, "bands": ["red", "nir"], **xr_coords(grid, dims=("y", "x"))}
    if draw(st.booleans()):
        numbers = np.where(missing, 0, random.integers(1, 2000, shape)).astype(np.uint16)
        return xr.DataArray(numbers, dims=("t", "bands", "y", "x"), coords=coords, attrs={"nodata": 0})
    floats = np.where(missing, np.nan, random.uniform(1, 3, shape))
    return xr.DataArray(floats, dims=("t", "bands", "y", "x"), coords=coords)


def run(graph: dict[str, Any], data: xr.DataArray) -> xr.DataArray:
    with dask.config.set(scheduler=_refuse):
        result = evaluate(graph, parameters={"cube": data})
    return result.compute(scheduler="synchronous")


def _refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("dask computed during evaluation")


def assert_same(one: xr.DataArray, other: xr.DataArray) -> None:
    assert one.dims == other.dims
    assert one.dtype == other.dtype
    assert one.attrs.get("nodata") == other.attrs.get("nodata")
    for name in one.dims:
        if name in one.coords:
            np.testing.assert_array_equal(one[name].values, other[name].values)
    np.testing.assert_allclose(one.values, other.values, rtol=1e-6)


@pytest.mark.parametrize("name", GRAPHS)
@given(data=st.data())
@QUICK
def test_chunks_do_not_matter(name: str, data: st.DataObject) -> None:
    cube = data.draw(cubes())
    chunks = {d: data.draw(st.integers(1, n), label=f"chunk of {d}") for d, n in cube.sizes.items()}
    assert_same(run(GRAPHS[name], cube.chunk(chunks)), run(GRAPHS[name], cube))


@pytest.mark.parametrize("name", GRAPHS)
@given(data=st.data())
@QUICK
def test_the_order_of_dimensions_does_not_matter(name: str, data: st.DataObject) -> None:
    cube = data.draw(cubes())
    order = data.draw(st.permutations(list(cube.dims)))
    result, other = run(GRAPHS[name], cube), run(GRAPHS[name], cube.transpose(*order))
    assert_same(other.transpose(*result.dims), result)


@pytest.mark.parametrize("name", [n for n in GRAPHS if n != "spatial"])
@given(cube=cubes())
@QUICK
def test_the_reference_system_stays(name: str, cube: xr.DataArray) -> None:
    result = run(GRAPHS[name], cube.chunk())
    assert result.odc.crs == cube.odc.crs
    assert result.odc.geobox.boundingbox.left == cube.odc.geobox.boundingbox.left
