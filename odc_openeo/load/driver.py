"""Read pixels of files; errors name the dataset.

Nothing here needs the index, so that dask workers need none.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.loader import RioDriver
from odc.loader.types import RasterLoadParams, RasterSource
from rasterio.io import DatasetReader

from odc_openeo.config import allowed_gdal_drivers
from odc_openeo.errors import FileContentInvalid, OpenEOError, StorageFailure
from odc_openeo.load.rio_internals import find_overview, plan_read, read_band
from odc_openeo.memory_failures import is_memory_failure
from odc_openeo.untrusted.gdal_drivers import secure_gdal_once
from odc_openeo.untrusted.rasters import RasterPlace, RasterRefusedError, open_overview

_log = logging.getLogger(__name__)


class Driver(RioDriver):
    """Reads with rasterio, as odc-stac does by default, and reports which dataset could not be read."""

    def open(self, src: RasterSource, ctx: Any) -> Reader:
        """A reader of one band of one dataset."""
        _secure_dask_worker()
        place = src.driver_data.get("place")
        if place is not None:
            return ForeignReader(place, src, src.driver_data)
        with as_storage_failure(src.driver_data):
            return Reader(super().open(_patch_source(src), ctx), src.driver_data)


def _secure_dask_worker() -> None:
    """Close GDAL in dask workers that others have started; those of `odc-openeo dask-worker` are closed."""
    # Other processes need not have distributed, which changes how errors are pickled.
    if "distributed.worker" in sys.modules:
        from odc_openeo.compute.cluster import is_dask_worker

        if is_dask_worker():
            secure_gdal_once(allowed_gdal_drivers())


def _patch_source(src: RasterSource) -> RasterSource:
    place = src.driver_data
    uri = f'NETCDF:"{src.uri}":{place["layer"]}' if place["layer"] else src.uri
    return src.patch(uri=uri, band=place["band"])


class Reader:
    """Reads pixels of one band of one dataset."""

    def __init__(self, reader: Any, place: Mapping[str, Any]) -> None:
        self._reader = reader
        self._place = place

    def _read(self, cfg: RasterLoadParams, dst_geobox: GeoBox, **options: Any) -> Any:
        return self._reader.read(cfg, dst_geobox, **options)

    def read(self, cfg: RasterLoadParams, dst_geobox: GeoBox, **options: Any) -> Any:
        """The pixels of the file that lie in ``dst_geobox``.

        Raises:
            StorageFailure: the file is missing or damaged; the message names the dataset, not the file.
        """
        with as_storage_failure(self._place):
            return self._read_pixels(cfg, self._turn_back(dst_geobox), **options)

    def _turn_back(self, grid: GeoBox) -> GeoBox:
        """A grid with longitudes as in the file."""
        turn = self._place.get("turn", 0.0)
        move = Affine.translation(-turn, 0)
        return GeoBox(grid.shape, move @ grid.transform, grid.crs) if turn else grid

    def _read_pixels(self, cfg: RasterLoadParams, dst_geobox: GeoBox, **options: Any) -> Any:
        nodata = self._place["nodata"]
        if nodata is not None and not np.isnan(nodata):
            # Files may lack the value that the product declares.
            cfg = replace(cfg, src_nodata_fallback=nodata)
        return self._read(cfg, dst_geobox, **options)


class ForeignReader(Reader):
    """Reads a raster that did not come from the index, in the one way in which such are opened."""

    def __init__(self, raster_place: RasterPlace, src: RasterSource, place: Mapping[str, Any]) -> None:
        super().__init__(None, place)
        self._raster_place, self._src = raster_place, src

    def read(self, cfg: RasterLoadParams, dst_geobox: GeoBox, **options: Any) -> Any:
        """The pixels of the file that lie in ``dst_geobox``.

        Raises:
            FileContentInvalid: the file is not what it was, or its pixels are damaged.
            OpenEOError: it is at an address that cannot be read.
        """
        try:
            return super()._read_pixels(cfg, self._turn_back(dst_geobox), **options)
        except OpenEOError:
            raise
        except RasterRefusedError as error:
            raise FileContentInvalid(file=get_file_name(self._src.uri), reason=str(error)) from None
        except Exception as error:
            if is_memory_failure(error):
                raise MemoryError from None
            _log.info("pixels of a user's file cannot be read", exc_info=True)
            reason = "its pixels cannot be read: it is damaged."
            raise FileContentInvalid(file=get_file_name(self._src.uri), reason=reason) from None

    def _read(
        self, cfg: RasterLoadParams, dst_geobox: GeoBox, *, dst: np.ndarray | None = None, **_: Any
    ) -> Any:
        band = self._place["band"]

        def choose(raster: DatasetReader) -> int | None:
            return find_overview(raster, band, cfg, plan_read(raster, cfg, dst_geobox))

        with open_overview(self._src.uri, self._raster_place, choose) as (raster, overview):
            return read_band(overview, band, cfg, dst_geobox, plan_read(raster, cfg, dst_geobox), dst)


def get_file_name(href: str) -> str:
    """The name of a file, without the folders or the server that it is in."""
    return urlsplit(href).path.rpartition("/")[2]


@contextmanager
def as_storage_failure(place: Mapping[str, Any]) -> Iterator[None]:
    """Turn whatever goes wrong in reading into a `StorageFailure` that names the dataset and the band."""
    try:
        yield
    except Exception as error:
        if is_memory_failure(error):
            raise MemoryError from None
        # A damaged header fails in any way, assertions of the reader among them. The cause stays in the
        # worker's log: its text holds a path, and it may not survive the way from a worker.
        _log.warning("band %s of dataset %s", place["name"], place["dataset"], exc_info=True)
        raise make_unreadable_error(place["dataset"], place["name"], type(error).__name__) from None


def make_unreadable_error(dataset: str, band: str, kind: str) -> StorageFailure:
    """The error for a dataset that cannot be read."""
    return StorageFailure(
        f"Band {band} of dataset {dataset} cannot be read: its file is missing or damaged ({kind}). Leave "
        "the dataset out with temporal_extent or properties, or report its id to the operator."
    )
