"""The same code gives equal values on recorded arrays of the running stack and on downloaded pixels."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import xarray as xr

import openeo_xarray
from tests.bridge.equality import check_equal
from tests.bridge.expressions import EXPRESSIONS, Expression
from tests.bridge.idioms import IDIOMS


@pytest.fixture(scope="module")
def computed() -> dict[str, dict[str, Any]]:
    """Values of the expressions of each section, which is computed with one request."""
    return {}


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=lambda e: e.code)
def test_expression(
    expression: Expression,
    recorded: xr.Dataset,
    downloaded: xr.Dataset,
    computed: dict[str, dict[str, Any]],
) -> None:
    if expression.section not in computed:
        chosen = [e for e in EXPRESSIONS if e.section == expression.section]
        values = openeo_xarray.compute(*(e.function(recorded) for e in chosen))
        computed[expression.section] = {e.code: v for e, v in zip(chosen, values, strict=True)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = expression.function(downloaded)
    check_equal(computed[expression.section][expression.code], expected)


@pytest.mark.parametrize("name", IDIOMS)
def test_idiom(name: str, recorded: xr.Dataset, downloaded: xr.Dataset) -> None:
    analysis = IDIOMS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = analysis(downloaded)
    check_equal(analysis(recorded).compute(), expected)
