"""Process graphs that ask for too much are refused before they get it, and told why."""

from __future__ import annotations

import resource
from typing import Any

import numpy as np
import pytest

from odc_openeo.cube import LabeledArray
from odc_openeo.cube.budget import MOST_CALLS, MOST_ELEMENTS, Budget, measure_json
from odc_openeo.errors import OpenEOError, ProcessGraphComplexity
from odc_openeo.graph import evaluate
from tests.fuzz.graph_sources import make_sources
from tests.security.graph_nodes import chain, child, node, ref
from tests.support.graphs import value

FLOATS, DATA, X, CONTEXT = (value(name) for name in ("floats", "data", "x", "context"))
MEAN = child("mean", data=DATA)
MOST_GROWTH_KB = 250_000
LAND = {"type": "Polygon", "coordinates": [[[10, 45], [11, 45], [11, 46], [10, 45]]]}
METRES = [node("load_geojson", data=LAND), node("vector_reproject", data=ref(0), projection=32632)]
LINE = {"type": "LineString", "coordinates": [[10, 45], [11, 45]]}


def doubled(process_id: str, first: dict[str, Any], times: int) -> dict[str, Any]:
    """A value that is joined with itself again and again."""
    nodes = [first]
    for number in range(times):
        both = {"data": [ref(number), ref(number)]}
        if process_id == "array_concat":
            both = {"array1": ref(number), "array2": ref(number)}
        nodes.append(node(process_id, **both))
    return chain(*nodes)


def in_reducer(*nodes: dict[str, Any]) -> dict[str, Any]:
    reducer = chain(*nodes, node("mean", data=ref(len(nodes) - 1)))
    return chain(node("reduce_dimension", data=FLOATS, dimension="t", reducer=reducer))


INTERVALS = [[f"{1000 + i // 336:04d}-{i // 28 % 12 + 1:02d}-{i % 28 + 1:02d}", None] for i in range(50_000)]
NESTED = child("array_apply", data=CONTEXT, process=child("add", x=X, y=1), context=CONTEXT)
TOO_MUCH = {
    "doubled strings": (doubled("text_concat", node("constant", x="x" * 1000), 25), "characters"),
    "doubled arrays": (doubled("array_concat", node("array_create", data=[1], repeat=10**6), 6), "elements"),
    "a long array": (chain(node("array_create", data=[1], repeat=10**7)), "1000000"),
    "nested arrays": (
        chain(node("constant", x=[1]), *[node("array_create", data=[ref(n)] * 10) for n in range(12)]),
        "elements",
    ),
    "nested arrays in objects": (
        chain(
            node("constant", x=[1]),
            *[node("constant", x={k: ref(n) for k in "abcdefghij"}) for n in range(12)],
        ),
        "elements",
    ),
    "long labelled arrays": (
        chain(
            node("array_create", data=["a" * 1000], repeat=100_000),
            node("array_create", data=ref(0), repeat=2),
        ),
        "characters",
    ),
    "an array repeated in a cube": (
        in_reducer(node("array_create", data=DATA, repeat=100_000)),
        "repetitions",
    ),
    "array_apply in array_apply": (
        chain(
            node("array_create", data=[1], repeat=100_000),
            node("array_apply", data=ref(0), process=NESTED, context=ref(0)),
        ),
        "calls",
    ),
    "array_filter in array_filter": (
        chain(
            node("array_create", data=[1], repeat=100_000),
            node("array_filter", data=ref(0), condition=NESTED, context=ref(0)),
        ),
        "calls",
    ),
    "points by chance": (
        chain(*METRES, node("vector_to_random_points", data=ref(1), geometry_count=10**9)),
        "points",
    ),
    "points by chance in all": (
        chain(*METRES, node("vector_to_random_points", data=ref(1), total_count=2**62)),
        "points",
    ),
    "dense points": (chain(*METRES, node("vector_to_regular_points", data=ref(1), distance=0.001)), "points"),
    "dense points on a line": (
        chain(
            node("load_geojson", data=LINE),
            METRES[1],
            node("vector_to_regular_points", data=ref(1), distance=1e-300),
        ),
        "points",
    ),
    "wide windows": (
        chain(node("aggregate_spatial_window", data=FLOATS, size=[2147483648, 1000], reducer=MEAN)),
        "window",
    ),
    "high windows": (
        chain(node("aggregate_spatial_window", data=FLOATS, size=[1, 2**62], reducer=MEAN)),
        "window",
    ),
    "a large kernel": (chain(node("apply_kernel", data=FLOATS, kernel=[[1] * 1001] * 1001)), "kernel"),
    "a long kernel": (chain(node("apply_kernel", data=FLOATS, kernel=[[1.5] * 20001])), "kernel"),
    "many intervals": (
        chain(node("aggregate_temporal", data=FLOATS, intervals=INTERVALS, reducer=MEAN)),
        "intervals",
    ),
    "many quantiles": (chain(node("quantiles", data=[1, 2], probabilities=2**31)), "quantiles"),
    "tiny pixels": (chain(node("resample_spatial", data=FLOATS, resolution=1e-300)), "pixels"),
}


