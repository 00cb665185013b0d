"""Arrays in shared memory: what comes back is checked against it, whatever the other side says."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from odc_openeo.udf.arenas import DTYPES, Arena, ReplyInvalid, measure_arrays

SIZE = 2**16
GOOD: dict[str, Any] = {"dtype": "<f8", "shape": [2, 3], "offset": 64}


@pytest.fixture(scope="module")
def arena():
    arena = Arena(SIZE)
    yield arena
    arena.close()


@given(
    values=st.lists(
        arrays.arrays(st.sampled_from(list(DTYPES.values())), arrays.array_shapes(min_side=0, max_side=5)),
        max_size=4,
    )
)
@settings(deadline=None, max_examples=50)
def test_arrays_come_back(arena, values):
    descriptions = arena.write([v.T for v in values])
    for before, after in zip(values, arena.read(descriptions, 0, SIZE), strict=True):
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, before.T)
        assert after.flags.owndata
    assert measure_arrays(values) <= SIZE


LIES = {
    "before its room": {"offset": 0},
    "outside": {"offset": 2**40},
    "negative": {"offset": -64},
    "between": {"offset": 65},
    "too large": {"shape": [2**40]},
    "overflow": {"shape": [2**47, 2**47, 2**47]},
    "negative size": {"shape": [-1, -1]},
    "huge size": {"shape": [10**400]},
    "fraction": {"shape": [1.0]},
    "text": {"shape": ["1"]},
    "booleans": {"shape": [True], "offset": False},
    "many dimensions": {"shape": [1] * 100},
    "no list": {"shape": 3},
    "objects": {"dtype": "|O"},
    "texts": {"dtype": "<U10"},
    "structure": {"dtype": [["a", "|O"]]},
    "void": {"dtype": "|V8"},
    "no type": {"dtype": None},
    "more": {"pickle": True},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_lies_are_refused(arena, lie):
    with pytest.raises(ReplyInvalid):
        arena.read([{**GOOD, **lie}], 64, SIZE - 64)


@pytest.mark.parametrize("description", [None, "x", {}, [None], [[]], [{}], [GOOD] * 2000])
def test_no_descriptions(arena, description):
    with pytest.raises(ReplyInvalid):
        arena.read(description, 64, SIZE - 64)


def test_arrays_upon_each_other_are_not_multiplied(arena):
    whole = {"dtype": "|u1", "shape": [SIZE - 64], "offset": 64}
    assert arena.read([whole], 64, SIZE - 64)[0].nbytes == SIZE - 64
    with pytest.raises(ReplyInvalid):
        arena.read([whole, whole], 64, SIZE - 64)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["<f8", "|b1", "|O", "x"])
json_values = scalars | st.lists(scalars, max_size=3)


@given(description=st.fixed_dictionaries(dict.fromkeys(GOOD, json_values)))
@settings(deadline=None, max_examples=100)
def test_any_json_is_an_array_within_its_room_or_refused(arena, description):
    try:
        (array,) = arena.read([description], 64, SIZE - 64)
    except ReplyInvalid:
        return
    assert array.nbytes <= SIZE - 64


def test_bytes_of_booleans_are_made_true(arena):
    arena.write([np.array([0, 1, 2, 255], np.uint8)])
    (values,) = arena.read([{"dtype": "|b1", "shape": [4], "offset": 0}], 0, SIZE)
    assert values.view(np.uint8).tolist() == [0, 1, 1, 1]


def test_nobody_changes_the_size(arena):
    for size in (0, 2 * SIZE):
        with pytest.raises(PermissionError):
            os.ftruncate(arena.descriptor, size)
