"""Read pixels of files; errors name the dataset.

Nothing here needs the index, so that dask workers need none.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.loader import RioDriver
from odc.loader.types import RasterLoadParams, RasterSource
from rasterio.io import DatasetReader

from odc_openeo.config import allowed_gdal_drivers
from odc_openeo.errors import FeatureUnsupported, FileContentInvalid, OpenEOError, StorageFailure
from odc_openeo.load.object_environment import expose_object, is_remote
from odc_openeo.load.object_failures import read_persistently
from odc_openeo.load.pixels import OpenOverview, PixelRules, PixelsRefusedError, read_pixels
from odc_openeo.load.zarr_rasters import open_zarr_window
from odc_openeo.runners.memory_failures import is_memory_failure
from odc_openeo.storage.buckets import BucketAccess
from odc_openeo.untrusted.gdal_drivers import FOLDER_FORMATS, SELF_CONTAINED, secure_gdal_once
from odc_openeo.untrusted.rasters import LocalFolder, RasterPlace, RasterRefusedError, open_overview
from odc_openeo.untrusted.zarr_arrays import ENDING, is_zarr_href

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

ANY_BUCKET = BucketAccess()
"""How objects are reached that the operator has no rule for: as the environment says."""


class Driver(RioDriver):
    """Reads with rasterio, as odc-stac does by default, and reports which dataset could not be read."""

    def open(self, src: RasterSource, ctx: Any) -> Any:
        """A reader of one band of one dataset."""
        _secure_dask_worker()
        place = src.driver_data.get("place")
        return RasterReader(src) if place is None else ForeignReader(place, src, src.driver_data)


def _secure_dask_worker() -> None:
    """Close GDAL in dask workers that others have started; those of `odc-openeo dask-worker` are closed."""
    # Other processes need not have distributed, which changes how errors are pickled.
    if "distributed.worker" in sys.modules:
        from odc_openeo.compute.cluster import is_dask_worker

        if is_dask_worker():
            secure_gdal_once(allowed_gdal_drivers())


def _detach_errors(read: Callable[P, T]) -> Callable[P, T]:
    """A reader whose errors come without what caused them.

    Dask sends errors of tasks to other processes with their causes, and some of GDAL do not survive that.
    """

    @functools.wraps(read)
    def read_detached(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except OpenEOError as error:
            raise error.detach() from None

    return read_detached


class RasterReader:
    """Reads pixels of one band of one dataset of the index."""

    def __init__(self, src: RasterSource) -> None:
        self._src = src
        self._place = src.driver_data

    @_detach_errors
    def read(
        self, cfg: RasterLoadParams, dst_geobox: GeoBox, *, dst: np.ndarray | None = None, **_: Any
    ) -> Any:
        """The pixels of the file that lie in ``dst_geobox``.

        Raises:
            StorageFailure: the file is missing or damaged; the message names the dataset, not the file.
            FileContentInvalid: it has pixels that the type of the band in the product cannot hold.
        """
        rules = PixelRules(
            self._place["band"], _as_number(self._place["nodata"]), uses_alpha=False, exact=False
        )
        grid = _turn_back(dst_geobox, self._place)
        open_raster = self._find_array(cfg, grid) if is_zarr_href(self._src.uri) else self._open_overview
        read = partial(read_pixels, open_raster, rules, cfg, grid, dst)
        with as_storage_failure(self._place):
            try:
                return self._read_persistently(read) if is_remote(self._src.uri) else read()
            except PixelsRefusedError as error:
                _log.warning("band %s of dataset %s: %s", self._place["name"], self._place["dataset"], error)
                raise _make_unfit_error(self._place, error) from None

    def _find_array(self, cfg: RasterLoadParams, grid: GeoBox) -> OpenOverview:
        """Find out how to open a Zarr array, which is read below its store only, as that of a user is."""
        if is_remote(self._src.uri) or not self._src.uri.startswith(("file:", "/")):
            raise FeatureUnsupported(
                feature=f"Zarr arrays of datasets outside of local folders: band {self._place['name']} of "
                f"dataset {self._place['dataset']}. Operators: offer their Items for load_stac"
            )
        path = Path(url2pathname(urlsplit(self._src.uri).path))
        root = next(folder for folder in path.parents if folder.name.lower().endswith(ENDING))
        return partial(open_zarr_window, str(path), LocalFolder(root), cfg, grid)

    def _read_persistently(self, read: Callable[[], Any]) -> Any:
        if self._place["layer"] and self._needs_environment:
            raise FeatureUnsupported(
                feature=f"layers of netCDF files in buckets: band {self._place['name']} of dataset "
                f"{self._place['dataset']}. Operators: store such data as GeoTIFF, or in a folder"
            )
        subject = f"Band {self._place['name']} of dataset {self._place['dataset']}"
        return read_persistently(read, self._src.uri, self._access, subject)

    @property
    def _access(self) -> BucketAccess:
        access: BucketAccess | None = self._place.get("access")
        return access or ANY_BUCKET

    @property
    def _needs_environment(self) -> bool:
        """Whether the file can be reached only with the options of this thread.

        GDAL reads netCDF files in another thread, without these, and waits for ever if that fails.
        """
        is_on_web = self._src.uri.lower().startswith(("http://", "https://"))
        return is_remote(self._src.uri) and not (is_on_web and self._access.signing is None)

    @contextmanager
    def _open_overview(
        self, choose: Callable[[DatasetReader], int | None]
    ) -> Iterator[tuple[DatasetReader, DatasetReader]]:
        uri = self._src.uri
        with expose_object(uri, self._access) if is_remote(uri) else nullcontext(uri) as file:
            layer = self._place["layer"]
            name = f'NETCDF:"{file}":{layer}' if layer else file
            options = {"driver": _list_bucket_drivers()} if self._needs_environment else {}
            with _open_raster(name, **options) as raster:
                level = choose(raster)
                if level is None:
                    yield raster, raster
                else:
                    with _open_raster(name, overview_level=level, **options) as overview:
                        yield raster, overview


def _open_raster(name: str, **options: Any) -> DatasetReader:
    # `rasterio.open` would look for credentials of its own.
    return DatasetReader(name, sharing=False, **options)


def _list_bucket_drivers() -> list[str]:
    return sorted({*SELF_CONTAINED, *allowed_gdal_drivers()} - FOLDER_FORMATS)


def _make_unfit_error(place: Mapping[str, Any], error: PixelsRefusedError) -> FileContentInvalid:
    return FileContentInvalid(
        f"The file of band {place['name']} of dataset {place['dataset']} can't be read: {error} Leave the "
        "dataset out with temporal_extent or properties, or report its id to the operator."
    )


def _turn_back(grid: GeoBox, place: Mapping[str, Any]) -> GeoBox:
    """A grid with longitudes as in the file."""
    turn = place.get("turn", 0.0)
    return GeoBox(grid.shape, Affine.translation(-turn, 0) @ grid.transform, grid.crs) if turn else grid


def _as_number(nodata: float | None) -> float | None:
    return None if nodata is None or np.isnan(nodata) else nodata


class ForeignReader:
    """Reads a raster that did not come from the index, in the one way in which such are opened."""

    def __init__(self, raster_place: RasterPlace, src: RasterSource, place: Mapping[str, Any]) -> None:
        self._raster_place, self._src, self._place = raster_place, src, place

    @_detach_errors
    def read(
        self, cfg: RasterLoadParams, dst_geobox: GeoBox, *, dst: np.ndarray | None = None, **_: Any
    ) -> Any:
        """The pixels of the file that lie in ``dst_geobox``.

        Raises:
            FileContentInvalid: the file is not what it was, its pixels are damaged, or they do not fit.
            OpenEOError: it is at an address that cannot be read.
        """
        data, href = self._place, self._src.uri
        rules = PixelRules(data["band"], data["nodata"], data.get("uses_alpha", False), exact=True)
        try:
            grid = _turn_back(dst_geobox, data)
            if is_zarr_href(href):
                open_raster = partial(open_zarr_window, href, self._raster_place, cfg, grid)
            else:
                open_raster = partial(open_overview, href, self._raster_place)
            return read_pixels(open_raster, rules, cfg, grid, dst)
        except OpenEOError:
            raise
        except (RasterRefusedError, PixelsRefusedError) as error:
            raise FileContentInvalid(file=get_file_name(href), reason=str(error)) from None
        except Exception as error:
            if is_memory_failure(error):
                raise MemoryError from None
            _log.info("pixels of a user's file cannot be read", exc_info=True)
            reason = "its pixels cannot be read: it is damaged."
            raise FileContentInvalid(file=get_file_name(href), reason=reason) from None


def get_file_name(href: str) -> str:
    """The name of a file, without the folders or the server that it is in."""
    return urlsplit(href).path.rpartition("/")[2]


@contextmanager
def as_storage_failure(place: Mapping[str, Any]) -> Iterator[None]:
    """Turn whatever goes wrong in reading into a `StorageFailure` that names the dataset and the band."""
    try:
        yield
    except OpenEOError:
        raise
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
