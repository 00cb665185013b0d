"""The one way to open a raster that did not come from the operator's index.

Uploads, files fetched for users, assets of STAC Items, results, workspaces, and collections of users all pass
here. GDAL gets a handle, never the name that a user gave; it may use the drivers of GeoTIFF and JPEG 2000;
and a file that refers to other files is refused. ``docs/adr/0012-foreign-files.md`` tells why.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import rasterio
from affine import Affine
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from odc_openeo.user_crs import parse_crs

DRIVERS: Final = ("GTiff", "JP2OpenJPEG", "JP2KAK")

ALONE: Final = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "OPEN_REMOTE_GML": "NO",
    # No file has this name: what is on the web comes through the outgoing guard only.
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
}
"""Files beside a raster (overviews, masks, metadata) are not looked at, nor addresses asked."""

REFERRING_DOMAINS: Final = ("OVERVIEWS",)
"""Domains of metadata in which GDAL looks for the names of other files."""


LARGEST_BLOCK: Final = 512 * 2**20
"""Bytes of a block, which is read whole for each of its pixels."""

SMALLEST_PIXEL: Final = 1e-24
"""Area of a pixel, in square units of the reference system, below which it is none."""

LARGEST_NUMBER: Final = 1e12
"""Coordinates of reference systems in use stay far below."""


class RasterRefusedError(ValueError):
    """A raster must not be opened, or cannot be; the text is a sentence that begins with "it"."""


class RasterPlace(Protocol):
    """Where foreign rasters may be: a folder of this machine, or addresses behind the outgoing guard."""

    def expose(self, href: str) -> AbstractContextManager[str]:
        """A name by which GDAL can open just this file, for as long as the context lasts.

        Raises:
            RasterRefusedError: there is no such file in this place.
        """

    def explain_failure(self, href: str) -> None:
        """Raise the error that GDAL has hidden, if it is known; called when a file could not be opened."""


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine, in which rasters may be opened."""

    root: Path

    @contextlib.contextmanager
    def expose(self, href: str) -> Iterator[str]:
        """A name of a regular file in the folder: that of a descriptor, so it stays what was checked."""
        descriptor = self._open(href)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)

    def explain_failure(self, href: str) -> None:
        """Nothing more is known: what could be wrong was checked before."""

    def _open(self, href: str) -> int:
        """Open a file step by step from the folder downwards, so that no link leads out of it."""
        try:
            parts = Path(href).relative_to(self.root).parts
        except ValueError as error:
            raise RasterRefusedError("it lies outside of its folder.") from error
        if not parts or ".." in parts or "\0" in href:
            raise RasterRefusedError("it lies outside of its folder.")
        try:
            return _open_regular_file(self.root, parts)
        except OSError as error:
            raise RasterRefusedError("it is not there, or not a file.") from error


def _open_regular_file(root: Path, parts: tuple[str, ...]) -> int:
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            outer, folder = folder, os.open(part, flags, dir_fd=folder)
            os.close(outer)
        # Not blocking: a pipe would wait for its other end.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(parts[-1], flags, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return descriptor


@contextlib.contextmanager
def open_foreign_raster(href: str, place: RasterPlace) -> Iterator[DatasetReader]:
    """Open a raster of a user.

    Raises:
        RasterRefusedError: it is not there, is neither a GeoTIFF nor a JPEG 2000 file, or refers to others.
        OpenEOError: it is at an address that cannot be read.
    """
    with _exposed(href, place) as name, _open(name, href, place) as raster:
        yield raster


@contextlib.contextmanager
def open_overview(
    href: str, place: RasterPlace, choose: Callable[[DatasetReader], int | None]
) -> Iterator[tuple[DatasetReader, DatasetReader]]:
    """Open a raster and the overview of it that ``choose`` picks: both are the raster itself for None.

    The overview is that of the file that was checked: GDAL looks for overviews before a file can be checked.
    The errors of `open_foreign_raster`.
    """
    with _exposed(href, place) as name, _open(name, href, place) as raster:
        level = choose(raster)
        if level is None:
            yield raster, raster
        else:
            with _open(name, href, place, overview_level=level) as overview:
                yield raster, overview


@contextlib.contextmanager
def _exposed(href: str, place: RasterPlace) -> Iterator[str]:
    with rasterio.Env(**ALONE), place.expose(href) as name:
        yield name


@contextlib.contextmanager
def _open(name: str, href: str, place: RasterPlace, **options: Any) -> Iterator[DatasetReader]:
    try:
        # What `rasterio.open` makes, which takes one driver at most.
        raster = DatasetReader(name, driver=list(DRIVERS), sharing=False, **options)
    except (RasterioError, TypeError, ValueError) as error:
        place.explain_failure(href)
        raise RasterRefusedError("it is neither a GeoTIFF nor a JPEG 2000 file, or it is damaged.") from error
    with raster:
        _check_is_self_contained(raster)
        yield raster


def _check_is_self_contained(raster: DatasetReader) -> None:
    """Refuse references to other files, and blocks so large that reading one pixel takes all memory."""
    for domain in REFERRING_DOMAINS:
        if any(raster.tags(band, ns=domain) for band in (0, *raster.indexes)):
            raise RasterRefusedError("it refers to other files, as overviews for example. Keep them inside.")
    for (rows, columns), dtype in zip(raster.block_shapes, raster.dtypes, strict=True):
        if rows * columns * np.dtype(dtype).itemsize > LARGEST_BLOCK:
            reason = (
                f"it has blocks of {rows} x {columns} pixels. Write it anew with tiles, as a COG for example."
            )
            raise RasterRefusedError(reason)
    if len(raster.files) > 1:
        raise RasterRefusedError("it needs other files beside it.")


def read_grid(raster: DatasetReader) -> GeoBox | None:
    """The pixel grid of a raster, None if it has no reference system.

    Raises:
        RasterRefusedError: it has a reference system or a transform that places no pixel on Earth.
    """
    if raster.crs is None:
        return None
    return make_grid(raster.shape, raster.transform, raster.crs.to_wkt())


def make_grid(shape: Sequence[int], transform: Affine, crs: Any) -> GeoBox:
    """The pixel grid of a shape (rows, columns), the transform of pixels, and a reference system.

    Raises:
        RasterRefusedError: as for `read_grid`.
    """
    if not all(map(math.isfinite, transform)) or abs(transform.determinant) < SMALLEST_PIXEL:
        raise RasterRefusedError("its transform is degenerate: pixels need a width and a height.")
    if max(map(abs, transform)) > LARGEST_NUMBER or min(shape) < 1:
        raise RasterRefusedError("its transform leads far beyond the Earth, or it has no pixels.")
    try:
        grid = GeoBox(tuple(shape), transform, CRS(parse_crs(crs)))
        is_on_earth = grid.crs is not None and (grid.crs.geographic or grid.crs.projected)
    except (ValueError, CRSError) as error:
        raise RasterRefusedError("its reference system is not a valid one.") from error
    if not is_on_earth:
        raise RasterRefusedError("its reference system is neither projected nor geographic.")
    return grid
