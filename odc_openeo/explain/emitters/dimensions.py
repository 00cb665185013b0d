"""Dimensions and their labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.explain.calls import Call, NoProgram, emits
from odc_openeo.explain.code import join_items, write_by_name, write_literal, write_string
from odc_openeo.explain.emitters.array_elements import write_selection


def write_labels(data: xr.DataArray, dimension: str) -> str:
    """The labels of a dimension as they are in the program: dates as strings of numpy, others as literals."""
    values = data.coords[dimension].values if dimension in data.coords else np.arange(data.sizes[dimension])
    return write_dates(values) if values.dtype.kind == "M" else write_literal(values.tolist())


def write_dates(times: np.ndarray) -> str:
    """Times as an array of numpy, from strings."""
    texts = [str(v.astype("datetime64[us]")).removesuffix(".000000").removesuffix("T00:00:00") for v in times]
    return f'np.array({join_items("[", [write_string(t) for t in texts], "]")}, dtype="datetime64[ns]")'


def assign_labels(dimension: str, code: str) -> str:
    """A call that sets the labels of a dimension."""
    return f".assign_coords({{{write_string(dimension)}: {code}}})"


@emits("create_data_cube")
def write_create_data_cube(call: Call) -> str:
    return "xr.DataArray(np.float32(np.nan))"


@emits("add_dimension")
def write_add_dimension(call: Call) -> str:
    name = call.json("name")
    labels = write_labels(call.value, name)
    return f"{call['data'].atom}.expand_dims({{{write_string(name)}: {labels}}})"


@emits("drop_dimension")
def write_drop_dimension(call: Call) -> str:
    return f"{call['data'].atom}{write_selection('isel', call.json('name'), '0')}"


@emits("rename_dimension")
def write_rename_dimension(call: Call) -> str:
    source, target = call.json("source"), call.json("target")
    return f"{call['data'].atom}{write_by_name('.rename', {source: write_string(target)})}"


@emits("rename_labels")
def write_rename_labels(call: Call) -> str:
    dimension = call.json("dimension")
    return f"{call['data'].atom}{assign_labels(dimension, write_labels(call.value, dimension))}"


@emits("dimension_labels")
def write_dimension_labels(call: Call) -> str:
    data, dimension = call["data"], call.json("dimension")
    if dimension not in data.value.coords:
        return f"list(range({data.atom}.sizes[{write_string(dimension)}]))"
    values = data.value.coords[dimension].values
    labels = f"{data.atom}[{write_string(dimension)}]"
    if values.dtype.kind == "M":
        return write_date_labels(labels, values)
    if values.dtype.kind == "O" and values.size and hasattr(values.flat[0], "wkt"):
        return f"[geometry.wkt for geometry in {labels}.values]"
    return f"{labels}.values.tolist()"


def write_date_labels(labels: str, values: np.ndarray) -> str:
    """Dates as strings of RFC 3339."""
    whole = bool((values == values.astype("datetime64[s]")).all())
    if not whole:
        raise NoProgram("the times have fractions of seconds.")
    return f'[f"{{time}}Z" for time in np.datetime_as_string({labels}, unit="s")]'


@emits("trim_cube")
def write_trim_cube(call: Call) -> str:
    """The labels with data; those of space and time from the first to the last of them."""
    data = call["data"]
    if isinstance(data.value, xr.Dataset):
        raise NoProgram("it trims the properties of a vector cube.")
    valid = call.assign("valid", f"{data.atom}.notnull()")
    selections = []
    for name in map(str, data.value.dims):
        along = call.assign(
            f"valid_{name}",
            f"np.flatnonzero({valid}.any({write_literal([str(d) for d in data.value.dims if d != name])}))",
        )
        between = cube.dimension_type(data.value, name) in ("spatial", "temporal")
        code = (
            f"slice({along}.min(initial={data.value.sizes[name]}), {along}.max(initial=-1) + 1)"
            if between
            else along
        )
        selections.append(f"{write_string(name)}: {code}")
    return f"{data.atom}.isel({join_items('{', selections, '}')})"


@emits("flatten_dimensions")
def write_flatten_dimensions(call: Call) -> str:
    data, target = call["data"], call.json("target_dimension")
    names = list(call.json("dimensions"))
    stacked = f"{data.atom}.stack({{{write_string(target)}: {write_literal(names)}}}, create_index=False)"
    present = [n for n in names if n in data.value.coords]
    dropped = f".drop_vars({write_literal(present)})" if present else ""
    return f"{stacked}{dropped}{assign_labels(target, write_labels(call.value, target))}"


@emits("unflatten_dimension")
def write_unflatten_dimension(call: Call) -> str:
    """The labels split into levels, which become dimensions."""
    data, dimension = call["data"], call.json("dimension")
    targets, separator = list(call.json("target_dimensions")), call.json("label_separator")
    labels = f"{data.atom}.get_index({write_string(dimension)})"
    tuples = f"[tuple(label.split({write_string(separator)})) for label in {labels}]"
    levels = call.assign("levels", f"pd.MultiIndex.from_tuples({tuples}, names={write_literal(targets)})")
    index = f"xr.Coordinates.from_pandas_multiindex({levels}, {write_string(dimension)})"
    name = write_string(dimension)
    code = f"{data.atom}.drop_vars({name}).assign_coords({index}).unstack({name})"
    order = {name: write_literal(cube.labels(call.value, name)) for name in targets}
    return f"{code}.sel({join_items('{', [f'{write_string(n)}: {c}' for n, c in order.items()], '}')})"


@emits("filter_bands")
def write_filter_bands(call: Call) -> str:
    """The bands by their labels; those selected by an alias of the operator are labelled by it."""
    from odc_openeo.processes.filters import find_band_positions

    data = call["data"]
    dimension = cube.get_bands_dimension(data.value)
    old, new = cube.labels(data.value, dimension), cube.labels(call.value, dimension)
    selected: list[Any] = []
    for label in new:
        positions = [old.index(label)] if label in old else find_band_positions(data.value, dimension, label)
        selected.append(old[positions[0]])
    code = f"{data.atom}{write_by_name('.sel', {dimension: write_literal(selected)})}"
    return code if selected == new else f"{code}{assign_labels(dimension, write_literal(new))}"
