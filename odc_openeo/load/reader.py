"""Scenes as odc-stac reads them: items without detours, and a reader whose errors name the dataset.

Nothing here needs the index, so that dask workers need none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pystac
import rasterio
from odc.geo.geobox import GeoBox
from odc.loader import RioDriver
from odc.loader._rio import rio_read
from odc.loader.types import RasterBandMetadata, RasterGroupMetadata, RasterLoadParams, RasterSource
from rasterio._vsiopener import _opener_registration

from odc_openeo.catalog import Band, Scene
from odc_openeo.errors import StorageFailure

PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
FILE = "odc_openeo:file"
ALONE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
"""Files beside a raster are not looked at."""

_log = logging.getLogger(__name__)


def item(scene: Scene, bands: Sequence[Band]) -> pystac.Item:
    """The scene as a STAC Item that has only what loading these bands needs."""
    code = scene.crs.epsg
    system = {"proj:code": f"EPSG:{code}"} if code else {"proj:wkt2": scene.crs.to_wkt()}
    made = pystac.Item(
        id=scene.id,
        geometry=None,
        bbox=None,
        datetime=scene.time,
        properties=system,
        stac_extensions=[PROJECTION],
        collection=scene.product,
    )
    for band in bands:
        grid = scene.grid(band.name)
        if grid is not None:
            made.add_asset(band.name, _asset(scene, band, grid))
    return made


def _asset(scene: Scene, band: Band, grid: GeoBox) -> pystac.Asset:
    file = scene.files[band.name]
    shape, transform = list(grid.shape.yx), list(grid.transform[:6])
    place: dict[str, Any] = {"dataset": scene.id, "name": band.name, "band": file.band, "layer": file.layer}
    if file.opener is not None:
        place["opener"] = file.opener
    return pystac.Asset(
        file.href,
        roles=["data"],
        extra_fields={"proj:shape": shape, "proj:transform": transform, FILE: place},
    )


class Bands:
    """What odc-stac asks about items: the product's bands, so that no item's metadata need be parsed.

    ``types`` are the pixel types to load the bands with, by name.
    """

    def __init__(self, bands: Sequence[Band], types: Mapping[str, str]) -> None:
        self._bands = {
            (band.name, 1): RasterBandMetadata(types[band.name], _fill_value(band), band.units or "1")
            for band in bands
        }
        self._nodata = {band.name: band.nodata for band in bands}

    def extract(self, md: Any) -> RasterGroupMetadata:
        """The bands by (asset, 1)."""
        return RasterGroupMetadata(self._bands)

    def driver_data(self, md: Any, band_key: tuple[str, int]) -> Mapping[str, Any] | None:
        """Where the pixels are, for `Reader`."""
        asset = md.assets.get(band_key[0])
        return None if asset is None else {**asset.extra_fields[FILE], "nodata": self._nodata[band_key[0]]}


def _fill_value(band: Band) -> float | None:
    # Float cubes mark no-data with NaN, whatever the files have.
    return np.nan if band.is_float else band.nodata


class Driver(RioDriver):
    """Reads with rasterio, as odc-stac does by default, and tells which dataset could not be read."""

    def __init__(self, bands: Sequence[Band] = (), types: Mapping[str, str] | None = None) -> None:
        super().__init__(md_parser=Bands(bands, types or {}))

    def __reduce__(self) -> Any:
        # The workers need not know the bands.
        return Driver, ()

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
