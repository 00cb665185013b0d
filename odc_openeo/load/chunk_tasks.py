"""The lazy pixels of a load: an array of which each chunk is read by one task, from its files to its values.

Dask's scheduler treats only tasks without dependencies as root tasks. It would start more of the others than
it can finish, and workers would hold chunks that nobody waits for yet.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import dask.array as da
import numpy as np
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import Task
from odc.geo.geobox import GeoBox, GeoboxTiles
from odc.loader import RasterLoadParams, RasterSource, configure_rio, resolve_load_cfg

from odc_openeo import cube
from odc_openeo.catalog import Band
from odc_openeo.load.chunking import Volume, cut_into_chunks
from odc_openeo.load.driver import Driver
from odc_openeo.load.pixel_types import Layout, find_integer_nodata
from odc_openeo.load.rio_internals import fill_missing, make_blank_pixels, rio_env
from odc_openeo.load.sources import Step, assign_scenes_to_chunks, describe_band, make_source

Sources = tuple[tuple[RasterSource, ...], ...]
"""The files of a band in a chunk: for each date those of its scenes, the first one in front."""

DRIVER: Final = Driver()


@dataclass(frozen=True)
class BandReading:
    """How a band is read: as in its files, then in the type of the cube.

    ``missing`` is the no-data value of integers that become NaN in a cube of floats; ``environment`` has the
    settings of GDAL.
    """

    parameters: RasterLoadParams
    dtype: np.dtype[Any]
    missing: float | None
    environment: Mapping[str, Any]


def make_pixels(
    steps: Sequence[Step],
    bands: Sequence[Band],
    geobox: GeoBox,
    layout: Layout,
    volume: Volume,
    offset: tuple[int, int],
) -> da.Array:
    """Make the lazy pixels (t, bands, y, x) of time steps on a grid, each the nearest one in the files.

    Chunks are those of the volume, the first of which begin ``offset`` rows and columns before the grid.
    """
    tiles = cut_into_chunks(geobox, volume, offset)
    readings = _list_readings(bands, layout)
    scenes = [scene for step in steps for scene in step]
    sources = [[make_source(scene, band, layout.types[band.name]) for scene in scenes] for band in bands]
    depth = volume.depth
    dates = tuple(min(depth, len(steps) - first) for first in range(0, len(steps), depth))
    name = f"pixels-{_compute_token(sources, readings, tiles, dates, [len(step) for step in steps])}"
    positions = assign_scenes_to_chunks(steps, tiles)
    tasks: dict[Any, Any] = {}
    for place, (row, column) in itertools.product(range(len(dates)), np.ndindex(tiles.shape.yx)):
        times = range(place * depth, place * depth + dates[place])
        window = tiles[row, column]
        for index, (reading, files) in enumerate(zip(readings, sources, strict=True)):
            chosen = tuple(
                tuple(file for i in positions.get((time, row, column), ()) if (file := files[i]) is not None)
                for time in times
            )
            key = (name, place, index, row, column)
            tasks[key] = Task(key, read_chunk, chosen, window, reading, _data_producer=True)
    chunks = (dates, (1,) * len(bands), *tiles.chunks)
    shape = (len(steps), len(bands), *geobox.shape.yx)
    graph = HighLevelGraph.from_collections(name, tasks)
    return da.Array(graph, name, chunks, dtype=layout.dtype, shape=shape)


def read_chunk(sources: Sources, geobox: GeoBox, reading: BandReading) -> np.ndarray:
    """Read a chunk (t, 1, y, x) of one band, of which the files of each date are given.

    Where scenes overlap, the first one that has data there counts.
    """
    parameters = reading.parameters
    pixels = make_blank_pixels((len(sources), *geobox.shape.yx), parameters)
    with rio_env(**reading.environment):
        for plane, files in zip(pixels, sources, strict=True):
            for file in files:
                region, values = DRIVER.open(file, None).read(parameters, geobox)
                fill_missing(plane[region], values, parameters)
    values = cube.decode_pixels(pixels, missing=reading.missing) if reading.dtype.kind == "f" else pixels
    return values.astype(reading.dtype, copy=False)[:, np.newaxis]


def _compute_token(
    sources: Sequence[Sequence[RasterSource | None]],
    readings: Sequence[BandReading],
    tiles: GeoboxTiles,
    dates: Sequence[int],
    scenes: Sequence[int],
) -> str:
    """Compute a digest that is equal only for equal pixels in equal chunks."""
    files = [[file and (file.uri, file.driver_data) for file in of_band] for of_band in sources]
    grid: Any = tiles.base
    place = (tuple(grid.transform), str(grid.crs), tiles.chunks, dates, scenes)
    return hashlib.sha256(repr((files, readings, place)).encode()).hexdigest()[:32]


def _list_readings(bands: Sequence[Band], layout: Layout) -> list[BandReading]:
    _configure_gdal()
    environment = DRIVER.capture_env()
    # By position: bands may have the names of other bands in layers of files.
    described = {f"{i}": describe_band(band, layout.types[band.name]) for i, band in enumerate(bands)}
    parameters = resolve_load_cfg(described, resampling="nearest").values()
    return [
        BandReading(read, layout.dtype, find_integer_nodata(band), environment)
        for band, read in zip(bands, parameters, strict=True)
        if isinstance(read, RasterLoadParams)
    ]


@cache
def _configure_gdal() -> None:
    # Before the graph is built, which takes the settings along to the workers.
    configure_rio(cloud_defaults=True)
