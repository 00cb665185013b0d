"""Reductions chunk by chunk, on blocks that are large enough to be worked on in slabs."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import dask.array as da
import numpy as np
import pytest

from odc_openeo.cube.streaming_reduction import make_kernel_fold, make_moment_fold


def numbers(axis: int) -> np.ndarray:
    random = np.random.default_rng(4)
    values = random.normal(3, 2, (9, 300, 310))
    values[random.random(values.shape) < 0.3] = np.nan
    values[:, 5, 6] = np.nan
    values[1:, 7, 8] = np.nan
    return np.moveaxis(values, 0, axis)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("length", [1, 2, 9])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sum", np.nansum),
        ("prod", np.nanprod),
        ("mean", np.nanmean),
        ("var", lambda v, axis: np.nanvar(v, axis=axis, ddof=1)),
        ("std", lambda v, axis: np.nanstd(v, axis=axis, ddof=1)),
    ],
)
def test_moments_equal_numpy(name: str, expected: Callable[..., np.ndarray], length: int, axis: int) -> None:
    values = numbers(axis)
    chunks = tuple(length if i == axis else 290 for i in range(3))
    result = make_moment_fold(name, True)(da.from_array(values, chunks=chunks), axis, float).compute(
        scheduler="synchronous"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        truth = expected(values, axis=axis)
    empty = np.isnan(values).all(axis=axis)
    np.testing.assert_allclose(result[~empty], truth[~empty], rtol=1e-10)
    assert np.isnan(result[empty]).all()


@pytest.mark.parametrize("length", [1, 4])
def test_kernels_equal_numpy(length: int) -> None:
    values = numbers(0)
    lazy = da.from_array(values, chunks=(length, 300, 300))

    def smallest(block: np.ndarray, axis: tuple[int], keepdims: bool) -> np.ndarray:
        return np.fmin.reduce(block, axis=axis[0], keepdims=keepdims)

    for combine in (None, np.fmin):
        result = make_kernel_fold(smallest, combine)(lazy, 0, float).compute(scheduler="synchronous")
        np.testing.assert_array_equal(result, np.fmin.reduce(values, axis=0))


def test_no_data_is_kept_on_request() -> None:
    values = numbers(0)
    result = make_moment_fold("mean", False)(da.from_array(values, chunks=(2, 300, 300)), 0, float)
    np.testing.assert_allclose(result.compute(scheduler="synchronous"), values.mean(axis=0))
