"""STAC Items as scenes: where and when by their metadata, bands and pixel types by their files."""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from odc.loader.types import RasterBandMetadata
from pyproj.exceptions import CRSError
from shapely.errors import ShapelyError

from odc_openeo.catalog import Band, File, Scene, find_interval, get_nominal_time
from odc_openeo.errors import (
    FeatureUnsupported,
    FileContentInvalid,
    NoDataAvailable,
    OpenEOError,
    UrlUnreachable,
)
from odc_openeo.load.driver import get_file_name
from odc_openeo.load.stac_metadata import read_band_metadata
from odc_openeo.runners.notices import opening_files
from odc_openeo.untrusted.rasters import (
    RasterPlace,
    RasterRefusedError,
    make_grid,
    open_foreign_raster,
    read_grid,
)

TYPES: Final = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff")
ENDINGS: Final = (".tif", ".tiff", ".jp2")
NOT_DATA: Final = frozenset({"thumbnail", "overview", "metadata", "visual"})
THREADS: Final = 8


@dataclass(frozen=True)
class Header:
    """The header of a raster file: its grid; of each band name, data type, no-data, scale, offset, unit."""

    grid: GeoBox | None
    bands: tuple[tuple[str | None, str, float | None, float, float, str | None], ...]


@dataclass(frozen=True)
class StacRaster:
    """An asset with pixels: its key, address, metadata, and those of its item where it has none."""

    key: str
    href: str
    fields: Mapping[str, Any]

    @property
    def declared(self) -> Sequence[Mapping[str, Any]]:
        """The bands that the metadata declare."""
        return self.fields.get("bands") or self.fields.get("eo:bands") or ()

    def grid(self) -> GeoBox | None:
        """The pixel grid, if the metadata declare all of it."""
        shape, transform = self.fields.get("proj:shape"), self.fields.get("proj:transform")
        code = self.fields.get("proj:code") or self.fields.get("proj:epsg")
        if not shape or not transform or not code:
            return None
        try:
            rows, columns = map(operator.index, shape)
            return make_grid((rows, columns), Affine(*map(float, transform[:6])), code)
        except (RasterRefusedError, TypeError, ValueError, CRSError):
            # The file itself has it.
            return None


def read_items(items: Sequence[Mapping[str, Any]], place: RasterPlace) -> tuple[list[Band], list[Scene]]:
    """The bands of all Items in the order in which they appear first, and the Items as scenes.

    Addresses are relative to the Item's member ``base``. Of each band the first file is opened: pixel type,
    no-data value and unit are those of the file; what it lacks is what STAC declares (see ADR 14). ``place``
    is where the files may be.

    Raises:
        NoDataAvailable: no Item has an asset with pixels.
        UrlUnreachable, FileContentInvalid: a file cannot be had, is not a raster, or refers to other files.
    """
    rasters: list[list[StacRaster]] = []
    for item in items:
        with _name_item_in_errors(item):
            rasters.append(_list_rasters(item))
    kinds: dict[tuple[str, ...], StacRaster] = {}
    for group in rasters:
        for raster in group:
            kinds.setdefault(_band_identity(raster), raster)
    if not kinds:
        raise NoDataAvailable(reason="no asset is a GeoTIFF or JPEG 2000 file with data.")
    needed = {r.href: r for r in kinds.values()}
    needed |= {r.href: r for group in rasters for r in group if r.grid() is None}
    with ThreadPoolExecutor(THREADS) as pool:
        headers = dict(zip(needed, pool.map(lambda href: read_header(href, place), needed), strict=True))
    bands: dict[str, Band] = {}
    named = {kind: _make_bands(raster, headers[raster.href]) for kind, raster in kinds.items()}
    for kind_bands in named.values():
        for band in kind_bands:
            bands.setdefault(band.name, band)
    scenes: list[Scene] = []
    for item, assets in zip(items, rasters, strict=True):
        with _name_item_in_errors(item):
            scenes += _make_scenes(item, assets, named, headers, place)
    return list(bands.values()), scenes


