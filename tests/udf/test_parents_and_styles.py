"""Every form in which functions are written, under every process that calls them.

What comes out is compared with the same calculation by numpy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from odc_openeo.errors import ProcessParameterInvalid, UdfResultInvalid
from odc_openeo.graph import evaluate
from odc_openeo.registry.environment import Environment
from tests.processes.rasters import grid, nothing_computes, raster
from tests.support.graphs import value
from tests.udf.conftest import Run, udf, udf_arguments

VALUES = np.random.default_rng(0).random((5, 3, 8, 10)).astype("float32")
ROWS, COLUMNS = slice(2, 5), slice(3, 7)
CUBE = value("cube")
LAZY = {"t": 1, "y": 4, "x": 5}

STYLES = {
    "DataArray": """
import xarray

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    return eval(context["returns"])
""",
    "XarrayDataCube": """
from openeo.udf import XarrayDataCube

def apply_datacube(cube: XarrayDataCube, context: dict) -> XarrayDataCube:
    cube = cube.get_array()
    return XarrayDataCube(eval(context["returns"]))
""",
    "annotations as strings": """
from __future__ import annotations
import xarray

def apply_datacube(cube: xarray.core.dataarray.DataArray, context: dict) -> xarray.core.dataarray.DataArray:
    return eval(context["returns"])
""",
    "DataCube of openeo_udf": """
from openeo_udf.api.datacube import DataCube
from typing import Dict

def apply_datacube(cube: DataCube, context: Dict) -> DataCube:
    cube = cube.get_array()
    return DataCube(eval(context["returns"]))
""",
    "hypercube of openeo_udf": """
from openeo_udf.api.datacube import DataCube

def apply_hypercube(cube: DataCube, context: dict) -> DataCube:
    cube = cube.array
    return DataCube(eval(context["returns"]))
""",
    "UdfData": """
from openeo.udf import UdfData, XarrayDataCube

def apply_udf_data(data: UdfData):
    cube, context = data.get_datacube_list()[0].get_array(), data.user_context
    data.set_datacube_list([XarrayDataCube(eval(context["returns"]))])
""",
    "UdfData of openeo_udf": """
from openeo_udf.api.udf_data import UdfData
from openeo_udf.api.datacube import DataCube

def transform(data: UdfData) -> UdfData:
    cube, context = data.datacube_list[0].array, data.user_context
    data.datacube_list = [DataCube(eval(context["returns"]))]
    return data
""",
    "state of the module": """
import functools
import xarray
from openeo.udf import inspect

@functools.lru_cache(maxsize=1)
def load_model(name):
    return {"name": name}

calls = []
first = load_model("model")

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    assert load_model("model") is first
    calls.append(cube.shape)
    inspect(data=len(calls), message="calls")
    return eval(context["returns"])
""",
    "metadata": """
import xarray
from openeo.metadata import CollectionMetadata

