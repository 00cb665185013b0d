"""The examples in the official process descriptions, where these are at hand.

Those that say what is returned are evaluated; those that only show arguments for nobody's data are validated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from odc_openeo.errors import OpenEOError, ProcessUnsupported
from odc_openeo.graph import evaluate, validate
from odc_openeo.graph.model import iterate_parameter_references
from odc_openeo.registry.process import PROCESSES
from tests.conformance import descriptions
from tests.conformance.comparison import difference

OFFICIAL = descriptions.official(descriptions.DEFAULT)
CONTRADICTIONS: Final = {
    ("array_modify", 3): "it removes an element without 'length', whose default is 0 elements to remove",
    ("count", 4): "its condition is no object with 'process_graph', and uses 'element' for the parameter 'x'",
}
"""Examples that contradict the description they are in."""

EXAMPLES = [
    (id_, index, example)
    for id_, described in OFFICIAL.items()
    if id_ in PROCESSES
    for index, example in enumerate(described.get("examples", ()))
    if (id_, index) not in CONTRADICTIONS
]

needs_descriptions = pytest.mark.skipif(
    not OFFICIAL, reason="the official process descriptions are not beside the repository"
)


@needs_descriptions
@pytest.mark.parametrize(("id_", "index", "example"), EXAMPLES, ids=[f"{id_}-{i}" for id_, i, _ in EXAMPLES])
def test_official_example(id_: str, index: int, example: Mapping[str, Any]) -> None:
    node = {"process_id": id_, "arguments": example["arguments"], "result": True}
    process = {"process_graph": {"it": node}}
    if "returns" in example:
        assert difference(evaluate(process), example["returns"], 1e-9) is None
        return
    unknown = dict.fromkeys(iterate_parameter_references(example["arguments"]))
    if unknown or id_ in ("load_collection", "load_stac"):
        difference_found = validate(process, unknown)
        assert [e for e in difference_found if not isinstance(e, ProcessUnsupported)] == []
        return
    with pytest.raises(OpenEOError) as raised:
        evaluate(process)
    assert raised.value.code in OFFICIAL[id_].get("exceptions", {raised.value.code: None})
