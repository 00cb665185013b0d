"""Scenes → a lazy raster cube on the grid of their files.

The only package that reads pixels: with `odc.loader`, on which odc-stac stands.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from affine import Affine
from dask._task_spec import convert_legacy_graph
from dask.highlevelgraph import HighLevelGraph
from odc.geo.geobox import GeoBox, GeoboxTiles
from odc.geo.geom import Geometry
from odc.geo.xr import xr_coords
from odc.loader import RasterGroupMetadata, chunked_load, configure_rio, resolve_load_cfg
from rasterio.errors import RasterioError

from odc_openeo import cube
from odc_openeo.catalog import Band, Scene
from odc_openeo.cube import BANDS, T, X, Y
from odc_openeo.errors import NoDataAvailable, OpenEOError, StorageFailure
from odc_openeo.load.grid import NativeGrid, covered, native_grid
from odc_openeo.load.part import Only
from odc_openeo.load.reader import Driver
from odc_openeo.load.sources import Step, label, metadata, scenes_of_chunks, source, time_steps
from odc_openeo.load.volume import Limits, Volume, chunks, start

__all__ = ["Limits", "NativeGrid", "Only", "Volume", "explain", "load", "native_grid"]


def load(
    scenes: Sequence[Scene],
    bands: Sequence[Band],
    area: Geometry | None = None,
    *,
    centres: bool = True,
    groupby: str = "time",
    limits: Limits | None = None,
    loaded: list[Volume] | None = None,
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
        ProcessGraphComplexity: with what was ``loaded`` before, to which this cube is added, it is over the
            limits.
    """
    names = [band.name for band in bands]
    useful = [s for s in scenes if any(s.grid(name) is not None for name in names)]
    if not useful:
        raise NoDataAvailable(reason=f"no dataset found has one of the bands {', '.join(names)}.")
    grid = native_grid(useful, names, area, centres=centres)
    native, view = grid.geobox, only.view if only is not None else None
    other = view or (onto(native) if onto is not None else None)
    if other is not None:
        grid = replace(grid, geobox=other)
    whole = view is None and (other is None or _holds(native, other))
    layout = _layout(bands, whole and _covered(useful, names, native))
    if only is not None:
        bands = only.bands(bands)
        useful = list(only.scenes(useful)) if groupby == "time" else useful
        if other is None:
            grid = replace(grid, geobox=only.crop(grid.geobox))
    steps = time_steps(useful, groupby, grid.geobox)
    before = start(grid.geobox, useful) if other is None else (0, 0)
    volume = _volume(steps, grid.geobox, bands, layout)
    if other is None and only is not None and only.sparse(grid.geobox):
        volume = volume.sparse()
        volume = replace(volume, part=only.share(grid.geobox, volume.side, before))
    limits = limits or Limits()
    limits.check(volume, loaded or ())
    if loaded is not None:
        loaded.append(volume)
    if limits.sketch_above is not None and volume.chunks > limits.sketch_above:
        return _sketch(steps, bands, grid, layout)
    made = _read(steps, bands, grid, layout, before, volume)
    return made if other is None or area is None else _inside(made, other, native)


def _inside(made: xr.DataArray, grid: GeoBox, native: GeoBox) -> xr.DataArray:
    """The cube without the values of pixels that the cube on its own grid does not have."""
    inside = covered(grid, native)
    if inside is None:
        return made
    fill = np.nan if made.dtype.kind == "f" else cube.nodata(made)
    return made.where(xr.DataArray(inside, dims=(Y, X)), fill).astype(made.dtype).assign_attrs(made.attrs)


