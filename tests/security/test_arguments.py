"""Arguments are checked against the schemas of their parameters when a process is called."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

from odc_openeo.errors import OpenEOError, ProcessParameterInvalid
from odc_openeo.formats import write_outputs
from odc_openeo.graph import evaluate
from odc_openeo.graph.arguments import find_mismatch
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.process import PROCESSES
from tests.fuzz.graph_sources import EMPTY, NULLS, make_sources
from tests.processes.rasters import nothing_computes
from tests.security.graph_nodes import chain, child, node, ref, saved
from tests.support.graphs import value

FLOATS, DATA, X, CONTEXT = (value(name) for name in ("floats", "data", "x", "context"))
MEAN, PLUS = child("mean", data=DATA), child("add", x=DATA, y=1)
WITHIN = {"data": FLOATS, "target": FLOATS}


@pytest.fixture(scope="module")
def sources() -> dict[str, Any]:
    return make_sources()


def constant(json: Any, process_id: str, parameter: str, **arguments: Any) -> Any:
    """A value that is wrong for a parameter and comes from a node."""
    process = chain(node("constant", x=json), node(process_id, **{parameter: ref(0)}, **arguments))
    return pytest.param(process, process_id, parameter, id=f"{process_id}.{parameter}={json!r:.30}")


def given(parameter: str, process_id: str, **arguments: Any) -> Any:
    """A cube, an array or a child process where something else belongs."""
    shown = f"{process_id}.{parameter}={arguments[parameter]!r:.40}"
    return pytest.param(chain(node(process_id, **arguments)), process_id, parameter, id=shown)


WRONG = [
    constant([None], "rearrange", "order", data=[1, 2]),
    constant([-1], "rearrange", "order", data=[1, 2]),
    constant([], "date_shift", "value", date="2022-01-01", unit="day"),
    constant(1.5, "date_shift", "value", date="2022-01-01", unit="day"),
    constant([0, 1], "filter_bands", "wavelengths", data=value("integers")),
    constant([["a", 1]], "filter_bands", "wavelengths", data=value("integers")),
    constant([1], "filter_bands", "bands", data=value("integers")),
    constant([None], "apply_neighborhood", "size", data=FLOATS, process=PLUS),
    constant([{"dimension": "x"}], "apply_neighborhood", "size", data=FLOATS, process=PLUS),
    constant(["a"], "mean", "data"),
    constant([[1]], "sum", "data"),
    constant({"a": 1}, "array_element", "data", index=0),
    constant({"west": 1}, "filter_bbox", "extent", data=FLOATS),
    constant("year", "date_difference", "date1", date2="2022-01-01", unit="day"),
    constant(["2022-01-01"], "filter_temporal", "extent", data=FLOATS),
    constant([1, 1], "rename_labels", "target", data=FLOATS, dimension="bands"),
    constant([["x"]], "apply_kernel", "kernel", data=FLOATS),
    constant(math.nan, "resample_spatial", "resolution", data=FLOATS),
    constant(-math.inf, "resample_cube_temporal", "valid_within", **WITHIN),
    constant(2**63, "array_create", "repeat", data=[]),
    constant(-(2**63) - 1, "vector_to_random_points", "seed", data=value("fields")),
    constant(10**400, "vector_buffer", "distance", geometries=value("fields")),
    constant({"type": "datacube"}, "apply", "data", process=child("absolute", x=X)),
    constant([1], "predict_random_forest", "model", data=[1]),
    given("ignore_nodata", "mean", data=[1], ignore_nodata=FLOATS),
    given("p", "round", x=1.5, p=FLOATS),
    given("case_sensitive", "eq", x="a", y="A", case_sensitive=FLOATS),
    given("asc", "sort", data=[2, 1], asc=value("booleans")),
    given("unit", "date_shift", date="2022-01-01", value=1, unit=value("vectors")),
    given("bands", "filter_bands", data=FLOATS, bands=["B04", FLOATS]),
    given("bands", "filter_bands", data=FLOATS, bands=[value("vectors")]),
    given("kernel", "apply_kernel", data=FLOATS, kernel=[[value("shapes"), 1, 1]]),
    given("factor", "apply_kernel", data=FLOATS, kernel=[[1]], factor=FLOATS),
    given("data", "mean", data=FLOATS),
    given("data", "aggregate_spatial", data=value("vectors"), geometries=value("vectors"), reducer=MEAN),
    given("geometries", "vector_buffer", geometries=FLOATS, distance=1),
    given("data", "apply", data=value("labelled"), process=child("absolute", x=X)),
    given("array1", "array_concat", array1=["B04", FLOATS], array2=FLOATS),
    given("data", "array_create", data=[child("add", x=1, y=1)]),
    given("data", "array_create", data=[[{"a": child("add", x=1, y=1)}]]),
    given("resolution", "resample_spatial", data=FLOATS, resolution=math.inf),
    given("distance", "vector_to_regular_points", data=value("fields"), distance=0),
]


@pytest.mark.parametrize(("process", "process_id", "parameter"), WRONG)
def test_wrong_values_are_refused(
    process: dict[str, Any], process_id: str, parameter: str, sources: dict[str, Any]
) -> None:
    with pytest.raises(ProcessParameterInvalid) as raised, nothing_computes():
        evaluate(process, parameters=sources)
    assert f"'{parameter}' of process '{process_id}'" in raised.value.message
    assert raised.value.node in process["process_graph"]
    assert raised.value.status == 400


def test_a_wrong_value_is_refused_in_child_processes(sources: dict[str, Any]) -> None:
    reducer = chain(node("count", data=DATA), node("mean", data=DATA, ignore_nodata=ref(0)))
    process = chain(node("reduce_dimension", data=FLOATS, dimension="t", reducer=reducer))
    with pytest.raises(ProcessParameterInvalid, match="'ignore_nodata' of process 'mean'") as raised:
        evaluate(process, parameters=sources)
    assert raised.value.node == "n0.n1"


def test_a_wrong_value_is_refused_inside_dask_tasks(sources: dict[str, Any]) -> None:
    wrong = chain(node("constant", x="yes"), node("mean", data=DATA, ignore_nodata=ref(0)))
    process = chain(node("aggregate_spatial", data=FLOATS, geometries=value("vectors"), reducer=wrong))
    with pytest.raises(ProcessParameterInvalid, match="'ignore_nodata' of process 'mean'"):
        evaluate(process, parameters=sources).compute()


def test_a_wrong_value_is_refused_in_branches_that_are_taken_only() -> None:
    wrong = {**chain(node("constant", x="a"))["process_graph"], "and": {**node("and", x=True, y=ref(0))}}
    wrong["n0"].pop("result")
    wrong["and"]["result"] = True
    with pytest.raises(ProcessParameterInvalid, match="'y' of process 'and'"):
        evaluate({"process_graph": wrong})
    wrong["and"]["arguments"]["x"] = False
    assert evaluate({"process_graph": wrong}) is False


def test_a_default_of_a_user_defined_process_is_checked_where_it_is_used() -> None:
    definition = {
        "id": "mine",
        "parameters": [{"name": "p", "schema": {}, "optional": True, "default": "two"}],
        "process_graph": child("round", x=1.234, p=value("p"))["process_graph"],
    }
    env = Environment(lookup=lambda id_, namespace: definition if id_ == "mine" else None)
    with pytest.raises(ProcessParameterInvalid, match="'p' of process 'round'"):
        evaluate(chain(node("mine")), env)
    assert evaluate(chain(node("mine", p=1)), env) == 1.2


VALID = [
    (chain(node("constant", x=[1, 0]), node("rearrange", data=[5, 6], order=ref(0))), [6, 5]),
    (chain(node("constant", x=[1, None, 2.5]), node("max", data=ref(0))), 2.5),
    (chain(node("constant", x=None), node("absolute", x=ref(0))), None),
    (chain(node("constant", x=math.inf), node("add", x=ref(0), y=1)), math.inf),
    (chain(node("constant", x=2**70), node("add", x=ref(0), y=1)), 2**70 + 1),
    (chain(node("constant", x=2.0), node("round", x=1.234, p=ref(0))), 1.23),
    (chain(node("mean", data=value("labelled"))), 1.75),
]


@pytest.mark.parametrize(("process", "expected"), VALID)
def test_right_values_are_taken(process: dict[str, Any], expected: Any, sources: dict[str, Any]) -> None:
    assert evaluate(process, parameters=sources) == expected


def test_every_parameter_refuses_cubes_unless_it_takes_some(sources: dict[str, Any]) -> None:
    """No process is called with a cube for a parameter of options."""
    options = [
        (process, parameter)
        for process in PROCESSES.values()
        for parameter in process.parameters.values()
        if not parameter.takes_pixels and parameter.child_schema is None
    ]
    assert len(options) > 100
    for process, parameter in options:
        cubes = [s for s in parameter.alternatives if str(s.get("subtype", "")).endswith("cube")]
        for name in ("floats", "vectors", "shapes"):
            assert cubes or find_mismatch(parameter, sources[name]), (process.id, parameter.name)
            assert find_mismatch(parameter, [sources[name]]), (process.id, parameter.name)


# --- Values at the edge --------------------------------------------------------------------------

REDUCED = node("reduce_dimension", data=FLOATS, dimension="x", reducer=MEAN)
ZONES = node("aggregate_spatial", data=FLOATS, geometries=NULLS, reducer=MEAN)
HUGE = [1e308, 100, 1e9]
EDGES = {
    "an empty collection with properties": chain(node("load_geojson", data=EMPTY, properties=["a"])),
    "an empty collection with two": saved(
        node("load_geojson", data=EMPTY, properties=["a", "b"]), format="GeoJSON"
    ),
    "nothing to fit": chain(node("fit_curve", data=[], parameters=[1], function=child("cos", x=X))),
    "a function that returns an array": chain(
        node("fit_curve", data=[1, 2], parameters=[1], function=child("array_create", data=[1, 2]))
    ),
    **{
        f"a feature without geometry as {name}": saved(ZONES, format=name)
        for name in ("netCDF", "Zarr", "JSON", "GeoJSON", "CSV", "Parquet")
    },
    **{
        f"times named {name} as {format_}": saved(
            node("rename_dimension", data=FLOATS, source="t", target=name), format=format_
        )
        for name in ("geometry", "nodata", "spatial_ref", "__array__", "", "a/b", "x")
        for format_ in ("JSON", "GeoJSON", "netCDF")
    },
    "a new dimension of geometries": saved(
        node("add_dimension", data=FLOATS, name="geometry", label="a"), format="GeoJSON"
    ),
    "flattened to geometry": saved(
        node("flatten_dimensions", data=FLOATS, dimensions=["t", "bands"], target_dimension="geometry"),
        format="JSON",
    ),
    "flattened to bands": saved(
        node("flatten_dimensions", data=value("booleans"), dimensions=["t"], target_dimension="bands"),
        format="GTiff",
    ),
    "geometries trimmed": chain(node("trim_cube", data=value("shapes"))),
    "values of geometries trimmed": chain(node("trim_cube", data=value("vectors"))),
    "geometries applied": saved(
        node("apply", data=value("shapes"), process=child("absolute", x=X)), format="GeoJSON"
    ),
    "a kernel without x": chain(REDUCED, node("apply_kernel", data=ref(0), kernel=[[1]])),
    "slope without x": chain(REDUCED, node("slope", data=ref(0))),
    "spread beyond floats": chain(node("sd", data=HUGE)),
    "variance beyond floats": chain(node("variance", data=[-1e308, 1e308])),
    "a reach before all times": chain(node("resample_cube_temporal", valid_within=-(2**63), **WITHIN)),
    "a reach beyond all times": chain(node("resample_cube_temporal", valid_within=1e300, **WITHIN)),
    "pixels larger than the earth": chain(node("resample_spatial", data=FLOATS, resolution=1e308)),
    "no-data of each band": chain(node("resample_spatial", data=value("mixed"), resolution=7)),
    "lists as properties": saved(
        node("vector_to_regular_points", data=value("fields"), distance=9), format="Zarr"
    ),
    "lists in a table": saved(
        node("vector_to_random_points", data=value("fields"), seed=-1), format="Parquet"
    ),
    "cubes of other places in an array": chain(node("max", data=[value("fields"), value("vectors")])),
    "labelled arrays in an array": chain(node("array_append", data=[value("dated")], value=value("image"))),
    "an order of pixels for nothing": chain(node("rearrange", data=[], order=[value("image")])),
    "an order of pixels beyond the array": saved(
        node(
            "apply_dimension",
            data=value("image"),
            dimension="y",
            process=child("rearrange", data=DATA, order=DATA),
        ),
        format="Zarr",
    ),
    "an order of pixels for a plain array": saved(
        node(
            "apply_dimension",
            data=value("image"),
            dimension="y",
            process=child("rearrange", data=[8.0, 9.0], order=DATA),
        ),
        format="Zarr",
    ),
    "geometries of another name": saved(
        node("rename_dimension", data=value("shapes"), source="geometry", target="places"), format="CSV"
    ),
    **{
        f"a box of {south:g}": chain(
            node(
                "filter_bbox",
                data=value("shapes"),
                extent={"west": 0, "south": south, "east": 9e15, "north": 1, "crs": 32632},
            )
        )
        for south in (0, -1e308)
    },
    "a buffer beyond numbers": chain(node("vector_buffer", geometries=value("fields"), distance=1e308)),
    "values of other bands": chain(
        node(
            "apply_dimension",
            data=value("mixed"),
            dimension="y",
            process=child("rearrange", data=DATA, order=DATA),
        )
    ),
    "arrays for elements": chain(
        node("array_apply", data=[FLOATS, FLOATS], process=child("array_create", data=[1, 2]))
    ),
    "numbers where strings are": chain(node("text_ends", data=FLOATS, pattern="a")),
}


@pytest.mark.parametrize("name", EDGES)
def test_values_at_the_edge_are_results_or_refused(
    name: str, sources: dict[str, Any], tmp_path: Path
) -> None:
    env = Environment()
    try:
        result = evaluate(EDGES[name], env, parameters=sources)
        write_outputs(result, env.outputs, tmp_path, dask.compute)
    except OpenEOError as error:
        if error.status != 400:
            raise
    else:
        assert [path for path in tmp_path.iterdir() if path.stat().st_size]


def test_spread_out_of_float_range_is_infinite() -> None:
    assert evaluate(chain(node("sd", data=HUGE))) == math.inf
    assert evaluate(chain(node("sd", data=[1.0, 2.0]))) == pytest.approx(math.sqrt(0.5))


def test_reach_in_time_keeps_its_meaning(sources: dict[str, Any]) -> None:
    near = evaluate(chain(node("resample_cube_temporal", valid_within=1e300, **WITHIN)), parameters=sources)
    none = evaluate(chain(node("resample_cube_temporal", valid_within=-1, **WITHIN)), parameters=sources)
    floats: xr.DataArray = sources["floats"]
    assert near.notnull().sum() >= floats.notnull().sum() > 0
    assert none.shape == floats.shape
    assert np.isnan(none).all()


def test_long_arrays_of_labels_are_compared_quickly() -> None:
    labels = [*range(10_000), *map(str, range(10_000)), 1]
    with pytest.raises(ProcessParameterInvalid, match="must be unique"):
        evaluate(chain(node("array_create_labeled", data=[1] * 20_001, labels=labels)))
