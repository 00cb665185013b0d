"""Elements of arrays, and arrays made of other arrays."""

from __future__ import annotations

from typing import Any

import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY, LabeledArray
from odc_openeo.cube.arrays import get_labels, is_labeled
from odc_openeo.explain.calls import ELEMENT, Call, NoProgram, Operand, emits
from odc_openeo.explain.code import join_items, write_literal, write_string
from odc_openeo.explain.emitters.array_operands import (
    get_json_values,
    list_values,
    needs_json,
    write_array,
)
from odc_openeo.explain.snippets import arrays, comparison, cubes
from odc_openeo.processes.arrays import find_label


@emits("array_element")
def write_array_element(call: Call) -> str:
    """An element by its label or position."""
    data = call["data"]
    by_label = call.has("label")
    if needs_json(data):
        return _write_json_element(call, data, by_label)
    array = write_array(call, data)
    dimension = array.dimension or ELEMENT
    labels = get_labels(array.value) if by_label else []
    position = _find_position(array.value, labels, call.json("label")) if by_label else call.json("index")
    if position is None or not 0 <= position < array.value.sizes[ARRAY]:
        return f"xr.full_like({array.atom}.sum({write_string(dimension)}), np.nan, dtype=float)"
    if by_label and isinstance(call.json("label"), str | int) and ARRAY in array.value.coords:
        label = array.value.coords[ARRAY].values[position]
        return f"{array.atom}{write_selection('sel', dimension, _write_label(label))}"
    return f"{array.atom}{write_selection('isel', dimension, str(int(position)))}"


def write_selection(method: str, dimension: str, code: str) -> str:
    """A selection of one label, whose coordinate is dropped."""
    return (
        f".{method}({{{write_string(dimension)}: {code}}}, drop=True)"
        if not dimension.isidentifier()
        else (f".{method}({dimension}={code}, drop=True)")
    )


def _write_label(label: Any) -> str:
    return (
        write_string(str(label))
        if label.dtype.kind in "MU"
        else write_literal(label.item() if hasattr(label, "item") else label)
    )


def _find_position(values: xr.DataArray, labels: list[Any], label: Any) -> int | None:
    position = find_label(labels, label)
    return (
        position if position is not None else find_label(labels, cube.find_band_label(values, ARRAY, label))
    )


def _write_json_element(call: Call, data: Operand, by_label: bool) -> str:
    values = get_json_values(data)
    if by_label:
        position = find_label(get_labels(data.value), call.json("label"))
        if position is None:
            return "None"
        return f"{data.atom}[{write_literal(data.value.labels[position])}]"
    index = call["index"]
    if isinstance(index.value, int) and not index.is_nullable and 0 <= index.value < len(values):
        return f"{list_values(call, data)}[{index.code}]"
    return "None"


@emits("array_contains")
def write_array_contains(call: Call) -> str:
    data, value = call["data"], call["value"]
    if needs_json(data) and not value.is_cube:
        equal = call.helper(comparison.are_equal)
        return f"any({equal}(element, {value.code}) for element in {list_values(call, data)})"
    array, dimension = _write_cube_array(call, data, value)
    if array.value.dtype == bool or isinstance(value.value, bool):
        raise NoProgram("it looks for booleans in a cube.")
    if value.value is None or isinstance(value.value, str | list | dict):
        return f"xr.full_like({array.atom}.isel({{{dimension}: 0}}, drop=True), False, dtype=bool)"
    return f"({array.operand} == {value.operand}).any({dimension})"


def _write_cube_array(call: Call, data: Operand, value: Operand) -> tuple[Operand, str]:
    if needs_json(data):
        numbers = [float("nan") if v is None else v for v in get_json_values(data)]
        code = f"xr.DataArray({write_literal(numbers)}, dims={write_string(ELEMENT)})"
        return Operand(code, xr.DataArray(numbers, dims=ARRAY), ELEMENT), write_string(ELEMENT)
    array = write_array(call, data)
    return array, write_string(array.dimension or ELEMENT)


@emits("array_find")
def write_array_find(call: Call) -> str:
    data, value, reverse = call["data"], call["value"], call.json("reverse") is True
    if needs_json(data) and not value.is_cube:
        helper = call.helper(arrays.find_positions)
        code = f"{helper}({list_values(call, data)}, {value.code})"
        return f"{call.helper(arrays.last_valid if reverse else arrays.first_valid)}({code})"
    array, dimension = _write_cube_array(call, data, value)
    if value.value is None or isinstance(value.value, bool | str | list | dict):
        return f"xr.full_like({array.atom}.isel({{{dimension}: 0}}, drop=True), np.nan, dtype=float)"
    matches = f"{array.operand} == {value.operand}"
    if reverse:
        return f"{call.helper(cubes.last_position)}({matches}, {dimension})"
    return f"{call.helper(cubes.first_position)}({matches}, {dimension})"


