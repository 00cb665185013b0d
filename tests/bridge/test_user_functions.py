"""Functions of the user on the back-end: the same values as xarray gives on downloaded pixels."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import openeo_xarray
from openeo_xarray import UnsupportedOperation
from tests.bridge import user_functions
from tests.bridge.equality import check_equal
from tests.bridge.user_functions import FUNCTIONS, apply


@pytest.fixture(scope="module")
def computed(recorded: xr.Dataset) -> dict[str, xr.DataArray]:
    """All of them with one request."""
    with openeo_xarray.set_options(user_functions=True):
        arrays = [function(recorded) for function in FUNCTIONS.values()]
    return dict(zip(FUNCTIONS, openeo_xarray.compute(*arrays), strict=True))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values(name: str, computed: dict[str, xr.DataArray], downloaded: xr.Dataset) -> None:
    check_equal(computed[name], FUNCTIONS[name](downloaded))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_refused_unless_allowed(name: str, offline: xr.Dataset) -> None:
    with pytest.raises(UnsupportedOperation, match=r"set_options\(user_functions=True\)"):
        FUNCTIONS[name](offline)


def test_numpy_operations_stay_processes(offline: xr.Dataset) -> None:
    with openeo_xarray.set_options(user_functions=True):
        result = apply(np.square, offline.red, dim=None)
    assert "run_udf" not in str(result.openeo.graph())


def make_closure(factor: float) -> object:
    def multiply(values: np.ndarray) -> np.ndarray:
        return np.sort(values) * factor

    return multiply


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda ds: apply(make_closure(2.0), ds.red), "variables of the function around it .factor."),
        (lambda ds: apply(lambda values: np.sort(values), ds.red), "written with def"),
        (lambda ds: apply(np.sort, ds.red), "written with def"),
        (lambda ds: apply(user_functions.use_array, ds.red), "LOOKUP, a dict"),
        (
            lambda ds: apply(user_functions.digitize, ds.red, 0.1, dim=None, kwargs={"bins": np.ones(2)}),
            "an argument, a dict",
        ),
        (lambda ds: apply(user_functions.digitize, ds.red, ds.nir, dim=None), "several arrays"),
        (
            lambda ds: xr.apply_ufunc(
                np.sort,
                ds.red,
                input_core_dims=[["y", "x"]],
                output_core_dims=[["y", "x"]],
                dask="parallelized",
            ),
            "several core dimensions",
        ),
    ],
)
def test_what_cannot_be_sent(offline: xr.Dataset, make: object, reason: str) -> None:
    with openeo_xarray.set_options(user_functions=True), pytest.raises(UnsupportedOperation, match=reason):
        make(offline)  # type: ignore[operator]


def test_unknown_options() -> None:
    with pytest.raises(ValueError, match="there is no option"):
        openeo_xarray.set_options(udfs=True)


def test_options_end_with_their_block(offline: xr.Dataset) -> None:
    with openeo_xarray.set_options(user_functions=True):
        pass
    with pytest.raises(UnsupportedOperation):
        apply(user_functions.smooth, offline.red)


def test_what_is_sent(offline: xr.Dataset) -> None:
    with openeo_xarray.set_options(user_functions=True):
        graph = FUNCTIONS["with other functions and constants"](offline).openeo.graph()
    (node,) = [n for n in graph.values() if "run_udf" in str(n)]
    assert node["process_id"] == "reduce_dimension"
    (run,) = node["arguments"]["reducer"]["process_graph"].values()
    code = run["arguments"]["udf"]
    for line in ("import numpy as np", "import math", "FACTOR = 2.5", "def scale(", "def find_spread("):
        assert line in code, code
    compile(code, "udf.py", "exec")
