"""Merging two cubes into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import NODATA, X, Y
from odc_openeo.demand import SLACK, Demand
from odc_openeo.errors import IncompatibleDataCubes, IncompatibleGeometryTypes, OverlapResolverMissing
from odc_openeo.process import process
from odc_openeo.processes.alignment import on_grid_of, resolution, with_current_transform
from odc_openeo.processes.band_nodata import BandNodata
from odc_openeo.processes.children import field
from odc_openeo.processes.concatenation import concat
from odc_openeo.processes.labels import index
from odc_openeo.processes.schemas import ANY_JSON, AnyValue, Cube, child

OverlapResolver = Annotated[
    Callable[..., Any] | None,
    child(
        {
            "x": (ANY_JSON, "The value of `cube1`."),
            "y": (ANY_JSON, "The value of `cube2`."),
        },
        ANY_JSON,
    ),
]


def _needs(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    # Which cube has which band is not known; one on another grid is looked up at the nearest pixel.
    needed = replace(demand.of_all_bands(), grid=None)
    return {"cube1": needed.grown(SLACK), "cube2": needed.of_another()}


@process(categories=["cubes"], needs=_needs, pointwise=True)
def merge_cubes(
    cube1: Cube, cube2: Cube, overlap_resolver: OverlapResolver = None, context: AnyValue = None
) -> Cube:
    """Merge two data cubes.

    Dimensions of the same name are joined label by label. Labels that are in one cube only take their
    values from it; where both have values, the overlap resolver decides. A cube that lacks a dimension of
    the other is repeated along it. What neither cube covers becomes no-data.

    Labels of spatial and temporal dimensions are sorted; of other dimensions those of `cube2` follow those of
    `cube1`. If the pixels of the cubes don't coincide, `cube2` is resampled to the grid of `cube1` (nearest
    neighbour); use `resample_cube_spatial` before to choose another method.

    Args:
        cube1: The base cube.
        cube2: The other cube.
        overlap_resolver: Makes one value of two where the cubes overlap.
        context: Anything to pass on to the overlap resolver.

    Returns:
        The merged cube, with the order of dimensions of `cube1`. Integers stay integers as long as one
        no-data value (or one for each band) can serve what is needed of both cubes and of the overlap.

    Raises:
        OverlapResolverMissing: The cubes overlap and there is no overlap resolver.
        IncompatibleGeometryTypes: Vector cubes hold geometries of different kinds.
        IncompatibleDataCubes: Dimensions of the same name differ in type, or grids can't be aligned.
    """
    one, other = _same_kind(cube1, cube2)
    other = on_grid_of(one, other)
    order = _order(one, other)
    common = [d for d in order if d in one.dims and d in other.dims]
    for name in common:
        _check_type(one, other, name)
    missing = BandNodata.of(one, other)
    if missing is not None:
        one, other = missing.declared(one), missing.declared(other)
    merged = _Merge(one, other, overlap_resolver, context, missing).run(one, other, common)
    return with_current_transform(merged.transpose(*order))


def _same_kind(cube1: cube.Cube, cube2: cube.Cube) -> tuple[xr.DataArray, xr.DataArray]:
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
            shown = " and ".join("/".join(sorted(k)) for k in kinds)
            raise IncompatibleGeometryTypes(reason=f"{shown}.")
    return cube1, cube2


def _order(one: xr.DataArray, other: xr.DataArray) -> list[str]:
    first, second = list(map(str, one.dims)), list(map(str, other.dims))
    if set(first) < set(second):
        return second
    return first + [d for d in second if d not in first]


def _check_type(one: xr.DataArray, other: xr.DataArray, name: str) -> None:
    types = cube.dimension_type(one, name), cube.dimension_type(other, name)
    if types[0] != types[1]:
        reason = f"dimension '{name}' is of type '{types[0]}' in cube1 and '{types[1]}' in cube2."
        raise IncompatibleDataCubes(reason=reason)
    if (index(one, name).dtype.kind == "M") != (index(other, name).dtype.kind == "M"):
        reason = f"the labels of dimension '{name}' are of another type in cube1 than in cube2."
        raise IncompatibleDataCubes(reason=reason)


@dataclass(frozen=True)
class _Merge:
    """A merge in its course; ``one`` and ``other`` are the whole cubes, ``missing`` the no-data of all bands
    if they are of integers."""

    one: xr.DataArray
    other: xr.DataArray
    resolver: Callable[..., Any] | None
    context: Any
    missing: BandNodata | None

    def run(self, a: xr.DataArray, b: xr.DataArray, dims: Sequence[str]) -> xr.DataArray:
        """Merge parts whose labels may differ along ``dims`` only.

        The first dimension with different labels cuts them into up to three parts: what only ``a`` has, what
        both have (merged in the same way along the other dimensions), and what only ``b`` has.
        """
        for i, name in enumerate(dims):
            found = index(b, name).get_indexer(index(a, name))
            if found.size != b.sizes[name] or (found < 0).any():
                return self._along(a, b, name, found, dims[i + 1 :])
            if (found != np.arange(found.size)).any():
                b = b.isel({name: found})
        return self._resolve(a, b)

    def _resolve(self, a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
        like = xr.broadcast(a, _bare(b))[0]
        if not like.size:
            return like
        if self.resolver is None:
            raise OverlapResolverMissing()
        result = self.resolver(x=a, y=b, context=self.context)
        return field(result, like, "merge_cubes", "overlap_resolver")

    def _along(
        self, a: xr.DataArray, b: xr.DataArray, name: str, found: np.ndarray, rest: Sequence[str]
    ) -> xr.DataArray:
        both = np.flatnonzero(found >= 0)
        only_a = np.flatnonzero(found < 0)
        only_b = np.setdiff1d(np.arange(b.sizes[name]), found)
        parts = []
        if only_a.size:
            parts.append(self._widened(a.isel({name: only_a}), rest))
        if both.size:
            parts.append(self.run(a.isel({name: both}), b.isel({name: found[both]}), rest))
        if only_b.size:
            parts.append(self._widened(b.isel({name: only_b}), rest))
        joined = concat(parts, name) if parts else self._widened(a, rest)
        return _reindexed(joined, name, self._labels(name), self.missing)

    def _widened(self, part: xr.DataArray, rest: Sequence[str]) -> xr.DataArray:
        """A part with all dimensions of the result, and along ``rest`` with all its labels."""
        for name in rest:
            part = _reindexed(part, name, self._labels(name), self.missing)
        missing = {
            str(d): source for source in (self.one, self.other) for d in source.dims if d not in part.dims
        }
        return _expanded(part, missing)

    def _labels(self, name: str) -> pd.Index:
        return union(self.one, self.other, name)


def _bare(data: xr.DataArray) -> xr.DataArray:
    return data.drop_vars([n for n in data.coords if n not in data.dims])


def _expanded(part: xr.DataArray, missing: dict[str, xr.DataArray]) -> xr.DataArray:
    """The part repeated along dimensions of other cubes, with the coordinates these have along them."""
    for name, source in missing.items():
        part = part.drop_vars(name, errors="ignore").expand_dims({name: source.sizes[name]})
        along = {k: c for k, c in source.coords.items() if c.dims == (name,) and k != NODATA}
        part = part.assign_coords(along)
    return part


def union(one: xr.DataArray, other: xr.DataArray, name: str) -> pd.Index:
    """All labels of a dimension of two cubes: sorted if it is spatial or temporal, else the second's
    appended.

    x and y get the labels of a gap between the cubes too, so that the grid stays regular.
    """
    if name not in one.dims or name not in other.dims:
        return index(one if name in one.dims else other, name)
    a, b = index(one, name), index(other, name)
    labels = a.append(b[~b.isin(a)])
    type_ = cube.dimension_type(one, name)
    if type_ not in ("spatial", "temporal") or not (_sorted(a) and _sorted(b)):
        return labels
    descending = _descending(a, b)
    ordered = labels.sort_values(ascending=not descending)
    step = resolution(one, name) if name in (X, Y) and len(ordered) > 1 else None
    return ordered if step is None else _without_gaps(ordered, a, abs(step))


def _sorted(labels: pd.Index) -> bool:
    return bool(labels.is_monotonic_increasing or labels.is_monotonic_decreasing)


def _descending(a: pd.Index, b: pd.Index) -> bool:
    known = next((i for i in (a, b) if len(i) > 1), None)
    return known is not None and bool(known.is_monotonic_decreasing)


def _without_gaps(labels: pd.Index, a: pd.Index, step: float) -> pd.Index:
    steps = np.abs(np.diff(labels.values))
    if steps.max() < 1.5 * step:
        return labels
    cells = np.round((labels.values - labels.values[0]) / step).astype(int)
    count = abs(int(cells[-1])) + 1
    sign = 1 if cells[-1] > 0 else -1
    filled = labels.values[0] + sign * step * np.arange(count)
    filled[np.abs(cells)] = labels.values
    return pd.Index(filled)


def _reindexed(data: xr.DataArray, name: str, labels: pd.Index, missing: BandNodata | None) -> xr.DataArray:
    """The cube with these labels along a dimension; new ones have no data."""
    found = index(data, name).get_indexer(labels)
    if (found >= 0).all():
        in_order = found.size == data.sizes[name] and (found == np.arange(found.size)).all()
        return data if in_order else data.isel({name: found})
    by_band = NODATA in data.coords
    if cube.nodata(data) is None or (by_band and missing is None):
        data, by_band = cube.decode(data), False
    attributes = data.coords[name].attrs if name in data.coords else {}
    bare = data.drop_vars(NODATA, errors="ignore")
    widened = bare.reindex({name: labels.values}, fill_value=0 if by_band else cube.nodata(data))
    widened.coords[name].attrs.update(attributes)
    return missing.filled(widened, name, found >= 0) if by_band and missing is not None else widened
