"""Programs of random graphs give what the service gives.

`EXAMPLES=1000 pytest tests/explain/test_random_graphs.py -n0` looks longer.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from odc_openeo.errors import OpenEOError
from odc_openeo.graph import evaluate
from odc_openeo.registry.environment import Environment
from tests.explain.programs import compare_program
from tests.graph.random_graphs import graphs

EXAMPLES = int(os.environ.get("EXAMPLES", "30"))


def test_random_graphs(tiny: Any) -> None:
    compared: set[str] = set()
    incomplete: dict[str, str] = {}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(graphs())
    def compare(case: tuple[dict[str, Any], dict[str, Any]]) -> None:
        process, stored = case
        key = repr(case)
        if key in compared or key in incomplete:
            return
        try:
            value = evaluate(process, make_environment(tiny, stored))
        except OpenEOError:
            return
        if not all(value.sizes.values()):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env = make_environment(tiny, stored)
            comparison = compare_program(process, env=env, lenient=True, edge_pixels=1)
        if comparison.explanation.incomplete:
            incomplete[key] = comparison.explanation.incomplete[0]["reason"]
        else:
            compared.add(key)

    compare()
    assert len(compared) >= EXAMPLES // 2
    # A few of few graphs say little.
    assert len(incomplete) < max(3, len(compared) / 10), incomplete


def make_environment(catalog: Any, stored: dict[str, Any]) -> Environment:
    return Environment(catalog, lookup=lambda id_, _: stored.get(id_))
