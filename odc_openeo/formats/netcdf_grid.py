"""The pixel grid of a netCDF file: its axes, their even spacing, and the size of pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo import CRS
from odc.geo.geobox import GeoBox

from odc_openeo.cube import T, X, Y
from odc_openeo.formats.cf_times import is_time
from odc_openeo.untrusted.rasters import make_grid

AXES: Final[Mapping[str, Sequence[str]]] = {
    X: ("projection_x_coordinate", "longitude", "grid_longitude"),
    Y: ("projection_y_coordinate", "latitude", "grid_latitude"),
    T: ("time",),
}
"""Standard names of the coordinates of a raster cube's dimensions."""

UNITS: Final[Mapping[str, Sequence[str]]] = {
    X: ("degrees_east", "degree_east", "degrees_e", "degree_e"),
    Y: ("degrees_north", "degree_north", "degrees_n", "degree_n"),
    T: (),
}
NAMES: Final = {X: ("x", "lon", "longitude"), Y: ("y", "lat", "latitude"), T: ("t", "time")}
KILOMETRES: Final = ("km", "kilometer", "kilometers", "kilometre", "kilometres")
METRES: Final = ("m", "metre", "meter")
LOST_PIXELS: Final = 0.005
"""By how many pixels a coordinate may be off even spacing, besides the precision of its numbers."""

MOST_ROUNDED: Final = 0.1
MOST_IMPRECISE: Final = 0.25
"""By how many pixels it may be off if its decimals, or the precision of its type, allow no better."""


class GridRefusedError(ValueError):
    """The coordinates do not form a grid; the message is a sentence that begins with "it" or "its"."""


def find_axis(dataset: xr.Dataset, dimension: str) -> str | None:
    """Find the file's name of a dimension of raster cubes, by CF attributes or by usual names."""
    dims = [str(d) for d in dataset.dims]
    attrs = {d: dataset.variables[d].attrs if d in dataset.variables else {} for d in dims}
    candidates = [
        *(d for d in dims if attrs[d].get("standard_name") in AXES[dimension]),
        *(d for d in dims if str(attrs[d].get("units", "")).lower() in UNITS[dimension]),
        *(d for d in dims if d.lower() in NAMES[dimension]),
        *(d for d in dims if str(attrs[d].get("axis", "")).upper() == dimension.upper()),
    ]
    if dimension == T:
        candidates += [d for d in dims if d in dataset.coords and is_time(dataset.coords[d])]
    return next(iter(candidates), None)


def is_geographic(coordinate: xr.DataArray) -> bool:
    """Whether a coordinate holds longitudes."""
    standard, unit = coordinate.attrs.get("standard_name"), str(coordinate.attrs.get("units", "")).lower()
    return standard == "longitude" or unit in UNITS[X] or str(coordinate.name).lower() in NAMES[X][1:]


def is_position(variable: xr.DataArray | xr.Variable) -> bool:
    """Whether a variable holds the longitude or latitude of each pixel."""
    standard, unit = variable.attrs.get("standard_name"), str(variable.attrs.get("units", "")).lower()
    return standard in ("longitude", "latitude") or unit in (*UNITS[X], *UNITS[Y])


def measure_grid(dataset: xr.Dataset, names: tuple[str, str], crs: Any, mapping: Mapping[str, Any]) -> GeoBox:
    """Measure the grid of a file, as its rows and columns run.

    Args:
        dataset: the file with its coordinates.
        names: the names of its dimensions along y and x.
        crs: its reference system.
        mapping: the attributes of its grid mapping.

    Raises:
        GridRefusedError: a coordinate is missing or uneven, or the size of a single row or column is unknown.
        RasterRefusedError: the grid is not on Earth.
    """
    transform = _parse_geotransform(mapping)
    (top, height), (left, width) = (
        _measure_axis(dataset, name, None if transform is None else (transform[o], transform[s]))
        for name, o, s in zip(names, (3, 0), (5, 1), strict=True)
    )
    top, height = (number * _find_unit_length(dataset.coords[names[0]], crs) for number in (top, height))
    left, width = (number * _find_unit_length(dataset.coords[names[1]], crs) for number in (left, width))
    corner = Affine(width, 0, left - width / 2, 0, height, top - height / 2)
    return make_grid([dataset.sizes[name] for name in names], corner, crs)


