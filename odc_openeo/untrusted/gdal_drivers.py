"""Restrict GDAL in this process to formats that contain all their pixels themselves.

Many of GDAL's drivers open whatever a file refers to, including other files on this machine and URLs; some
accept a whole document as a file name. Every process of the service that reads files disables all but the
drivers below at startup, so that neither names nor content can reach the others, however they get to GDAL.
Dask workers not started by the service do so before they read the first file
(``docs/adr/0012-foreign-files.md``).
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import rasterio
import rasterio.shutil
import rasterio.warp
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT

SELF_CONTAINED: Final = frozenset(
    {
        *("GTiff", "COG", "MEM", "Memory", "PNG", "JPEG", "GRIB", "ENVI", "AAIGrid", "SRTMHGT"),
        *("JP2OpenJPEG", "JP2KAK", "netCDF", "HDF4", "HDF4Image", "HDF5", "HDF5Image"),
    }
)
"""Drivers of the formats in which indexed datasets are stored and that cannot refer to other files.

HDF5 and netCDF can, by external links; users' files in these formats are checked for links first.
"""

FOLDER_FORMATS: Final = frozenset({"netCDF", "HDF4", "HDF4Image", "HDF5", "HDF5Image"})
"""Drivers that cannot read from buckets: their libraries may read in threads without the options for it."""

VRT: Final = "VRT"
HARMLESS: Final = ("XPM", "ZMap", "BMP")
"""Drivers of simple formats, one of which replaces the VRT driver."""

_CANARY: Final = (
    '<VRTDataset rasterXSize="1" rasterYSize="1"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    "<SourceFilename>{path}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
)


class GdalIsOpenError(RuntimeError):
    """GDAL can open formats in this process that it must not; the message says which, and after what."""


def secure_gdal(allowed: Collection[str] = ()) -> None:
    """Restrict GDAL in this process, and verify that the restriction works.

    Raises:
        GdalIsOpenError: it does not work.
    """
    close_gdal(allowed)
    verify_gdal_is_closed(allowed)


@cache
def secure_gdal_once(allowed: tuple[str, ...]) -> None:
    """Call `secure_gdal`, once per process."""
    secure_gdal(allowed)


def close_gdal(allowed: Collection[str] = ()) -> None:
    """Remove all drivers from GDAL except those of self-contained formats and the ``allowed`` ones.

    GDAL registers its drivers again with each new environment of rasterio, except those listed in its option
    ``GDAL_SKIP``. The VRT driver needs more: it is registered again by each `WarpedVRT`, unless a driver of
    that name exists. Therefore a driver that reads a harmless format is given that name.

    Raises:
        GdalIsOpenError: the GDAL library, or a driver to replace VRT, cannot be found.
    """
    kept = SELF_CONTAINED | set(allowed)
    registered = list_drivers()
    gdal = load_gdal()
    blocked = sorted(registered - kept - {VRT})
    if VRT not in kept:
        _replace_vrt_driver(gdal)
    gdal.CPLSetConfigOption(b"GDAL_SKIP", ",".join(blocked).encode())
    for name in blocked:
        driver = gdal.GDALGetDriverByName(name.encode())
        if driver:
            gdal.GDALDeregisterDriver(driver)


def list_drivers() -> set[str]:
    """The names of the drivers that are registered now."""
    with rasterio.Env() as environment:
        return set(environment.drivers())


@cache
def load_gdal() -> ctypes.CDLL:
    """Load the GDAL library that rasterio uses, as rasterio itself cannot unregister drivers."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split(maxsplit=5)[-1] for line in lines if "/libgdal" in line}
    path = min((p for p in paths if "rasterio" in p), default=min(paths, default=None))
    if path is None:
        raise GdalIsOpenError("the GDAL library was not found among the libraries of this process")
    gdal = ctypes.CDLL(path)
    gdal.GDALGetDriverByName.restype = ctypes.c_void_p
    gdal.GDALGetDriverByName.argtypes = [ctypes.c_char_p]
    gdal.GDALDeregisterDriver.argtypes = [ctypes.c_void_p]
    gdal.GDALRegisterDriver.argtypes = [ctypes.c_void_p]
    gdal.GDALSetDescription.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    gdal.GDALGetMetadataItem.restype = ctypes.c_char_p
    gdal.GDALGetMetadataItem.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
    gdal.CPLSetConfigOption.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    gdal.VSICurlPartialClearCache.argtypes = [ctypes.c_char_p]
    return gdal


