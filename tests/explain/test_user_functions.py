"""Programs call functions of users as the service does, which runs them in its sandbox."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from odc_openeo.explain import write_program
from odc_openeo.graph import prepare
from odc_openeo.registry.environment import Environment
from tests.explain.cases import ZONES, make_cube, refer
from tests.explain.programs import compare_program
from tests.support.graphs import value
from tests.udf.conftest import _one_thread, config, environment, udf, udf_arguments

__all__ = ["_one_thread", "config", "environment"]

HEAD = "import xarray\n\ndef apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:\n"
PIXELS = [{"dimension": d, "value": 4, "unit": "px"} for d in ("x", "y")]
MARGINS = [{"dimension": d, "value": 2, "unit": "px"} for d in ("x", "y")]
INTERVALS = [["2021-11-01", "2021-12-05"], ["2021-12-05", "2022-01-30"]]

PARENTS: dict[str, dict[str, Any]] = {
    "apply": {"process": "cube * 2 + 1", "data": "x"},
    "reduce_dimension": {"reducer": "cube.max('t') - cube.min('t')", "dimension": "t"},
    "reduce_dimension ": {"reducer": "cube.sum('bands', keepdims=True)", "dimension": "bands"},
    "apply_dimension": {"process": "cube.cumsum('t', skipna=False)", "dimension": "t"},
    "apply_dimension ": {"process": "cube.isel(t=slice(0, 2))", "dimension": "t"},
    "aggregate_temporal": {"reducer": "cube.mean('t')", "intervals": INTERVALS},
    "aggregate_temporal_period": {"reducer": "cube.median('t')", "period": "month"},
    "apply_neighborhood": {
        "process": "cube.rolling(x=3, y=3, center=True, min_periods=1).mean()",
        "size": PIXELS,
        "overlap": MARGINS,
    },
    "apply_polygon": {"process": "cube - 1", "geometries": ZONES},
    "aggregate_spatial": {"reducer": "cube.max('pixels')", "geometries": ZONES},
    "aggregate_spatial_window": {"reducer": "cube.mean('pixels')", "size": [3, 4]},
    "reduce_spatial": {"reducer": "cube.min('pixels')"},
}

STYLES = {
    "XarrayDataCube": (
        "from openeo.udf import XarrayDataCube\n\n"
        "def apply_datacube(cube: XarrayDataCube, context: dict) -> XarrayDataCube:\n"
        "    return XarrayDataCube(cube.get_array() * context['factor'])\n"
    ),
    "UdfData": (
        "from openeo.udf import UdfData, XarrayDataCube\n\n"
        "def apply_udf_data(data: UdfData):\n"
        "    array = data.get_datacube_list()[0].get_array()\n"
        "    data.set_datacube_list([XarrayDataCube(array * data.user_context['factor'])])\n"
    ),
    "series": (
        "import pandas as pd\n\n"
        "def apply_timeseries(series: pd.Series, context: dict) -> pd.Series:\n"
        "    return series.cumsum() * context['factor']\n"
    ),
    "annotations as strings": "from __future__ import annotations\n"
    + HEAD.replace("xarray.DataArray", "xarray.core.dataarray.DataArray")
    + "    return cube + 1\n",
    "constants and other functions": (
        "import numpy as np\n\nOFFSET = 3\nTEXT = '''a\n  b'''\n\n"
        "def shift(values):\n    return np.abs(values - OFFSET) + len(TEXT)\n\n"
        + HEAD
        + "    return shift(cube)\n"
    ),
    "names of the program": "data = 2\ngpd = 3\n" + HEAD + "    return cube * data + gpd\n",
    "reference system": HEAD + "    return cube + int(cube.attrs['crs'].split(':')[1])\n",
}


def make_graph(process: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"process_graph": {"it": {"process_id": process, "arguments": arguments, "result": True}}}


def check(environment: Environment, process: str, code: str, **arguments: Any) -> str:
    """Compare a function under a parent; return the program."""
    name, data = arguments.pop("child", "process"), arguments.pop("child_data", "data")
    child = udf(code, data, context={"factor": 3})
    graph = make_graph(process, {"data": value("data"), name: child, **arguments})
    comparison = compare_program(graph, {"data": make_cube(5)}, environment)
    assert comparison.explanation.incomplete == []
    return comparison.explanation.program


@pytest.mark.parametrize("parent", PARENTS)
def test_under_parents(environment: Environment, parent: str) -> None:
    arguments = dict(PARENTS[parent])
    name = "reducer" if "reducer" in arguments else "process"
    code = f"{HEAD}    return {arguments.pop(name)}\n"
    data = arguments.pop("data", "data")
    program = check(environment, parent.strip(), code, child=name, child_data=data, **arguments)
    assert code.strip() in program


@pytest.mark.parametrize("style", STYLES)
def test_styles(environment: Environment, style: str) -> None:
    check(environment, "apply_dimension", STYLES[style], dimension="t")


def test_without_a_parent(environment: Environment) -> None:
    arguments = udf_arguments(HEAD + "    return cube.mean('t') * 2\n", value("data"))
    comparison = compare_program(make_graph("run_udf", arguments), {"data": make_cube()}, environment)
    assert comparison.explanation.incomplete == []


def test_several_functions_of_a_name(environment: Environment) -> None:
    first, second = (HEAD + f"    '''Text\n    of two lines'''\n    return cube * {i}\n" for i in (2, 5))
    graph = {
        "one": {"process_id": "apply", "arguments": {"data": value("data"), "process": udf(first, "x")}},
        "two": {"process_id": "apply", "arguments": {"data": refer("one"), "process": udf(second, "x")}},
        "again": {
            "process_id": "apply",
            "arguments": {"data": refer("two"), "process": udf(first, "x")},
            "result": True,
        },
    }
    comparison = compare_program({"process_graph": graph}, {"data": make_cube(2)}, environment)
    assert comparison.explanation.incomplete == []
    assert comparison.explanation.program.count("def apply_datacube(") == 2
    np.testing.assert_allclose(comparison.result, make_cube(2) * 20, rtol=1e-6)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("from os import *\n" + HEAD + "    return cube\n", "imports everything"),
        ("calls = 0\n" + HEAD + "    global calls\n    return cube\n", "global statements"),
    ],
)
def test_what_cannot_be_written_is_named(environment: Environment, code: str, reason: str) -> None:
    graph = make_graph("apply", {"data": value("data"), "process": udf(code, "x")})
    cubes = {"data": make_cube(1)}
    explanation = write_program(prepare(graph, environment.lookup), environment, cubes)
    (note,) = explanation.incomplete
    assert reason in note["reason"]
    compile(explanation.program, "program.py", "exec")
