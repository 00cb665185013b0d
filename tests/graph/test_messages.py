"""Messages about arguments: which value is wrong, where it is, and what would be right."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.errors import OpenEOError
from odc_openeo.graph import validate
from odc_openeo.registry.process import PROCESSES
from odc_openeo.untrusted.json_schemas import make_validator
from odc_openeo.untrusted.schema_messages import describe_schema_error

INTERNALS = ("is not of type", "is not valid under any", "anyOf", "oneOf", "{'type'", "None", "True", "False")


def explain(schema: Any, value: Any) -> str:
    (error, *_) = make_validator(schema).iter_errors(value)
    return describe_schema_error(error)


PERIOD = {"type": "array", "subtype": "temporal-interval", "uniqueItems": True, "minItems": 2, "maxItems": 2}
NULL = {"type": "null"}


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        ({"type": "number"}, "x", "it must be a number, not the string 'x'"),
        ({"type": ["number", "null"]}, True, "it must be a number or null, not true"),
        ({"type": "boolean"}, None, "it must be true or false, not null"),
        ({"enum": ["a", "b", "c"]}, "d", "it must be one of 'a', 'b' or 'c', not 'd'"),
        ({"type": "integer", "minimum": 1}, 0, "it must be at least 1, not 0"),
        ({"type": "array", "minItems": 2}, [1], "it must have at least 2 elements, and [1] has 1"),
        ({"type": "array", "items": {"type": "string"}}, ["a", 5], "[1]: it must be a string, not 5"),
        ({"type": "object", "required": ["west", "east"]}, {"west": 1}, "the member 'east' is missing"),
        (
            [PERIOD, NULL],
            ["2019", "2019"],
            "the interval is empty: its end must be later than its start, and both are '2019'",
        ),
        ([PERIOD, NULL], 3, "it must be an array or null, not 3"),
        (
            [{"type": "string", "pattern": r"^\w+$"}, NULL],
            "a-b",
            "'a-b' must consist of letters, digits and underscores only",
        ),
        (
            [{"type": "object", "subtype": "datacube"}, NULL],
            "x",
            "it must be a data cube or null, not the string 'x'",
        ),
        (
            [{"type": "object", "properties": {"a": {"type": "number"}}}, {"type": "array"}],
            {"a": "x"},
            "['a']: it must be a number, not the string 'x'",
        ),
    ],
)
def test_schema_errors(schema: Any, value: Any, message: str) -> None:
    assert explain(schema, value) == message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab-", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["west", "type", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_process_speaks_of_schemas(data: st.DataObject) -> None:
    process = PROCESSES[data.draw(st.sampled_from(sorted(PROCESSES)))]
    names = list(process.parameters)
    if not names:
        return
    arguments = {name: data.draw(JSON) for name in names}
    graph = {"process_graph": {"n": {"process_id": process.id, "arguments": arguments, "result": True}}}
    for error in validate(graph):
        assert_plain(error)


def assert_plain(error: OpenEOError) -> None:
    assert not any(mark in error.message for mark in INTERNALS), error.message
    assert len(error.message) < 1500
