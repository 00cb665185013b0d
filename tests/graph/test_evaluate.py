"""Evaluation: references, parameters and their scopes, children, several end nodes, what is not needed."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.errors import OpenEOError, ProcessParameterInvalid, ProcessParameterMissing
from odc_openeo.graph import evaluate
from odc_openeo.registry.environment import Environment
from tests.graph.test_validate import graph, node


def test_references_inside_objects_and_arrays() -> None:
    process = graph(
        one=node("add", {"x": 1, "y": 0}),
        all=node("sum", {"data": [{"from_node": "one"}, 2, {"from_parameter": "three"}]}, result=True),
    )
    assert evaluate(process, parameters={"three": 3}) == 6


def test_the_innermost_parameter_wins_and_outer_ones_are_seen() -> None:
    child = graph(
        a=node("multiply", {"x": {"from_parameter": "x"}, "y": {"from_parameter": "factor"}}, result=True)
    )
    process = {
        **graph(a=node("array_apply", {"data": [1, 2, 3], "process": child}, result=True)),
        "parameters": [{"name": "factor", "schema": {"type": "number"}}, {"name": "x", "schema": {}}],
    }
    assert evaluate(process, parameters={"factor": 10, "x": 99}) == [10, 20, 30]


def test_defaults_of_parameters() -> None:
    process = {
        **graph(a=node("add", {"x": {"from_parameter": "n"}, "y": 1}, result=True)),
        "parameters": [{"name": "n", "schema": {"type": "number"}, "optional": True, "default": 41}],
    }
    assert evaluate(process) == 42
    assert evaluate(process, parameters={"n": 1}) == 2


def test_a_parameter_without_value_is_an_error() -> None:
    process = {
        **graph(a=node("add", {"x": {"from_parameter": "n"}, "y": 1}, result=True)),
        "parameters": [{"name": "n", "schema": {"type": "number"}}],
    }
    with pytest.raises(ProcessParameterMissing) as caught:
        evaluate(process)
    assert caught.value.node == "a"


def test_values_from_the_graph_are_checked_too() -> None:
    process = graph(
        text=node("text_concat", {"data": ["a", "b"]}),
        a=node("add", {"x": {"from_parameter": "n"}, "y": 1}, result=True),
    )
    with pytest.raises(ProcessParameterInvalid):
        evaluate(process, parameters={"n": "seven"})


def test_end_nodes_other_than_the_result_run_as_well() -> None:
    env = Environment()
    process = graph(
        first=node("add", {"x": 1, "y": 1}, result=True),
        second=node("divide", {"x": 1, "y": "{}"}),
    )
    with pytest.raises(OpenEOError):
        evaluate(process, env)


def test_only_the_branch_taken_is_evaluated() -> None:
    process = graph(
        bad=node("array_element", {"data": [1], "index": 7}),
        good=node("add", {"x": 1, "y": 1}),
        choice=node(
            "if",
            {"value": True, "accept": {"from_node": "good"}, "reject": {"from_node": "bad"}},
            result=True,
        ),
    )
    assert evaluate(process) == 2


def test_a_node_used_twice_is_evaluated_once() -> None:
    cube = xr.DataArray(np.arange(6.0).reshape(2, 3), dims=("y", "x"))
    process = graph(
        plus=node("apply", {"data": {"from_parameter": "cube"}, "process": _plus_one()}),
        both=node(
            "merge_cubes",
            {
                "cube1": {"from_node": "plus"},
                "cube2": {"from_node": "plus"},
                "overlap_resolver": graph(
                    s=node(
                        "subtract", {"x": {"from_parameter": "x"}, "y": {"from_parameter": "y"}}, result=True
                    )
                ),
            },
            result=True,
        ),
    )
    assert evaluate(process, parameters={"cube": cube}).values.tolist() == [[0, 0, 0], [0, 0, 0]]


def _plus_one() -> dict:
    return graph(p=node("add", {"x": {"from_parameter": "x"}, "y": 1}, result=True))


def test_an_error_names_the_node() -> None:
    process = graph(a=node("array_element", {"data": [1], "index": 3}, result=True))
    with pytest.raises(OpenEOError) as caught:
        evaluate(process)
    assert caught.value.node == "a"
    assert "Node 'a'" in caught.value.to_dict()["message"]