@emits("array_find_label")
def write_array_find_label(call: Call) -> str:
    data = call["data"]
    if not is_labeled(data.value):
        return "None"
    if data.is_labeled:
        label = call["label"].code
        return f"list({data.code}).index({label}) if {label} in {data.operand} else None"
    position = _find_position(data.value, get_labels(data.value), call.json("label"))
    if position is None:
        return "None"
    index = f"{data.atom}.get_index({write_string(data.dimension or ELEMENT)})"
    return f"int({index}.get_loc({write_literal(call.json('label'))}))"


@emits("array_labels")
def write_array_labels(call: Call) -> str:
    data = call["data"]
    if data.is_labeled:
        return f"list({data.code})"
    if needs_json(data):
        return f"list(range(len({data.code})))"
    return write_literal(call.value)


@emits("array_create")
def write_array_create(call: Call) -> Operand:
    data, repeat = call["data"], call["repeat"]
    if needs_json(data):
        values = list_values(call, data)
        return Operand(values if repeat.value == 1 else f"{values} * {repeat.operand}", call.value)
    array = write_array(call, data)
    dimension = array.dimension or ELEMENT
    bare = drop_labels(array)
    if repeat.value == 1:
        return Operand(bare, call.value, dimension)
    return Operand(
        f"xr.concat([{bare}] * {repeat.operand}, dim={write_string(dimension)})", call.value, dimension
    )


def drop_labels(array: Operand) -> str:
    """A cube without the labels of its array dimension."""
    if ARRAY not in array.value.coords:
        return array.code
    return f"{array.atom}.drop_vars({write_string(array.dimension or ELEMENT)})"


@emits("array_create_labeled")
def write_array_create_labeled(call: Call) -> Operand:
    data, labels = call["data"], call["labels"]
    if needs_json(data):
        return Operand(f"dict(zip({labels.code}, {list_values(call, data)}))", call.value)
    array = write_array(call, data)
    dimension = array.dimension or ELEMENT
    return Operand(
        f"{array.atom}.assign_coords({{{write_string(dimension)}: {labels.code}}})", call.value, dimension
    )


@emits("array_append")
def write_array_append(call: Call) -> Operand:
    data, value = call["data"], call["value"]
    if needs_json(data) and not value.is_cube:
        if data.is_labeled:
            label = write_literal(call.value.labels[-1])
            return Operand(f"{{**{data.operand}, {label}: {value.code}}}", call.value)
        return Operand(f"[*{data.operand}, {value.code}]", call.value)
    return join_arrays(call, [data, Operand(f"[{value.code}]", [value.value])])


@emits("array_concat")
def write_array_concat(call: Call) -> Operand:
    first, second = call["array1"], call["array2"]
    if needs_json(first) and needs_json(second):
        if isinstance(call.value, LabeledArray):
            return Operand(_merge_dictionaries(first, second), call.value)
        return Operand(f"{list_values(call, first)} + {list_values(call, second)}", call.value)
    return join_arrays(call, [first, second])


def _merge_dictionaries(*operands: Operand) -> str:
    filled = [o for o in operands if get_json_values(o)]
    return join_items("{", [f"**{o.operand}" for o in filled], "}")


@emits("array_modify")
def write_array_modify(call: Call) -> Operand:
    data, values = call["data"], call["values"]
    start = int(call.json("index"))
    end = start + int(call.json("length") or 0)
    if not (needs_json(data) and needs_json(values)):
        return _modify_cube(call, data, values, start, end)
    if isinstance(call.value, LabeledArray):
        before, after = f"list({data.atom}.items())[:{start}]", f"list({data.atom}.items())[{end}:]"
        inserted = f"*{values.atom}.items(), " if values.is_labeled else ""
        return Operand(f"dict([*{before}, {inserted}*{after}])", call.value)
    old, new = list_values(call, data), list_values(call, values)
    old_atom = old if old.isidentifier() else f"({old})"
    return Operand(f"{old_atom}[:{start}] + {new} + {old_atom}[{end}:]", call.value)


