"""Compare the parts of a job with the whole."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np

from odc_openeo.graph import evaluate
from odc_openeo.parts import JobSplit, Part, PartLimits, evaluate_part, plan_parts
from odc_openeo.parts.evaluate import slice_part
from odc_openeo.registry.environment import Environment
from tests.graph.test_equivalence import assert_same


@dataclass(frozen=True)
class Case:
    """A process, what it runs in, and the value of the whole."""

    process: dict[str, Any]
    env: Environment
    whole: Any
    split: JobSplit


def make_case(catalog: Any, process: dict[str, Any], stored: dict[str, Any], limits: PartLimits) -> Case:
    """Evaluate the whole and split it."""
    env = Environment(catalog, lookup=lambda id_, _: stored.get(id_))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = dask.compute(evaluate(process, env), scheduler="sync")[0]
        split = plan_parts(process, env, limits)
    return Case(process, env, whole, JobSplit.from_dict(split.to_dict()))


def check_part(case: Case, part: Part) -> Any:
    """Compute a part and compare it with the same part of the whole: values, labels, type, attributes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lazy, _ = evaluate_part(case.process, case.env, case.split, part)
        value = dask.compute(lazy, scheduler="sync")[0]
    if case.split.kind in ("whole", "stages"):
        return value
    expected = slice_part(case.whole, case.split.template, part)
    assert_same(value, expected)
    assert value.dtype == expected.dtype
    assert value.attrs.keys() == expected.attrs.keys()
    assert value.coords.keys() == expected.coords.keys()
    if "x" in value.dims and min(value.sizes["x"], value.sizes["y"]) > 1:
        assert value.odc.geobox.crs == expected.odc.geobox.crs
        np.testing.assert_allclose(value.odc.geobox.transform, expected.odc.geobox.transform)
    return value


def choose_parts(split: JobSplit, most: int, seed: int = 0) -> Sequence[Part]:
    """Choose some parts at random; all if there are no more."""
    return split.parts if len(split.parts) <= most else random.Random(seed).sample(split.parts, most)
