"""STAC Items as scenes: where and when by their metadata, bands and pixel types by their files."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from pyproj.exceptions import CRSError
from shapely.errors import ShapelyError

from odc_openeo.catalog import Band, File, Scene, nominal_time
from odc_openeo.errors import (
    FeatureUnsupported,
    FileContentInvalid,
    NoDataAvailable,
    OpenEOError,
    UrlUnreachable,
)
from odc_openeo.foreign_rasters import (
    RasterPlace,
    RasterRefusedError,
    make_grid,
    open_foreign_raster,
    read_grid,
)
from odc_openeo.load.reader import name_of
from odc_openeo.runners.notices import opening_files

TYPES: Final = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff")
ENDINGS: Final = (".tif", ".tiff", ".jp2")
NOT_DATA: Final = frozenset({"thumbnail", "overview", "metadata", "visual"})
THREADS: Final = 8


@dataclass(frozen=True)
class Header:
    """What a raster file says of itself: a band's (name, data type, no-data, scale, offset, unit)."""

    grid: GeoBox | None
    bands: tuple[tuple[str | None, str, float | None, float, float, str | None], ...]


@dataclass(frozen=True)
class Raster:
    """An asset with pixels: its key, address, metadata, and those of its item where it has none."""

    key: str
    href: str
    fields: Mapping[str, Any]

    @property
    def declared(self) -> Sequence[Mapping[str, Any]]:
        """The bands that the metadata tell of."""
        return self.fields.get("bands") or self.fields.get("eo:bands") or ()

    def grid(self) -> GeoBox | None:
        """The pixel grid, if the metadata tell all of it."""
        shape, transform = self.fields.get("proj:shape"), self.fields.get("proj:transform")
        code = self.fields.get("proj:code") or self.fields.get("proj:epsg")
        if not shape or not transform or not code:
            return None
        try:
            rows, columns = map(operator.index, shape)
            return make_grid((rows, columns), Affine(*map(float, transform[:6])), code)
        except (RasterRefusedError, TypeError, ValueError, CRSError):
            # The file itself tells.
            return None


def read_items(items: Sequence[Mapping[str, Any]], place: RasterPlace) -> tuple[list[Band], list[Scene]]:
    """The bands of all Items, and the Items as scenes.

    Addresses are relative to the Item's member ``base``. Of each band the first file is opened: pixel type
    and no-data value are those of the file. ``place`` is where the files may be.

    Raises:
        NoDataAvailable: no Item has an asset with pixels.
        UrlUnreachable, FileContentInvalid: a file cannot be had, is not a raster, or refers to other files.
    """
    rasters: list[list[Raster]] = []
    for item in items:
        with _checked(item):
            rasters.append(_rasters(item))
    kinds = {_kind(raster): raster for found in reversed(rasters) for raster in reversed(found)}
    if not kinds:
        raise NoDataAvailable(reason="no asset is a GeoTIFF or JPEG 2000 file with data.")
    needed = {r.href: r for r in kinds.values()}
    needed |= {r.href: r for found in rasters for r in found if r.grid() is None}
    with ThreadPoolExecutor(THREADS) as pool:
        headers = dict(zip(needed, pool.map(lambda href: read_header(href, place), needed), strict=True))
    bands: dict[str, Band] = {}
    named = {kind: _bands(raster, headers[raster.href]) for kind, raster in kinds.items()}
    for found in reversed(named.values()):
        for band in found:
            bands.setdefault(band.name, band)
    scenes: list[Scene] = []
    for item, assets in zip(items, rasters, strict=True):
        with _checked(item):
            scenes += _scenes(item, assets, named, headers, place)
    return list(bands.values()), scenes


_MALFORMED: Final = (
    *(TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError, AssertionError),
    ShapelyError,
)
"""What using members of an Item raises if they are not what STAC has there."""


@contextlib.contextmanager
def _checked(item: Any) -> Iterator[None]:
    """Name the Item in errors that come of members that are not what STAC has there."""
    try:
        yield
    except _MALFORMED as error:
        id_ = item.get("id") if isinstance(item, Mapping) else None
        reason = "a member of the STAC Item has a value that STAC does not allow there."
        raise FileContentInvalid(file=str(id_ or "STAC Item"), reason=reason) from error


def read_header(href: str, place: RasterPlace) -> Header:
    """Open a file; the errors of `read_items`."""
    try:
        with opening_files([name_of(href)]), open_foreign_raster(href, place) as file:
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
        raise _refused(href, f"the raster {name_of(href)} cannot be read: {error}") from error


def _refused(href: str, reason: str) -> OpenEOError:
    host = urlsplit(href).hostname
    if host is None:
        return FileContentInvalid(file=name_of(href), reason=reason)
    return UrlUnreachable(host=host, reason=reason)


def _rasters(item: Mapping[str, Any]) -> list[Raster]:
    properties = item.get("properties") or {}
    shared = {k: v for k, v in properties.items() if k.startswith("proj:")}
    return [
        Raster(key, _address(asset, item), {**shared, **asset})
        for key, asset in (item.get("assets") or {}).items()
        if _has_pixels(asset)
    ]


