"""Make the sample scenes: Cloud Optimized GeoTIFFs with EO3 documents of four products, the same every time.

The land is synthetic (`landscape`), the grids are those of real sensors near Bolzano, Italy.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry, polygon
from pyproj import Transformer

from odc_openeo.indexing import landscape
from odc_openeo.indexing.cog import write_cog
from odc_openeo.indexing.documents import Dataset, Measurement
from odc_openeo.indexing.sensors import (
    S2_COARSE,
    Bands,
    Plot,
    make_daily_climate,
    make_elevation_model,
    make_landsat,
    make_sentinel2,
)
from odc_openeo.indexing.sky import Overpass

S2_PRODUCT = "s2_l2a_sample"
LANDSAT_PRODUCT = "landsat_sr_sample"
DEM_PRODUCT = "dem_sample"
CLIMATE_PRODUCT = "climate_daily_sample"
PRODUCTS = (S2_PRODUCT, LANDSAT_PRODUCT, DEM_PRODUCT, CLIMATE_PRODUCT)

# Inside the tile 32TPS, which every weekly date covers; degrees.
SAMPLE_AREA = {"west": 11.309, "south": 46.4665, "east": 11.387, "north": 46.5195}
# The box that the official conformance suite requests: metres, multiples of 10, always covered by valid land.
CONFORMANCE_BOX: dict[str, Any] = {
    "west": 679720,
    "south": 5151080,
    "east": 680680,
    "north": 5151920,
    "crs": "EPSG:32632",
}


def _make_field(name: str, ring: list[tuple[float, float]]) -> dict[str, Any]:
    coordinates = [[list(point) for point in [*ring, ring[0]]]]
    geometry = {"type": "Polygon", "coordinates": coordinates}
    return {"type": "Feature", "id": name, "properties": {"name": name}, "geometry": geometry}


# Three fields of about 85 m, each inside one parcel of the land in 32TPS; GeoJSON in degrees.
FIELDS: dict[str, Any] = {
    "type": "FeatureCollection",
    "features": [
        _make_field(
            "wheat", [(11.33224, 46.49452), (11.33336, 46.49447), (11.33333, 46.49523), (11.33229, 46.49522)]
        ),
        _make_field(
            "maize", [(11.36529, 46.49024), (11.36641, 46.49019), (11.36638, 46.49095), (11.36533, 46.49094)]
        ),
        _make_field(
            "forest", [(11.34155, 46.49271), (11.34267, 46.49266), (11.34264, 46.49342), (11.34159, 46.49341)]
        ),
    ],
}

# Change this when the scenes change, so that old ones are made again.
VERSION = "2"

DOCUMENT_NAME = "dataset.odc-metadata.yaml"

Progress = Callable[[int, int], None]
Job = Callable[[], Path]


@dataclass(frozen=True)
class SampleSet:
    """The scenes of one product: its name and the paths of their EO3 documents."""

    product: str
    documents: tuple[Path, ...]


@dataclass(frozen=True)
class Tile:
    """One Sentinel-2 tile: its grid of 10 m, its delay in seconds, and the weeks of its scenes."""

    code: str
    geobox: GeoBox
    delay: int
    weeks: range


def _utm_grid(epsg: int, west: float, north: float, size: int, resolution: float) -> GeoBox:
    box = (west, north - size * resolution, west + size * resolution, north)
    return GeoBox.from_bbox(box, crs=f"EPSG:{epsg}", shape=(size, size), tight=True)


def _degree_grid(west: float, south: float, east: float, north: float, shape: tuple[int, int]) -> GeoBox:
    return GeoBox.from_bbox((west, south, east, north), crs="EPSG:4326", shape=shape, tight=True)


WEEKS = 35
FIRST_OVERPASS = datetime(2022, 3, 2, 10, 10, 31, tzinfo=UTC)
S2_TILES = (
    Tile("32TPS", _utm_grid(32632, 677000, 5154700, 640, 10), 0, range(WEEKS)),
    Tile("32TQS", _utm_grid(32632, 682880, 5153920, 512, 10), 14, range(1, WEEKS, 2)),
    Tile("33TTM", _utm_grid(32633, 222400, 5159420, 512, 10), 21, range(2, WEEKS, 3)),
)
LANDSAT_GRID = _utm_grid(32632, 674985, 5157885, 400, 30)
LANDSAT_DATES = tuple(datetime(2022, 3, 15, 10, 4, 52, tzinfo=UTC) + timedelta(16 * n) for n in range(14))
DEM_GRID = _degree_grid(11.26, 46.42, 11.50, 46.57, (500, 800))
CLIMATE_GRID = _degree_grid(9.0, 43.5, 14.0, 48.5, (100, 100))
CLIMATE_DAYS = tuple(date(2022, 4, 1) + timedelta(n) for n in range(183))

# Shares of cloud in June 2022 that leave every place a clear date; other months are left to chance.
_JUNE_CLOUDS = {1: 0.04, 8: 0.25, 15: 0.12, 22: 0.42, 29: 0.07}


def make_samples(folder: Path, progress: Progress | None = None) -> list[SampleSet]:
    """Write all sample scenes and their documents below `folder`, unless they exist.

    `progress` is called with the number of finished datasets and their total number. Raises OSError if the
    folder cannot be written.
    """
    marker = folder / "VERSION"
    if marker.exists() and marker.read_text(encoding="utf-8") == VERSION:
        return find_samples(folder)
    for product in PRODUCTS:
        shutil.rmtree(folder / product, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(4) as pool:
        jobs = list(_iter_jobs(folder, pool))
        for done, _ in enumerate(pool.map(lambda job: job(), jobs), start=1):
            if progress is not None:
                progress(done, len(jobs))
    marker.write_text(VERSION, encoding="utf-8")
    return find_samples(folder)


def find_samples(folder: Path) -> list[SampleSet]:
    """Return the sample scenes that `make_samples` wrote below `folder`."""
    return [
        SampleSet(product, tuple(sorted((folder / product).rglob(DOCUMENT_NAME)))) for product in PRODUCTS
    ]


def _iter_jobs(folder: Path, pool: ThreadPoolExecutor) -> Iterator[Job]:
    """Iterate over one job per dataset; the land under each grid is surveyed once, beforehand."""
    surveys = pool.map(Plot.survey, [*(tile.geobox for tile in S2_TILES), LANDSAT_GRID])
    *plots, landsat_plot = surveys
    for tile, plot in zip(S2_TILES, plots, strict=True):
        for week in tile.weeks:
            yield partial(write_sentinel2, folder, tile, plot, week)
    for number, time in enumerate(LANDSAT_DATES):
        yield partial(write_landsat, folder, landsat_plot, number, time)
    yield partial(write_elevation, folder)
    for day in CLIMATE_DAYS:
        yield partial(write_climate, folder, day)


def sentinel2_overpass(week: int) -> Overpass:
    """Return time and sky of the overpass in `week`; some swaths begin inside 32TPS."""
    time = FIRST_OVERPASS + timedelta(weeks=week)
    chance = float(np.random.default_rng(1000 + week).beta(1.1, 2.4))
    clouds = _JUNE_CLOUDS[time.day] if time.month == 6 else chance
    return Overpass(time, round(clouds, 3), swath_begins=-1700.0 if week % 6 == 4 else None)


def write_sentinel2(folder: Path, tile: Tile, plot: Plot, week: int) -> Path:
    """Write one Sentinel-2-like scene and return the path of its document."""
    overpass = sentinel2_overpass(week)
    bands = make_sentinel2(plot, overpass)
    coarse = plot.geobox.zoom_out(2)
    grids = {name: coarse if name in S2_COARSE else plot.geobox for name in sorted(bands)}
    time = overpass.time + timedelta(seconds=tile.delay)
    classes = bands["SCL"]
    properties = {
        "eo:platform": "sentinel-2a" if week % 2 else "sentinel-2b",
        "eo:constellation": "sentinel-2",
        "eo:instrument": "MSI",
        "eo:gsd": 10.0,
        "eo:cloud_cover": _compute_percentage(np.isin(classes, (8, 9, 10)), classes != 0),
        "eo:sun_azimuth": overpass.sun[0],
        "eo:sun_elevation": overpass.sun[1],
        "odc:region_code": tile.code,
        "sat:orbit_state": "descending",
        "sat:relative_orbit": 22 if week % 2 else 65,
        "sat:absolute_orbit": 26000 + 100 * week + (week % 2),
    }
    label = f"S2_{tile.code}_{time:%Y%m%d}"
    footprint = _make_footprint(plot.geobox, overpass)
    target = folder / S2_PRODUCT / tile.code / f"{time:%Y-%m-%d}"
    return _write_dataset(target, S2_PRODUCT, label, time, bands, grids, properties, {}, footprint)


def write_landsat(folder: Path, plot: Plot, number: int, time: datetime) -> Path:
    """Write one Landsat-like scene and return the path of its document."""
    chance = float(np.random.default_rng(2000 + number).beta(1.1, 2.6))
    overpass = Overpass(time, round(chance, 3))
    bands = make_landsat(plot, overpass)
    quality = bands["qa_pixel"].astype(np.uint16)
    properties = {
        "eo:platform": "landsat-8",
        "eo:instrument": "OLI_TIRS",
        "eo:gsd": 30.0,
        "eo:cloud_cover": _compute_percentage((quality & 0b1010) != 0, quality != 1),
        "eo:sun_azimuth": overpass.sun[0],
        "eo:sun_elevation": overpass.sun[1],
        "odc:region_code": "192028",
        "landsat:wrs_path": 192,
        "landsat:wrs_row": 28,
    }
    grids = dict.fromkeys(bands, plot.geobox)
    target = folder / LANDSAT_PRODUCT / f"{time:%Y-%m-%d}"
    return _write_dataset(
        target,
        LANDSAT_PRODUCT,
        f"LC08_192028_{time:%Y%m%d}",
        time,
        bands,
        grids,
        properties,
        {"qa_pixel": 1},
        None,
    )


def write_elevation(folder: Path) -> Path:
    """Write the elevation model and return the path of its document."""
    bands: Bands = {"elevation": make_elevation_model(DEM_GRID)}
    time = datetime(2022, 1, 1, tzinfo=UTC)
    target = folder / DEM_PRODUCT
    grids = {"elevation": DEM_GRID}
    return _write_dataset(
        target, DEM_PRODUCT, "DEM_BOLZANO", time, bands, grids, {}, {"elevation": -9999.0}, None
    )


def write_climate(folder: Path, day: date) -> Path:
    """Write the climate grid of one day and return the path of its document."""
    bands = make_daily_climate(CLIMATE_GRID, day)
    time = datetime(day.year, day.month, day.day, tzinfo=UTC)
    grids = dict.fromkeys(bands, CLIMATE_GRID)
    nodata = dict.fromkeys(bands, float("nan"))
    period = {
        "dtr:start_datetime": f"{day}T00:00:00Z",
        "dtr:end_datetime": f"{day}T23:59:59Z",
    }
    target = folder / CLIMATE_PRODUCT / f"{day}"
    return _write_dataset(
        target, CLIMATE_PRODUCT, f"CLIMATE_{day:%Y%m%d}", time, bands, grids, period, nodata, None
    )


def _write_dataset(
    folder: Path,
    product: str,
    label: str,
    time: datetime,
    bands: Bands,
    grids: Mapping[str, GeoBox],
    properties: Mapping[str, Any],
    nodata: Mapping[str, float],
    footprint: Geometry | None,
) -> Path:
    """Write the COGs of one dataset, one per band, and its document next to them (with relative paths)."""
    folder.mkdir(parents=True, exist_ok=True)
    measurements = {}
    for name, geobox in grids.items():
        path = f"{name}.tif"
        averaged = name not in ("SCL", "qa_pixel")
        write_cog(folder / path, bands[name], geobox, nodata.get(name, 0), averaged=averaged, title=name)
        measurements[name] = Measurement(path, geobox)
    dataset = Dataset(product, label, time, measurements, properties, footprint)
    return dataset.write(folder / DOCUMENT_NAME)


def _compute_percentage(share: NDArray[np.bool_], of: NDArray[np.bool_]) -> float:
    return round(100.0 * float((share & of).sum()) / max(int(of.sum()), 1), 2)


def _make_footprint(geobox: GeoBox, overpass: Overpass) -> Geometry | None:
    """Return the part of the grid inside the swath, one pixel wider; None if the swath covers the grid."""
    if overpass.swath_begins is None:
        return None
    north = np.linspace(-12000.0, 12000.0, 25)
    east = overpass.swath_begins - 20 + 0.22 * north
    to_grid = Transformer.from_crs(3035, str(geobox.crs), always_xy=True)
    edge_x, edge_y = to_grid.transform(east + landscape.ORIGIN[0], north + landscape.ORIGIN[1])
    ring = [
        *zip(edge_x, edge_y, strict=True),
        (edge_x[-1] + 30000, edge_y[-1]),
        (edge_x[0] + 30000, edge_y[0]),
    ]
    inside = geobox.extent & polygon([*ring, ring[0]], geobox.crs)
    return None if inside.geom.equals(geobox.extent.geom) else inside