def _measure_axis(
    dataset: xr.Dataset, name: str, declared: tuple[float, float] | None
) -> tuple[float, float]:
    """The centre of the first pixel and the step to the next."""
    if name not in dataset.coords:
        raise GridRefusedError(f"its dimension '{name}' has no coordinate.")
    coordinate = dataset.coords[name]
    if coordinate.dtype.kind not in "iuf" or not np.isfinite(coordinate.values).all():
        raise GridRefusedError(f"its coordinate '{name}' has values that are not numbers.")
    if not coordinate.size:
        raise GridRefusedError(f"its dimension '{name}' is empty.")
    values = coordinate.values.astype(float)
    if len(values) == 1:
        return values[0], _find_single_step(dataset, coordinate, declared)
    step = (values[-1] - values[0]) / (len(values) - 1)
    _check_even(coordinate, values, step)
    return values[0], step


def _find_unit_length(coordinate: xr.DataArray, crs: Any) -> float:
    """How many units of the reference system the unit of a coordinate is: 1000 for kilometres."""
    in_kilometres = str(coordinate.attrs.get("units", "")).lower() in KILOMETRES
    system = CRS(crs)
    return 1000.0 if in_kilometres and not system.geographic and system.units[0] in METRES else 1.0


def _check_even(coordinate: xr.DataArray, values: np.ndarray, step: float) -> None:
    off = np.abs(values - (values[0] + step * np.arange(len(values))))
    if step and off.max() <= abs(step) * _find_tolerance(coordinate, values, abs(step)):
        return
    steps = np.diff(values)
    place = int(np.argmax(np.abs(np.diff(steps)))) if len(steps) > 1 else 0
    before, after = steps[place], steps[min(place + 1, len(steps) - 1)]
    raise GridRefusedError(
        f"its coordinate '{coordinate.name}' is not evenly spaced: the step is {before:.6g} before "
        f"{values[place + 1]:.10g} and {after:.6g} after it. Regrid the file first."
    )


def _find_tolerance(coordinate: xr.DataArray, values: np.ndarray, step: float) -> float:
    """How many pixels the values may be off even spacing, as precise as their numbers are."""
    largest = np.abs(values).max()
    single = coordinate.dtype == np.float32 or bool((values == values.astype(np.float32)).all())
    precision = 2 * float(np.spacing(np.float32(largest))) if single else 0.0
    decimals = next(
        (d for d in range(8) if np.allclose(values, values.round(d), 0, 1e-9 + precision / 4)), None
    )
    rounding = 0.0 if decimals is None else 1.001 * 10.0**-decimals
    return max(LOST_PIXELS, min(precision / step, MOST_IMPRECISE), min(rounding / step, MOST_ROUNDED))


def _find_single_step(
    dataset: xr.Dataset, coordinate: xr.DataArray, declared: tuple[float, float] | None
) -> float:
    """The size of the only pixel along an axis: by its bounds, or by the transform of GDAL."""
    value = float(coordinate.values[0])
    bounds_name = coordinate.attrs.get("bounds") or coordinate.encoding.get("bounds")
    bounds = dataset.variables.get(bounds_name) if isinstance(bounds_name, str) else None
    if bounds is not None and bounds.shape == (1, 2) and bounds.dtype.kind in "iuf":
        first, last = (float(v) for v in bounds.values[0])
        if last != first and abs((first + last) / 2 - value) <= 0.01 * abs(last - first):
            return last - first
    if declared is not None and declared[1]:
        origin, step = declared
        place = (value - origin) / step - 0.5
        if abs(place - round(place)) <= 0.01:
            return step
    raise GridRefusedError(
        f"its coordinate '{coordinate.name}' has the single value {value:.10g}, and nothing tells the size "
        "of the pixel. Add bounds (the attribute 'bounds' of CF), or a GeoTransform to the grid mapping."
    )


def _parse_geotransform(mapping: Mapping[str, Any]) -> list[float] | None:
    """Parse the transform that GDAL writes: the six numbers of an axis-aligned grid."""
    text = mapping.get("GeoTransform")
    try:
        numbers = [float(n) for n in (text.split() if isinstance(text, str) else np.asarray(text).ravel())]
    except (TypeError, ValueError):
        return None
    is_aligned = len(numbers) == 6 and not numbers[2] and not numbers[4]
    return numbers if is_aligned and np.isfinite(numbers).all() else None
