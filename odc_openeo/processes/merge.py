"""Merge two cubes into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import numpy as np
import pandas as pd
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import NODATA, X, Y
from odc_openeo.cube.band_nodata import BandNodata
from odc_openeo.cube.concat import concat
from odc_openeo.cube.coordinates import get_index, unify_times
from odc_openeo.cube.instants import find_instants
from odc_openeo.cube.packing import carry_all_packings, carry_packing, drop_packing
from odc_openeo.errors import IncompatibleDataCubes, IncompatibleGeometryTypes, OverlapResolverMissing
from odc_openeo.load.part_windows import find_part_window
from odc_openeo.registry.child_results import as_field
from odc_openeo.registry.demand import SLACK, Demand
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.process import process
from odc_openeo.registry.schemas import ANY_JSON, AnyValue, Cube, child_process_schema
from odc_openeo.spatial.align import align_to_grid_of, find_resolution, update_transform

OverlapResolver = Annotated[
    Callable[..., Any] | None,
    child_process_schema(
        {
            "x": (ANY_JSON, "The value of `cube1`."),
            "y": (ANY_JSON, "The value of `cube2`."),
        },
        ANY_JSON,
    ),
]


def _needs_of_merging(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    # It is unknown which cube has which bands; a cube on another grid is looked up at the nearest pixel.
    needed = replace(demand.of_all_bands(), grid=None)
    return {"cube1": needed.with_margin(SLACK), "cube2": needed.for_resampled_cube()}


@process(categories=["cubes"], needs=_needs_of_merging, pointwise=True, raw_values_of=None)
def merge_cubes(
    cube1: Cube,
    cube2: Cube,
    overlap_resolver: OverlapResolver = None,
    context: AnyValue = None,
    *,
    env: Environment | None = None,
) -> Cube:
    """Merge two data cubes.

    Dimensions of the same name are joined label by label. Labels that occur in only one cube take their
    values from it; where both cubes have values, the overlap resolver decides. A cube that lacks a dimension
    of the other one is repeated along it. Labels that neither cube covers become no-data.

    Labels of spatial and temporal dimensions are sorted; along other dimensions the labels of `cube2` follow
    those of `cube1`. If the pixels of the cubes don't coincide, `cube2` is resampled to the grid of `cube1`
    (nearest neighbour); to choose another method, use `resample_cube_spatial` first.

    Args:
        cube1: The base cube.
        cube2: The other cube.
        overlap_resolver: Called with the two values where the cubes overlap; returns one value.
        context: Additional data for the overlap resolver.

    Returns:
        The merged cube, with the order of dimensions of `cube1`. Integers stay integers as long as one
        no-data value (or one per band) is suitable for the values of both cubes and of the overlap.

    Raises:
        OverlapResolverMissing: The cubes overlap, but no overlap resolver is given.
        IncompatibleGeometryTypes: Vector cubes hold geometries of different kinds.
        IncompatibleDataCubes: Dimensions of the same name differ in type, or grids can't be aligned.
    """
    one, other = _check_same_kind(cube1, cube2)
    other = align_to_grid_of(one, other, partial(find_part_window, env))
    order = _order_dimensions(one, other)
    common = [d for d in order if d in one.dims and d in other.dims]
    for name in common:
        one, other = unify_times(one, other, name)
        _check_type(one, other, name)
    missing = BandNodata.from_cubes(one, other)
    if missing is not None:
        one, other = missing.declare_nodata(one), missing.declare_nodata(other)
    merge = _Merge(drop_packing(one), drop_packing(other), overlap_resolver, context, missing, [one, other])
    merged = merge.merge_parts(merge.one, merge.other, common)
    return update_transform(carry_all_packings(merged.transpose(*order), merge.sources))


def _check_same_kind(cube1: cube.Cube, cube2: cube.Cube) -> tuple[xr.DataArray, xr.DataArray]:
    vector = [cube.GEOMETRY in c.dims for c in (cube1, cube2)]
    raster = [cube.has_raster_dimensions(c) for c in (cube1, cube2)]
    if any(vector) and any(raster):
        raise IncompatibleDataCubes(reason="a raster cube and a vector cube can't be merged.")
    if not isinstance(cube1, xr.DataArray) or not isinstance(cube2, xr.DataArray):
        reason = "vector cubes with several properties can't be merged. Select one property first."
        raise IncompatibleDataCubes(reason=reason)
    if all(vector):
        kinds = [{g.geom_type.removeprefix("Multi") for g in c[cube.GEOMETRY].values} for c in (cube1, cube2)]
        if kinds[0] and kinds[1] and kinds[0] != kinds[1]:
            described = " and ".join("/".join(sorted(k)) for k in kinds)
            raise IncompatibleGeometryTypes(reason=f"{described}.")
    return cube1, cube2


def _order_dimensions(one: xr.DataArray, other: xr.DataArray) -> list[str]:
    first, second = list(map(str, one.dims)), list(map(str, other.dims))
    if set(first) < set(second):
        return second
    return first + [d for d in second if d not in first]


def _check_type(one: xr.DataArray, other: xr.DataArray, name: str) -> None:
    types = cube.dimension_type(one, name), cube.dimension_type(other, name)
    if types[0] != types[1]:
        reason = f"dimension '{name}' is of type '{types[0]}' in cube1 and '{types[1]}' in cube2."
        raise IncompatibleDataCubes(reason=reason)
    if (get_index(one, name).dtype.kind == "M") != (get_index(other, name).dtype.kind == "M"):
        reason = f"the labels of dimension '{name}' have different types in cube1 and cube2."
        raise IncompatibleDataCubes(reason=reason)


@dataclass(frozen=True)
class _Merge:
    """A merge of two cubes, ``one`` and ``other``; ``missing`` holds the no-data values of integer bands.

    ``sources`` are the cubes with the packing of their bands, and the values that the resolver returned.
    """

    one: xr.DataArray
    other: xr.DataArray
    resolver: Callable[..., Any] | None
    context: Any
    missing: BandNodata | None
    sources: list[xr.DataArray]

    def merge_parts(self, a: xr.DataArray, b: xr.DataArray, dims: Sequence[str]) -> xr.DataArray:
        """Merge parts whose labels may differ along ``dims`` only.

        The first dimension with different labels splits them into up to three parts: labels of ``a`` only,
        labels of both (merged in the same way along the other dimensions), and labels of ``b`` only.
        """
        for i, name in enumerate(dims):
            positions = get_index(b, name).get_indexer(get_index(a, name))
            if positions.size != b.sizes[name] or (positions < 0).any():
                return self._merge_along(a, b, name, positions, dims[i + 1 :])
            if (positions != np.arange(positions.size)).any():
                b = b.isel({name: positions})
        return self._resolve_overlap(a, b)

    def _resolve_overlap(self, a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
        like = xr.broadcast(a, _drop_extra_coordinates(b))[0]
        if not like.size:
            return like
        if self.resolver is None:
            raise OverlapResolverMissing()
        x, y = (carry_packing(part, [source]) for part, source in zip((a, b), self.sources, strict=False))
        result = self.resolver(x=x, y=y, context=self.context)
        resolved = as_field(result, like, "merge_cubes", "overlap_resolver")
        self.sources.append(resolved)
        return drop_packing(resolved)

    def _merge_along(
        self, a: xr.DataArray, b: xr.DataArray, name: str, positions: np.ndarray, rest: Sequence[str]
    ) -> xr.DataArray:
        both = np.flatnonzero(positions >= 0)
        only_a = np.flatnonzero(positions < 0)
        only_b = np.setdiff1d(np.arange(b.sizes[name]), positions)
        parts = []
        if only_a.size:
            parts.append(self._widen_part(a.isel({name: only_a}), rest))
        if both.size:
            parts.append(self.merge_parts(a.isel({name: both}), b.isel({name: positions[both]}), rest))
        if only_b.size:
            parts.append(self._widen_part(b.isel({name: only_b}), rest))
        joined = concat(parts, name) if parts else self._widen_part(a, rest)
        return _reindex_labels(joined, name, self._get_labels(name), self.missing)

    def _widen_part(self, part: xr.DataArray, rest: Sequence[str]) -> xr.DataArray:
        """Extend a part to all dimensions of the result, and along ``rest`` to all its labels."""
        for name in rest:
            part = _reindex_labels(part, name, self._get_labels(name), self.missing)
        missing = {
            str(d): source for source in (self.one, self.other) for d in source.dims if d not in part.dims
        }
        return _expand_dimensions(part, missing)

    def _get_labels(self, name: str) -> pd.Index:
        return union_labels(self.one, self.other, name)


def _drop_extra_coordinates(data: xr.DataArray) -> xr.DataArray:
    return data.drop_vars([n for n in data.coords if n not in data.dims])


def _expand_dimensions(part: xr.DataArray, missing: dict[str, xr.DataArray]) -> xr.DataArray:
    """Repeat the part along dimensions of other cubes, with their coordinates along them."""
    for name, source in missing.items():
        part = part.drop_vars(name, errors="ignore").expand_dims({name: source.sizes[name]})
        along = {k: c for k, c in source.coords.items() if c.dims == (name,) and k != NODATA}
        part = part.assign_coords(along)
    return part


def union_labels(one: xr.DataArray, other: xr.DataArray, name: str) -> pd.Index:
    """All labels of a dimension of two cubes: sorted if it is spatial or temporal, else one after the other.

    x and y also get the labels of a gap between the cubes, so that the grid stays regular.
    """
    if name not in one.dims or name not in other.dims:
        return get_index(one if name in one.dims else other, name)
    a, b = get_index(one, name), get_index(other, name)
    labels = a.append(b[~b.isin(a)])
    type_ = cube.dimension_type(one, name)
    keys = _find_sort_keys(labels, one, name) if type_ == "temporal" else labels
    first, second = keys[: len(a)], keys[labels.get_indexer(b)]
    if type_ not in ("spatial", "temporal") or not (_is_sorted(first) and _is_sorted(second)):
        return labels
    order = keys.argsort()
    ordered = labels[order[::-1] if _is_descending(first, second) else order]
    step = find_resolution(one, name) if name in (X, Y) and len(ordered) > 1 else None
    return ordered if step is None else _fill_gaps(ordered, a, abs(step))


def _find_sort_keys(labels: pd.Index, data: xr.DataArray, name: str) -> pd.Index:
    """Find the instants of temporal labels: names of seasons, say, are not in the order of the alphabet."""
    attributes = data.coords[name].attrs if name in data.coords else {}
    instants = find_instants(xr.DataArray(labels.values, dims=name, attrs=attributes))
    return labels if instants is None else pd.Index(instants)


def _is_sorted(labels: pd.Index) -> bool:
    return bool(labels.is_monotonic_increasing or labels.is_monotonic_decreasing)


def _is_descending(a: pd.Index, b: pd.Index) -> bool:
    longer = next((i for i in (a, b) if len(i) > 1), None)
    return longer is not None and bool(longer.is_monotonic_decreasing)


def _fill_gaps(labels: pd.Index, a: pd.Index, step: float) -> pd.Index:
    steps = np.abs(np.diff(labels.values))
    if steps.max() < 1.5 * step:
        return labels
    cells = np.round((labels.values - labels.values[0]) / step).astype(int)
    count = abs(int(cells[-1])) + 1
    sign = 1 if cells[-1] > 0 else -1
    filled = labels.values[0] + sign * step * np.arange(count)
    filled[np.abs(cells)] = labels.values
    return pd.Index(filled)


def _reindex_labels(
    data: xr.DataArray, name: str, labels: pd.Index, missing: BandNodata | None
) -> xr.DataArray:
    """Reindex the cube to these labels along a dimension; new ones have no data."""
    positions = get_index(data, name).get_indexer(labels)
    if (positions >= 0).all():
        in_order = positions.size == data.sizes[name] and (positions == np.arange(positions.size)).all()
        return data if in_order else data.isel({name: positions})
    by_band = NODATA in data.coords
    if cube.nodata(data) is None or (by_band and missing is None):
        data, by_band = cube.decode(data), False
    attributes = data.coords[name].attrs if name in data.coords else {}
    bare = data.drop_vars(NODATA, errors="ignore")
    widened = bare.reindex({name: labels.values}, fill_value=0 if by_band else cube.nodata(data))
    widened.coords[name].attrs.update(attributes)
    return missing.fill_missing(widened, name, positions >= 0) if by_band and missing is not None else widened