_MALFORMED: Final = (
    *(TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError, AssertionError),
    ShapelyError,
)
"""Exceptions of using members of an Item whose values are not what STAC defines."""


@contextlib.contextmanager
def _name_item_in_errors(item: Any) -> Iterator[None]:
    """Name the Item in errors that are caused by members with values that STAC does not define."""
    try:
        yield
    except _MALFORMED as error:
        id_ = item.get("id") if isinstance(item, Mapping) else None
        reason = "a member of the STAC Item has a value that STAC does not allow there."
        raise FileContentInvalid(file=str(id_ or "STAC Item"), reason=reason) from error


def read_header(href: str, place: RasterPlace) -> Header:
    """Open a file; the errors of `read_items`."""
    try:
        with opening_files([get_file_name(href)]), open_foreign_raster(href, place) as file:
            grid = read_grid(file)
            bands = zip(
                file.descriptions,
                file.dtypes,
                file.nodatavals,
                file.scales,
                file.offsets,
                file.units,
                strict=True,
            )
            return Header(grid, tuple(bands))
    except RasterRefusedError as error:
        raise _make_refusal(href, f"the raster {get_file_name(href)} cannot be read: {error}") from error


def _make_refusal(href: str, reason: str) -> OpenEOError:
    host = urlsplit(href).hostname
    if host is None:
        return FileContentInvalid(file=get_file_name(href), reason=reason)
    return UrlUnreachable(host=host, reason=reason)


def _list_rasters(item: Mapping[str, Any]) -> list[StacRaster]:
    properties = item.get("properties") or {}
    shared = {
        name: value
        for name, value in properties.items()
        if name.startswith("proj:") or name in ("nodata", "data_type", "unit")
    }
    return [
        StacRaster(key, _resolve_href(asset, item), {**shared, **asset})
        for key, asset in (item.get("assets") or {}).items()
        if _has_pixels(asset)
    ]


def _has_pixels(asset: Mapping[str, Any]) -> bool:
    type_, path = str(asset.get("type") or ""), urlsplit(str(asset.get("href"))).path.lower()
    is_raster = type_.startswith(TYPES) if type_ else path.endswith(ENDINGS)
    return is_raster and not NOT_DATA & set(asset.get("roles") or ())


def _resolve_href(asset: Mapping[str, Any], item: Mapping[str, Any]) -> str:
    alternates = [other.get("href", "") for other in (asset.get("alternate") or {}).values()]
    base = item.get("base")
    if base is None:
        return str(asset["href"])
    hrefs = [urljoin(base, href) for href in (asset["href"], *alternates)]
    readable = [href for href in hrefs if urlsplit(href).scheme in ("http", "https")]
    if not readable:
        raise FeatureUnsupported(feature=f"files by '{urlsplit(hrefs[0]).scheme}', only by http and https")
    return readable[0]


# --- Bands ---------------------------------------------------------------------------------------


def _band_identity(raster: StacRaster) -> tuple[str, ...]:
    """Rasters of the same kind have the same bands."""
    names = tuple(str(band.get("name")) for band in raster.declared)
    return names if names and "." in raster.key else (raster.key, *names)


def _make_bands(raster: StacRaster, header: Header) -> list[Band]:
    count = len(header.bands)
    declared = raster.declared if len(raster.declared) == count else [{}] * count
    with _name_item_in_errors(raster.fields):
        metadata = read_band_metadata(raster.fields)
    # What is declared once, without bands, holds for all of them.
    metadata = metadata * count if len(metadata) == 1 else metadata
    defaults = metadata if len(metadata) == count else [RasterBandMetadata()] * count
    return [_make_band(raster, header, i, declared[i], defaults[i]) for i in range(count)]


