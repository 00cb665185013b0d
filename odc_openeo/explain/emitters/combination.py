"""Cubes with each other: masks and merges."""

from __future__ import annotations

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube.coordinates import get_index
from odc_openeo.explain.calls import Call, NoProgram, Operand, emits
from odc_openeo.explain.code import write_literal, write_string
from odc_openeo.explain.emitters.array_elements import write_selection
from odc_openeo.explain.emitters.dimensions import assign_labels, write_labels
from odc_openeo.explain.snippets import cubes
from odc_openeo.spatial.align import align_to_grid_of


def align_grid(call: Call, target: Operand, data: Operand) -> Operand:
    """A cube on the grid of another one, if its pixels are others."""
    aligned = align_to_grid_of(target.value, data.value)
    if aligned is data.value:
        return data
    if (
        all(
            aligned.sizes[d] == data.value.sizes[d] and np.allclose(aligned[d], data.value[d])
            for d in ("x", "y")
        )
        and aligned.odc.crs == data.value.odc.crs
    ):
        if all(np.isin(data.value[d].values, target.value[d].values).all() for d in ("x", "y")):
            return data
        return Operand(data.code, aligned)
    code = f'xr_reproject({data.code}, {target.atom}.odc.geobox, resampling="nearest")'
    return Operand(call.assign("aligned", write_reprojected(call, data.value, code, target.code)), aligned)


def write_reprojected(call: Call, data: xr.DataArray, code: str, target: str) -> str:
    """A reprojected cube with exactly the labels of the target."""
    return f'{code}.assign_coords(x={target}["x"], y={target}["y"])'


@emits("mask")
def write_mask(call: Call) -> str:
    """The values where the mask is neither true nor a number other than 0."""
    data = call["data"]
    mask = align_grid(call, data, call["mask"])
    code = mask.code
    for name in cube.dimensions_of_type(mask.value, "bands"):
        same = name in data.value.dims and get_index(mask.value, name).equals(get_index(data.value, name))
        if mask.value.sizes[name] == 1 and not same:
            code = f"{Operand(code, None).atom}{write_selection('isel', name, '0')}"
    for name in map(str, mask.value.dims):
        if name in data.value.dims and name not in ("x", "y"):
            a, b = get_index(mask.value, name), get_index(data.value, name)
            if a.dtype != b.dtype:
                labels = f"{data.atom}[{write_string(name)}]"
                code = f"{Operand(code, None).atom}{assign_labels(name, labels)}"
    if any(not mask.value[d].equals(data.value[d]) for d in ("x", "y")):
        # Where there is no mask nothing is masked.
        atom = Operand(code, None).atom
        if mask.value.dtype == bool:
            atom = f"{atom}.astype(float)"
        code = f'{atom}.reindex(x={data.atom}["x"], y={data.atom}["y"])'
        marked = f"({code}).fillna(0) != 0"
    elif mask.value.dtype == bool:
        marked = code
    else:
        marked = f"{Operand(code, None).atom}.fillna(0) != 0"
    name = call.assign("marked", marked)
    replacement = f", {call['replacement'].code}" if call.has("replacement") else ""
    return f"{data.atom}.where(~{name}{replacement})"


@emits("merge_cubes")
def write_merge_cubes(call: Call) -> str:
    """Side by side where the labels of one dimension differ; where they overlap the resolver decides."""
    one, other = call["cube1"], call["cube2"]
    if isinstance(one.value, xr.Dataset) or isinstance(other.value, xr.Dataset):
        raise NoProgram("it merges vector cubes with properties.")
    if {"x", "y"} <= set(one.value.dims) & set(other.value.dims):
        other = align_grid(call, one, other)
    common = [str(d) for d in one.value.dims if d in other.value.dims]
    if any(get_index(one.value, d).dtype.kind != get_index(other.value, d).dtype.kind for d in common):
        raise NoProgram("labels of times of different kinds meet.")
    different = [d for d in common if not _has_same_labels(one.value, other.value, d)]
    disjoint = [d for d in different if not get_index(one.value, d).isin(get_index(other.value, d)).any()]
    same_dims = set(one.value.dims) == set(other.value.dims)
    if same_dims and len(different) == 1 and disjoint:
        return _concatenate(call, one, other, different[0])
    if not different:
        return _resolve(call, one, other)
    return _merge(call, one, other, common)


