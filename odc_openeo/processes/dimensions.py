"""Processes that add, drop, rename, join and split dimensions, and rename or list their labels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import prod
from typing import Annotated, Any, Literal

import dask
import numpy as np
import xarray as xr

from odc_openeo import cube, geometry
from odc_openeo.demand import Demand, along
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
from odc_openeo.process import Schema, process
from odc_openeo.processes import labels as dimension_coordinates
from odc_openeo.processes.alignment import with_current_transform
from odc_openeo.processes.schemas import Cube, String

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


_OF_TYPE = {"bands": cube.BANDS, "spatial": cube.X, "temporal": cube.T}


def _needs_less(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    # What is needed of the new dimension tells nothing of the data; filters may mean it by its type.
    type_ = arguments.get("type", "other")
    return {"data": demand.along(arguments.get("name"), _OF_TYPE.get(type_, type_))}


@process(categories=["cubes"], needs=_needs_less, pointwise=True)
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
    dimension_coordinates.check_name(name, type, "add_dimension", "name")
    spatial = cube.dimensions_of_type(data, "spatial")
    if type == "spatial" and len(spatial) >= 3:
        raise DimensionExists(
            f"The cube already has the spatial dimensions {', '.join(spatial)}; there are no more axes."
        )
    # A scalar coordinate of that name (left over from an earlier selection) would stand in the way.
    expanded = data.drop_vars(name, errors="ignore").expand_dims({name: 1})
    return expanded.assign_coords({name: dimension_coordinates.coordinate(name, [label], type)})


@process(categories=["cubes"], needs=along("name"), pointwise=True)
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
    return _only(data, name)


def _only(data: cube.Cube, name: str) -> cube.Cube:
    """The cube at the only label of a dimension; a no-data value of that band becomes the one of the cube."""
    dropped = data.isel({name: 0}, drop=True)
    missing = data.coords.get(cube.NODATA)
    if isinstance(dropped, xr.DataArray) and missing is not None and name in missing.dims:
        value = missing.isel({name: 0})
        return cube.with_nodata(dropped, value.item() if not value.dims else value)
    return dropped


@process(categories=["cubes"], needs=along("source", "target"), pointwise=True)
def rename_dimension(data: Cube, source: String, target: String) -> Cube:
    """Give a dimension another name.

    Type, labels and everything else of the dimension stay.

    Args:
        data: The data cube.
        source: The present name.
        target: The new name.

    Returns:
        The data cube with the dimension renamed.

    Raises:
        DimensionNotAvailable: The cube has no dimension with the present name.
        DimensionExists: The cube already has a dimension with the new name.
    """
    cube.require_dimension(data, source)
    if target in data.dims:
        raise DimensionExists(name=target)
    type_ = cube.dimension_type(data, source)
    dimension_coordinates.check_name(target, type_, "rename_dimension", "target")
    renamed = data.drop_vars(target, errors="ignore").rename({source: target})
    if geometry.geometry_dimension(data) == source:
        # xarray drops the index of geometries, and with it their CRS, when it renames.
        return geometry.index_geometries(renamed, geometry.crs_of(data, source), target)
    return _typed(renamed, target, type_)


def _typed(data: cube.Cube, name: str, type_: str) -> cube.Cube:
    """The cube with a dimension of that type, whatever its name may suggest."""
    if cube.dimension_type(data, name) == type_:
        return data
    if name in data.coords:
        data = data.copy(deep=False)
        data.coords[name].attrs[cube.TYPE] = type_
        return data
    found = dimension_coordinates.coordinate(name, list(range(data.sizes[name])), type_)
    return data.assign_coords({name: found})


@process(categories=["cubes"], needs=along("dimension"), pointwise=True)
def rename_labels(data: Cube, dimension: String, target: Labels, source: Labels = ()) -> Cube:
    """Rename labels of a dimension.

    Order and values don't change. Without `source` the labels must be 0, 1, 2, … (as after
    `apply_dimension`), and there must be a new one for each.

    Args:
        data: The data cube.
        dimension: The name of the dimension.
        target: The new labels. None of them may be a label of the dimension already.
        source: The labels to rename, in the order of `target`; all labels if empty.

    Returns:
        The data cube with the new labels.

    Raises:
        LabelsNotEnumerated: `source` is empty and the labels are not 0, 1, 2, ….
        LabelMismatch: There are not as many new labels as labels to rename.
        LabelNotAvailable: A label to rename does not exist.
        LabelExists: A new label exists already.
        DimensionNotAvailable: The cube has no dimension of that name.
    """
    cube.require_dimension(data, dimension)
    present = cube.labels(data, dimension)
    if not source and present != list(range(len(present))):
        raise LabelsNotEnumerated()
    old = list(source) or present
    if len(old) != len(target):
        raise LabelMismatch(source=len(old), target=len(target))
    positions = [dimension_coordinates.position(present, label) for label in old]
    for label, found in zip(old, positions, strict=True):
        if found is None:
            raise LabelNotAvailable(label=repr(label), available=_listed(present))
    for label in target:
        if dimension_coordinates.position(present, label) is not None:
            raise LabelExists(label=repr(label))
    renamed = dict(zip(positions, target, strict=True))
    new = [renamed.get(i, label) for i, label in enumerate(present)]
    return _relabelled(data, dimension, new)


def _relabelled(data: cube.Cube, dimension: str, new: Sequence[Any]) -> cube.Cube:
    coord = dimension_coordinates.coordinate(dimension, new, cube.dimension_type(data, dimension))
    if dimension in data.coords:
        coord.attrs = {**data.coords[dimension].attrs, **coord.attrs}
        coord = dimension_coordinates.typed(coord, dimension, cube.dimension_type(data, dimension))
    return data.assign_coords({dimension: coord})


def _listed(present: Sequence[Any]) -> str:
    shown = ", ".join(repr(label) for label in present[:20])
    return f"{shown}, … ({len(present)} in all)" if len(present) > 20 else shown


@process(categories=["cubes"])
def dimension_labels(
    data: Cube, dimension: String
) -> Annotated[list[Any], Schema({"type": "array", "items": _LABEL})]:
    """List the labels of a dimension.

    Times are given as RFC 3339 texts in UTC, geometries as WKT.

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


