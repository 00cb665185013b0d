"""Cubes from which filters left nothing: a result as empty, or an openEO error, never any other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from odc_openeo.errors import OpenEOError
from odc_openeo.graph import evaluate
from tests.processes.test_properties import GRAPHS, MEAN, along, reducing
from tests.support.graphs import child, value

CUBE, OTHER, DATA, X = (value(name) for name in ("cube", "other", "data", "x"))
LARGEST = child("max", data=[X, value("y")])
RING = [[10.27, 45.14], [10.275, 45.14], [10.27, 45.145], [10.27, 45.14]]
POLYGON = {"type": "Polygon", "coordinates": [RING]}
PIXELS = [{"dimension": d, "value": 2, "unit": "px"} for d in "xy"]
SINGLE = [{"dimension": d, "value": 1, "unit": "px"} for d in ("x", "y", "bands")]
RIM = [{"dimension": d, "value": 1, "unit": "px"} for d in "xy"]
PLUS = child("add", x=DATA, y=1)
DEGREES = {"west": 10.27, "south": 45.14, "east": 10.28, "north": 45.16}

MORE: dict[str, dict[str, Any]] = {
    "mask": child("mask", data=CUBE, mask=CUBE),
    "mask_polygon": child("mask_polygon", data=CUBE, mask=POLYGON),
    "filter_spatial": child("filter_spatial", data=CUBE, geometries=POLYGON),
    "filter_bbox": child("filter_bbox", data=CUBE, extent=DEGREES),
    "filter_temporal": child("filter_temporal", data=CUBE, extent=["2022-01-01", "2022-02-01"]),
    "zones": child("aggregate_spatial", data=CUBE, geometries=POLYGON, reducer=MEAN),
    "counts": child(
        "aggregate_spatial", data=CUBE, geometries=POLYGON, reducer=MEAN, target_dimension="numbers"
    ),
    "slope": child("slope", data=CUBE),
    "merge": child(
        "merge_cubes", cube1=CUBE, cube2=CUBE, overlap_resolver=child("max", data=[X, value("y")])
    ),
    "nearest": child("resample_spatial", data=CUBE, resolution=200),
    "laea": child("resample_spatial", data=CUBE, projection=3035),
    "like": child("resample_cube_spatial", data=CUBE, target=CUBE),
    "times": child("resample_cube_temporal", data=CUBE, target=CUBE),
    **{f"kernel {b}": child("apply_kernel", data=CUBE, kernel=[[1, 1, 1]], border=b) for b in ("wrap", 2)},
    "blocks": child("apply_neighborhood", data=CUBE, size=PIXELS, overlap=RIM, process=PLUS),
    "single": child("apply_neighborhood", data=CUBE, size=SINGLE, process=child("cumsum", data=DATA)),
    "trim": child("aggregate_spatial_window", data=CUBE, size=[2, 2], boundary="trim", reducer=MEAN),
    "intervals": child("aggregate_temporal", data=CUBE, intervals=[["2022-01-01", None]], reducer=MEAN),
    "flatten": child("flatten_dimensions", data=CUBE, dimensions=["bands", "t"], target_dimension="both"),
    "trim_cube": child("trim_cube", data=CUBE),
    **{f"{id_} of columns": reducing(id_, "x") for id_ in ("mean", "max", "first", "count", "sd", "median")},
    "element": reducing("array_element", "x", index=0),
    **{f"{id_} along rows": along(id_, "y") for id_ in ("cumsum", "sort", "order", "extrema")},
}
CUTS = {"columns": ["x"], "rows": ["y"], "pixels": ["x", "y"], "dates": ["t"], "bands": ["bands"]}


ATTRIBUTES: dict[str, dict[str, Any]] = {"uint16": {"nodata": 0}, "float64": {}}
CHUNKS: tuple[tuple[dict[str, int], ...], ...] = (
    ({}, {"bands": 1, "y": 2}),
    ({"t": 1}, {"x": 1}),
)


def pair_cases(names: Iterable[str]) -> list[Any]:
    """Each process with each cut; each process also with each pair of type and chunks."""
    dtypes = list(ATTRIBUTES)
    return [
        (name, cut, dtypes[(i + j) % 2], CHUNKS[(i // 2 + j // 2) % 2])
        for i, name in enumerate(names)
        for j, cut in enumerate(CUTS)
    ]


def build_cube(dtype: str) -> xr.DataArray:
    grid = GeoBox.from_bbox((600000, 5000000, 601400, 5001200), 32632, resolution=100)
    times = np.datetime64("2022-01-10", "ns") + np.arange(3) * np.timedelta64(13, "D")
    coords = {"t": times, "bands": ["red", "nir"], **xr_coords(grid, dims=("y", "x"))}
    values = np.ones((3, 2, 12, 14), dtype)
    return xr.DataArray(values, dims=("t", "bands", "y", "x"), coords=coords, attrs=ATTRIBUTES[dtype])


@pytest.mark.parametrize(("name", "cut", "dtype", "chunkings"), pair_cases([*GRAPHS, *MORE]))
def test_process_of_empty_cube_gives_same_result_in_chunks(
    name: str, cut: str, dtype: str, chunkings: tuple[dict[str, int], ...]
) -> None:
    graph = {**GRAPHS, **MORE}[name]
    empty = build_cube(dtype).isel(dict.fromkeys(CUTS[cut], slice(0, 0)))
    expected = _evaluate(graph, empty)
    for chunks in chunkings:
        result = _evaluate(graph, empty.chunk(chunks))
        if isinstance(expected, xr.DataArray):
            assert (result.dims, result.shape) == (expected.dims, expected.shape)
            np.testing.assert_array_equal(result.values, expected.values)
        else:
            assert result == expected


PAIRS: dict[str, dict[str, Any]] = {
    "mask": child("mask", data=CUBE, mask=OTHER),
    "merge": child("merge_cubes", cube1=CUBE, cube2=OTHER, overlap_resolver=LARGEST),
    "like": child("resample_cube_spatial", data=CUBE, target=OTHER),
    "times": child("resample_cube_temporal", data=CUBE, target=OTHER),
}


@pytest.mark.parametrize("shift", [0, 500])
@pytest.mark.parametrize("dtype", ATTRIBUTES)
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", PAIRS)
def test_process_of_two_cubes_with_one_empty_input(name: str, cut: str, dtype: str, shift: int) -> None:
    full = build_cube(dtype)
    empty = full.isel(dict.fromkeys(CUTS[cut], slice(0, 0)))
    moved = full.assign_coords(x=full.x + shift)
    for one, other in ((empty, moved), (moved, empty)):
        expected = _evaluate(PAIRS[name], one, other)
        for chunks in ({"t": 1}, {"x": 5, "y": 4}):
            result = _evaluate(PAIRS[name], one.chunk(chunks), other.chunk(chunks))
            if isinstance(expected, xr.DataArray):
                np.testing.assert_array_equal(result.values, expected.values)
            else:
                assert result == expected


def _evaluate(graph: dict[str, Any], data: xr.DataArray, other: xr.DataArray | None = None) -> Any:
    try:
        parameters = {"cube": data} if other is None else {"cube": data, "other": other}
        return evaluate(graph, parameters=parameters).compute(scheduler="synchronous")
    except OpenEOError as error:
        return error.code