def _make_band(
    raster: StacRaster, header: Header, i: int, declared: Mapping[str, Any], default: RasterBandMetadata
) -> Band:
    description, dtype, nodata, scale, offset, unit = header.bands[i]
    several = len(header.bands) > 1
    name = declared.get("name") or description or (f"{raster.key}_{i + 1}" if several else raster.key)
    aliases = () if several or "." in raster.key or raster.key == name else (raster.key,)
    width = declared.get("eo:full_width_half_max", declared.get("full_width_half_max"))
    return Band(
        name=str(name),
        aliases=aliases,
        common_name=declared.get("eo:common_name", declared.get("common_name")),
        dtype=dtype,
        nodata=_choose_nodata(nodata, default.nodata, np.dtype(dtype)),
        units=default.units if unit is None else unit,
        scale=declared.get("raster:scale", None if scale == 1 else scale),
        offset=declared.get("raster:offset", None if offset == 0 else offset),
        wavelength=declared.get("eo:center_wavelength", declared.get("center_wavelength")),
        bandwidth=width,
    )


def _choose_nodata(nodata: float | None, declared: float | None, dtype: np.dtype[Any]) -> float | None:
    """The no-data value of the file, else the declared one if pixels of the file can have it."""
    if nodata is not None or declared is None or dtype.kind not in "iu":
        return declared if nodata is None else nodata
    limits = np.iinfo(dtype)
    is_representable = math.isfinite(declared) and limits.min <= declared <= limits.max
    return declared if is_representable and declared == int(declared) else None


# --- Scenes --------------------------------------------------------------------------------------


def _make_scenes(
    item: Mapping[str, Any],
    rasters: Sequence[StacRaster],
    named: Mapping[tuple[str, ...], Sequence[Band]],
    headers: Mapping[str, Header],
    place: RasterPlace,
) -> list[Scene]:
    """The item as a scene; as several where it has the same band more than once (tiles)."""
    parts: list[dict[str, tuple[StacRaster, int, GeoBox]]] = []
    for raster in rasters:
        grid = raster.grid() or headers[raster.href].grid
        if grid is None:
            raise _make_refusal(
                raster.href, f"the raster {get_file_name(raster.href)} has no reference system."
            )
        bands = {band.name: (raster, i, grid) for i, band in enumerate(named[_band_identity(raster)], 1)}
        free_part = next((part for part in parts if not part.keys() & bands.keys()), None)
        if free_part is None:
            parts.append(bands)
        else:
            free_part.update(bands)
    return [_make_scene(item, f"{item.get('id')}", part, place) for part in parts]


def _make_scene(
    item: Mapping[str, Any], id_: str, part: Mapping[str, tuple[StacRaster, int, GeoBox]], place: RasterPlace
) -> Scene:
    distinct = list(dict.fromkeys(grid for _, _, grid in part.values()))
    names = {grid: f"grid{i}" if i else "default" for i, grid in enumerate(distinct)}
    outline = distinct[0].extent
    return Scene(
        id=id_,
        product=str(item.get("collection") or "STAC"),
        time=_parse_time(item.get("properties") or {}, id_),
        crs=distinct[0].crs,
        grids={name: grid for grid, name in names.items() if grid.crs == distinct[0].crs},
        files={
            band: File(raster.href, i, None, names[grid], place)
            for band, (raster, i, grid) in part.items()
            if grid.crs == distinct[0].crs
        },
        footprint=_parse_footprint(item, outline),
        properties=item.get("properties") or {},
        interval=find_interval(_name_times(item.get("properties") or {}), id_),
    )


def _parse_time(properties: Mapping[str, Any], id_: str) -> datetime:
    return get_nominal_time(_name_times(properties), id_)


def _name_times(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The times of an Item as EO3 names them."""
    eo3 = {f"dtr:{name}": properties.get(name) for name in ("start_datetime", "end_datetime")}
    return {**eo3, "datetime": properties.get("datetime")}


def _parse_footprint(item: Mapping[str, Any], outline: Geometry) -> Geometry:
    shape = item.get("geometry")
    if not shape:
        return outline
    footprint = Geometry(shape, "EPSG:4326")
    west, south, east, north = footprint.boundingbox.bbox
    if not (-720 <= west <= east <= 720 and -90 <= south <= north <= 90):
        raise ValueError("a geometry that is not in degrees")
    return footprint