@process(categories=["cubes"])
def trim_cube(data: Cube) -> Cube:
    """Remove labels that have no data at all.

    Along spatial and temporal dimensions labels are removed at both ends only, so that the rest stays
    regular; along the others also in between. Which labels have data can be told only by reading them: the
    cube is read once when this process is reached.

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
    found = [mask.values for mask in dask.compute(*with_data)]
    keep = {d: _kept(data, d, mask) for d, mask in zip(names, found, strict=True)}
    return with_current_transform(data.isel(keep))


def _kept(data: cube.Cube, dimension: str, mask: np.ndarray) -> Any:
    positions = np.flatnonzero(mask)
    if cube.dimension_type(data, dimension) not in ("spatial", "temporal"):
        return positions
    return slice(positions[0], positions[-1] + 1) if positions.size else slice(0, 0)


def _needs_of_flattening(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    names, target = arguments.get("dimensions"), arguments.get("target_dimension")
    return {"data": demand.along(*names, target)} if isinstance(names, list) else {}


@process(categories=["cubes"], experimental=True, needs=_needs_of_flattening)
def flatten_dimensions(
    data: Cube,
    dimensions: Annotated[Sequence[str], Schema(_NAMES)],
    target_dimension: String,
    label_separator: Separator = "~",
) -> Cube:
    """Combine several dimensions into one.

    The labels of the new dimension are the labels of the old ones, joined by the separator; the last of the
    given dimensions changes fastest. `unflatten_dimension` is the way back.

    Args:
        data: The data cube.
        dimensions: The names of the dimensions to combine, in the order in which labels are joined.
        target_dimension: The name of the new dimension, which gets the type `other`.
        label_separator: The text between the labels; choose one that no label contains.

    Returns:
        The data cube with the new dimension in the place of the first of the old ones.

    Raises:
        DimensionNotAvailable: One of the dimensions does not exist.
        TargetDimensionExists: The cube has a dimension with the new name already.
    """
    for name in dimensions:
        cube.require_dimension(data, name)
    if not dimensions:
        reason = "name at least one dimension to combine."
        raise ProcessParameterInvalid(process="flatten_dimensions", parameter="dimensions", reason=reason)
    if target_dimension in data.dims:
        raise TargetDimensionExists(name=target_dimension)
    dimension_coordinates.check_name(target_dimension, "other", "flatten_dimensions", "target_dimension")
    texts = [""]
    for name in dimensions:
        added = [str(label) for label in dimension_labels(data, name)]
        texts = [f"{t}{label_separator}{a}" if t else a for t in texts for a in added]
    order = [str(d) for d in data.dims if d not in dimensions]
    order.insert(min(list(data.dims).index(d) for d in dimensions), target_dimension)
    stacked = _stacked(data, list(dimensions), target_dimension, len(texts)).transpose(*order)
    return stacked.assign_coords(
        {target_dimension: dimension_coordinates.coordinate(target_dimension, texts, "other")}
    )


def _stacked(data: Cube, dimensions: list[str], target: str, length: int) -> Cube:
    if isinstance(data, xr.DataArray) and not data.size:
        # Xarray cannot stack what has no elements.
        kept = {name: coord for name, coord in data.coords.items() if not {*dimensions} & {*coord.dims}}
        sizes = {str(d): size for d, size in data.sizes.items() if d not in dimensions} | {target: length}
        values = np.empty(list(sizes.values()), data.dtype)
        return xr.DataArray(values, dims=list(sizes), coords=kept, attrs=data.attrs)
    found = data.stack({target: dimensions}, create_index=False)
    return found.drop_vars(dimensions, errors="ignore")


def _needs_of_unflattening(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    names = arguments.get("target_dimensions")
    return {"data": demand.along(*names, arguments.get("dimension"))} if isinstance(names, list) else {}


@process(categories=["cubes"], experimental=True, needs=_needs_of_unflattening)
def unflatten_dimension(
    data: Cube,
    dimension: String,
    target_dimensions: Annotated[Sequence[str], Schema({**_NAMES, "minItems": 2})],
    label_separator: Separator = "~",
) -> Cube:
    """Split one dimension into several.

    Each label is split at the separator into as many parts as there are new dimensions. Every combination of
    parts must occur exactly once. `flatten_dimensions` is the way back.

    Args:
        data: The data cube.
        dimension: The name of the dimension to split.
        target_dimensions: The names of the new dimensions, which get the type `other`.
        label_separator: The text at which labels are split.

    Returns:
        The data cube with the new dimensions in the place of the old one.

    Raises:
        DimensionNotAvailable: The cube has no dimension of that name.
        TargetDimensionExists: The cube has a dimension with one of the new names already.
    """
    cube.require_dimension(data, dimension)
    for name in target_dimensions:
        if name in data.dims:
            raise TargetDimensionExists(name=name)
        dimension_coordinates.check_name(name, "other", "unflatten_dimension", "target_dimensions")
    parts = [tuple(str(label).split(label_separator)) for label in cube.labels(data, dimension)]
    new = _grid(parts, target_dimensions, dimension)
    wanted = {combination: i for i, combination in enumerate(parts)}
    order = [wanted[c] for c in _combinations(list(new.values()))]
    arranged = data if order == sorted(order) else data.isel({dimension: order})
    return _folded(arranged, dimension, new)


def _combinations(labels: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [()]
    for own in labels:
        found = [(*c, label) for c in found for label in own]
    return found


def _grid(parts: Sequence[tuple[str, ...]], names: Sequence[str], dimension: str) -> dict[str, list[str]]:
    """The labels of each new dimension; an error if they don't make a full grid."""
    if any(len(p) != len(names) for p in parts):
        wrong = next(p for p in parts if len(p) != len(names))
        reason = f"its label made of {wrong} has not {len(names)} parts. Check 'label_separator'."
        raise ProcessParameterInvalid(process="unflatten_dimension", parameter="dimension", reason=reason)
    new = {name: list(dict.fromkeys(p[i] for p in parts)) for i, name in enumerate(names)}
    if len(set(parts)) != len(parts) or prod(map(len, new.values())) != len(parts):
        reason = f"the {len(parts)} labels of '{dimension}' are not all combinations of their parts."
        raise ProcessParameterInvalid(process="unflatten_dimension", parameter="dimension", reason=reason)
    return new


def _folded(data: cube.Cube, dimension: str, new: dict[str, list[str]]) -> cube.Cube:
    sizes = {name: len(own) for name, own in new.items()}
    if isinstance(data, xr.Dataset):
        return data.map(lambda v: _folded(v, dimension, new) if dimension in v.dims else v)
    held: dict[Hashable, xr.Variable] = {data.name: data.variable}
    held |= {k: c.variable for k, c in data.coords.items() if dimension in c.dims and k != dimension}
    folded = {k: _fold_variable(v, dimension, sizes) for k, v in held.items()}
    others = {k: c for k, c in data.coords.items() if dimension not in c.dims}
    labels = {name: dimension_coordinates.coordinate(name, own, "other") for name, own in new.items()}
    values = folded.pop(data.name)
    return xr.DataArray(values, coords={**others, **folded, **labels}, name=data.name)


def _fold_variable(variable: xr.Variable, dimension: str, sizes: dict[str, int]) -> xr.Variable:
    at = variable.dims.index(dimension)
    dims = (*variable.dims[:at], *sizes, *variable.dims[at + 1 :])
    shape = (*variable.shape[:at], *sizes.values(), *variable.shape[at + 1 :])
    return xr.Variable(dims, variable.data.reshape(shape), variable.attrs)
