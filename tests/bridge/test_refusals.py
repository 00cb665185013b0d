"""What openEO cannot say is refused when it is recorded, with the operation and what to do instead."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import openeo_xarray.request
import pytest
import xarray as xr

from openeo_xarray import UnsupportedOperation
from tests.bridge.refusals import REFUSED, Refused


@pytest.mark.parametrize("refused", REFUSED, ids=lambda r: r.code)
def test_refused(refused: Refused, offline: xr.Dataset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UnsupportedOperation) as failure:
            refused.function(offline)
    message = str(failure.value)
    assert refused.operation in failure.value.operation
    assert failure.value.advice in message
    assert len(message) < 500


OTHER_ERRORS: dict[str, tuple[Callable[[xr.Dataset], Any], type[Exception], str]] = {
    "chunk": (lambda ds: ds.red.chunk({"time": 1}), ValueError, "leave out `chunks`"),
    "ffill": (lambda ds: ds.red.ffill("time"), RuntimeError, "bottleneck"),
    "function not allowed": (
        lambda ds: xr.apply_ufunc(lambda a: a, ds.red),
        ValueError,
        "chunked array",
    ),
    "a selection by pixels": (lambda ds: ds.red.isel(time=ds.red.argmax("time")), ValueError, "chunked"),
    "idxmax": (lambda ds: ds.red.idxmax("time"), ValueError, "call `.compute\\(\\)`"),
    "chunks of a dataset": (lambda ds: ds.chunk(), ValueError, "leave out `chunks`"),
    "wrong label": (lambda ds: ds.red.sel(time="1999-01-01"), KeyError, "not all values found"),
    "wrong position": (lambda ds: ds.red.isel(x=99), IndexError, "out of bounds"),
    "wrong dimension": (lambda ds: ds.red.mean("height"), ValueError, "height"),
}


@pytest.mark.parametrize("case", OTHER_ERRORS)
def test_errors_of_xarray_stay_theirs(case: str, offline: xr.Dataset) -> None:
    function, error, text = OTHER_ERRORS[case]
    with pytest.raises(error, match=text):
        function(offline)


def test_showing_computes_nothing(offline: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openeo_xarray.request, "compute_nodes", pytest.fail)
    result = offline.assign(ndvi=(offline.nir - offline.red) / (offline.nir + offline.red))
    for thing in (result, result.ndvi, result.ndvi.mean("time"), result.ndvi.variable, result.ndvi.data):
        assert "openEO" in repr(thing)
        assert "openEO" in thing._repr_html_()
    assert result.ndvi.nbytes == 14 * 12 * 20 * 8
    assert str(np.float64(result.nbytes)) != ""


def test_metadata_are_there_without_pixels(offline: xr.Dataset) -> None:
    assert offline.red.dims == ("time", "y", "x")
    assert offline.red.dtype == np.float64
    assert offline.scl.dtype == np.float32
    assert offline.red.mean("time").dtype == np.float64
    assert (offline.red > 1).dtype == bool
    assert (offline.red > 1).sum("time").dtype == np.int64
    assert offline.scl.mean("time").dtype == np.float32
    assert offline.time.dt.month.values[0] == 6
