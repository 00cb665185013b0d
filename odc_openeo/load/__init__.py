"""Scenes → a lazy raster cube on the grid of their files. The only package that knows `odc.stac`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from odc.geo.xr import xr_coords
from odc.stac import configure_rio  # noqa: TID251  (pixels are loaded here and nowhere else)
from odc.stac import load as stac_load  # noqa: TID251
from rasterio.errors import RasterioError

from odc_openeo import cube
from odc_openeo.catalog import Band, Scene
from odc_openeo.cube import BANDS, T, X, Y
from odc_openeo.errors import NoDataAvailable, OpenEOError, ProcessGraphComplexity, StorageFailure
from odc_openeo.load.grid import NativeGrid, crop, native_grid
from odc_openeo.load.reader import Driver, item

__all__ = ["Limits", "NativeGrid", "Only", "explain", "load", "native_grid"]

CHUNK = 2048
"""Longest side of a chunk in pixels: opening a file costs as much as decoding half a million pixels."""


@dataclass(frozen=True)
class Limits:
    """How large a cube may be when it is loaded: bytes in memory if computed as it is, chunks to read."""

    bytes: int = 2**40
    chunks: int = 500_000


@dataclass(frozen=True)
class Only:
    """The part of a cube that is needed: ``area`` with ``margin`` pixels around, ``start`` ≤ time <
    ``end``, bands by any of their names. What is needed of the cube and is not in it does not narrow it.
    """

    area: Geometry | None = None
    margin: int = 0
    names: frozenset[str] | None = None
    start: datetime | None = None
    end: datetime | None = None

    def scenes(self, scenes: Sequence[Scene]) -> Sequence[Scene]:
        """Those of the scenes that are needed."""
        return [s for s in scenes if self._in_time(s.time)] or scenes

    def _in_time(self, time: datetime) -> bool:
        return (self.start is None or self.start <= time) and (self.end is None or time < self.end)

    def bands(self, bands: Sequence[Band]) -> Sequence[Band]:
        """Those of the bands that are needed."""
        names = self.names
        return bands if names is None else [b for b in bands if b.names & names] or bands


def load(
    scenes: Sequence[Scene],
    bands: Sequence[Band],
    area: Geometry | None = None,
    *,
    centres: bool = True,
    groupby: str = "time",
    limits: Limits | None = None,
    only: Only | None = None,
    onto: Callable[[GeoBox], GeoBox | None] | None = None,
) -> xr.DataArray:
    """A lazy cube (t, bands, y, x) of raw pixel values on the native grid of the scenes, limited to ``area``.

    Scenes of the same time (or solar day, with ``groupby="solar_day"``) are one time step; where they
    overlap, the first by time and id that has data there counts. Times are UTC, ascending. Integers keep the
    type that holds all bands, no-data is declared as `cube` says; with floats among them all bands are floats
    with NaN. Integers without a no-data value become floats when a scene does not cover the whole grid. Scale
    and offset are not applied. ``attrs["source"]`` tells the grid. For ``centres`` see `native_grid`. With
    ``only`` the result is a part of what it would be without. ``onto`` makes a coarser grid of the native
    one: each pixel of it is the nearest one in the files, or in their overviews where they have such.

    Raises:
        NoDataAvailable: no scene has the bands, or no pixel is in the area.
        ProcessGraphComplexity: the cube is over the limits.
    """
    names = [band.name for band in bands]
    useful = [s for s in scenes if any(s.grid(name) is not None for name in names)]
    if not useful:
        raise NoDataAvailable(reason=f"no dataset found has one of the bands {', '.join(names)}.")
    grid = native_grid(useful, names, area, centres=centres)
    coarser = onto(grid.geobox) if onto is not None else None
    if coarser is not None:
        grid = replace(grid, geobox=coarser)
    layout = _layout(bands, _covered(useful, names, grid.geobox))
    if only is not None:
        bands = only.bands(bands)
        useful = list(only.scenes(useful)) if groupby == "time" else useful
        if coarser is None:
            grid = replace(grid, geobox=crop(grid.geobox, only.area, only.margin))
    steps = len({s.time if groupby == "time" else s.time.date() for s in useful})
    _refuse(grid.geobox, steps, len(bands), layout.dtype.itemsize, limits or Limits())
    _configure_gdal()
    loaded = stac_load(
        [item(s, bands) for s in useful],
        bands=[band.name for band in bands],
        geobox=grid.geobox,
        chunks=_chunks(grid.geobox),
        groupby=groupby,
        resampling="nearest",
        driver=Driver(bands, layout.types),
    )
    return _cube(loaded, bands, grid, layout)


@cache
def _configure_gdal() -> None:
    # Before the graph is built, which takes the settings along to the workers.
    configure_rio(cloud_defaults=True)


# --- Size ----------------------------------------------------------------------------------------


def _chunks(geobox: GeoBox) -> dict[str, int]:
    """Chunks of about equal sides, whole if small."""
    height, width = geobox.shape.yx
    y, x = geobox.dimensions
    return {y: _side(height), x: _side(width)}


def _side(pixels: int) -> int:
    return math.ceil(pixels / math.ceil(pixels / CHUNK))


def _refuse(geobox: GeoBox, steps: int, bands: int, itemsize: int, limits: Limits) -> None:
    height, width = geobox.shape.yx
    size = height * width * steps * bands * itemsize
    chunks = math.ceil(height / CHUNK) * math.ceil(width / CHUNK) * steps * bands
    if size <= limits.bytes and chunks <= limits.chunks:
        return
    raise ProcessGraphComplexity(
        reason=f"load_collection would load {width} x {height} pixels, {bands} bands and {steps} dates: "
        f"{size / 1e9:,.1f} GB in {chunks:,} pieces; {limits.bytes / 1e9:,.1f} GB and {limits.chunks:,} are "
        "possible. Choose a smaller spatial_extent, a shorter temporal_extent or fewer bands."
    )


# --- Pixel types ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """How pixels are stored: the type to read each band with, and that of the cube.

    ``one_nodata`` tells whether integers have one no-data value in all bands, the others whether any band has
    a common name or a wavelength.
    """

    types: Mapping[str, str]
    dtype: np.dtype[Any]
    one_nodata: bool
    common_names: bool
    wavelengths: bool


def _layout(bands: Sequence[Band], covered: bool) -> Layout:
    types = {band.name: _type(band, covered) for band in bands}
    common = np.result_type(*types.values())
    known = (any(b.common_name for b in bands), any(b.wavelength for b in bands))
    if common.kind in "iu":
        one = len({_integer_nodata(b) for b in bands}) == 1
        return Layout(dict.fromkeys(types, str(common)), common, one, *known)
    return Layout(types, np.result_type(*[_decoded(type_) for type_ in types.values()]), True, *known)


def _decoded(type_: str) -> np.dtype[Any]:
    return cube.decode(xr.DataArray(np.zeros((), type_), attrs={cube.NODATA: 0})).dtype


def _type(band: Band, covered: bool) -> str:
    if band.is_float or _finite(band.nodata) or covered:
        return band.dtype
    # Where no scene is there would be nothing to write.
    return "float32" if np.dtype(band.dtype).itemsize <= 2 else "float64"


def _finite(nodata: float | None) -> bool:
    return nodata is not None and math.isfinite(nodata)


def _integer_nodata(band: Band) -> float | None:
    return band.nodata if _finite(band.nodata) else None


def _covered(scenes: Sequence[Scene], bands: Sequence[str], geobox: GeoBox) -> bool:
    """Whether each scene has pixels of all bands for the whole grid."""
    grids = [s.grid(band) for s in scenes for band in bands]
    distinct = set(grids) - {None}
    return None not in grids and all(_holds(grid, geobox) for grid in distinct if grid is not None)


def _holds(outer: GeoBox, inner: GeoBox) -> bool:
    if outer.crs != inner.crs:
        return False
    a, b, slack = outer.boundingbox, inner.boundingbox, abs(inner.resolution.x) * 1e-6
    return bool(
        a.left <= b.left + slack
        and a.bottom <= b.bottom + slack
        and a.right >= b.right - slack
        and a.top >= b.top - slack
    )


# --- Cube ----------------------------------------------------------------------------------------


def _cube(loaded: xr.Dataset, bands: Sequence[Band], grid: NativeGrid, layout: Layout) -> xr.DataArray:
    arrays = [_plain(loaded[band.name], band) for band in bands]
    if layout.dtype.kind == "f":
        arrays = [cube.decode(a) for a in arrays]
    stacked = da.stack([a.data.astype(layout.dtype, copy=False) for a in arrays], axis=1)
    times = loaded["time"].values.astype("datetime64[ns]")
    data = xr.DataArray(
        stacked,
        dims=(T, BANDS, Y, X),
        coords={T: (T, times), **_band_coordinates(bands, layout), **xr_coords(grid.geobox, dims=(Y, X))},
        attrs={"source": grid.describe()},
    )
    data.name = None
    return _with_nodata(data, bands, layout) if layout.dtype.kind in "iu" else data


def _plain(array: xr.DataArray, band: Band) -> xr.DataArray:
    missing = _integer_nodata(band)
    bare = array.copy(deep=False)
    bare.attrs = {cube.NODATA: missing} if array.dtype.kind in "iu" and missing is not None else {}
    return bare


def _band_coordinates(bands: Sequence[Band], layout: Layout) -> dict[str, Any]:
    coords: dict[str, Any] = {BANDS: (BANDS, np.array([b.name for b in bands]))}
    if layout.common_names:
        coords[cube.COMMON_NAME] = (BANDS, np.array([b.common_name or "" for b in bands]))
    if layout.wavelengths:
        centres = [np.nan if b.wavelength is None else b.wavelength for b in bands]
        coords[cube.WAVELENGTH] = (BANDS, np.array(centres))
    return coords


def _with_nodata(data: xr.DataArray, bands: Sequence[Band], layout: Layout) -> xr.DataArray:
    values = [_integer_nodata(b) for b in bands]
    if layout.one_nodata:
        return cube.with_nodata(data, None if values[0] is None else data.dtype.type(values[0]).item())
    known = [np.nan if v is None else v for v in values]
    dtype = np.float64 if None in values else data.dtype
    return cube.with_nodata(data, xr.DataArray(np.array(known, dtype), dims=BANDS))


# --- Errors --------------------------------------------------------------------------------------


def explain(error: BaseException) -> OpenEOError | None:
    """What to tell the client about an error of computing a loaded cube; None if it is not about reading."""
    for cause in _causes(error):
        if isinstance(cause, OpenEOError):
            return cause
        if isinstance(cause, RasterioError):
            return StorageFailure("A file of the data cannot be read. Please report the id of this error.")
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
