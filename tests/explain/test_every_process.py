"""The program of each process gives what the process gives: on the official vectors, examples, and cubes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from odc_openeo.errors import OpenEOError
from odc_openeo.explain.calls import EMITTERS
from odc_openeo.graph import evaluate
from odc_openeo.registry.process import PROCESSES
from tests.conformance import vectors
from tests.conformance.encoding import decode
from tests.explain.cases import CASES, DATA, STATES, make_cube, make_process, make_vectors, refer
from tests.explain.programs import compare_program
from tests.support.graphs import child, value

REFUSED: Final = {"export_collection", "export_workspace"}
"""Processes whose results exist in the service only: their programs say so."""

ELSEWHERE: Final = {
    "fit_class_random_forest",
    "fit_regr_random_forest",
    "load_collection",
    "load_ml_model",
    "load_result",
    "load_stac",
    "load_uploaded_files",
    "load_url",
    "predict_random_forest",
    "run_udf",
    "save_ml_model",
    "save_result",
}
"""Processes whose programs are compared with files, or in graphs of several nodes."""

OPPOSITE_INFINITIES: Final = ("product", 6)
"""The product of infinities of both signs is NaN here; numpy multiplies from left to right."""


def list_calls(process: str) -> Iterator[Mapping[str, Any]]:
    """The arguments of all calls to compare."""
    for case in vectors.cases(vectors.DEFAULT) if vectors.DEFAULT.is_dir() else ():
        if case.process == process:
            yield {k: decode(v, case.folder) for k, v in case.test["arguments"].items()}
            embedded = vectors._arguments_in_cube(case)
            if embedded is not None and (process, case.index) != OPPOSITE_INFINITIES:
                yield embedded
    yield from (example.arguments for example in PROCESSES[process].examples)
    yield from CASES.get(process, [])


def make_call(process: str, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A process of one node; all arguments but child processes are parameters."""
    children = {k: v for k, v in arguments.items() if vectors._has_graph(v)}
    values = {k: v for k, v in arguments.items() if k not in children}
    node = {"process_id": process, "arguments": {**children, **{k: value(k) for k in values}}, "result": True}
    return {"process_graph": {"it": node}}, values


@pytest.mark.parametrize("process", sorted(PROCESSES.keys() - REFUSED - ELSEWHERE))
def test_programs_of_processes(process: str) -> None:
    compared = 0
    for arguments in list_calls(process):
        is_own = any(arguments is case for case in CASES.get(process, []))
        graph, parameters = (make_process if is_own else make_call)(process, arguments)
        try:
            evaluate(graph, parameters=parameters)
        except OpenEOError:
            assert not is_own
            continue
        comparison = compare_program(graph, parameters)
        assert comparison.explanation.incomplete == []
        compared += 1
    assert compared


def test_every_process_is_written_or_refused() -> None:
    assert PROCESSES.keys() == EMITTERS.keys()


@pytest.mark.parametrize("kind", ["class", "regr"])
def test_forests(kind: str) -> None:
    target = {**STATES, "features": []}
    predictors, bands = make_vectors(("a", "b", "c"), 20), ("a", "b", "c")
    target["features"] = [
        {"type": "Feature", "properties": {"target": i % 3}, "geometry": g.__geo_interface__}
        for i, g in enumerate(predictors.geometry.values)
    ]
    target["crs"] = {"type": "name", "properties": {"name": "EPSG:32632"}}
    predict = child("predict_random_forest", data=DATA, model=value("context"))
    graph = {
        "fit": {
            "process_id": f"fit_{kind}_random_forest",
            "arguments": {"predictors": value("predictors"), "target": target, "num_trees": 5, "seed": 1},
        },
        "save": {"process_id": "save_ml_model", "arguments": {"data": refer("fit")}},
        "predict": {
            "process_id": "reduce_dimension",
            "arguments": {
                "data": value("cube"),
                "dimension": "bands",
                "reducer": predict,
                "context": refer("fit"),
            },
            "result": True,
        },
    }
    parameters = {"predictors": predictors, "cube": make_cube(1, bands) / 10}
    comparison = compare_program({"process_graph": graph}, parameters, output=False)
    assert comparison.explanation.incomplete == []
    assert (
        f"RandomForest{'Classifier' if kind == 'class' else 'Regressor'}(" in comparison.explanation.program
    )


def test_what_is_left_out_is_said() -> None:
    graph, parameters = make_process(
        "save_result",
        {"data": make_cube(1, ("a",)), "format": "PNG", "options": {"colormap": "viridis"}},
    )
    explanation = compare_program(graph, parameters).explanation
    (note,) = explanation.incomplete
    assert note["process"] == "save_result"
    assert "# Left out: it (save_result)" in explanation.program