def apply_metadata(metadata: CollectionMetadata, context: dict) -> CollectionMetadata:
    if context["renames"] and metadata.has_band_dimension():
        return metadata.rename_labels("bands", [name + "_new" for name in metadata.band_names])
    return metadata

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    return eval(context["returns"])
""",
}


@dataclass(frozen=True)
class Parent:
    """A process with a child process: its arguments, what the function returns, and the result by numpy."""

    process: str
    returns: str
    expected: Callable[[np.ndarray], np.ndarray]
    dims: tuple[str, ...] = ("t", "bands", "y", "x")
    arguments: Mapping[str, Any] = field(default_factory=dict)
    parameter: str = "process"
    data: Any = field(default_factory=lambda: value("data"))
    cube: str = "data"
    around: Mapping[str, Any] | None = None
    renames: bool = True
    """Whether `apply_metadata` renames bands."""
    keeps_labels: bool = False
    """Whether the process keeps the labels of bands, whatever the function says."""

    def make_arguments(self, code: str) -> dict[str, Any]:
        """Build the arguments of the process with a function that returns what ``returns`` says."""
        arguments = udf_arguments(code, self.data, context={"returns": self.returns, "renames": self.renames})
        nodes: dict[str, Any] = {"udf": {"process_id": "run_udf", "arguments": arguments, "result": True}}
        if self.around is not None:
            child = {"process_graph": nodes}
            inner = {**self.around["arguments"], self.around["parameter"]: child}
            nodes = {"around": {**self.around["node"], "arguments": inner}, **self.around["after"]}
        return {self.cube: CUBE, self.parameter: {"process_graph": nodes}, **self.arguments}


def pad_blocks(values: np.ndarray) -> np.ndarray:
    """Sum blocks of 4 x 5 pixels with an overlap of 1, and spread the sums over the blocks."""
    padded = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)))
    result = np.empty_like(values)
    for y in range(0, 8, 4):
        for x in range(0, 10, 5):
            block = padded[:, :, y : y + 6, x : x + 7]
            result[:, :, y : y + 4, x : x + 5] = block.sum((2, 3), keepdims=True)
    return result


def sum_blocks(values: np.ndarray) -> np.ndarray:
    blocks = values.reshape(5, 3, 2, 4, 2, 5).sum((3, 5), keepdims=True)
    return np.broadcast_to(blocks, (5, 3, 2, 4, 2, 5)).reshape(values.shape)


def centre_window(values: np.ndarray) -> np.ndarray:
    result = values.copy()
    inside = values[:, :, ROWS, COLUMNS]
    result[:, :, ROWS, COLUMNS] = inside - inside.mean((2, 3), keepdims=True)
    return result


def make_square(rows: slice = ROWS, columns: slice = COLUMNS) -> dict[str, Any]:
    """The outline of some pixels."""
    left, right = 680000 + 10 * columns.start, 680000 + 10 * columns.stop
    top, bottom = 5152000 - 10 * rows.start, 5152000 - 10 * rows.stop
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    crs = {"type": "name", "properties": {"name": "EPSG:32632"}}
    return {"type": "Polygon", "coordinates": [ring], "crs": crs}


def make_squares() -> dict[str, Any]:
    squares = [make_square(), make_square(slice(0, 8), slice(0, 10))]
    features = [{"type": "Feature", "properties": {}, "geometry": {**s, "crs": None}} for s in squares]
    return {"type": "FeatureCollection", "features": features, "crs": squares[0]["crs"]}


def reduce_squares(values: np.ndarray) -> np.ndarray:
    parts = [values[:, :, ROWS, COLUMNS], values]
    return np.stack([part.max((2, 3)) - part.min((2, 3)) for part in parts])


def wrap(process_id: str, parameter: str, after: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A process of arrays around the function."""
    node = {"process_id": process_id, "result": after is None}
    return {
        "node": node,
        "arguments": {"data": value("data")},
        "parameter": parameter,
        "after": after or {},
    }


def window(*sizes: Any) -> list[dict[str, Any]]:
    return [{"dimension": d, "value": n, "unit": "px"} for d, n in zip("yx", sizes, strict=True)]


ALONG_T = {"dimension": "t"}
MAXIMUM = {"max": {"process_id": "max", "arguments": {"data": {"from_node": "around"}}, "result": True}}
BLOCK_SUM = "cube * 0 + cube.fillna(0).sum(['y', 'x'])"
BYX, TYX = ("bands", "y", "x"), ("t", "y", "x")