def _has_same_labels(one: xr.DataArray, other: xr.DataArray, dimension: str) -> bool:
    a, b = get_index(one, dimension), get_index(other, dimension)
    return len(a) == len(b) and bool(a.isin(b).all())


def _concatenate(call: Call, one: Operand, other: Operand, dimension: str) -> str:
    code = f"xr.concat([{one.code}, {other.code}], dim={write_string(dimension)})"
    joined = get_index(one.value, dimension).append(get_index(other.value, dimension))
    labels = get_index(call.value, dimension)
    if joined.equals(labels):
        return code
    if len(joined) == len(labels):
        ascending = labels.is_monotonic_increasing
        if ascending or labels.is_monotonic_decreasing:
            return f"{code}.sortby({write_string(dimension)}{'' if ascending else ', ascending=False'})"
    name = write_string(dimension)
    return f"{code}.sortby({name}).reindex({{{name}: {write_labels(call.value, dimension)}}})"


def _resolve(call: Call, one: Operand, other: Operand) -> str:
    if not call.has_child("overlap_resolver"):
        raise NoProgram("nothing is left to merge.")
    result = call.inline("overlap_resolver", x=one, y=other, context=call["context"])
    if not result.is_cube:
        value = "np.nan" if result.value is None else result.code
        return f"xr.full_like({one.operand} + {other.operand}, {value}, dtype=float)"
    if set(result.value.dims) != set(call.value.dims):
        return f"xr.broadcast({result.code}, {one.operand} + {other.operand})[0]"
    return result.code


def _merge(call: Call, one: Operand, other: Operand, common: list[str]) -> str:
    """All labels of both: where only one cube has a pixel its value, where both have it the resolver's."""
    labels = ", ".join(f"{write_string(d)}: {_write_union(call, one, other, d)}" for d in common)
    union = call.assign("labels", f"{{{labels}}}")
    first = call.assign("first", f"{one.atom}.reindex({union})")
    second = call.assign("second", f"{other.atom}.reindex({union})")
    in_first = call.assign("in_first", f"{call.helper(cubes.mark_labels)}({one.code}, {union})")
    if not call.has_child("overlap_resolver"):
        return f"xr.where({in_first}, {first}, {second})"
    in_second = call.assign("in_second", f"{call.helper(cubes.mark_labels)}({other.code}, {union})")
    if f"{call.path}." not in call.writer.trace.parameters:
        return f"xr.where({in_first}, {first}, {second})"
    result = call.inline(
        "overlap_resolver", x=Operand(first, None), y=Operand(second, None), context=call["context"]
    )
    value = "np.nan" if result.value is None else result.code
    return f"xr.where({in_first} & {in_second}, {value}, xr.where({in_first}, {first}, {second}))"


def _write_union(call: Call, one: Operand, other: Operand, dimension: str) -> str:
    labels = get_index(call.value, dimension)
    for operand in (one, other):
        if dimension in operand.value.coords and get_index(operand.value, dimension).equals(labels):
            return f"{operand.atom}[{write_string(dimension)}]"
    if labels.dtype.kind == "f" and len(labels) > 12:
        step = (labels[-1] - labels[0]) / (len(labels) - 1)
        if np.allclose(np.diff(labels), step):
            first, last = (write_literal(float(label)) for label in (labels[0], labels[-1]))
            return f"np.linspace({first}, {last}, {len(labels)})"
    return write_labels(call.value, dimension)