def _modify_cube(call: Call, data: Operand, values: Operand, start: int, end: int) -> Operand:
    if needs_json(data):
        elements = get_json_values(data)
        before = Operand(f"[{', '.join(map(write_literal, elements[:start]))}]", elements[:start])
        after = Operand(f"[{', '.join(map(write_literal, elements[end:]))}]", elements[end:])
        return join_arrays(call, [before, values, after])
    array = write_array(call, data)
    dimension = write_string(array.dimension or ELEMENT)
    before = Operand(
        f"{array.atom}.isel({{{dimension}: slice(None, {start})}})",
        array.value.isel({ARRAY: slice(None, start)}),
        array.dimension,
    )
    after = Operand(
        f"{array.atom}.isel({{{dimension}: slice({end}, None)}})",
        array.value.isel({ARRAY: slice(end, None)}),
        array.dimension,
    )
    return join_arrays(call, [before, values, after])


def join_arrays(call: Call, parts: list[Operand]) -> Operand:
    """Arrays end to end, some of them from cubes."""
    filled = [p for p in parts if not (isinstance(p.value, list) and not p.value)]
    filled = [p for p in filled if not (p.is_cube and not p.value.sizes.get(ARRAY, 1))]
    dimension = next((p.dimension for p in filled if p.is_cube and p.dimension), ELEMENT)
    like = next((p for p in filled if p.is_cube), None)
    codes = [_write_part(call, part, dimension, like) for part in filled]
    joined = f"xr.concat({join_items('[', codes, ']')}, dim={write_string(dimension)})"
    if ARRAY in call.value.coords:
        labels = write_literal(cube.labels(call.value, ARRAY))
        joined += f".assign_coords({{{write_string(dimension)}: {labels}}})"
    return Operand(joined, call.value, dimension)


def _write_part(call: Call, part: Operand, dimension: str, like: Operand | None) -> str:
    if part.is_cube:
        code = drop_labels(part)
        return (
            code
            if part.dimension in (None, dimension)
            else f"{code}.rename({{{write_string(part.dimension)}: {write_string(dimension)}}})"
        )
    if needs_json(part):
        numbers = [float("nan") if v is None else v for v in get_json_values(part)]
        code = f"xr.DataArray({write_literal(numbers)}, dims={write_string(dimension)})"
        if like is None:
            return code
        pixels = f"{like.atom}{write_selection('isel', like.dimension or ELEMENT, '0')}"
        return f"xr.zeros_like({pixels}) + {code}"
    stacked = write_array(call, part)
    return stacked.code.replace(f"dim={write_string(ELEMENT)}", f"dim={write_string(dimension)}")


@emits("array_apply")
def write_array_apply(call: Call) -> Operand:
    data = call["data"]
    if not needs_json(data):
        array = write_array(call, data)
        result = _inline_for_elements(call, "process", array)
        return Operand(result.code, call.value, array.dimension)
    function = call.define(
        "process", "x", "index", "label", wish="apply_to_element", is_nullable=None in get_json_values(data)
    )
    if data.is_labeled:
        code = (
            f"{{label: {function}(x, index, label) for index, (label, x) in enumerate({data.atom}.items())}}"
        )
        return Operand(code, call.value)
    return Operand(f"[{function}(x, index, None) for index, x in enumerate({data.code})]", call.value)


def _inline_for_elements(call: Call, name: str, array: Operand) -> Operand:
    """A child process on all elements at once: elements, indices and labels have the array dimension."""
    dimension = write_string(array.dimension or ELEMENT)
    index = Operand(f"xr.DataArray(np.arange({array.atom}.sizes[{dimension}]), dims={dimension})", None)
    label = Operand(f"{array.atom}[{dimension}].drop_vars({dimension})", None)
    bare = Operand(drop_labels(array), None)
    result = call.inline(name, x=bare, index=index, label=label, context=call["context"])
    code = result.code
    if not result.is_cube:
        return Operand(f"xr.full_like({array.code}, {code})", None)
    if ARRAY in array.value.coords:
        code = f"({code}).assign_coords({{{dimension}: {array.atom}[{dimension}]}})"
    return Operand(code, result.value)


@emits("array_filter")
def write_array_filter(call: Call) -> Operand:
    data = call["data"]
    if not needs_json(data):
        array = write_array(call, data)
        result = _inline_for_elements(call, "condition", array)
        dimension = array.dimension or ELEMENT
        if set(map(str, call.value.dims)) and call.value.sizes[ARRAY] != array.value.sizes[ARRAY]:
            return Operand(
                f"{array.atom}.isel({{{write_string(dimension)}: ({result.code}).values.nonzero()[0]}})",
                call.value,
                dimension,
            )
        return Operand(f"{array.atom}.where(({result.code}) == 1)", call.value, dimension)
    function = call.define(
        "condition", "x", "index", "label", wish="keep_element", is_nullable=None in get_json_values(data)
    )
    if data.is_labeled:
        items = f"enumerate({data.atom}.items())"
        code = f"{{label: x for index, (label, x) in {items} if {function}(x, index, label) is True}}"
    else:
        code = f"[x for index, x in enumerate({data.code}) if {function}(x, index, None) is True]"
    return Operand(code, call.value)


