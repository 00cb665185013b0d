"""Processes that add, drop, rename, join and split dimensions, and rename or list their labels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import prod
from typing import Annotated, Any, Literal

import dask
import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import coordinates
from odc_openeo.errors import (
    DimensionExists,
    DimensionLabelCountMismatch,
    LabelExists,
    LabelMismatch,
    LabelNotAvailable,
    LabelsNotEnumerated,
    ProcessParameterInvalid,
    TargetDimensionExists,
)
from odc_openeo.registry.demand import Demand, along_arguments
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import Cube, String
from odc_openeo.spatial import vector_cubes
from odc_openeo.spatial.align import update_transform

_LABEL = {"type": ["number", "string"]}
Label = Annotated[int | float | str, Schema([{"type": "number"}, {"type": "string"}])]
Labels = Annotated[
    Sequence[int | float | str], Schema({"type": "array", "uniqueItems": True, "items": _LABEL})
]
DimensionType = Annotated[
    Literal["bands", "geometry", "spatial", "temporal", "other"],
    Schema({"type": "string", "enum": ["bands", "geometry", "spatial", "temporal", "other"]}),
]
Separator = Annotated[str, Schema({"type": "string", "minLength": 1})]
_NAMES: dict[str, Any] = {"type": "array", "uniqueItems": True, "items": {"type": "string"}}


@process(categories=["cubes"])
def create_data_cube() -> Cube:
    """Create an empty data cube.

    The cube has no dimensions and holds one value, which is no-data. Dimensions are added with
    `add_dimension`.

    Returns:
        A data cube without dimensions.
    """
    return xr.DataArray(np.float32(np.nan))


_NAMES_BY_TYPE = {"bands": cube.BANDS, "spatial": cube.X, "temporal": cube.T}


def _needs_of_addition(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    # The demand along the new dimension does not concern the data; filters may refer to it by its type.
    type_ = arguments.get("type", "other")
    return {"data": demand.along_dimensions(arguments.get("name"), _NAMES_BY_TYPE.get(type_, type_))}


@process(categories=["cubes"], needs=_needs_of_addition, pointwise=True, raw_values_of=None)
def add_dimension(data: Cube, name: String, label: Label, type: DimensionType = "other") -> Cube:
    """Add a new dimension with a single label.

    The new dimension becomes the first of the cube. Dates and date-times become real times if the type is
    `temporal`.

    Args:
        data: The data cube.
        name: The name of the new dimension.
        label: The only label of the new dimension.
        type: The type of the new dimension. A cube has at most three spatial dimensions.

    Returns:
        The data cube with one more dimension; all values and all other dimensions stay as they are.

    Raises:
        DimensionExists: The cube already has a dimension of that name, or three spatial dimensions.
    """
    if name in data.dims:
        raise DimensionExists(name=name)
    coordinates.check_name(name, type, "add_dimension", "name")
    spatial = cube.dimensions_of_type(data, "spatial")
    if type == "spatial" and len(spatial) >= 3:
        raise DimensionExists(
            f"The cube already has the spatial dimensions {', '.join(spatial)}; three is the maximum."
        )
    # A scalar coordinate of that name (left over from an earlier selection) would stand in the way.
    expanded = data.drop_vars(name, errors="ignore").expand_dims({name: 1})
    return expanded.assign_coords({name: coordinates.make_coordinate(name, [label], type)})


@process(categories=["cubes"], needs=along_arguments("name"), pointwise=True, raw_values_of=None)
def drop_dimension(data: Cube, name: String) -> Cube:
    """Remove a dimension that has a single label.

    Args:
        data: The data cube.
        name: The name of the dimension to remove.

    Returns:
        The data cube without the dimension; the other dimensions stay as they are.

    Raises:
        DimensionNotAvailable: The cube has no dimension of that name.
        DimensionLabelCountMismatch: The dimension has more than one label (or none): reduce or filter it
            first.
    """
    cube.require_dimension(data, name)
    if data.sizes[name] != 1:
        raise DimensionLabelCountMismatch(name=name, count=data.sizes[name])
    return coordinates.drop_single_label(data, name)


@process(categories=["cubes"], needs=along_arguments("source", "target"), pointwise=True, raw_values_of=None)
def rename_dimension(data: Cube, source: String, target: String) -> Cube:
    """Give a dimension another name.

    Type, labels and everything else of the dimension stay.

    Args:
        data: The data cube.
        source: The current name.
        target: The new name.

    Returns:
        The data cube with the dimension renamed.

    Raises:
        DimensionNotAvailable: The cube has no dimension with the current name.
        DimensionExists: The cube already has a dimension with the new name.
    """
    cube.require_dimension(data, source)
    if target in data.dims:
        raise DimensionExists(name=target)
    type_ = cube.dimension_type(data, source)
    coordinates.check_name(target, type_, "rename_dimension", "target")
    renamed = data.drop_vars(target, errors="ignore").rename({source: target})
    if vector_cubes.find_geometry_dimension(data) == source:
        # When renaming, xarray drops the index of geometries and with it their CRS.
        return vector_cubes.index_geometries(renamed, vector_cubes.get_crs(data, source), target)
    return _with_type(renamed, target, type_)


def _with_type(data: cube.Cube, name: str, type_: str) -> cube.Cube:
    """Set the type of a dimension, whatever its name may suggest."""
    if cube.dimension_type(data, name) == type_:
        return data
    if name in data.coords:
        data = data.copy(deep=False)
        data.coords[name].attrs[cube.TYPE] = type_
        return data
    coord = coordinates.make_coordinate(name, list(range(data.sizes[name])), type_)
    return data.assign_coords({name: coord})


@process(categories=["cubes"], needs=along_arguments("dimension"), pointwise=True, raw_values_of=None)
def rename_labels(data: Cube, dimension: String, target: Labels, source: Labels = ()) -> Cube:
    """Rename labels of a dimension.

    Order and values don't change. Without `source` the labels must be 0, 1, 2, … (as after
    `apply_dimension`), and there must be one new label for each.

    Args:
        data: The data cube.
        dimension: The name of the dimension.
        target: The new labels. The dimension must not have any of them yet.
        source: The labels to rename, in the order of `target`; all labels if empty.

    Returns:
        The data cube with the new labels.

    Raises:
        LabelsNotEnumerated: `source` is empty and the labels are not 0, 1, 2, ….
        LabelMismatch: The numbers of new labels and of labels to rename differ.
        LabelNotAvailable: A label to rename does not exist.
        LabelExists: A new label already exists.
        DimensionNotAvailable: The cube has no dimension of that name.
    """
    cube.require_dimension(data, dimension)
    present = cube.labels(data, dimension)
    if not source and present != list(range(len(present))):
        raise LabelsNotEnumerated()
    old = list(source) or present
    if len(old) != len(target):
        raise LabelMismatch(source=len(old), target=len(target))
    positions = [_find_renamed(data, dimension, present, label) for label in old]
    for label, position in zip(old, positions, strict=True):
        if position is None:
            raise LabelNotAvailable(label=repr(label), available=_describe_labels(present))
    if len(set(positions)) < len(positions):
        reason = "two of the labels are names of the same band."
        raise ProcessParameterInvalid(process="rename_labels", parameter="source", reason=reason)
    for label in target:
        if coordinates.find_position(present, label) is not None:
            raise LabelExists(label=repr(label))
    renamed = dict(zip(positions, target, strict=True))
    new = [renamed.get(i, label) for i, label in enumerate(present)]
    return _relabel_dimension(data, dimension, new)


def _find_renamed(data: cube.Cube, dimension: str, present: Sequence[Any], label: Any) -> int | None:
    """The position of a label, or of the band that has it as an alias."""
    position = coordinates.find_position(present, label)
    if position is not None:
        return position
    return coordinates.find_position(present, cube.find_band_label(data, dimension, label))


def _relabel_dimension(data: cube.Cube, dimension: str, new: Sequence[Any]) -> cube.Cube:
    coord = coordinates.make_coordinate(dimension, new, cube.dimension_type(data, dimension))
    if dimension in data.coords:
        coord.attrs = {**_keep_aliases(data, dimension, new), **coord.attrs}
        coord = coordinates.with_type(coord, dimension, cube.dimension_type(data, dimension))
    return data.assign_coords({dimension: coord})


def _keep_aliases(data: cube.Cube, dimension: str, new: Sequence[Any]) -> dict[str, Any]:
    """The attributes of a coordinate that gets new labels, without the aliases of labels that change."""
    attrs = dict(data.coords[dimension].attrs)
    old = cube.labels(data, dimension)
    same = {label for label, other in zip(old, new, strict=True) if label == other}
    if cube.ALIASES in attrs:
        aliases = attrs[cube.ALIASES].items()
        attrs[cube.ALIASES] = {n: label for n, label in aliases if label in same and n not in new}
    return attrs


def _describe_labels(present: Sequence[Any]) -> str:
    listed = ", ".join(repr(label) for label in present[:20])
    return f"{listed}, … ({len(present)} in all)" if len(present) > 20 else listed


@process(categories=["cubes"])
def dimension_labels(
    data: Cube, dimension: String
) -> Annotated[list[Any], Schema({"type": "array", "items": _LABEL})]:
    """List the labels of a dimension.

    Times are given as RFC 3339 strings in UTC, geometries as WKT.

    Args:
        data: The data cube.
        dimension: The name of the dimension.

    Returns:
        The labels in the order of the cube.

    Raises:
        DimensionNotAvailable: The cube has no dimension of that name.
    """
    cube.require_dimension(data, dimension)
    return [getattr(label, "wkt", label) for label in cube.labels(data, dimension)]


@process(
    categories=["cubes"],
    raw_values_of=None,
    whole_because="which labels stay is known only when all pixels are",
)
def trim_cube(data: Cube) -> Cube:
    """Remove labels that have no data at all.

    Along spatial and temporal dimensions labels are removed at both ends only, so that the rest stays
    regular; along other dimensions also in between. To find the labels that have data, the cube is read once
    when this process is evaluated.

    Args:
        data: The data cube.

    Returns:
        The data cube with the same dimensions, some of them shorter.
    """
    if isinstance(data, xr.Dataset) and not data.data_vars:
        return data
    valid = cube.valid(data) if isinstance(data, xr.DataArray) else data.to_array(cube.VARIABLE).notnull()
    names = [str(d) for d in data.dims]
    with_data = [valid.any([other for other in valid.dims if other != d]) for d in names]
    masks = [mask.values for mask in dask.compute(*with_data)]
    keep = {d: _find_labels_with_data(data, d, mask) for d, mask in zip(names, masks, strict=True)}
    return update_transform(data.isel(keep))


def _find_labels_with_data(data: cube.Cube, dimension: str, mask: np.ndarray) -> Any:
    positions = np.flatnonzero(mask)
    if cube.dimension_type(data, dimension) not in ("spatial", "temporal"):
        return positions
    return slice(positions[0], positions[-1] + 1) if positions.size else slice(0, 0)


def _needs_of_flattening(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    names, target = arguments.get("dimensions"), arguments.get("target_dimension")
    return {"data": demand.along_dimensions(*names, target)} if isinstance(names, list) else {}


@process(categories=["cubes"], experimental=True, needs=_needs_of_flattening)
def flatten_dimensions(
    data: Cube,
    dimensions: Annotated[Sequence[str], Schema(_NAMES)],
    target_dimension: String,
    label_separator: Separator = "~",
) -> Cube:
    """Combine several dimensions into one.

    The labels of the new dimension are the labels of the old ones, joined by the separator; the last of the
    given dimensions changes fastest. `unflatten_dimension` is the inverse.

    Args:
        data: The data cube.
        dimensions: The names of the dimensions to combine, in the order in which labels are joined.
        target_dimension: The name of the new dimension, which gets the type `other`.
        label_separator: The string between the labels. Choose one that no label contains.

    Returns:
        The data cube with the new dimension in place of the first of the old ones.

    Raises:
        DimensionNotAvailable: One of the dimensions does not exist.
        TargetDimensionExists: The cube already has a dimension with the new name.
    """
    for name in dimensions:
        cube.require_dimension(data, name)
    if not dimensions:
        reason = "give at least one dimension to combine."
        raise ProcessParameterInvalid(process="flatten_dimensions", parameter="dimensions", reason=reason)
    if target_dimension in data.dims:
        raise TargetDimensionExists(name=target_dimension)
    coordinates.check_name(target_dimension, "other", "flatten_dimensions", "target_dimension")
    labels = [""]
    for name in dimensions:
        added = [str(label) for label in dimension_labels(data, name)]
        labels = [f"{t}{label_separator}{a}" if t else a for t in labels for a in added]
    order = [str(d) for d in data.dims if d not in dimensions]
    order.insert(min(list(data.dims).index(d) for d in dimensions), target_dimension)
    stacked = _stack_dimensions(data, list(dimensions), target_dimension, len(labels)).transpose(*order)
    return stacked.assign_coords(
        {target_dimension: coordinates.make_coordinate(target_dimension, labels, "other")}
    )


def _stack_dimensions(data: Cube, dimensions: list[str], target: str, length: int) -> Cube:
    if isinstance(data, xr.DataArray) and not data.size:
        # Xarray cannot stack an empty array.
        coords = {name: coord for name, coord in data.coords.items() if not {*dimensions} & {*coord.dims}}
        sizes = {str(d): size for d, size in data.sizes.items() if d not in dimensions} | {target: length}
        values = np.empty(list(sizes.values()), data.dtype)
        return xr.DataArray(values, dims=list(sizes), coords=coords, attrs=data.attrs)
    stacked = data.stack({target: dimensions}, create_index=False)
    return stacked.drop_vars(dimensions, errors="ignore")


def _needs_of_unflattening(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    names = arguments.get("target_dimensions")
    return (
        {"data": demand.along_dimensions(*names, arguments.get("dimension"))}
        if isinstance(names, list)
        else {}
    )


@process(categories=["cubes"], experimental=True, needs=_needs_of_unflattening)
def unflatten_dimension(
    data: Cube,
    dimension: String,
    target_dimensions: Annotated[Sequence[str], Schema({**_NAMES, "minItems": 2})],
    label_separator: Separator = "~",
) -> Cube:
    """Split one dimension into several.

    Each label is split at the separator into as many parts as there are new dimensions. Every combination of
    parts must occur exactly once. `flatten_dimensions` is the inverse.

    Args:
        data: The data cube.
        dimension: The name of the dimension to split.
        target_dimensions: The names of the new dimensions, which get the type `other`.
        label_separator: The string at which labels are split.

    Returns:
        The data cube with the new dimensions in place of the old one.

    Raises:
        DimensionNotAvailable: The cube has no dimension of that name.
        TargetDimensionExists: The cube already has a dimension with one of the new names.
    """
    cube.require_dimension(data, dimension)
    for name in target_dimensions:
        if name in data.dims:
            raise TargetDimensionExists(name=name)
        coordinates.check_name(name, "other", "unflatten_dimension", "target_dimensions")
    parts = [tuple(str(label).split(label_separator)) for label in cube.labels(data, dimension)]
    new = _split_labels(parts, target_dimensions, dimension)
    positions = {combination: i for i, combination in enumerate(parts)}
    order = [positions[c] for c in _combine_labels(list(new.values()))]
    arranged = data if order == sorted(order) else data.isel({dimension: order})
    return _fold_dimension(arranged, dimension, new)


def _combine_labels(labels: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    combinations: list[tuple[str, ...]] = [()]
    for axis in labels:
        combinations = [(*c, label) for c in combinations for label in axis]
    return combinations


def _split_labels(
    parts: Sequence[tuple[str, ...]], names: Sequence[str], dimension: str
) -> dict[str, list[str]]:
    """The labels of each new dimension.

    Raises:
        ProcessParameterInvalid: the labels don't form a full grid.
    """
    if any(len(p) != len(names) for p in parts):
        wrong = next(p for p in parts if len(p) != len(names))
        reason = f"a label splits into {wrong}, not into {len(names)} parts. Check 'label_separator'."
        raise ProcessParameterInvalid(process="unflatten_dimension", parameter="dimension", reason=reason)
    new = {name: list(dict.fromkeys(p[i] for p in parts)) for i, name in enumerate(names)}
    if len(set(parts)) != len(parts) or prod(map(len, new.values())) != len(parts):
        reason = f"the {len(parts)} labels of '{dimension}' are not all combinations of their parts."
        raise ProcessParameterInvalid(process="unflatten_dimension", parameter="dimension", reason=reason)
    return new


def _fold_dimension(data: cube.Cube, dimension: str, new: dict[str, list[str]]) -> cube.Cube:
    sizes = {name: len(axis) for name, axis in new.items()}
    if isinstance(data, xr.Dataset):
        return data.map(lambda v: _fold_dimension(v, dimension, new) if dimension in v.dims else v)
    variables: dict[Hashable, xr.Variable] = {data.name: data.variable}
    variables |= {k: c.variable for k, c in data.coords.items() if dimension in c.dims and k != dimension}
    folded = {k: _fold_variable(v, dimension, sizes) for k, v in variables.items()}
    unchanged = {k: c for k, c in data.coords.items() if dimension not in c.dims}
    labels = {name: coordinates.make_coordinate(name, axis, "other") for name, axis in new.items()}
    values = folded.pop(data.name)
    return xr.DataArray(values, coords={**unchanged, **folded, **labels}, name=data.name)


def _fold_variable(variable: xr.Variable, dimension: str, sizes: dict[str, int]) -> xr.Variable:
    at = variable.dims.index(dimension)
    dims = (*variable.dims[:at], *sizes, *variable.dims[at + 1 :])
    shape = (*variable.shape[:at], *sizes.values(), *variable.shape[at + 1 :])
    return xr.Variable(dims, variable.data.reshape(shape), variable.attrs)