PARENTS = {
    "apply": Parent("apply", "cube * 2 + 1", lambda v: v * 2 + 1, data=value("x")),
    "apply_dimension": Parent(
        "apply_dimension", "cube.cumsum('t')", lambda v: v.cumsum(0), arguments=ALONG_T
    ),
    "apply_dimension, shorter": Parent(
        "apply_dimension",
        "cube.isel(t=slice(0, None, 2))",
        lambda v: v[::2],
        arguments=ALONG_T,
    ),
    "apply_dimension, longer": Parent(
        "apply_dimension",
        "cube.interp(t=xarray.date_range('2022-06-01', '2022-06-21', freq='D')).astype('float32')",
        lambda v: np.stack(
            [v[i // 5] + (v[min(i // 5 + 1, 4)] - v[i // 5]) * (i % 5) / 5 for i in range(21)]
        ),
        arguments=ALONG_T,
    ),
    "apply_dimension, bands": Parent(
        "apply_dimension",
        "cube / cube.sum('bands')",
        lambda v: v / v.sum(1, keepdims=True),
        arguments={"dimension": "bands"},
    ),
    "apply_dimension, x": Parent(
        "apply_dimension", "cube.cumsum('x')", lambda v: v.cumsum(3), arguments={"dimension": "x"}
    ),
    "apply_dimension, other target": Parent(
        "apply_dimension",
        "cube.isel(t=slice(0, 2)).stack(new=('t', 'bands')).transpose('new', ...)"
        ".drop_vars(['t', 'bands', 'new']).rename(new='bands').assign_coords(bands=list('abcdef'))",
        lambda v: v[:2].reshape(6, 8, 10),
        BYX,
        {"dimension": "t", "target_dimension": "bands"},
        renames=False,
    ),
    "reduce_dimension, t": Parent(
        "reduce_dimension",
        "cube.max('t') - cube.min('t')",
        lambda v: np.ptp(v, axis=0),
        BYX,
        ALONG_T,
        "reducer",
    ),
    "reduce_dimension, bands": Parent(
        "reduce_dimension",
        "cube.sel(bands='B03') - cube.sel(bands='B01')",
        lambda v: v[:, 2] - v[:, 0],
        TYX,
        {"dimension": "bands"},
        "reducer",
        renames=False,
    ),
    "reduce_dimension, x": Parent(
        "reduce_dimension",
        "cube.max('x')",
        lambda v: v.max(3),
        ("t", "bands", "y"),
        {"dimension": "x"},
        "reducer",
    ),
    "apply_neighborhood": Parent(
        "apply_neighborhood", BLOCK_SUM, sum_blocks, arguments={"size": window(4, 5)}
    ),
    "apply_neighborhood, overlap": Parent(
        "apply_neighborhood", BLOCK_SUM, pad_blocks, arguments={"size": window(4, 5), "overlap": window(1, 1)}
    ),
    "apply_polygon": Parent(
        "apply_polygon",
        "cube - cube.mean(['y', 'x'])",
        centre_window,
        arguments={"geometries": make_square()},
        keeps_labels=True,
    ),
    "chunk_polygon": Parent(
        "chunk_polygon",
        "cube - cube.mean(['y', 'x'])",
        centre_window,
        arguments={"chunks": make_square()},
        keeps_labels=True,
    ),
    "aggregate_temporal": Parent(
        "aggregate_temporal",
        "cube.isel(t=-1) * cube.sizes['t']",
        lambda v: np.stack([v[2] * 3, v[4] * 2]),
        arguments={"intervals": [["2022-06-01", "2022-06-12"], ["2022-06-12", "2022-07-01"]]},
        parameter="reducer",
    ),
    "aggregate_temporal_period": Parent(
        "aggregate_temporal_period",
        "cube.isel(t=-1) * cube.sizes['t']",
        lambda v: np.stack([v[1] * 2, v[3] * 2, v[4]]),
        arguments={"period": "dekad"},
        parameter="reducer",
    ),
    "aggregate_spatial": Parent(
        "aggregate_spatial",
        "cube.max('pixels') - cube.min('pixels')",
        reduce_squares,
        ("geometry", "t", "bands"),
        {"geometries": make_squares()},
        "reducer",
    ),
    "aggregate_spatial_window": Parent(
        "aggregate_spatial_window",
        "cube.max('pixels') - cube.min('pixels')",
        lambda v: np.ptp(v.reshape(5, 3, 4, 2, 5, 2).swapaxes(3, 4).reshape(5, 3, 4, 5, 4), axis=-1),
        arguments={"size": [2, 2]},
        parameter="reducer",
    ),
    "reduce_spatial": Parent(
        "reduce_spatial", "cube.max('pixels')", lambda v: v.max((2, 3)), ("t", "bands"), parameter="reducer"
    ),
    "array_apply": Parent(
        "apply_dimension",
        "cube * 2",
        lambda v: v * 2,
        arguments=ALONG_T,
        data=value("x"),
        around=wrap("array_apply", "process"),
        keeps_labels=True,
    ),
    "array_filter": Parent(
        "reduce_dimension",
        "cube < 0.5",
        lambda v: np.fmax.reduce(np.where(v < 0.5, v, np.nan), axis=0),
        BYX,
        ALONG_T,
        "reducer",
        value("x"),
        around=wrap("array_filter", "condition", MAXIMUM),
        keeps_labels=True,
    ),
    "count": Parent(
        "reduce_dimension",
        "cube < 0.5",
        lambda v: (v < 0.5).sum(0),
        BYX,
        ALONG_T,
        "reducer",
        value("x"),
        around=wrap("count", "condition"),
        keeps_labels=True,
    ),
    "merge_cubes": Parent(
        "merge_cubes",
        "cube.max('array') * 2",
        lambda v: np.maximum(v, 1 - v) * 2,
        parameter="overlap_resolver",
        data=[value("x"), value("y")],
        cube="cube1",
        arguments={"cube2": "other"},
        keeps_labels=True,
    ),
    "merge_cubes, one of them": Parent(
        "merge_cubes",
        "cube * 2",
        lambda v: v * 2,
        parameter="overlap_resolver",
        data=value("x"),
        cube="cube1",
        arguments={"cube2": "other"},
        keeps_labels=True,
    ),
}


def run_parent(
    run: Run, parent: Parent, style: str, chunks: Any, values: np.ndarray = VALUES
) -> tuple[xr.DataArray, Any]:
    data = raster(values, grid(8, 10), chunks)
    arguments = parent.make_arguments(STYLES[style])
    if "cube2" in arguments:
        arguments["cube2"] = raster(1 - values, grid(8, 10), chunks)
    if parent.process in ("apply_polygon", "chunk_polygon", "aggregate_spatial") or chunks is None:
        return run(data, parent.process, **arguments), data
    with nothing_computes():
        return run(data, parent.process, **arguments), data


CASES = [(style, None) for style in STYLES] + [("DataArray", LAZY), ("metadata", LAZY)]
"""How functions are written makes no difference to how chunks are handed out."""


@pytest.mark.parametrize(
    ("style", "chunks"), CASES, ids=[f"{s}{'' if c is None else ', lazy'}" for s, c in CASES]
)
def test_every_style_under_every_parent(run: Run, style: str, chunks: Any) -> None:
    failures = {}
    for name, parent in PARENTS.items():
        try:
            result, data = run_parent(run, parent, style, chunks)
            check(parent, result, data, style)
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {error}"
    assert not failures, "\n\n".join(f"{k}: {v}" for k, v in failures.items())


def check(parent: Parent, result: xr.DataArray, data: xr.DataArray, style: str) -> None:
    assert result.dims == parent.dims
    np.testing.assert_allclose(result.values, parent.expected(VALUES), rtol=1e-5, atol=1e-6)
    if {"y", "x"} <= set(result.dims) and parent.process != "aggregate_spatial_window":
        assert result.odc.geobox == data.odc.geobox
    if "bands" in result.dims and result.sizes["bands"] == 3:
        suffix = "_new" if style == "metadata" and parent.renames and not parent.keeps_labels else ""
        assert result.coords["bands"].values.tolist() == [f"B0{i}{suffix}" for i in (1, 2, 3)]


# --- Time series -----------------------------------------------------------------------------------

SERIES = """
import pandas as pd

def apply_timeseries(series: pd.Series, context: dict) -> pd.Series:
    assert isinstance(series.index, pd.DatetimeIndex)
    return series.rolling(context["window"], min_periods=1).mean()
"""


@pytest.mark.parametrize("chunks", [None, LAZY], ids=["eager", "lazy"])
@pytest.mark.parametrize(
    ("process", "arguments"),
    [
        ("apply_dimension", ALONG_T),
        ("apply_neighborhood", {"size": window(4, 5)}),
        ("apply_polygon", {"geometries": make_square(slice(0, 8), slice(0, 10))}),
        ("chunk_polygon", {"chunks": make_square(slice(0, 8), slice(0, 10))}),
        (None, {}),
    ],
    ids=str,
)
def test_series_under_every_parent_with_all_times(
    run: Run, process: str | None, arguments: dict[str, Any], chunks: Any
) -> None:
    data = raster(VALUES, grid(8, 10), chunks)
    if process is None:
        result = run(data, "run_udf", **udf_arguments(SERIES, CUBE, context={"window": "12D"}))
    else:
        node = {"udf": {"process_id": "run_udf", "arguments": {}, "result": True}}
        node["udf"]["arguments"] = udf_arguments(SERIES, value("data"), context=value("context"))
        more = {"process": {"process_graph": node}, "context": {"window": "12D"}}
        result = run(data, process, data=CUBE, **arguments, **more)
    expected = np.stack([VALUES[max(i - 2, 0) : i + 1].mean(0) for i in range(5)])
    assert result.dims == data.dims
    np.testing.assert_allclose(result.values, expected, rtol=1e-5)


# --- Arrays and labels that are JSON -----------------------------------------------------------------

JSON = """
from openeo.udf import StructuredData, UdfData

def apply_udf_data(data: UdfData):
    (structure,) = data.get_structured_data_list()
    value = structure.data
    data.set_structured_data_list([StructuredData(eval(data.user_context["returns"]))])
"""


@pytest.mark.parametrize(
    ("process", "parameter", "data", "returns", "expected"),
    [
        ("array_apply", "process", "x", "value * 2", [2, 4, 6]),
        ("array_filter", "condition", "x", "value > 1", [2, 3]),
        ("count", "condition", "x", "value > 1", 2),
    ],
)
def test_elements_of_arrays(
    run: Run, process: str, parameter: str, data: str, returns: str, expected: Any
) -> None:
    child = udf(JSON, data, context={"returns": returns})
    assert run(None, process, data=[1, 2, 3], **{parameter: child}) == expected


def test_labels(run: Run) -> None:
    child = udf(JSON, "value", context={"returns": "value != 'B02'"})
    result = run(
        raster(VALUES, grid(8, 10), LAZY), "filter_labels", data=CUBE, condition=child, dimension="bands"
    )
    assert result.coords["bands"].values.tolist() == ["B01", "B03"]
    np.testing.assert_array_equal(result.values, VALUES[:, [0, 2]])


def test_json_of_other_nodes_as_context(run: Run, environment: Environment) -> None:
    code = STYLES["DataArray"]
    nodes = {
        "array": {"process_id": "array_create", "arguments": {"data": [1, 2, 3]}},
        "labelled": {
            "process_id": "array_create_labeled",
            "arguments": {"data": [4, 5], "labels": ["a", "b"]},
        },
        "mean": {"process_id": "mean", "arguments": {"data": {"from_node": "array"}}},
        "udf": {
            "process_id": "run_udf",
            "arguments": udf_arguments(
                code,
                CUBE,
                context={
                    "returns": "cube * sum(context['array']) + sum(context['labelled']) * context['mean']",
                    **{name: {"from_node": name} for name in ("array", "labelled", "mean")},
                },
            ),
            "result": True,
        },
    }
    result = evaluate({"process_graph": nodes}, environment, {"cube": raster(VALUES, grid(8, 10))})
    np.testing.assert_allclose(result.values, VALUES * 6 + 18, rtol=1e-6)


# --- What cannot work is an error that says so ---------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "context"),
    [(CUBE, {"more": {"deep": [CUBE]}}), (CUBE, CUBE), ([CUBE, CUBE], {}), ({"cube": CUBE}, {})],
    ids=["in the context", "as the context", "in an array", "in an object"],
)
def test_cubes_where_json_is_needed(run: Run, data: Any, context: Any) -> None:
    cube = raster(VALUES, grid(8, 10), LAZY)
    with pytest.raises(ProcessParameterInvalid, match="contains a data cube"):
        run(cube, "run_udf", **udf_arguments(STYLES["DataArray"], data, context=context))


@pytest.mark.parametrize("returns", ["cube.isel(bands=[0])", "cube.sum('bands')", "cube.expand_dims(more=2)"])
@pytest.mark.parametrize("name", ["count", "array_filter", "array_apply", "merge_cubes, one of them"])
def test_elements_need_one_value_each(run: Run, name: str, returns: str) -> None:
    parent = replace(PARENTS[name], returns=returns)
    with pytest.raises(UdfResultInvalid, match=r"one value per value is needed.*bands: 3") as caught:
        run_parent(run, parent, "DataArray", None)
    assert caught.value.node is not None
    assert caught.value.node.endswith("udf")


LATER = {
    "another shape": "({0}) if float(cube.max()) <= 1 else xarray.concat([{0}] * 2, 'more')",
    "another type": "xarray.zeros_like({0}, dtype='int16') if float(cube.max()) <= 1 else ({0}) + 0.25",
}
"""Functions that return on real values, which are larger than 1, what they do not on made-up ones."""


@pytest.mark.parametrize("returns", LATER.values(), ids=LATER)
@pytest.mark.parametrize("name", sorted(PARENTS))
def test_results_that_differ_from_what_was_announced(run: Run, name: str, returns: str) -> None:
    parent = replace(PARENTS[name], returns=returns.format(PARENTS[name].returns))
    result, _ = run_parent(run, parent, "DataArray", LAZY, VALUES + 1)
    with pytest.raises(UdfResultInvalid) as caught:
        result.compute()
    assert str(caught.value.node).split(".")[-1] == "udf"
    pattern = r"for a chunk \(.*\d\) it must be \(.*\d\) of \w+, not \(.*\d\) of \w+\. Return"
    assert re.search(pattern, caught.value.message)


@pytest.mark.parametrize("chunks", [None, LAZY], ids=["eager", "lazy"])
def test_labels_differ_from_each_other(run: Run, chunks: Any) -> None:
    data = raster(VALUES, grid(8, 10), chunks)
    arguments = {"data": CUBE, "dimension": "bands"}
    process = udf(STYLES["DataArray"], context={"returns": "cube.isel(bands=[0, 1, 0])"})
    with pytest.raises(UdfResultInvalid, match=r"labels must differ from each other: B01, B02, B01"):
        run(data, "apply_dimension", process=process, **arguments)
    code = STYLES["metadata"].replace('[name + "_new" for name in metadata.band_names]', '["a", "b", "a"]')
    process = udf(code, context={"returns": "cube", "renames": True})
    with pytest.raises(UdfResultInvalid, match="differ from each other"):
        run(data, "apply_dimension", process=process, **arguments)
