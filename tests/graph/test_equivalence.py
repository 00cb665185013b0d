"""Random graphs have the same values, dimensions and coordinates with the planner on and off.

`EXAMPLES=3000 pytest tests/graph/test_equivalence.py -n0` looks longer.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, Phase, assume, event, given, settings

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo import cube
from odc_openeo.catalog import Catalog, Query, Scene
from odc_openeo.errors import OpenEOError
from odc_openeo.graph import evaluate
from odc_openeo.registry.environment import Environment
from tests.catalog.scenes import Grid, Index, product, scene, write
from tests.graph.random_graphs import graphs

EXAMPLES = int(os.environ.get("EXAMPLES", "40"))
LONG = EXAMPLES > 100
HEIGHTS = Grid(599990, 5200010, 10, (70, 90))
COVER = Grid(1056360, 5225380, 20, (46, 56), 32631)
"""Turned by 5 degrees against the others."""


class Remembering:
    """A catalogue that asks the index only once for the same."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.known: dict[Any, Any] = {}

    def _once(self, key: Any, ask: Any) -> Any:
        if key not in self.known:
            self.known[key] = ask()
        return self.known[key]

    def get_product(self, id_: str) -> Any:
        return self._once(id_, lambda: self.catalog.get_product(id_))

    def get_collection(self, id_: str) -> Any:
        return self._once(("collection", id_), lambda: self.catalog.get_collection(id_))

    def search_scenes(self, id_: str, query: Query, limit: int) -> list[Scene]:
        key = (id_, str(query.area), query.start, query.end)
        return self._once(key, lambda: self.catalog.search_scenes(id_, query, limit))


@pytest.fixture
def tiny(catalog: Catalog, index: Index, tmp_path: Path) -> Remembering:
    """Four dates of optical scenes, on one of them two beside each other, a model of heights, and the cover
    of the ground in the reference system of the next zone."""
    times = ["2022-06-01T10:00:00Z", "2022-06-05T10:00:00Z", "2022-06-12T10:00:00Z", "2022-06-28T10:00:00Z"]
    for seed, time in enumerate(times):
        index.add(scene(tmp_path / f"s{seed}", seed, time))
    index.add(scene(tmp_path / "east", 9, times[1], left=600400))
    bands = [{"name": "height", "dtype": "float32", "nodata": float("nan"), "units": "m"}]
    index.add_product(product("heights", measurements=bands))
    x, y = np.meshgrid(np.arange(90), np.arange(70))
    heights = (100 + 40 * np.sin(x / 7) + 0.7 * y).astype("float32")
    result = write(tmp_path / "h", {"height": (HEIGHTS, heights)}, name="heights", nodata=None)
    index.add(result)
    index.add_product(
        product("cover", measurements=[{"name": "cover", "dtype": "uint8", "nodata": 0, "units": "1"}])
    )
    kinds = np.random.default_rng(5).integers(0, 250, COVER.shape).astype("uint8")
    index.add(write(tmp_path / "c", {"cover": (COVER, kinds)}, name="cover"))
    return Remembering(catalog)


def run(catalog: Any, process: dict[str, Any], stored: dict[str, Any], *, plan: bool) -> Any:
    env = Environment(catalog, lookup=lambda id_, _: stored.get(id_))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = evaluate(process, env, plan=plan)
        return value.compute(scheduler="sync")


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not LONG,
    phases=[p for p in Phase if p is not Phase.shrink or not LONG],
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(graphs())
def test_random_graphs_equal_without_plan(tiny: Any, case: tuple[dict[str, Any], dict[str, Any]]) -> None:
    process, stored = case
    try:
        plain = run(tiny, process, stored, plan=False)
    except OpenEOError as error:
        event(f"invalid: {error.code} {str(error)[:60]}")
        assume(False)
    event("valid")
    planned = run(tiny, process, stored, plan=True)
    assert_same(planned, plain)
    # What a merge fills with no-data, or a resolver computes, makes floats of integers only if it is needed.
    wider = "merge_cubes" in repr((process, stored)) and np.can_cast(planned.dtype, plain.dtype)
    assert planned.dtype == plain.dtype or wider


def assert_same(planned: xr.DataArray, plain: xr.DataArray) -> None:
    assert planned.dims == plain.dims
    assert planned.sizes == plain.sizes
    for name in plain.dims:
        assert (name in planned.coords) == (name in plain.coords)
        if name in plain.coords:
            a, b = planned.coords[name].values, plain.coords[name].values
            if b.dtype.kind == "f":
                np.testing.assert_allclose(a, b, rtol=1e-12)
            else:
                np.testing.assert_array_equal(a, b)
    a, b = (cube.decode(v) for v in (planned, plain))
    np.testing.assert_allclose(a.values.astype(float), b.values.astype(float), rtol=1e-5, atol=1e-4)