def _has_pixels(asset: Mapping[str, Any]) -> bool:
    type_, path = str(asset.get("type") or ""), urlsplit(str(asset.get("href"))).path.lower()
    is_raster = type_.startswith(TYPES) if type_ else path.endswith(ENDINGS)
    return is_raster and not NOT_DATA & set(asset.get("roles") or ())


def _address(asset: Mapping[str, Any], item: Mapping[str, Any]) -> str:
    others = [other.get("href", "") for other in (asset.get("alternate") or {}).values()]
    base = item.get("base")
    if base is None:
        return str(asset["href"])
    found = [urljoin(base, href) for href in (asset["href"], *others)]
    readable = [href for href in found if urlsplit(href).scheme in ("http", "https")]
    if not readable:
        raise FeatureUnsupported(feature=f"files by '{urlsplit(found[0]).scheme}', only by http and https")
    return readable[0]


# --- Bands ---------------------------------------------------------------------------------------


def _kind(raster: Raster) -> tuple[str, ...]:
    """Rasters of the same kind have the same bands."""
    names = tuple(str(band.get("name")) for band in raster.declared)
    return names if names and "." in raster.key else (raster.key, *names)


def _bands(raster: Raster, header: Header) -> list[Band]:
    declared = raster.declared if len(raster.declared) == len(header.bands) else ()
    return [_band(raster, header, i, declared[i] if declared else {}) for i in range(len(header.bands))]


def _band(raster: Raster, header: Header, i: int, told: Mapping[str, Any]) -> Band:
    description, dtype, nodata, scale, offset, unit = header.bands[i]
    several = len(header.bands) > 1
    name = told.get("name") or description or (f"{raster.key}_{i + 1}" if several else raster.key)
    aliases = () if several or "." in raster.key or raster.key == name else (raster.key,)
    width = told.get("eo:full_width_half_max", told.get("full_width_half_max"))
    return Band(
        name=str(name),
        aliases=aliases,
        common_name=told.get("eo:common_name", told.get("common_name")),
        dtype=dtype,
        nodata=nodata,
        units=unit,
        scale=told.get("raster:scale", None if scale == 1 else scale),
        offset=told.get("raster:offset", None if offset == 0 else offset),
        wavelength=told.get("eo:center_wavelength", told.get("center_wavelength")),
        bandwidth=width,
    )


# --- Scenes --------------------------------------------------------------------------------------


def _scenes(
    item: Mapping[str, Any],
    rasters: Sequence[Raster],
    named: Mapping[tuple[str, ...], Sequence[Band]],
    headers: Mapping[str, Header],
    place: RasterPlace,
) -> list[Scene]:
    """The item as a scene; as several where it has the same band more than once (tiles)."""
    parts: list[dict[str, tuple[Raster, int, GeoBox]]] = []
    for raster in rasters:
        grid = raster.grid() or headers[raster.href].grid
        if grid is None:
            raise _refused(raster.href, f"the raster {name_of(raster.href)} has no reference system.")
        found = {band.name: (raster, i, grid) for i, band in enumerate(named[_kind(raster)], 1)}
        free_part = next((part for part in parts if not part.keys() & found.keys()), None)
        if free_part is None:
            parts.append(found)
        else:
            free_part.update(found)
    return [_scene(item, f"{item.get('id')}", part, place) for part in parts]


def _scene(
    item: Mapping[str, Any], id_: str, part: Mapping[str, tuple[Raster, int, GeoBox]], place: RasterPlace
) -> Scene:
    distinct = list(dict.fromkeys(grid for _, _, grid in part.values()))
    names = {grid: f"grid{i}" if i else "default" for i, grid in enumerate(distinct)}
    outline = distinct[0].extent
    return Scene(
        id=id_,
        product=str(item.get("collection") or "STAC"),
        time=_time(item.get("properties") or {}, id_),
        crs=distinct[0].crs,
        grids={name: grid for grid, name in names.items() if grid.crs == distinct[0].crs},
        files={
            band: File(raster.href, i, None, names[grid], place)
            for band, (raster, i, grid) in part.items()
            if grid.crs == distinct[0].crs
        },
        footprint=_footprint(item, outline),
        properties=item.get("properties") or {},
    )


def _time(properties: Mapping[str, Any], id_: str) -> datetime:
    eo3 = {f"dtr:{name}": properties.get(name) for name in ("start_datetime", "end_datetime")}
    return nominal_time({**eo3, "datetime": properties.get("datetime")}, id_)


def _footprint(item: Mapping[str, Any], outline: Geometry) -> Geometry:
    shape = item.get("geometry")
    if not shape:
        return outline
    footprint = Geometry(shape, "EPSG:4326")
    west, south, east, north = footprint.boundingbox.bbox
    if not (-720 <= west <= east <= 720 and -90 <= south <= north <= 90):
        raise ValueError("a geometry that is not in degrees")
    return footprint.to_crs(outline.crs, resolution="auto", check_and_fix=True)