def _read(
    steps: Sequence[Step],
    bands: Sequence[Band],
    grid: NativeGrid,
    layout: Layout,
    before: tuple[int, int],
    volume: Volume,
) -> xr.DataArray:
    """The cube in the chunks of its volume. Pixels ``before`` it, above and left, let these begin where
    blocks of the files do."""
    rows, columns = before
    height, width = grid.geobox.shape.yx
    geobox = GeoBox(
        (height + rows, width + columns),
        grid.geobox.transform * Affine.translation(-columns, -rows),
        grid.geobox.crs,
    )
    found = _pixels(steps, bands, geobox, layout, volume)
    y, x = geobox.dimensions
    inner = found.isel({y: slice(rows, None), x: slice(columns, None)}) if rows or columns else found
    arrays = [_plain(inner[band.name], band) for band in bands]
    if layout.dtype.kind == "f":
        arrays = [cube.decode(a) for a in arrays]
    stacked = da.stack([a.data.astype(layout.dtype, copy=False) for a in arrays], axis=1)
    return _cube(stacked, found["time"].values.astype("datetime64[ns]"), bands, grid, layout)


def _pixels(
    steps: Sequence[Step], bands: Sequence[Band], geobox: GeoBox, layout: Layout, volume: Volume
) -> xr.Dataset:
    """The pixels of each band as in the files, each the nearest one."""
    _configure_gdal()
    described = {band.name: metadata(band, layout.types[band.name]) for band in bands}
    sizes = chunks(geobox, volume)
    tiles = GeoboxTiles(geobox, tuple(sizes[name] for name in geobox.dimensions))
    sources = [
        {band.name: source(scene, band, layout.types[band.name]) for band in bands}
        for step in steps
        for scene in step
    ]
    driver = Driver()
    found = chunked_load(
        resolve_load_cfg(described, resampling="nearest"),
        RasterGroupMetadata({(name, 1): found for name, found in described.items()}),
        sources,
        scenes_of_chunks(steps, tiles),
        tiles,
        [label(step) for step in steps],
        driver.capture_env(),
        driver,
        chunks=sizes,
    )
    return found.assign({name: found[name].copy(data=_alone(found[name].data)) for name in described})


def _alone(array: da.Array) -> da.Array:
    """The same array, all that a chunk needs within its one task.

    Tasks that depend on others are no beginnings to the scheduler of dask: it would start more of them than
    it can finish, and workers would hold chunks that nobody waits for yet.
    """
    layers = array.dask.layers
    shared = [layer for name, layer in layers.items() if name != array.name]
    parts = convert_legacy_graph({key: task for layer in shared for key, task in layer.items()})
    tasks = {key: task.substitute(parts) for key, task in layers[array.name].items()}
    graph = HighLevelGraph.from_collections(array.name, tasks)
    return da.Array(graph, array.name, array.chunks, dtype=array.dtype, shape=array.shape)


def _sketch(steps: Sequence[Step], bands: Sequence[Band], grid: NativeGrid, layout: Layout) -> xr.DataArray:
    """A cube of the same form without the way to its pixels."""
    times = np.array([label(step) for step in steps], "datetime64[ns]")
    shape = (len(times), len(bands), *grid.geobox.shape.yx)
    values = da.zeros(shape, dtype=layout.dtype, chunks=(1, 1, *shape[2:]))
    return _cube(values, times, bands, grid, layout)


@cache
def _configure_gdal() -> None:
    # Before the graph is built, which takes the settings along to the workers.
    configure_rio(cloud_defaults=True)


def _volume(steps: Sequence[Step], geobox: GeoBox, bands: Sequence[Band], layout: Layout) -> Volume:
    height, width = geobox.shape.yx
    scenes = [scene for step in steps for scene in step]
    version = hashlib.sha256(repr(([s.version for s in scenes], bands)).encode()).hexdigest()
    sizes = (len(scenes), width, height, len(steps), len(bands), layout.dtype.itemsize)
    return Volume(scenes[0].product, *sizes, version=version)


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


def _cube(
    stacked: da.Array, times: np.ndarray, bands: Sequence[Band], grid: NativeGrid, layout: Layout
) -> xr.DataArray:
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