@pytest.fixture(scope="module")
def sources() -> dict[str, Any]:
    return make_sources()


@pytest.mark.parametrize("name", TOO_MUCH)
def test_too_much_is_refused_before_memory_is_taken(name: str, sources: dict[str, Any]) -> None:
    process, what = TOO_MUCH[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(OpenEOError, match=what) as raised:
        evaluate(process, parameters=sources)
    assert raised.value.status == 400
    assert raised.value.code in ("ProcessGraphComplexity", "ProcessParameterInvalid")
    assert raised.value.node
    assert any(digit in raised.value.message for digit in "123456789"), "the limit is told"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_GROWTH_KB


ENOUGH = {
    "a long string": (doubled("text_concat", node("constant", x="x" * 1000), 10), 1024 * 1000),
    "a long array": (doubled("array_concat", node("array_create", data=[1], repeat=1000), 7), 128_000),
}


@pytest.mark.parametrize("name", ENOUGH)
def test_work_within_limits_is_done(name: str) -> None:
    process, length = ENOUGH[name]
    assert len(evaluate(process)) == length


def test_a_polygon_of_many_corners_is_taken(sources: dict[str, Any]) -> None:
    angles = np.linspace(0, 2 * np.pi, 100_000)[:-1]
    radius = 0.01 * (1 + 0.1 * np.sin(50 * angles))
    ring = [[10.27 + r * np.cos(a), 45.14 + r * np.sin(a)] for a, r in zip(angles, radius, strict=True)]
    polygon = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    result = evaluate(
        chain(node("aggregate_spatial", data=FLOATS, geometries=polygon, reducer=MEAN)), parameters=sources
    )
    assert np.isfinite(result.compute()).all()


def test_a_budget_is_of_one_evaluation() -> None:
    process = chain(
        node("array_create", data=[1], repeat=1000),
        node("array_apply", data=ref(0), process=child("add", x=X, y=1)),
    )
    for _ in range(3):
        assert evaluate(process) == [2] * 1000


def test_a_budget_counts_all_values() -> None:
    budget, half = Budget(), [1] * (MOST_ELEMENTS // 2)
    for _ in range(39):
        budget.spend(half)
    with pytest.raises(ProcessGraphComplexity, match="all arrays"):
        budget.spend(half)
    budget = Budget(calls=MOST_CALLS - 1)
    budget.spend(1)
    with pytest.raises(ProcessGraphComplexity, match="calls"):
        budget.spend(1)


def test_values_are_measured_on_all_levels() -> None:
    assert measure_json(1) == (1, 0)
    assert measure_json("abc") == (1, 3)
    assert measure_json([1, ["ab", None], {"key": "c"}]) == (7, 6)
    assert measure_json(LabeledArray(["a", "bc"], [1, 2])) == (3, 3)
