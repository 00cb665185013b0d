"""Climatological normals and anomalies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube.calendar_periods import PERIODS, SEASONS, TROPICAL_SEASONS
from odc_openeo.cube.coordinates import get_index, make_coordinate
from odc_openeo.cube.instants import get_middle_times
from odc_openeo.errors import IncompatibleDataCubes, LabelNotAvailable, ProcessParameterInvalid
from odc_openeo.registry.child_results import restore_coordinates
from odc_openeo.registry.demand import Demand, along_dimensions
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import TemporalCube
from odc_openeo.spatial.align import align_to_grid_of

_NORMALS = ("day", "month", "season", "tropical-season", "climatology-period")
_WHOLE = ("climatology-period", "single-period")
_YEAR: dict[str, Any] = {"type": "integer", "subtype": "year"}
NormalPeriod = Annotated[
    Literal["day", "month", "season", "tropical-season", "climatology-period"],
    Schema({"type": "string", "enum": list(_NORMALS)}),
]
AnomalyPeriod = Annotated[
    str,
    Schema({"type": "string", "enum": [*PERIODS, *_WHOLE]}),
]
Years = Annotated[
    Sequence[int],
    Schema({"type": "array", "uniqueItems": True, "minItems": 2, "maxItems": 2, "items": _YEAR}),
]


@process(categories=["cubes", "climatology"], needs=along_dimensions(cube.T), pointwise=True)
def climatological_normal(
    data: TemporalCube, period: NormalPeriod, climatology_period: Years = (1981, 2010)
) -> TemporalCube:
    """Average the values of each period of the year over many years.

    A winter (`djf`, `ndjfma`) belongs to the year in which it ends. The winter of the first year is included
    only if the cube also has its months in the preceding year.

    Args:
        data: A data cube with one temporal dimension: times, or labels as created by
            `aggregate_temporal_period`. It must cover all the years.
        period: The period of the year to average, or `climatology-period` for a single average of all values.
        climatology_period: The first and the last year, both inclusive.

    Returns:
        The data cube with labels along the temporal dimension that depend on `period`: `001` to `365` (and
        `366` if the cube has leap years), `01` to `12`, the names of the seasons, or `climatology-period`.
    """
    name = cube.get_temporal_dimension(data)
    first, last = climatology_period
    if first > last:
        reason = f"the first year {first} is later than the last year {last}. Swap them."
        raise ProcessParameterInvalid(
            process="climatological_normal", parameter="climatology_period", reason=reason
        )
    years, keys = _years_and_keys(data, name, period)
    if not years.size or years.min() > first or years.max() < last:
        covered = f"{years.min()} to {years.max()}" if years.size else "nothing"
        reason = f"the cube covers {covered}, not all years from {first} to {last}."
        raise ProcessParameterInvalid(process="climatological_normal", parameter="data", reason=reason)
    selected = (years >= first) & (years <= last) & ~_cut_winter(data, name, period, first, years, keys)
    positions = np.flatnonzero(selected)
    grouped = xr.DataArray(keys[positions], dims=name, name="__key__")
    dropped = [n for n, c in data.coords.items() if name in c.dims and n != cube.NODATA]
    floats = cube.decode(data.isel({name: positions})).drop_vars(dropped, errors="ignore")
    means = floats.groupby(grouped).mean(name).rename({"__key__": name})
    labels = _normal_labels(period, keys[positions])
    complete = means.reindex({name: np.array(labels, dtype=object)}).transpose(*data.dims)
    return restore_coordinates(
        complete.assign_coords({name: make_coordinate(name, labels, "temporal")}), data.isel({name: 0})
    )


def _years_and_keys(data: xr.DataArray, name: str, period: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the year each label belongs to and its part of the year."""
    kind = "year" if period in _WHOLE else period
    labels = _label_by_period(data, name, kind, "climatological_normal")
    years = np.array([int(label[:4]) for label in labels], dtype=int)
    if period in _WHOLE:
        return years, np.full(years.size, period, dtype=object)
    return years, np.array([PERIODS[period].repeating_part(label) for label in labels], dtype=object)


def _label_by_period(data: xr.DataArray, name: str, period: str, process: str) -> list[str]:
    """Label each time with the period of a kind that it falls into; labels of that kind stay as they are."""
    if _is_labelled_by(data, name, period):
        return [str(label) for label in data.coords[name].values]
    times = pd.DatetimeIndex(get_middle_times(data, name, process))
    return PERIODS[period].labels(PERIODS[period].number(times))