@emits("array_interpolate_linear")
def write_interpolation(call: Call) -> Operand:
    data = call["data"]
    if needs_json(data):
        values = list_values(call, data)
        places = (
            get_labels(data.value)
            if data.is_labeled and all(isinstance(v, int | float) for v in data.value.labels)
            else None
        )
        if (
            data.is_labeled
            and places is None
            and any(isinstance(v, str) and v[:4].isdigit() for v in data.value.labels)
        ):
            raise NoProgram("the labels are dates.")
        at = f", {write_literal(places)}" if places else ""
        code = f"{call.helper(arrays.fill_gaps)}({values}{at})"
        return Operand(f"dict(zip({data.code}, {code}))" if data.is_labeled else code, call.value)
    array = write_array(call, data)
    dimension = write_string(array.dimension or ELEMENT)
    by_label = ARRAY in array.value.coords and array.value.coords[ARRAY].dtype.kind in "Mif"
    return Operand(
        f"{array.atom}.interpolate_na({dimension}{'' if by_label else ', use_coordinate=False'})",
        call.value,
        array.dimension,
    )


@emits("cumsum", "cumproduct", "cummax", "cummin")
def write_cumulative(call: Call) -> Operand:
    data, name = call["data"], call.node.process_id
    ignore = call.json("ignore_nodata") is not False
    if needs_json(data):
        function = {
            "cumsum": "lambda a, b: a + b",
            "cumproduct": "lambda a, b: a * b",
            "cummax": "max",
            "cummin": "min",
        }[name]
        if name in ("cummax", "cummin"):
            function = "np.maximum" if name == "cummax" else "np.minimum"
        skip = "" if ignore else ", ignore_nodata=False"
        code = f"{call.helper(arrays.accumulate)}({function}, {list_values(call, data)}{skip})"
        return Operand(f"dict(zip({data.code}, {code}))" if data.is_labeled else code, call.value)
    array = write_array(call, data)
    dimension = write_string(array.dimension or ELEMENT)
    if name in ("cumsum", "cumproduct"):
        method = "cumsum" if name == "cumsum" else "cumprod"
        if ignore:
            return Operand(
                f"{array.atom}.{method}({dimension}).where({array.atom}.notnull())",
                call.value,
                array.dimension,
            )
        return Operand(f"{array.atom}.{method}({dimension}, skipna=False)", call.value, array.dimension)
    ufunc = "np.fmax" if name == "cummax" else "np.fmin"
    if not ignore:
        ufunc = ufunc.replace("np.fm", "np.m").replace("max", "maximum").replace("min", "minimum")
    code = f"{call.helper(cubes.accumulate_along)}({ufunc}, {array.code}, {dimension})"
    if ignore:
        code += f".where({array.atom}.notnull())"
    return Operand(code, call.value, array.dimension)


@emits("sort", "order")
def write_sorting(call: Call) -> Operand:
    data, name = call["data"], call.node.process_id
    options = []
    if call.json("asc") is False:
        options.append("asc=False")
    if call.json("nodata") is not None:
        options.append(f"nodata={call.json('nodata')}")
    if needs_json(data):
        helper = arrays.sort_list if name == "sort" else arrays.order_list
        return Operand(f"{call.helper(helper)}({', '.join([list_values(call, data), *options])})", call.value)
    array = write_array(call, data)
    dimension = array.dimension or ELEMENT
    along: Any = cubes.sort_along if name == "sort" else cubes.order_along
    arguments = [drop_labels(array), write_string(dimension), *options]
    return Operand(f"{call.helper(along)}({', '.join(arguments)})", call.value, dimension)


@emits("rearrange")
def write_rearrange(call: Call) -> Operand:
    data, order = call["data"], call["order"]
    if not needs_json(order):
        array, positions = write_array(call, data), write_array(call, order)
        dimension = array.dimension or ELEMENT
        arguments = [drop_labels(array), drop_labels(positions), write_string(dimension)]
        return Operand(f"{call.helper(cubes.take_along)}({', '.join(arguments)})", call.value, dimension)
    if not needs_json(data):
        array = write_array(call, data)
        return Operand(
            f"{array.atom}.isel({{{write_string(array.dimension or ELEMENT)}: {order.code}}})",
            call.value,
            array.dimension,
        )
    if isinstance(call.value, LabeledArray):
        items = f"list({data.atom}.items())"
        return Operand(f"dict({items}[position] for position in {order.code})", call.value)
    return Operand(f"[{list_values(call, data)}[position] for position in {order.code}]", call.value)
