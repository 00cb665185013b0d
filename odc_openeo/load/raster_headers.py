"""Headers of raster files that do not come from the index: grid, and what each band is."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from odc.geo.geobox import GeoBox

from odc_openeo.errors import FileContentInvalid, OpenEOError, UrlUnreachable
from odc_openeo.load.driver import get_file_name
from odc_openeo.load.zarr_rasters import open_zarr_raster
from odc_openeo.runners.notices import opening_files
from odc_openeo.untrusted.raster_bands import BandHeader, read_band_headers
from odc_openeo.untrusted.rasters import RasterPlace, RasterRefusedError, open_foreign_raster, read_grid
from odc_openeo.untrusted.zarr_arrays import is_zarr_href

THREADS: Final = 8


@dataclass(frozen=True)
class Header:
    """The header of a raster file: its grid (None without a reference system) and its bands."""

    grid: GeoBox | None
    bands: tuple[BandHeader, ...]


def read_headers(hrefs: Iterable[str], place: RasterPlace) -> dict[str, Header]:
    """Open files, several at a time; the errors of `read_header`."""
    distinct = list(dict.fromkeys(hrefs))
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(distinct, pool.map(lambda href: read_header(href, place), distinct), strict=True))


def find_headers(hrefs: Iterable[str], place: RasterPlace) -> dict[str, Header]:
    """Open files, several at a time, without those that cannot be opened: reading their pixels will fail."""
    distinct = list(dict.fromkeys(hrefs))

    def find_header(href: str) -> Header | None:
        try:
            return read_header(href, place)
        except OpenEOError:
            return None

    with ThreadPoolExecutor(THREADS) as pool:
        headers = zip(distinct, pool.map(find_header, distinct), strict=True)
        return {href: header for href, header in headers if header is not None}


def read_header(href: str, place: RasterPlace) -> Header:
    """Open a file and read its header.

    Raises:
        UrlUnreachable, FileContentInvalid: the file cannot be had, is not a raster, or refers to other files.
    """
    try:
        open_raster = open_zarr_raster if is_zarr_href(href) else open_foreign_raster
        with opening_files([get_file_name(href)]), open_raster(href, place) as file:
            return Header(read_grid(file), read_band_headers(file))
    except RasterRefusedError as error:
        raise make_refusal(href, f"the raster {get_file_name(href)} cannot be read: {error}") from error


def make_refusal(href: str, reason: str) -> OpenEOError:
    """The error for a file that cannot be read."""
    host = urlsplit(href).hostname
    if host is None:
        return FileContentInvalid(file=get_file_name(href), reason=reason)
    return UrlUnreachable(host=host, reason=reason)
