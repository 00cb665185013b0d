"""Open rasters that do not come from the operator's index; there is no other way to open them.

Uploads, files fetched for users, assets of STAC Items, results, workspaces, and users' collections are all
opened here. GDAL gets a handle, never a name chosen by a user; it may use only the drivers of GeoTIFF and
JPEG 2000; and files that refer to other files are refused. ``docs/adr/0012-foreign-files.md`` explains why.
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

from odc_openeo.untrusted.reference_systems import parse_crs

DRIVERS: Final = ("GTiff", "JP2OpenJPEG", "JP2KAK")

ALONE: Final = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "OPEN_REMOTE_GML": "NO",
    # No URL has this name: remote files are read through `safe_http` only.
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
}
"""GDAL options: ignore sidecar files (overviews, masks, metadata), and request no URLs."""

REFERRING_DOMAINS: Final = ("OVERVIEWS",)
"""Metadata domains in which GDAL looks for names of other files."""


LARGEST_BLOCK: Final = 512 * 2**20
"""Maximum size of a block in bytes: GDAL reads the whole block even for a single pixel."""

SMALLEST_PIXEL: Final = 1e-24
"""Smallest area of a pixel, in square units of the reference system."""

LARGEST_NUMBER: Final = 1e12
"""Largest coordinate; those of common reference systems are far smaller."""


class RasterRefusedError(ValueError):
    """A raster must not or cannot be opened; the message is a sentence that begins with "it"."""


class RasterPlace(Protocol):
    """A place of foreign rasters: a folder on this machine, or URLs read through `safe_http`."""

    def expose(self, href: str) -> AbstractContextManager[str]:
        """Yield a name by which GDAL can open only this file, valid within the context.

        Raises:
            RasterRefusedError: the file does not exist in this place.
        """

    def explain_failure(self, href: str) -> None:
        """Raise the error that GDAL has hidden, if there is one; called when a file could not be opened."""


@dataclass(frozen=True)
class LocalFolder:
    """A folder on this machine, in which rasters may be opened."""

    root: Path

    @contextlib.contextmanager
    def expose(self, href: str) -> Iterator[str]:
        """Yield a name of a descriptor of a regular file in the folder: GDAL opens the checked file."""
        descriptor = self._open_file(href)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)

    def read_file(self, href: str, most: int) -> bytes | None:
        """Read a regular file in the folder, None if there is none; RasterRefusedError if it is too large."""
        try:
            descriptor = self._open_file(href)
        except RasterRefusedError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        with open(descriptor, "rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise RasterRefusedError(f"a file of it has more than {most} bytes.")
        return content

    def explain_failure(self, href: str) -> None:
        """Do nothing: there is no hidden error, as `expose` has checked the file."""

    def _open_file(self, href: str) -> int:
        """Open a file one path component at a time, so that no link leads outside (path traversal)."""
        parts = self._split_path(href)
        try:
            return _open_regular_file(self.root, parts)
        except OSError as error:
            raise RasterRefusedError("it does not exist, or is not a file.") from error

    def _split_path(self, href: str) -> tuple[str, ...]:
        try:
            parts = Path(href).relative_to(self.root).parts
        except ValueError as error:
            raise RasterRefusedError("it is outside its folder.") from error
        if not parts or ".." in parts or "\0" in href:
            raise RasterRefusedError("it is outside its folder.")
        return parts


def _open_regular_file(root: Path, parts: tuple[str, ...]) -> int:
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            outer, folder = folder, os.open(part, flags, dir_fd=folder)
            os.close(outer)
        # Non-blocking, as opening a pipe would wait for its other end.
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
        RasterRefusedError: it does not exist, is neither a GeoTIFF nor a JPEG 2000 file, or refers to others.
        OpenEOError: its URL cannot be read.
    """
    with _expose_place(href, place) as name, _open_dataset(name, href, place) as raster:
        yield raster


@contextlib.contextmanager
def open_overview(
    href: str, place: RasterPlace, choose: Callable[[DatasetReader], int | None]
) -> Iterator[tuple[DatasetReader, DatasetReader]]:
    """Open a raster and the overview that ``choose`` selects; for None both are the raster itself.

    The overview is read from the checked file: GDAL looks for overviews before a file can be checked.
    Raises the errors of `open_foreign_raster`.
    """
    with _expose_place(href, place) as name, _open_dataset(name, href, place) as raster:
        level = choose(raster)
        if level is None:
            yield raster, raster
        else:
            with _open_dataset(name, href, place, overview_level=level) as overview:
                yield raster, overview


@contextlib.contextmanager
def _expose_place(href: str, place: RasterPlace) -> Iterator[str]:
    with rasterio.Env(**ALONE), place.expose(href) as name:
        yield name


@contextlib.contextmanager
def _open_dataset(name: str, href: str, place: RasterPlace, **options: Any) -> Iterator[DatasetReader]:
    try:
        # As `rasterio.open` does, which accepts only one driver.
        raster = DatasetReader(name, driver=list(DRIVERS), sharing=False, **options)
    except (RasterioError, TypeError, ValueError) as error:
        place.explain_failure(href)
        raise RasterRefusedError("it is neither a GeoTIFF nor a JPEG 2000 file, or it is damaged.") from error
    with raster:
        _check_is_self_contained(raster)
        yield raster


def _check_is_self_contained(raster: DatasetReader) -> None:
    """Refuse references to other files, and blocks so large that reading one pixel exhausts the memory."""
    for domain in REFERRING_DOMAINS:
        if any(raster.tags(band, ns=domain) for band in (0, *raster.indexes)):
            raise RasterRefusedError(
                "it refers to other files, for example overviews. Store them in the file itself."
            )
    for (rows, columns), dtype in zip(raster.block_shapes, raster.dtypes, strict=True):
        if rows * columns * np.dtype(dtype).itemsize > LARGEST_BLOCK:
            reason = (
                f"it has blocks of {rows} x {columns} pixels. Rewrite it with tiles, for example as a COG."
            )
            raise RasterRefusedError(reason)
    if len(raster.files) > 1:
        raise RasterRefusedError("it needs additional files next to it.")


def read_grid(raster: DatasetReader) -> GeoBox | None:
    """Read the pixel grid of a raster, None if it has no reference system.

    Raises:
        RasterRefusedError: its reference system or transform does not place pixels on Earth.
    """
    if raster.crs is None:
        return None
    return make_grid(raster.shape, raster.transform, raster.crs.to_wkt())


def make_grid(shape: Sequence[int], transform: Affine, crs: Any) -> GeoBox:
    """Make a pixel grid from a shape (rows, columns), a transform, and a reference system.

    Raises:
        RasterRefusedError: as for `read_grid`.
    """
    if not all(map(math.isfinite, transform)) or abs(transform.determinant) < SMALLEST_PIXEL:
        raise RasterRefusedError("its transform is degenerate: pixels must have a width and a height.")
    if max(map(abs, transform)) > LARGEST_NUMBER or min(shape) < 1:
        raise RasterRefusedError("its transform places pixels far outside the Earth, or it has no pixels.")
    try:
        grid = GeoBox(tuple(shape), transform, CRS(parse_crs(crs)))
        is_on_earth = grid.crs is not None and (grid.crs.geographic or grid.crs.projected)
    except (ValueError, CRSError) as error:
        raise RasterRefusedError("its reference system is not valid.") from error
    if not is_on_earth:
        raise RasterRefusedError("its reference system is neither projected nor geographic.")
    return grid
