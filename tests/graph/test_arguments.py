"""What arguments may hold: null for defaults, child processes only where they are called."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.errors import OpenEOError, ProcessParameterInvalid
from odc_openeo.graph import evaluate, validate
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.process import PROCESSES
from tests.processes.rasters import grid, raster
from tests.support.graphs import child, value

CONSTANT = child("constant", x=1)
OBJECTS = [CONSTANT, [CONSTANT], [[CONSTANT]], ["a", CONSTANT], {"x": CONSTANT}]


def single(process_id: str, **arguments: Any) -> dict[str, Any]:
    node = {"process_id": process_id, "arguments": arguments, "result": True}
    return {"process_graph": {"it": node}}


def sample(schema: dict[str, Any]) -> Any:
    """A value of a schema, if there is a plain one."""
    kind = schema.get("type")
    plain = {"array": [1, 2], "number": 2, "integer": 2, "string": "t", "boolean": True, "object": {}}
    return schema["enum"][0] if "enum" in schema else plain.get(kind if isinstance(kind, str) else "number")


def list_values() -> list[tuple[str, str]]:
    """The parameters of processes that take values, none of which is a child process."""
    return [
        (id_, name)
        for id_, process in PROCESSES.items()
        for name, parameter in process.parameters.items()
        if parameter.child_schema is None and name not in ("context", "properties")
    ]


@pytest.mark.parametrize("process_id", sorted({id_ for id_, _ in list_values()}))
def test_child_processes_are_no_values(process_id: str) -> None:
    """Whatever the parameter: the error names the node, and is found before anything runs."""
    process = PROCESSES[process_id]
    required = {
        n: CONSTANT if p.child_schema else sample(p.alternatives[0])
        for n, p in process.parameters.items()
        if not p.optional
    }
    for name in (n for id_, n in list_values() if id_ == process_id):
        for argument in OBJECTS:
            graph = single(process_id, **{**required, name: argument})
            messages = [e.message for e in validate(graph) if e.node == "it"]
            assert any(f"'{name}' of process '{process_id}'" in m for m in messages), (name, argument)
            with pytest.raises(OpenEOError) as raised:
                evaluate(graph)
            assert raised.value.status == 400


def test_child_processes_in_a_child_process() -> None:
    data = raster(np.ones((2, 2, 3, 4)), grid(3, 4))
    inner = child("array_create", data=[child("eq", x=value("data"), y=1)])
    graph = single("apply_dimension", data=value("cube"), dimension="bands", process=inner)
    assert [(e.code, e.node) for e in validate(graph, {"cube": data})] == [
        ("ProcessParameterInvalid", "it.it"),
    ]
    with pytest.raises(ProcessParameterInvalid, match="can't be an element of a value"):
        evaluate(graph, parameters={"cube": data})


def test_child_processes_that_come_from_outside() -> None:
    """A context may hold one, but no value can be made of it."""
    data = raster(np.ones((2, 3, 4)), grid(3, 4))
    for inner in (child("constant", x=value("context")), child("add", x=value("context"), y=1)):
        graph = single("reduce_dimension", data=value("c"), dimension="t", reducer=inner, context=CONSTANT)
        with pytest.raises(ProcessParameterInvalid, match="does not take a child process"):
            evaluate(graph, parameters={"c": data})


@pytest.mark.parametrize("process_id", sorted(PROCESSES))
def test_null_of_an_optional_parameter_is_its_default(process_id: str) -> None:
    process = PROCESSES[process_id]
    required = {
        n: CONSTANT if p.child_schema else value("unknown")
        for n, p in process.parameters.items()
        if not p.optional
    }
    optional = [n for n, p in process.parameters.items() if p.optional]
    for name in optional:
        errors = validate(single(process_id, **required, **{name: None}), {"unknown": None})
        assert not errors, (name, errors)


def test_null_gives_what_no_argument_gives() -> None:
    data = raster(np.arange(24.0).reshape(1, 2, 3, 4), grid(3, 4))
    bands = single("filter_bands", data=value("c"), bands=["B02"], wavelengths=None)
    assert evaluate(bands, parameters={"c": data}).bands.values.tolist() == ["B02"]
    assert evaluate(single("sort", data=[2, 1], asc=None, nodata=None)) == [1, 2]
    assert evaluate(single("round", x=1.25, p=None)) == 1
    assert evaluate(single("mean", data=[1, None], ignore_nodata=None)) == 1
    kernel = single("apply_kernel", data=value("c"), kernel=[[2]], factor=None, border=None)
    np.testing.assert_array_equal(evaluate(kernel, parameters={"c": data}).values, data.values * 2)
    merged = single("merge_cubes", cube1=value("c"), cube2=value("d"), overlap_resolver=None, context=None)
    other = data.assign_coords(bands=["C", "D"])
    assert evaluate(merged, parameters={"c": data, "d": other}).sizes["bands"] == 4


def test_null_that_nodes_and_parameters_give() -> None:
    nothing = {"process_id": "array_element", "arguments": {"data": [None], "index": 0}}
    rounded = {"process_id": "round", "arguments": {"x": 1.25, "p": {"from_node": "n"}}, "result": True}
    assert evaluate({"process_graph": {"n": nothing, "r": rounded}}) == 1
    assert evaluate(single("round", x=1.25, p=value("digits")), parameters={"digits": None}) == 1


@pytest.mark.parametrize(
    ("declared", "result"),
    [
        ({"schema": {"type": "number"}, "default": 5}, 5),
        ({"schema": {"type": ["number", "null"]}, "default": 5}, None),
        ({"schema": {"type": "number"}, "optional": True}, None),
        ({"default": 5}, None),
    ],
)
def test_null_for_parameters_of_user_defined_processes(declared: dict[str, Any], result: Any) -> None:
    """Null is a value where the schema lists it, or lists nothing; otherwise it is the default."""
    document = {**single("constant", x=value("a")), "parameters": [{"name": "a", **declared}]}
    environment = Environment(lookup=lambda id_, namespace: document if id_ == "mine" else None)
    assert evaluate(single("mine", a=None), environment) == result


def test_null_of_a_required_parameter() -> None:
    errors = validate(single("array_element", data=None, index=0))
    assert [e.code for e in errors] == ["ProcessParameterInvalid"]
