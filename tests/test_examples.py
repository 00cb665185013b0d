"""The examples that this package publishes with its processes."""

from __future__ import annotations

import pytest

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.graph import evaluate
from odc_openeo.registry.process import PROCESSES, Example
from tests.conformance.comparison import difference

EXAMPLES = [(id_, example) for id_, process in PROCESSES.items() for example in process.examples]


@pytest.mark.parametrize(("id_", "example"), EXAMPLES, ids=[id_ for id_, _ in EXAMPLES])
def test_published_example(id_: str, example: Example) -> None:
    node = {"process_id": id_, "arguments": dict(example.arguments), "result": True}
    result = evaluate({"process_graph": {"it": node}})
    assert difference(result, example.returns, 1e-9) is None
