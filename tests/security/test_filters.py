"""Filters of nobody known: limits before they are parsed, and nothing after that is worse than linear."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from odc_openeo.catalog.cql2 import parse_bbox, parse_filter, parse_geometry
from odc_openeo.catalog.filter_limits import MOST_CHARACTERS, MOST_VALUES, MOST_VERTICES
from odc_openeo.errors import RequestInvalid

DEADLINE_S = 60
"""Far more than a linear check needs, far less than an exponential one."""

PARSE = """
import json, sys
from odc_openeo.catalog.cql2 import parse_filter
from odc_openeo.errors import RequestInvalid
filters = json.load(sys.stdin)
for value in filters:
    try:
        parse_filter(value, "cql2-text" if isinstance(value, str) else "cql2-json")
        print("parsed")
    except RequestInvalid as error:
        print(error)
"""


def nest(count: int, op: str = "not") -> Any:
    value: Any = {"op": "=", "args": [{"property": "a"}, 1]}
    for _ in range(count):
        value = {"op": op, "args": [value]}
    return value


PLACE = {"op": "s_intersects", "args": [{"property": "geometry"}, {"type": "Point", "coordinates": [1, 2]}]}

REFUSED: dict[str, Any] = {
    "brackets": "(" * 100_000 + "a = 1" + ")" * 100_000,
    "open brackets": "(" * 40 + "a = 1",
    "brackets in brackets": "(a = 1 AND " * 40 + "a = 1" + ")" * 40,
    "NOT": "NOT " * 100 + "a = 1",
    "NOT with brackets": "NOT (" * 40 + "a = 1" + ")" * 40,
    "NOT in IN": "a IN (NOT(" * 12 + "1",
    "functions": "f(" * 100 + "1" + ")" * 100 + " = 1",
    "CASEI": "CASEI(" * 50 + "a" + ")" * 50 + " = 'x'",
    "minus signs": "a = " + "-" * 10_000 + "1",
    "differences": "a = 1" + "-1" * 10_000,
    "differences by spaces": "a = 1" + " -1" * 10_000,
    "sums": "a = " + "1 + " * 5_000 + "1",
    "sums of calls": "a = " + "f(1) + " * 3_000 + "1",
    "powers": "a = " + "2^" * 10_000 + "2",
    "comparisons": "a = " * 5_000 + "1",
    "IS NULL": "a" + " IS NULL" * 3_000,
    "LIKE": "a LIKE " * 3_000 + "'b'",
    "BETWEEN": "a BETWEEN 1 AND " * 1_500 + "2",
    "a geometry of brackets": "S_INTERSECTS(geometry, MULTIPOLYGON(" + "(" * 5_000,
    "brackets in a string": "a = '" + "(" * 40 + "'",
    "brackets after a quote": "'" + "(" * 5_000,
    "a long filter": "a = '" + "x" * MOST_CHARACTERS + "'",
    "JSON NOT": nest(300),
    "JSON AND": nest(300, "and"),
    "JSON arrays": {"op": "=", "args": [{"property": "a"}, json.loads("[" * 500 + "]" * 500)]},
    "JSON IN": {"op": "in", "args": [{"property": "a"}, [1] * (MOST_VALUES + 1)]},
    "JSON conditions": {"op": "or", "args": [{"op": "isNull", "args": [{"property": "a"}]}] * MOST_VALUES},
    "JSON geometries": {
        "op": "or",
        "args": [
            {
                "op": "s_intersects",
                "args": [{"property": "geometry"}, {"type": "MultiPoint", "coordinates": [[1, 2]] * 600}],
            }
        ]
        * 100,
    },
    "a deep geometry": {
        "op": "s_intersects",
        "args": [
            {"property": "geometry"},
            {"type": "Polygon", "coordinates": json.loads("[" * 400 + "]" * 400)},
        ],
    },
}


def test_filters_that_would_stop_the_process_are_refused() -> None:
    """In a process of its own: the parser ends with SIGSEGV or takes hours without the limits."""
    child = subprocess.run(
        [sys.executable, "-c", PARSE],
        input=json.dumps(list(REFUSED.values())),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    answers = dict(zip(REFUSED, child.stdout.splitlines(), strict=True))
    assert "parsed" not in answers.values(), answers


def nest_operators(op: str) -> dict[str, Any]:
    value: Any = [1]
    for _ in range(14):
        value = [{"op": op, "args": [{"property": "a"}, value, *([1] if op == "between" else [])]}]
    return {"op": "=", "args": [{"property": "a"}, value]}


def test_nested_operators_are_checked_in_linear_time() -> None:
    child = subprocess.run(
        [sys.executable, "-c", PARSE],
        input=json.dumps([nest_operators(op) for op in ("in", "a_contains", "=", "between")]),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert len(child.stdout.splitlines()) == 4


@pytest.mark.parametrize(
    "text",
    [
        "NOT (a = 1 AND (b = 2 OR (c = 3 AND NOT (d = 4))))",
        " AND ".join(f"a{i} > -{i}" for i in range(300)),
        "a IN (" + ",".join(str(i) for i in range(1000)) + ")",
        "S_INTERSECTS(geometry, LINESTRING(" + ",".join(f"-{i % 90} -1.5" for i in range(2_000)) + "))",
        "T_DURING(datetime, INTERVAL('2022-06-01T00:00:00Z', '2022-07-01T00:00:00Z')) AND a LIKE '%(x)%'",
        "a = 1 + 2 * 3 - 4",
    ],
)
def test_filters_that_people_write_are_parsed(text: str) -> None:
    assert parse_filter(text, "cql2-text")["op"]


@pytest.mark.parametrize(
    "value",
    [
        {"op": "not", "args": []},
        {"op": "and", "args": [True]},
        {"op": "=", "args": [{"property": "a"}]},
        {"op": "between", "args": [{"property": "a"}, 1]},
        {"op": "in", "args": [{"property": "a"}, 1]},
        {"op": 1, "args": []},
        {"op": "=", "args": {"a": 1}},
        {"op": "="},
        {"op": "or", "args": [{"op": "isNull"}, True]},
        {"args": [PLACE, PLACE]},
        {"op": "and", "args": [{"args": [PLACE]}, PLACE]},
    ],
)
def test_malformed_conditions_are_refused(value: Any) -> None:
    with pytest.raises(RequestInvalid, match="CQL2"):
        parse_filter(value, "cql2-json")


def test_geometries_have_limits() -> None:
    line = [[i / 1000, 0] for i in range(MOST_VERTICES + 2)]
    with pytest.raises(RequestInvalid, match="vertices"):
        parse_geometry({"type": "LineString", "coordinates": [[*p, 0, 0] for p in line]})
    nested: Any = {"type": "Point", "coordinates": [1, 2]}
    for _ in range(100):
        nested = {"type": "GeometryCollection", "geometries": [nested]}
    with pytest.raises(RequestInvalid, match="deep"):
        parse_geometry(nested)
    with pytest.raises(RequestInvalid):
        parse_bbox([10**400, 0, 1, 1])
    assert parse_geometry({"type": "LineString", "coordinates": line[:MOST_VERTICES]}).length > 0
