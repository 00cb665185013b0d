"""A collection of tiles whose reader makes pixels instead of reading files."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import numpy as np
from affine import Affine
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.loader import RioDriver
from odc.loader.types import RasterSource
from pyproj import Transformer

from odc_openeo.catalog import Band, Query, Scene
from odc_openeo.catalog.overrides import Override
from odc_openeo.catalog.scenes import File
from odc_openeo.catalog.stac_documents import Product
from odc_openeo.load import chunk_tasks

BANDS = tuple(Band(name, dtype="uint16", nodata=0, units="1") for name in ("B04", "B08", "SCL"))
STEP = 100_000
SIDE = 10_980
ZONES = (32632, 32633)
SYSTEMS = {zone: CRS(f"EPSG:{zone}") for zone in ZONES}


@dataclass(frozen=True)
class MadeCatalog:
    """A catalogue of one collection: tiles of 100 km side by side as those of Sentinel-2, and dates."""

    columns: int = 10
    rows: int = 6
    dates: int = 100
    side: int = SIDE
    config: Any = None

    def get_product(self, _: str) -> Product:
        """Return the only product."""
        return Product("made", {}, BANDS, Override(), {})

    def search_scenes(self, _: str, query: Query, limit: int) -> list[Scene]:
        """Return all scenes, in order of time."""
        grids = list(self._make_grids())
        begin = datetime(2022, 1, 1, 10, tzinfo=UTC)
        return [
            self._make_scene(grid, number, begin + timedelta(days=3 * date))
            for date in range(self.dates)
            for number, grid in enumerate(grids)
        ]

    def _make_grids(self) -> Iterator[GeoBox]:
        to_second = Transformer.from_crs(*ZONES, always_xy=True)
        for row in range(self.rows):
            for column in range(self.columns):
                left, top, zone = 400_000 + column * STEP, 6_000_000 - row * STEP, ZONES[0]
                if column >= 0.7 * self.columns and self.columns > 1:
                    x, y = to_second.transform(left, top)
                    left, top, zone = round(x, -4), round(y, -4), ZONES[1]
                transform = Affine(10, 0, left, 0, -10, top)
                yield GeoBox((self.side, self.side), transform, SYSTEMS[zone])

    @staticmethod
    def _make_scene(grid: GeoBox, number: int, time: datetime) -> Scene:
        id_ = f"{number:02}-{time:%Y%m%d}"
        files = {band.name: File(f"made:///{id_}/{band.name}") for band in BANDS}
        properties: Mapping[str, Any] = MappingProxyType({})
        return Scene(id_, "made", time, grid.crs, {"default": grid}, files, grid.extent, properties, id_)


class MadeReader:
    """Makes the pixels of a file: they depend on where they are and on the file."""

    def __init__(self, source: RasterSource) -> None:
        self.source = source

    def read(self, cfg: Any, dst_geobox: GeoBox, *, dst: np.ndarray | None = None, **_: Any) -> Any:
        """Make the pixels of a grid."""
        rows, columns = dst_geobox.shape.yx
        left, top = dst_geobox.transform @ (0, 0)
        y = ((np.arange(rows) - round(top / 10)) % 4096).astype(np.uint16)[:, np.newaxis]
        x = ((np.arange(columns) + round(left / 10)) % 4096).astype(np.uint16)
        seed = np.uint16(zlib.crc32(self.source.uri.encode()) % 1000)
        values = (x * np.uint16(7) + y * np.uint16(3) + seed) % np.uint16(3000) + np.uint16(1)
        whole = slice(0, rows), slice(0, columns)
        if dst is None:
            return whole, values
        dst[...] = values
        return whole, dst


class MadeDriver(RioDriver):
    """Opens files that do not exist."""

    def open(self, src: RasterSource, ctx: Any) -> MadeReader:
        """Return a reader that makes pixels."""
        return MadeReader(src)


@contextmanager
def make_pixels() -> Iterator[None]:
    """Let loads in this process make pixels instead of reading them."""
    with patch.object(chunk_tasks, "DRIVER", MadeDriver()):
        yield
