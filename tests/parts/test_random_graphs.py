"""Parts of random graphs have the values, grids, labels and types of the same graph as a whole.

`python -m tests.parts --examples 200` looks longer.
"""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, event, given, settings
from hypothesis import strategies as st

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.errors import OpenEOError
from odc_openeo.load import chunking
from odc_openeo.parts import PartLimits, combine_parts
from odc_openeo.registry import demand
from tests.graph.random_graphs import Builder, Cube, graphs
from tests.graph.test_equivalence import assert_same
from tests.parts.comparison import check_part, choose_parts, make_case
from tests.support.graphs import child

EXAMPLES = int(os.environ.get("EXAMPLES", "8"))
LONG = EXAMPLES > 100
TINY = PartLimits(side=8, labels=1, block=8, most_repeats=math.inf)
MOST = 8
WITHOUT_PIXELS = frozenset({"xy: zones", "xy: reduce_space"})
"""Steps after which hardly anything is left to split."""
REDUCERS = ("mean", "sum", "count", "min", "max", "median")


def reduce_zones(b: Builder, c: Cube) -> Cube:
    """Statistics of several polygons."""
    features = [
        {"type": "Feature", "properties": {}, "geometry": b.polygons()} for _ in range(b.one(2, 3, 5))
    ]
    geometries = {"type": "FeatureCollection", "features": features}
    reducer = child(b.one("mean", "max"), data={"from_parameter": "data"})
    return c.after(b.on(c, "aggregate_spatial", geometries=geometries, reducer=reducer), raster=False)


def reduce_pixels(b: Builder, c: Cube) -> Cube:
    """One value of all pixels, in two stages or, as a median, over time."""
    reducer = child(b.one(*REDUCERS), data={"from_parameter": "data"})
    return c.after(b.on(c, "reduce_spatial", reducer=reducer), raster=False)


split_graphs = st.sampled_from([None, None, None, reduce_zones, reduce_pixels]).flatmap(
    lambda last_step: graphs(WITHOUT_PIXELS, last_step)
)
"""Graphs most of which split, over pixels, geometries or time, or in two stages."""


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads in chunks of 16 pixels, and parts that look no farther than a few pixels around them."""
    monkeypatch.setattr(chunking, "CHUNK", 16)
    monkeypatch.setattr(chunking, "BLOCK", 16)
    monkeypatch.setattr(demand, "PART_REACH", 8)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not LONG,
    phases=[p for p in Phase if p is not Phase.shrink],
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(st.one_of(split_graphs, split_graphs, split_graphs, graphs()))
@pytest.mark.usefixtures("small_chunks")
def test_parts_of_random_graphs_equal_the_whole(
    tiny: Any, case: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    process, stored = case
    try:
        split_case = make_case(tiny, process, stored, TINY)
    except OpenEOError as error:
        event(f"invalid: {error.code}")
        assume(False)
    event(f"{split_case.split.kind}: {split_case.split.reason}")
    values = [check_part(split_case, part) for part in choose_parts(split_case.split, MOST)]
    if len(values) == len(split_case.split.parts) > 1:
        assert_same(combine_parts(split_case.split, values), split_case.whole)
