"""Synthetic scenes large enough for measurements: reproducible, written once to a cache folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import yaml
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from odc_openeo.indexing.cog import write_cog
from odc_openeo.indexing.documents import Dataset, Measurement

VERSION: Final = "2"
"""Changed whenever the pixels change, so that older scenes in a cache folder are not used."""
FIRST: Final = datetime(2022, 5, 4, 10, 20, tzinfo=UTC)

Layer = Callable[[int, str, tuple[int, int]], np.ndarray]
"""Makes the pixels of a band from the number of the date, the band's name, and the shape."""


@dataclass(frozen=True)
class Scenes:
    """A product and its scenes: the same grid at ``dates`` dates, ``days`` apart.

    ``bands`` gives the pixel type of each; those in ``coarse`` have pixels twice as wide.
    """

    product: str
    grid: GeoBox
    dates: int
    bands: Mapping[str, str]
    layer: Layer
    days: int = 5
    coarse: Sequence[str] = ()
    averaged: Sequence[str] = field(default=())
    nodata: float = 0
    first: datetime = FIRST

    def list_times(self) -> list[datetime]:
        """The acquisition times of the scenes."""
        return [self.first + timedelta(days=self.days * n) for n in range(self.dates)]

    def get_band_grid(self, band: str) -> GeoBox:
        """The pixel grid of a band."""
        return self.grid.zoom_out(2) if band in self.coarse else self.grid

    def get_date_folder(self, cache: Path, number: int) -> Path:
        """The folder of the files of a date."""
        return cache / self.product / f"{self.list_times()[number]:%Y-%m-%d}"

    def get_band_file(self, cache: Path, number: int, band: str) -> Path:
        """The file of a band at a date."""
        return self.get_date_folder(cache, number) / f"{band}.tif"

    def write_definition(self, cache: Path) -> Path:
        """Write the product definition; return its path."""
        bands = [
            {"name": name, "dtype": dtype, "nodata": self.nodata, "units": "1"}
            for name, dtype in self.bands.items()
        ]
        content = {
            "name": self.product,
            "description": "Scenes to measure with",
            "metadata_type": "eo3",
            "metadata": {"product": {"name": self.product}},
            "measurements": bands,
        }
        path = cache / f"{self.product}.odc-product.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    def write_scenes(self, cache: Path) -> list[Path]:
        """Write the scenes unless they exist; return the paths of their EO3 documents."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda n: self._write_scene(cache, n), range(self.dates)))

    def _write_scene(self, cache: Path, number: int) -> Path:
        target = self.get_date_folder(cache, number)
        document = target / "dataset.odc-metadata.yaml"
        if document.exists():
            return document
        target.mkdir(parents=True, exist_ok=True)
        for band in self.bands:
            grid = self.get_band_grid(band)
            values = self.layer(number, band, grid.shape.yx).astype(self.bands[band])
            averaged = band in self.averaged
            write_cog(
                self.get_band_file(cache, number, band),
                values,
                grid,
                self.nodata,
                averaged=averaged,
                title=band,
            )
        measurements = {band: Measurement(f"{band}.tif", self.get_band_grid(band)) for band in self.bands}
        time = self.list_times()[number]
        properties = {"eo:cloud_cover": 20.0, "eo:platform": "sentinel-2a", "eo:instrument": "MSI"}
        label = f"{self.product}-{time:%Y%m%d}"
        return Dataset(self.product, label, time, measurements, properties).write(document)


# --- Pixels --------------------------------------------------------------------------------------


def draw_land(number: int, band: str, shape: tuple[int, int]) -> np.ndarray:
    """Land in digital numbers of Sentinel-2 with noise; class 9 (clouds) or 4 (vegetation) for SCL."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype("float32")
    if band == "SCL":
        return np.where(np.sin(rows / 60 + number) * np.sin(columns / 75 - number) > 0.55, 9, 4)
    place = sum(map(ord, band)) % 7
    land = np.sin(rows / 97) * np.cos(columns / 131) + np.sin((rows + columns) / 41) / 3
    noise = np.random.default_rng([number, place]).normal(0, 40, shape).astype("float32")
    return (1800 + 300 * place + 600 * land + 30 * number + noise).clip(1, 12000)


