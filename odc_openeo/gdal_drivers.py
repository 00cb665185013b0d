"""Which formats GDAL can open in this process: those that hold all their pixels themselves.

Many of GDAL's drivers open whatever a file refers to, other files of this machine and addresses on the web
among them; some take a whole document as the name of a file. All processes of the service that read close all
but the drivers below when they start, so that no name and no content can reach them, however it gets to GDAL;
dask workers that others have started do it before the first file (``docs/adr/0012-foreign-files.md``).
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
"""Drivers of formats that datasets of an index come in and that refer to no other files.

HDF5 and netCDF can, by external links; users' files of these formats are searched for links before.
"""

VRT: Final = "VRT"
HARMLESS: Final = ("XPM", "ZMap", "BMP")
"""Drivers of plain formats, one of which takes the place of VRT's."""

_CANARY: Final = (
    '<VRTDataset rasterXSize="1" rasterYSize="1"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    "<SourceFilename>{path}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
)


class GdalIsOpenError(RuntimeError):
    """GDAL can open formats in this process that it must not; the message says which and after what."""


def secure_gdal(allowed: Collection[str] = ()) -> None:
    """Close GDAL in this process, and try whether it is closed.

    Raises:
        GdalIsOpenError: it is not.
    """
    close_gdal(allowed)
    verify_gdal_is_closed(allowed)


@cache
def secure_gdal_once(allowed: tuple[str, ...]) -> None:
    """`secure_gdal` at the first call in this process."""
    secure_gdal(allowed)


def close_gdal(allowed: Collection[str] = ()) -> None:
    """Take away all drivers from GDAL but those of self-contained formats and the ``allowed`` ones.

    GDAL registers its drivers again with each new environment of rasterio and leaves out those that its
    option ``GDAL_SKIP`` names. The driver of VRT needs more: it comes back with each `WarpedVRT`, unless
    there is a driver of that name. One that reads a harmless format gets the name.

    Raises:
        GdalIsOpenError: the library of GDAL, or a driver to take VRT's place, cannot be found.
    """
    kept = SELF_CONTAINED | set(allowed)
    registered = list_drivers()
    gdal = _load_gdal()
    blocked = sorted(registered - kept - {VRT})
    if VRT not in kept:
        _replace_vrt_driver(gdal)
    gdal.CPLSetConfigOption(b"GDAL_SKIP", ",".join(blocked).encode())
    for name in blocked:
        driver = gdal.GDALGetDriverByName(name.encode())
        if driver:
            gdal.GDALDeregisterDriver(driver)


def list_drivers() -> set[str]:
    """The names of the drivers that GDAL has now."""
    with rasterio.Env() as environment:
        return set(environment.drivers())


def _load_gdal() -> ctypes.CDLL:
    """The library of GDAL that rasterio has loaded: it offers no way to unregister drivers itself."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split(maxsplit=5)[-1] for line in lines if "/libgdal" in line}
    path = min((p for p in paths if "rasterio" in p), default=min(paths, default=None))
    if path is None:
        raise GdalIsOpenError("the library of GDAL cannot be found among those of this process")
    gdal = ctypes.CDLL(path)
    gdal.GDALGetDriverByName.restype = ctypes.c_void_p
    gdal.GDALGetDriverByName.argtypes = [ctypes.c_char_p]
    gdal.GDALDeregisterDriver.argtypes = [ctypes.c_void_p]
    gdal.GDALRegisterDriver.argtypes = [ctypes.c_void_p]
    gdal.GDALSetDescription.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    gdal.GDALGetMetadataItem.restype = ctypes.c_char_p
    gdal.GDALGetMetadataItem.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
    gdal.CPLSetConfigOption.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    return gdal


def _replace_vrt_driver(gdal: ctypes.CDLL) -> None:
    if _is_replaced(gdal):
        return
    genuine = gdal.GDALGetDriverByName(VRT.encode())
    if genuine:
        gdal.GDALDeregisterDriver(genuine)
    substitute = next(filter(None, (gdal.GDALGetDriverByName(name.encode()) for name in HARMLESS)), None)
    if substitute is None:
        raise GdalIsOpenError(f"GDAL has none of the drivers {', '.join(HARMLESS)} to take the place of VRT")
    gdal.GDALDeregisterDriver(substitute)
    gdal.GDALSetDescription(substitute, VRT.encode())
    gdal.GDALRegisterDriver(substitute)


def _is_replaced(gdal: ctypes.CDLL) -> bool:
    driver = gdal.GDALGetDriverByName(VRT.encode())
    title = gdal.GDALGetMetadataItem(driver, b"DMD_LONGNAME", b"") if driver else None
    return title is not None and b"Virtual" not in title


# --- Self-test -----------------------------------------------------------------------------------


def verify_gdal_is_closed(allowed: Collection[str] = ()) -> None:
    """Try to open what must not be opened, after each kind of work that could have brought a driver back.

    Raises:
        GdalIsOpenError: it was opened, or drivers are registered that are not allowed.
    """
    with MemoryFile() as memory:
        with memory.open(**_small_profile()) as raster:
            raster.write(np.ones((1, 16, 16), "uint8"))
        _verify("starting", memory.name, allowed)
        with memory.open() as raster, WarpedVRT(raster, crs="EPSG:4326") as warped:
            warped.read()
            _verify("opening a warped raster", memory.name, allowed)
        _reproject()
        _verify("reprojecting", memory.name, allowed)
        with MemoryFile(ext="tif") as copy:
            rasterio.shutil.copy(memory.name, copy.name, driver="COG")
            _verify("writing a COG", memory.name, allowed)


def _small_profile() -> dict[str, object]:
    grid = {"crs": "EPSG:32632", "transform": from_origin(600_000, 5_200_000, 10, 10)}
    return {"driver": "GTiff", "width": 16, "height": 16, "count": 1, "dtype": "uint8", **grid}


def _reproject() -> None:
    rasterio.warp.reproject(
        np.ones((16, 16), "uint8"),
        np.zeros((16, 16), "uint8"),
        src_transform=from_origin(600_000, 5_200_000, 10, 10),
        src_crs="EPSG:32632",
        dst_transform=from_origin(10.3, 46.9, 0.0001, 0.0001),
        dst_crs="EPSG:4326",
    )


def _verify(work: str, path: str, allowed: Collection[str]) -> None:
    surplus = sorted(list_drivers() - SELF_CONTAINED - {VRT, *allowed})
    if surplus:
        raise GdalIsOpenError(f"GDAL has drivers that it must not have after {work}: {', '.join(surplus)}")
    if VRT not in allowed and any(_open_attempts(path)):
        raise GdalIsOpenError(f"GDAL has opened a VRT document after {work}")


def _open_attempts(path: str) -> Iterator[bool]:
    """Whether a VRT document can be opened: as a name, as a file."""
    document = _CANARY.format(path=path)
    yield _can_open(document)
    with MemoryFile(document.encode(), ext="vrt") as memory:
        yield _can_open(memory.name)


def _can_open(name: str) -> bool:
    with contextlib.suppress(RasterioError), rasterio.open(name):
        return True
    return False
