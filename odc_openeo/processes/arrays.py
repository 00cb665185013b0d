"""Processes on arrays of any values: elements, labels, joining, searching, filtering, filling gaps.

JSON arrays yield JSON arrays; arrays in cubes (DataArrays along `ARRAY`) stay lazy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Final

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY, LabeledArray
from odc_openeo.cube.arrays import (
    apply_along_array,
    as_numbers,
    as_sequence,
    get_labels,
    is_labeled,
    load_coordinate,
    make_constant_field,
    with_labels,
)
from odc_openeo.cube.budget import check_count
from odc_openeo.cube.elementwise import make_nodata_like
from odc_openeo.cube.instants import find_instants
from odc_openeo.cube.join_arrays import join_arrays
from odc_openeo.errors import (
    ArrayElementNotAvailable,
    ArrayElementParameterConflict,
    ArrayElementParameterMissing,
    ArrayLabelConflict,
    ArrayLengthMismatch,
    ArrayNotLabeled,
    LabelExists,
    ProcessParameterInvalid,
)
from odc_openeo.processes.comparison import are_equal, eq
from odc_openeo.processes.dates import parse_moment
from odc_openeo.processes.logic import any_
from odc_openeo.processes.reducers import min_
from odc_openeo.registry.map_elements import apply_to_each
from odc_openeo.registry.process import OMITTED, Example, Schema, process
from odc_openeo.registry.schemas import (
    ANY_JSON,
    LABELED_ARRAY,
    AnyValue,
    Array,
    Boolean,
    BooleanField,
    Comparable,
    JsonArray,
    Numbers,
)

MAX_LENGTH: Final = 1_000_000
MAX_PARTS: Final = 1_000
"""Largest number of arrays of a cube joined at once."""

_LABEL = [{"type": "number"}, {"type": "string"}]
_INDEX = {"type": "integer", "minimum": 0}


def _element_process_schema(returns: Any, description: str) -> Schema:
    """Build the schema of a child process that is called for each element."""
    parameters = [
        {"name": "x", "description": "The element.", "schema": ANY_JSON},
        {"name": "index", "description": "Its position, from zero.", "schema": _INDEX},
        {
            "name": "label",
            "description": "Its label, if the array has labels.",
            "schema": [*_LABEL, {"type": "null"}],
            "default": None,
            "optional": True,
        },
        {
            "name": "context",
            "description": "Additional data passed by the user.",
            "schema": ANY_JSON,
            "optional": True,
            "default": None,
        },
    ]
    result = {"description": description, "schema": returns}
    return Schema({"type": "object", "subtype": "process-graph", "parameters": parameters, "returns": result})


ElementProcess = Annotated[Callable[..., Any], _element_process_schema(ANY_JSON, "The new element.")]
ElementCondition = Annotated[
    Callable[..., Any], _element_process_schema({"type": "boolean"}, "Whether to keep the element.")
]
Index = Annotated[Any, Schema(_INDEX, accepts={"type": "integer"})]
Length = Annotated[int, Schema(_INDEX)]
Label = Annotated[Any, Schema(_LABEL)]
LabelOrNull = Annotated[Any, Schema([*_LABEL, {"type": "null"}])]
LabelList = Annotated[
    Sequence[Any], Schema({"type": "array", "uniqueItems": True, "items": {"type": ["number", "string"]}})
]
AnyArray = Annotated[JsonArray, Schema({"type": "array"})]
Labels = Annotated[list[Any], Schema({"type": "array", "items": {"type": ["number", "string"]}})]
Labelled = Annotated[JsonArray, Schema(LABELED_ARRAY)]
Repeat = Annotated[int, Schema({"type": "integer", "minimum": 1})]
PositionOrNull = Annotated[int | None | xr.DataArray, Schema([{"type": "null"}, _INDEX])]


# --- One element ---------------------------------------------------------------------------------


@process(
    categories=["arrays", "reducer"],
    examples=[
        Example({"data": [9, 8, 7, 6, 5], "index": 2}, 7),
        Example({"data": ["A", "B", "C"], "index": 0}, "A"),
        Example({"data": [], "index": 0, "return_nodata": True}, None),
    ],
    raw_values_of=("data",),
)
def array_element(
    data: Array, index: Index = OMITTED, label: Label = OMITTED, return_nodata: Boolean = False
) -> AnyValue:
    """Element of an array.

    Returns one element, by its position or its label. In a child process that reduces the bands of a cube,
    this selects one band; its dtype and no-data value are kept.

    Args:
        data: An array.
        index: The position, from zero.
        label: The label.
        return_nodata: Return no-data instead of an error if there is no such element.

    Returns:
        The element.

    Raises:
        ArrayElementNotAvailable: The array has no such element.
        ArrayElementParameterMissing: Neither `index` nor `label` is set.
        ArrayElementParameterConflict: Both `index` and `label` are set.
        ArrayNotLabeled: `label` is set, but the array has no labels.
    """
    by_index, by_label = (v is not OMITTED and v is not None for v in (index, label))
    if by_index and by_label:
        raise ArrayElementParameterConflict()
    if not by_index and not by_label:
        raise ArrayElementParameterMissing()
    if by_label and not is_labeled(data):
        raise ArrayNotLabeled()
    values = as_sequence(data, "array_element")
    length = _array_length(values)
    position = int(index) if by_index else _find_element(data, label)
    if position is None or not 0 <= position < length:
        if return_nodata:
            return _nodata_element(values)
        if by_label:
            raise ArrayElementNotAvailable.with_label(label, get_labels(data))
        raise ArrayElementNotAvailable.at_index(index, length)
    return pick_element(values, position) if isinstance(values, xr.DataArray) else values[position]


def _find_element(data: Any, label: Any) -> int | None:
    """The position of a label, or of the band that has it as an alias."""
    names = get_labels(data)
    position = find_label(names, label)
    if position is not None or not isinstance(data, xr.DataArray):
        return position
    return find_label(names, cube.find_band_label(data, ARRAY, label))


def _nodata_element(values: Any) -> Any:
    if not isinstance(values, xr.DataArray):
        return None
    if not values.sizes[ARRAY]:
        return make_constant_field(values, np.nan, np.float32)
    return make_nodata_like(pick_element(values, 0))


def pick_element(data: xr.DataArray, position: int) -> xr.DataArray:
    """Return the element at a position of an array in a cube, with the no-data value of that element."""
    element = data.isel({ARRAY: position}, drop=True)
    missing = data.coords.get(cube.NODATA)
    if missing is not None and ARRAY in missing.dims:
        element = cube.with_nodata(element, load_coordinate(missing).values[position].item())
    return element


def find_label(names: Sequence[Any], label: Any) -> int | None:
    """Return the position of a label; numbers and strings differ, times may be written in any notation."""
    for position, name in enumerate(names):
        if are_equal(name, label):
            return position
    instant = _try_parse_instant(label)
    if instant is None:
        return None
    return next((i for i, name in enumerate(names) if _try_parse_instant(name) == instant), None)


def _try_parse_instant(label: Any) -> Any:
    try:
        return parse_moment(label).instant if isinstance(label, str) else None
    except (ValueError, OverflowError):
        return None


@process(
    categories=["arrays", "comparison", "reducer"],
    examples=[
        Example({"data": [1, 2, 3], "value": 2}, True),
        Example({"data": [1, 2, 3], "value": "2"}, False),
        Example({"data": [1, 2, None], "value": None}, False),
    ],
)
def array_contains(data: Array, value: Comparable) -> BooleanField:
    """Check whether an array contains a value.

    Values are compared as in `eq`: types are not converted, and no-data never matches.

    Args:
        data: An array.
        value: The value to find.

    Returns:
        True or false.
    """
    values = as_sequence(data, "array_contains")
    if isinstance(values, xr.DataArray) or isinstance(value, xr.DataArray):
        matches: Any = eq(_as_cube_array(values, value), value)
        result: Any = any_(matches)
        return result
    return any(are_equal(v, value) for v in values)


@process(
    categories=["arrays", "reducer"],
    examples=[
        Example({"data": [1, 2, 3, 2, 3], "value": 2}, 1),
        Example({"data": [1, 2, 3, 2, 3], "value": 2, "reverse": True}, 3),
        Example({"data": [1, 2, 3], "value": "2"}, None),
    ],
)
def array_find(data: Array, value: AnyValue, reverse: Boolean = False) -> PositionOrNull:
    """Position of a value in an array.

    The zero-based position of the first element that equals the value. Values are compared as in `eq`: types
    are not converted, and no-data, arrays and objects never match.

    Args:
        data: An array.
        value: The value to find.
        reverse: Find the last matching element instead of the first.

    Returns:
        The position, or no-data if there is none.
    """
    values = as_sequence(data, "array_find")
    if isinstance(values, xr.DataArray) or isinstance(value, xr.DataArray):
        return _find_in_cube(_as_cube_array(values, value), value, reverse)
    matches = [i for i, v in enumerate(values) if are_equal(v, value)]
    return (matches[-1] if reverse else matches[0]) if matches else None


def _as_cube_array(values: Any, value: Any) -> xr.DataArray:
    """Return the array as an array of a cube; the array itself or the value to find is one already."""
    return values if isinstance(values, xr.DataArray) else join_arrays([values], like=value)


def _find_in_cube(values: xr.DataArray, value: Any, reverse: bool) -> xr.DataArray:
    matches = eq(with_labels(values, None), value if isinstance(value, Scalar) else None) == 1
    length = values.sizes[ARRAY]
    positions = xr.DataArray(np.arange(length, dtype=np.float32), dims=ARRAY)
    ranked = xr.where(matches, -positions if reverse else positions, np.float32(np.nan))
    position: Any = min_(ranked)
    return abs(position)


Scalar = bool | int | float | str | xr.DataArray


@process(
    categories=["arrays", "reducer"],
    examples=[Example({"data": [1, 2], "label": "B01"}, None)],
    experimental=True,
)
def array_find_label(data: Array, label: Label) -> PositionOrNull:
    """Position of a label in an array.

    Args:
        data: An array.
        label: The label to find.

    Returns:
        The zero-based position of the element with the label; no-data if there is none.
    """
    return _find_element(data, label) if is_labeled(data) else None


# --- Labels and new arrays -----------------------------------------------------------------------


@process(categories=["arrays"], examples=[Example({"data": ["a", "b"]}, [0, 1])])
def array_labels(data: AnyArray) -> Labels:
    """Labels of an array.

    Args:
        data: An array.

    Returns:
        The labels in the order of the elements; the zero-based positions if the array has no labels.
    """
    if is_labeled(data):
        return get_labels(data)
    return list(range(_array_length(as_sequence(data, "array_labels"))))


@process(
    categories=["arrays"],
    examples=[Example({}, []), Example({"data": [1, 2, 3], "repeat": 2}, [1, 2, 3, 1, 2, 3])],
)
def array_create(data: Array = (), repeat: Repeat = 1) -> Array:
    """New array.

    Args:
        data: The elements.
        repeat: How many times the elements are repeated.

    Returns:
        The array, without labels.
    """
    values = as_sequence(data, "array_create")
    if _array_length(values) * repeat > MAX_LENGTH or repeat < 1:
        reason = f"it must be at least 1, and the array must not have more than {MAX_LENGTH} elements."
        raise ProcessParameterInvalid(process="array_create", parameter="repeat", reason=reason)
    if isinstance(values, xr.DataArray):
        check_count(repeat, MAX_PARTS, "repetitions of values of a data cube", "Use fewer repetitions.")
        unlabelled = with_labels(values, None)
        return unlabelled if repeat == 1 else join_arrays([unlabelled] * int(repeat))
    return values * int(repeat)


@process(categories=["arrays"], experimental=True)
def array_create_labeled(data: AnyValue, labels: LabelList) -> Labelled:
    """New array with labels.

    Args:
        data: The elements.
        labels: The labels, one per element.

    Returns:
        The array.

    Raises:
        ArrayLengthMismatch: The numbers of labels and elements differ.
    """
    values = as_sequence(data, "array_create_labeled")
    if _array_length(values) != len(labels):
        raise ArrayLengthMismatch(values=_array_length(values), labels=len(labels))
    return _attach_labels(values, list(labels))


# --- Joining -------------------------------------------------------------------------------------


@process(categories=["arrays"], examples=[Example({"data": [1, 2], "value": 3}, [1, 2, 3])])
def array_append(data: Array, value: AnyValue, label: LabelOrNull = None) -> Array:
    """Append an element to an array.

    Args:
        data: An array.
        value: The new element.
        label: The label of the new element, if the array has labels; by default its position.

    Returns:
        The longer array.

    Raises:
        LabelExists: Another element already has this label.
        ArrayNotLabeled: `label` is set, but the array has no labels.
    """
    if not is_labeled(data):
        if label is not None:
            raise ArrayNotLabeled("The array has no labels. Remove the label of the new element.")
        return _join_arrays(data, [value])
    names = get_labels(data)
    new_label = len(names) if label is None else label
    if find_label(names, new_label) is not None:
        raise LabelExists(label=repr(new_label))
    return _join_arrays(data, LabeledArray([new_label], [value]))


@process(
    categories=["arrays"],
    examples=[
        Example({"array1": [1.5, 2.5], "array2": [5]}, [1.5, 2.5, 5]),
        Example({"array1": ["a", "b"], "array2": [1, 2]}, ["a", "b", 1, 2]),
    ],
)
def array_concat(array1: Array, array2: Array) -> Array:
    """Join two arrays.

    Appends the second array to the first. Labels are kept if both arrays have labels.

    Args:
        array1: The first array.
        array2: The second array.

    Returns:
        The joined array.

    Raises:
        ArrayLabelConflict: Both arrays have an element with the same label.
    """
    return _join_arrays(array1, array2)


@process(
    categories=["arrays"],
    examples=[
        Example({"data": ["a", "d", "c"], "values": ["b"], "index": 1, "length": 1}, ["a", "b", "c"]),
        Example({"data": ["a", "c"], "values": ["b"], "index": 1}, ["a", "b", "c"]),
        Example({"data": ["a", "b", "c"], "values": [], "index": 1, "length": 10}, ["a"]),
    ],
    experimental=True,
)
def array_modify(data: Array, values: Array, index: Index, length: Length = 0) -> Array:
    """Remove, insert or replace elements of an array.

    Removes `length` elements from position `index` on and inserts `values` in their place. Labels are kept
    if both arrays have labels, or if one of the arrays is empty.

    Args:
        data: The array to change.
        values: The new elements.
        index: The zero-based position to insert at; the length of the array to append.
        length: How many elements to remove; at most up to the end of the array.

    Returns:
        The changed array.

    Raises:
        ArrayElementNotAvailable: The position is past the end of the array.
        ArrayLabelConflict: Both arrays have an element with the same label.
    """
    elements = as_sequence(data, "array_modify")
    start, size = int(index), _array_length(elements)
    if not 0 <= start <= size:
        raise ArrayElementNotAvailable.at_index(start, size)
    end = min(size, start + max(0, int(length)))
    return _join_arrays(
        _slice_array(data, elements, 0, start), values, _slice_array(data, elements, end, size)
    )


def _slice_array(data: Any, values: Any, start: int, end: int) -> Any:
    if isinstance(values, xr.DataArray):
        return values.isel({ARRAY: slice(start, end)})
    if isinstance(data, LabeledArray):
        return LabeledArray(list(data.labels)[start:end], values[start:end])
    return values[start:end]


def _join_arrays(*arrays: Any) -> Any:
    parts = [as_sequence(a, "array_concat") for a in arrays]
    nonempty = [(a, p) for a, p in zip(arrays, parts, strict=True) if _array_length(p)]
    are_labelled = [is_labeled(a) for a, _ in nonempty] or [is_labeled(a) for a in arrays]
    names = [name for a, _ in nonempty for name in get_labels(a)] if all(are_labelled) else None
    if names is not None:
        _check_distinct(names)
    if not any(isinstance(p, xr.DataArray) for p in parts):
        return _attach_labels([v for p in parts for v in p], names)
    return with_labels(join_arrays(parts), names)


def _check_distinct(names: list[Any]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise ArrayLabelConflict(label=repr(name))
        seen.add(name)


# --- Child processes -----------------------------------------------------------------------------


_NEGATE = {
    "process_graph": {
        "negate": {
            "process_id": "multiply",
            "arguments": {"x": {"from_parameter": "x"}, "y": -1},
            "result": True,
        }
    }
}
_ABOVE_TWO = {
    "process_graph": {
        "above": {"process_id": "gt", "arguments": {"x": {"from_parameter": "x"}, "y": 2}, "result": True}
    }
}


@process(
    categories=["arrays"],
    examples=[Example({"data": [1, None, 3], "process": _NEGATE}, [-1, None, -3])],
    raw_values_of=None,
)
def array_apply(data: Array, process: ElementProcess, context: AnyValue = None) -> Array:
    """Apply a process to each element of an array.

    In a cube the process is called only once, with all elements, indices and labels as arrays in `x`, `index`
    and `label`.

    Args:
        data: An array.
        process: A child process that returns the new element.
        context: Passed on to the child process.

    Returns:
        The array of the new elements, with the labels of the original array.
    """
    values = as_sequence(data, "array_apply")
    if isinstance(values, xr.DataArray):
        return apply_to_each(partial(process, context=context), values)
    results = [
        process(x=v, index=i, label=name, context=context)
        for i, (v, name) in enumerate(zip(values, _labels_of_elements(data, values), strict=True))
    ]
    return _attach_labels(results, get_labels(data) if is_labeled(data) else None)


@process(
    categories=["arrays", "filter"],
    examples=[Example({"data": [4, 1, None, 3], "condition": _ABOVE_TWO}, [4, 3])],
    raw_values_of=("data",),
)
def array_filter(data: Array, condition: ElementCondition, context: AnyValue = None) -> Array:
    """Keep the elements of an array that meet a condition.

    In a cube, a condition on index or label removes elements. The outcome of a condition on values differs
    from pixel to pixel, but all arrays must have the same length, so elements that do not meet it become
    no-data instead.

    Args:
        data: An array.
        condition: A child process that returns whether to keep an element.
        context: Passed on to the condition.

    Returns:
        The array of the remaining elements, with their labels.
    """
    values = as_sequence(data, "array_filter")
    if isinstance(values, xr.DataArray):
        return _filter_in_cube(values, partial(condition, context=context))
    remaining = [
        (v, name)
        for i, (v, name) in enumerate(zip(values, _labels_of_elements(data, values), strict=True))
        if condition(x=v, index=i, label=name, context=context) is True
    ]
    return _attach_labels(
        [v for v, _ in remaining], [name for _, name in remaining] if is_labeled(data) else None
    )


def _filter_in_cube(values: xr.DataArray, condition: Callable[..., Any]) -> xr.DataArray:
    is_kept = apply_to_each(condition, values) == 1
    if is_kept.dims == (ARRAY,) and is_kept.chunks is None:
        return values.isel({ARRAY: np.flatnonzero(is_kept.values)})
    missing = cube.nodata(values)
    if missing is None:
        return cube.decode(values).where(is_kept)
    return values.where(is_kept, missing) if missing is not np.nan else values.where(is_kept)


def _labels_of_elements(data: Any, values: list[Any]) -> list[Any]:
    return get_labels(data) if is_labeled(data) else [None] * len(values)


# --- Interpolation -------------------------------------------------------------------------------


@process(
    categories=["arrays", "math", "math > interpolation"],
    examples=[
        Example({"data": [None, 1, None, 6, None, -8]}, [None, 1, 3.5, 6, -1, -8]),
        Example({"data": [None, 1, None, None]}, [None, 1, None, None]),
    ],
    raw_values_of=("data",),
)
def array_interpolate_linear(data: Numbers) -> Numbers:
    """Fill gaps in an array by linear interpolation.

    No-data and NaN between two numbers are replaced by values on the straight line between them; at the start
    and the end of the array they stay. Distances are measured between the labels if these are numbers or
    times, otherwise between the positions.

    Args:
        data: Numbers.

    Returns:
        The array with interior gaps filled.
    """
    values = as_numbers(data, "array_interpolate_linear")
    if not isinstance(values, xr.DataArray):
        filled = _fill_list(values, element_positions(get_labels(data)))
        return _attach_labels(filled, get_labels(data) if is_labeled(data) else None)
    decoded = cube.decode(values)
    places = element_positions(_get_sortable_labels(values))
    result = apply_along_array(
        partial(_fill_blocks, places), decoded, decoded.dtype, size=decoded.sizes[ARRAY]
    )
    return with_labels(result, None).assign_coords(
        {k: c for k, c in values.coords.items() if ARRAY in c.dims}
    )


def _get_sortable_labels(values: xr.DataArray) -> list[Any]:
    """Return the labels of an array of a cube; those of calendar periods as the times of their start."""
    instants = find_instants(values.coords[ARRAY]) if ARRAY in values.coords else None
    return get_labels(values) if instants is None else cube.json_labels(instants)


def element_positions(names: Sequence[Any]) -> np.ndarray:
    """Return the positions for interpolation: labels that are numbers or times, otherwise 0, 1, 2, …

    Raises:
        ProcessParameterInvalid: the labels are not sorted.
    """
    instants = [_try_parse_instant(n) for n in names]
    if names and all(instant is not None for instant in instants):
        places = np.array([instant.timestamp() for instant in instants])
    elif all(isinstance(n, int | float) for n in names):
        places = np.array(names, dtype=np.float64)
    else:
        return np.arange(len(names), dtype=np.float64)
    steps = np.diff(places)
    if not (np.all(steps > 0) or np.all(steps < 0)):
        reason = "its labels must be sorted."
        raise ProcessParameterInvalid(process="array_interpolate_linear", parameter="data", reason=reason)
    return places


def _fill_list(values: list[Any], places: np.ndarray) -> list[Any]:
    valid_indices = [i for i, v in enumerate(values) if v is not None and not math.isnan(v)]
    result = list(values)
    for left, right in zip(valid_indices, valid_indices[1:], strict=False):
        for i in range(left + 1, right):
            share = float((places[i] - places[left]) / (places[right] - places[left]))
            result[i] = values[left] * (1 - share) + values[right] * share
    return result


def _fill_blocks(places: np.ndarray, block: np.ndarray, axis: int) -> np.ndarray:
    data = np.moveaxis(block, axis, 0)
    length = data.shape[0]
    valid = ~np.isnan(data)
    steps = np.arange(length, dtype=np.int32).reshape(-1, *[1] * (data.ndim - 1))
    left = np.maximum.accumulate(np.where(valid, steps, np.int32(-1)), axis=0)
    right = np.flip(np.minimum.accumulate(np.flip(np.where(valid, steps, np.int32(length)), 0), axis=0), 0)
    gap = ~valid & (left >= 0) & (right < length)
    pixel = np.nonzero(gap)
    before, after = left[pixel], right[pixel]
    share = (places[pixel[0]] - places[before]) / (places[after] - places[before])
    filled = data.copy()
    filled[pixel] = data[(before, *pixel[1:])] * (1 - share) + data[(after, *pixel[1:])] * share
    return np.moveaxis(filled, 0, axis)


# --- JSON and cubes ------------------------------------------------------------------------------


def _array_length(values: Any) -> int:
    return values.sizes[ARRAY] if isinstance(values, xr.DataArray) else len(values)


def _attach_labels(values: Any, names: list[Any] | None) -> Any:
    if isinstance(values, xr.DataArray):
        return with_labels(values, names)
    return values if names is None else LabeledArray(names, values)