def _draw_fields(number: int, band: str, shape: tuple[int, int]) -> np.ndarray:
    """Squares of 64 pixels with one value each, and noise: a whole tile of them without floats."""
    place = sum(map(ord, band)) % 7
    rows = (np.arange(shape[0], dtype="uint16") // 64)[:, None]
    columns = (np.arange(shape[1], dtype="uint16") // 64)[None, :]
    noise = np.random.default_rng([number, place]).integers(0, 64, shape, "uint16")
    return noise + np.uint16(1500 + 200 * place + 20 * number) + (rows * 37 + columns * 101) % np.uint16(997)


def _draw_hills(number: int, band: str, shape: tuple[int, int]) -> np.ndarray:
    """Heights in metres."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype("float32")
    return 800 + 400 * np.sin(rows / 180) * np.cos(columns / 220) + 20 * np.sin((rows - columns) / 13)


def _draw_seasons(number: int, band: str, shape: tuple[int, int]) -> np.ndarray:
    """A yearly wave with noise."""
    noise = np.random.default_rng(number).normal(0, 50, shape)
    level = 2000 + 400 * np.sin(np.arange(shape[0]) / 20)[:, None]
    return level + 900 * np.sin(2 * np.pi * number * 10 / 365.25) + noise


# --- Products ------------------------------------------------------------------------------------

FINE: Final = ("B02", "B03", "B04", "B08")


def make_square(epsg: int, west: float, north: float, size: int, pixel: float = 10) -> GeoBox:
    """Make a grid with as many rows as columns."""
    box = (west, north - pixel * size, west + pixel * size, north)
    return GeoBox.from_bbox(box, crs=f"EPSG:{epsg}", shape=(size, size), tight=True)


BOX: Final = Scenes(
    "bench_box",
    make_square(32632, 680000, 5160000, 2048),
    16,
    {**dict.fromkeys(FINE, "uint16"), "SCL": "uint8"},
    draw_land,
    coarse=("SCL",),
    averaged=FINE,
)
"""20 km x 20 km, 16 dates, four bands and a classification."""
TILE: Final = Scenes(
    "bench_tile",
    make_square(32632, 600000, 5200020, 10980),
    4,
    dict.fromkeys(("B04", "B08"), "uint16"),
    _draw_fields,
)
"""A whole tile of Sentinel-2 at four dates."""
WEST: Final = Scenes(
    "bench_zones",
    make_square(32632, 722000, 5160000, 2048),
    4,
    {"B04": "uint16"},
    draw_land,
    averaged=("B04",),
)
EAST: Final = Scenes(
    "bench_zones_east",
    make_square(32633, 266000, 5160000, 2048),
    4,
    {"B04": "uint16"},
    draw_land,
    averaged=("B04",),
)
"""Two neighbouring zones, which overlap."""
HEIGHTS: Final = Scenes(
    "bench_heights",
    make_square(32632, 680000, 5160000, 4096),
    1,
    {"height": "float32"},
    _draw_hills,
    nodata=-9999,
)
YEARS: Final = Scenes(
    "bench_years", make_square(32632, 680000, 5160000, 128), 73, {"B08": "uint16"}, _draw_seasons, 10
)
"""Two years, every ten days."""
ALL: Final = (BOX, TILE, WEST, EAST, HEIGHTS, YEARS)


def make_all(cache: Path) -> Iterator[tuple[Scenes, list[Path]]]:
    """Make the scenes that are not cached yet; yield each product with the documents of its scenes."""
    note = cache / "version"
    if cache.exists() and (not note.exists() or note.read_text() != VERSION):
        for scenes in ALL:
            shutil.rmtree(cache / scenes.product, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    note.write_text(VERSION)
    for scenes in ALL:
        yield scenes, scenes.write_scenes(cache)


def in_degrees(ring: Sequence[tuple[float, float]], grid: GeoBox) -> list[list[float]]:
    """Convert points from a grid's reference system to longitude and latitude."""
    to_degrees = Transformer.from_crs(grid.crs.epsg, 4326, always_xy=True)
    return [list(to_degrees.transform(x, y)) for x, y in ring]
