"""Reads pixels of files; errors name the dataset.

Nothing here needs the index, so that dask workers need none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from odc.loader import RioDriver
from odc.loader._rio import rio_read
from odc.loader.types import RasterLoadParams, RasterSource
from rasterio._vsiopener import _opener_registration

from odc_openeo.errors import StorageFailure

ALONE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
"""Files beside a raster are not looked at."""

_log = logging.getLogger(__name__)


class Driver(RioDriver):
    """Reads with rasterio, as odc-stac does by default, and tells which dataset could not be read."""

    def open(self, src: RasterSource, ctx: Any) -> Reader:
        """A reader of one band of one dataset."""
        with told(src.driver_data):
            opener = src.driver_data.get("opener")
            if opener is not None:
                return ForeignReader(opener, _source(src), src.driver_data)
            return Reader(super().open(_source(src), ctx), src.driver_data)


def _source(src: RasterSource) -> RasterSource:
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
        nodata = self._place["nodata"]
        if nodata is not None and not np.isnan(nodata):
            # Files may lack the value that the product declares.
            cfg = replace(cfg, src_nodata_fallback=nodata)
        with told(self._place):
            return self._read(cfg, dst_geobox, **options)


class ForeignReader(Reader):
    """Reads from an address that a user has named: GDAL is given the opener's file, never the address."""

    def __init__(self, opener: Any, src: RasterSource, place: Mapping[str, Any]) -> None:
        super().__init__(None, place)
        self._opener, self._src = opener, src

    def _read(self, cfg: RasterLoadParams, dst_geobox: GeoBox, **options: Any) -> Any:
        with rasterio.Env(**ALONE), _opener_registration(self._src.uri, self._opener) as path:
            return rio_read(self._src.patch(uri=path), cfg, dst_geobox, **options)


@contextmanager
def told(place: Mapping[str, Any]) -> Iterator[None]:
    """Turn whatever goes wrong in reading into a `StorageFailure` that names the dataset and the band."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        # A damaged header fails in any way, assertions of the reader among them. The cause stays in the
        # worker's log: its text holds a path, and it may not survive the way from a worker.
        _log.warning("band %s of dataset %s", place["name"], place["dataset"], exc_info=True)
        raise unreadable(place["dataset"], place["name"], type(error).__name__) from None


def unreadable(dataset: str, band: str, kind: str) -> StorageFailure:
    """The error for a dataset that cannot be read."""
    return StorageFailure(
        f"Band {band} of dataset {dataset} cannot be read: its file is missing or damaged ({kind}). Leave "
        "the dataset out with temporal_extent or properties, or report its id to the operator."
    )