def _is_labelled_by(data: xr.DataArray, name: str, period: str) -> bool:
    """Whether the labels of a dimension are those of periods of a kind already."""
    coord = data.coords.get(name)
    if coord is None or coord.dtype.kind not in "OU" or coord.attrs.get(cube.PERIOD, period) != period:
        return False
    find_number = PERIODS[period].find_number
    return all(isinstance(v, str) and find_number(v) is not None for v in coord.values.tolist())


def _cut_winter(
    data: xr.DataArray, name: str, period: str, first: int, years: np.ndarray, keys: np.ndarray
) -> np.ndarray:
    """Mask labels in the winter of the first year, if its months in the preceding year are missing."""
    if not is_winter_cut(data, name, period, first):
        return np.zeros(years.shape, dtype=bool)
    winter = (SEASONS if period == "season" else TROPICAL_SEASONS)[0]
    return (years == first) & (keys == winter)


def is_winter_cut(data: xr.DataArray, name: str, period: str, first: int) -> bool:
    """Whether the winter of the first year lacks its months in the preceding year."""
    needed = {"season": {12}, "tropical-season": {11, 12}}.get(period)
    if needed is None or _is_labelled_by(data, name, period):
        return False
    times = pd.DatetimeIndex(get_middle_times(data, name, "climatological_normal"))
    return not needed <= set(times[times.year == first - 1].month)


def _normal_labels(period: str, keys: np.ndarray) -> list[str]:
    fixed = {
        "month": [f"{m:02d}" for m in range(1, 13)],
        "season": list(SEASONS),
        "tropical-season": list(TROPICAL_SEASONS),
        "climatology-period": ["climatology-period"],
    }
    if period in fixed:
        return fixed[period]
    return [f"{d:03d}" for d in range(1, 367 if "366" in keys else 366)]


def _anomaly_needs(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    # The subtraction requires the same pixels and bands in both cubes.
    needed = demand.at_all_places().of_all_bands()
    return {"data": needed, "normals": needed.at_all_times()}


@process(categories=["climatology", "cubes", "math"], needs=_anomaly_needs, pointwise=True)
def anomaly(data: TemporalCube, normals: TemporalCube, period: AnomalyPeriod) -> TemporalCube:
    """Subtract the normal of the period of the year from each value.

    Args:
        data: A data cube with one temporal dimension: labels as created by
            `aggregate_temporal_period` for the period, or times.
        normals: A data cube with one temporal dimension and the normals, e.g. from
            `climatological_normal`; its labels equal the labels of the data without the year (the whole
            labels for years and decades).
        period: The kind of period of the normals; for `climatology-period` and `single-period` there must be
            a single normal.

    Returns:
        The data cube minus the normals, with the dimensions and labels of `data`.
    """
    name, normals_dimension = cube.get_temporal_dimension(data), cube.get_temporal_dimension(normals)
    keys = _period_keys(data, name, period)
    normal_labels = [str(label) for label in cube.labels(normals, normals_dimension)]
    if period in _WHOLE:
        if len(normal_labels) != 1:
            reason = f"the normals must have a single label for '{period}', not {len(normal_labels)}."
            raise IncompatibleDataCubes(reason=reason)
        keys = normal_labels * len(keys)
    missing = next((key for key in keys if key not in normal_labels), None)
    if missing is not None:
        raise LabelNotAvailable(label=repr(missing), available=", ".join(normal_labels[:20]))
    matched = align_to_grid_of(data, normals).isel(
        {normals_dimension: [normal_labels.index(key) for key in keys]}
    )
    dropped = [n for n, c in matched.coords.items() if n not in matched.dims or n == normals_dimension]
    subtrahend = cube.decode(matched).drop_vars(dropped, errors="ignore").rename({normals_dimension: name})
    _check_labels(data, subtrahend, name)
    return restore_coordinates((cube.decode(data) - subtrahend).transpose(*data.dims), data)


def _period_keys(data: xr.DataArray, name: str, period: str) -> list[str]:
    if period in _WHOLE:
        return [""] * data.sizes[name]
    labels = _label_by_period(data, name, period, "anomaly")
    return [PERIODS[period].repeating_part(label) for label in labels]


def _check_labels(data: xr.DataArray, normals: xr.DataArray, name: str) -> None:
    for dimension in map(str, normals.dims):
        if dimension == name:
            continue
        if dimension not in data.dims:
            raise IncompatibleDataCubes(
                reason=f"the normals have a dimension '{dimension}', which the data cube lacks."
            )
        if set(get_index(data, dimension)) != set(get_index(normals, dimension)):
            reason = f"the labels of dimension '{dimension}' differ between the normals and the data."
            raise IncompatibleDataCubes(reason=reason)
