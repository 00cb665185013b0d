"""Validation names every error at once, with its code and the node that has it."""

from __future__ import annotations

from typing import Any

import pytest

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.errors import ProcessGraphComplexity
from odc_openeo.graph import GraphLimits, evaluate, validate
from odc_openeo.graph.parse import parse_process


def node(process_id: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"process_id": process_id, "arguments": arguments, **more}


def graph(**nodes: Any) -> dict[str, Any]:
    return {"process_graph": nodes}


def find_errors(process: Any, **parameters: Any) -> set[tuple[str, str | None]]:
    return {(e.code, e.node) for e in validate(process, parameters)}


def test_a_right_graph_has_no_errors() -> None:
    assert validate(graph(a=node("add", {"x": 1, "y": 2}, result=True))) == []


def test_all_errors_at_once() -> None:
    process = graph(
        unknown=node("no_such_process", {}),
        surplus=node("add", {"x": 1, "y": 2, "z": 3}),
        missing=node("add", {"x": 1}),
        wrong=node("add", {"x": "one", "y": 2}),
        dangling=node("add", {"x": {"from_node": "nowhere"}, "y": 2}),
        nameless=node("add", {"x": {"from_parameter": "nothing"}, "y": 2}, result=True),
    )
    assert find_errors(process) == {
        ("ProcessUnsupported", "unknown"),
        ("ProcessParameterUnsupported", "surplus"),
        ("ProcessParameterRequired", "missing"),
        ("ProcessParameterInvalid", "wrong"),
        ("ProcessGraphInvalid", "dangling"),
        ("ProcessParameterMissing", "nameless"),
    }


def test_errors_inside_children_name_the_path() -> None:
    child = graph(inner=node("no_such_process", {}, result=True))
    data = {"from_parameter": "data"}
    process = graph(
        outer=node("reduce_dimension", {"data": data, "reducer": child, "dimension": "t"}, result=True)
    )
    assert find_errors(process, data=None) == {("ProcessUnsupported", "outer.inner")}


@pytest.mark.parametrize("results", [[], ["a", "b"]])
def test_exactly_one_result_node(results: list[str]) -> None:
    process = graph(**{id_: node("add", {"x": 1, "y": 2}, result=id_ in results) for id_ in "ab"})
    assert find_errors(process) == {("ProcessGraphInvalid", None)}


def test_a_cycle_is_named() -> None:
    process = graph(
        a=node("add", {"x": {"from_node": "b"}, "y": 1}),
        b=node("add", {"x": {"from_node": "a"}, "y": 1}, result=True),
    )
    (error,) = validate(process)
    assert error.code == "ProcessGraphInvalid"
    assert "a, b" in error.message


@pytest.mark.parametrize("process", [None, 7, [], {}, {"process_graph": []}, {"process_graph": {}}])
def test_invalid_process_graphs_are_refused(process: Any) -> None:
    assert {code for code, _ in find_errors(process)} <= {"ProcessGraphMissing", "ProcessGraphInvalid"}
    assert find_errors(process)


@pytest.mark.parametrize("body", [None, 3, {}, {"process_id": 3, "arguments": {}}, {"process_id": "add"}])
def test_invalid_nodes_are_refused(body: Any) -> None:
    assert ("ProcessGraphInvalid", "a") in find_errors({"process_graph": {"a": body}})


def test_another_namespace_is_unsupported() -> None:
    process = graph(a=node("add", {"x": 1, "y": 2}, namespace="elsewhere", result=True))
    assert find_errors(process) == {("ProcessUnsupported", "a")}


def test_a_number_is_no_data_cube() -> None:
    process = graph(
        a=node("add", {"x": 1, "y": 2}),
        b=node("drop_dimension", {"data": {"from_node": "a"}, "name": "t"}, result=True),
        c=node("drop_dimension", {"data": {"a": 1}, "name": "t"}),
    )
    assert find_errors(process) == {("ProcessParameterInvalid", "b"), ("ProcessParameterInvalid", "c")}


def test_too_many_nodes_are_refused() -> None:
    process = graph(**{str(i): node("add", {"x": 1, "y": 2}) for i in range(200_000)})
    assert find_errors(process) == {("ProcessGraphComplexity", None)}


def nested(levels: int) -> dict[str, Any]:
    if levels == 0:
        return graph(last=node("add", {"x": {"from_parameter": "x"}, "y": 1}, result=True))
    arguments = {"data": [1, 2], "process": nested(levels - 1)}
    return graph(next=node("array_apply", arguments, result=True))


def test_fifty_levels_of_children_are_fine_and_more_are_refused() -> None:
    assert validate(nested(50)) == []
    with pytest.raises(ProcessGraphComplexity):
        parse_process(nested(61), GraphLimits(depth=60))


def test_a_long_chain_needs_no_recursion() -> None:
    n = 5000
    chain = {"0": node("add", {"x": 0, "y": 1})}
    for i in range(1, n):
        chain[str(i)] = node("add", {"x": {"from_node": str(i - 1)}, "y": 1}, result=i == n - 1)
    assert evaluate(graph(**chain)) == n