def _replace_vrt_driver(gdal: ctypes.CDLL) -> None:
    if _is_replaced(gdal):
        return
    genuine = gdal.GDALGetDriverByName(VRT.encode())
    if genuine:
        gdal.GDALDeregisterDriver(genuine)
    substitute = next(filter(None, (gdal.GDALGetDriverByName(name.encode()) for name in HARMLESS)), None)
    if substitute is None:
        raise GdalIsOpenError(f"GDAL has none of the drivers {', '.join(HARMLESS)} to replace VRT")
    gdal.GDALDeregisterDriver(substitute)
    gdal.GDALSetDescription(substitute, VRT.encode())
    gdal.GDALRegisterDriver(substitute)


def _is_replaced(gdal: ctypes.CDLL) -> bool:
    driver = gdal.GDALGetDriverByName(VRT.encode())
    title = gdal.GDALGetMetadataItem(driver, b"DMD_LONGNAME", b"") if driver else None
    return title is not None and b"Virtual" not in title


# --- Self-test -----------------------------------------------------------------------------------


def verify_gdal_is_closed(allowed: Collection[str] = ()) -> None:
    """Try to open forbidden formats, after each operation that could have registered a driver again.

    Raises:
        GdalIsOpenError: one was opened, or a driver is registered that is not allowed.
    """
    with MemoryFile() as memory:
        with memory.open(**_small_profile()) as raster:
            raster.write(np.ones((1, 16, 16), "uint8"))
        _verify_drivers("starting", memory.name, allowed)
        with memory.open() as raster, WarpedVRT(raster, crs="EPSG:4326") as warped:
            warped.read()
            _verify_drivers("opening a warped raster", memory.name, allowed)
        _try_reproject()
        _verify_drivers("reprojecting", memory.name, allowed)
        with MemoryFile(ext="tif") as copy:
            rasterio.shutil.copy(memory.name, copy.name, driver="COG")
            _verify_drivers("writing a COG", memory.name, allowed)


def _small_profile() -> dict[str, object]:
    grid = {"crs": "EPSG:32632", "transform": from_origin(600_000, 5_200_000, 10, 10)}
    return {"driver": "GTiff", "width": 16, "height": 16, "count": 1, "dtype": "uint8", **grid}


def _try_reproject() -> None:
    rasterio.warp.reproject(
        np.ones((16, 16), "uint8"),
        np.zeros((16, 16), "uint8"),
        src_transform=from_origin(600_000, 5_200_000, 10, 10),
        src_crs="EPSG:32632",
        dst_transform=from_origin(10.3, 46.9, 0.0001, 0.0001),
        dst_crs="EPSG:4326",
    )


def _verify_drivers(work: str, path: str, allowed: Collection[str]) -> None:
    surplus = sorted(list_drivers() - SELF_CONTAINED - {VRT, *allowed})
    if surplus:
        raise GdalIsOpenError(f"GDAL has drivers that it must not have after {work}: {', '.join(surplus)}")
    if VRT not in allowed and any(_open_attempts(path)):
        raise GdalIsOpenError(f"GDAL has opened a VRT document after {work}")


def _open_attempts(path: str) -> Iterator[bool]:
    """Yield whether a VRT document can be opened as a name, then as a file."""
    document = _CANARY.format(path=path)
    yield _can_open(document)
    with MemoryFile(document.encode(), ext="vrt") as memory:
        yield _can_open(memory.name)


def _can_open(name: str) -> bool:
    with contextlib.suppress(RasterioError), rasterio.open(name):
        return True
    return False
