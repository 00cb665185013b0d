"""Assets of STAC Items that are rasters: their addresses, the bands and the grids that are declared."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError
from shapely.errors import ShapelyError

from odc_openeo.errors import FeatureUnsupported, FileContentInvalid
from odc_openeo.untrusted.rasters import RasterRefusedError, make_grid
from odc_openeo.untrusted.zarr_arrays import is_zarr_href

MEDIA_TYPES: Final = frozenset(
    {
        *("image/tiff", "image/tif", "image/geotiff", "image/x.geotiff", "image/vnd.stac.geotiff"),
        *("image/jp2", "image/jpeg2000"),
    }
)
ZARR_TYPES: Final = frozenset({"application/vnd+zarr", "application/vnd.zarr", "application/x-zarr"})
ENDINGS: Final = (".tif", ".tiff", ".jp2")
NOT_DATA: Final = frozenset({"thumbnail", "overview", "metadata", "visual"})
_SHARED: Final = ("nodata", "data_type", "unit")
"""Properties of an Item that hold for its assets, beside those of the projection extension."""

MALFORMED: Final = (
    *(TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError, AssertionError),
    ShapelyError,
)
"""Exceptions of using members of an Item whose values are not what STAC defines."""


@dataclass(frozen=True, eq=False)
class StacRaster:
    """An asset with pixels: its key, address, metadata, and those of its item where it has none.

    ``is_readable`` says whether it is at an address that can be read, ``is_data`` whether it is loaded
    without being named.
    """

    key: str
    href: str
    is_readable: bool
    fields: Mapping[str, Any]
    is_data: bool

    def check_readable(self) -> None:
        """FeatureUnsupported if the asset is at no address that can be read."""
        if not self.is_readable:
            scheme = urlsplit(self.href).scheme
            raise FeatureUnsupported(
                feature=f"files by '{scheme}', only by http and https (asset '{self.key}')"
            )

    @property
    def is_named_by_file(self) -> bool:
        """Whether the key is the name of a file, which other Items do not have."""
        return "." in self.key

    @cached_property
    def declared(self) -> Sequence[Mapping[str, Any]]:
        """The bands that the metadata declare: members of ``bands`` go before those of ``eo:bands``."""
        newer, older = self.fields.get("bands") or [], self.fields.get("eo:bands") or []
        if not newer or not older or len(newer) != len(older):
            return list(newer or older)
        return [{**old, **new} for old, new in zip(older, newer, strict=True)]

    @cached_property
    def kind(self) -> tuple[str, str]:
        """Rasters of one kind declare the same bands; files may differ nevertheless."""
        names = ("bands", "eo:bands", "raster:bands", *_SHARED)
        declared = repr([self.fields[name] for name in names if name in self.fields])
        is_anonymous = self.is_named_by_file and bool(self.declared)
        return "" if is_anonymous else self.key, declared

    @cached_property
    def grid(self) -> GeoBox | None:
        """The pixel grid, if the metadata declare all of it."""
        shape, transform = self.fields.get("proj:shape"), self.fields.get("proj:transform")
        code = self.fields.get("proj:code") or self.fields.get("proj:epsg")
        if not shape or not transform or not code:
            return None
        try:
            rows, columns = map(operator.index, shape)
            code = code if isinstance(code, str | int) else str(code)
            return _make_declared_grid((rows, columns), tuple(map(float, transform[:6])), code)
        except (RasterRefusedError, TypeError, ValueError, CRSError):
            # The file itself has it.
            return None


@lru_cache(4096)
def _make_declared_grid(shape: tuple[int, int], transform: tuple[float, ...], code: str | int) -> GeoBox:
    # The assets of an Item mostly share their grid.
    return make_grid(shape, Affine(*transform), code)


@contextlib.contextmanager
def name_item_in_errors(item: Any) -> Iterator[None]:
    """Name the Item in errors that are caused by members with values that STAC does not define."""
    try:
        yield
    except MALFORMED as error:
        id_ = item.get("id") if isinstance(item, Mapping) else None
        reason = "a member of the STAC Item has a value that STAC does not allow there."
        raise FileContentInvalid(file=str(id_ or "STAC Item"), reason=reason) from error


def list_rasters(item: Mapping[str, Any]) -> list[StacRaster]:
    """The assets of an Item that are GeoTIFF or JPEG 2000 files or Zarr arrays, whatever their roles."""
    properties = item.get("properties") or {}
    shared = {
        name: value for name, value in properties.items() if name.startswith("proj:") or name in _SHARED
    }
    return [
        StacRaster(key, *_resolve_href(asset, item), _list_fields(asset, shared, properties), _is_data(asset))
        for key, asset in (item.get("assets") or {}).items()
        if _has_pixels(asset)
    ]


def _list_fields(
    asset: Mapping[str, Any], shared: Mapping[str, Any], properties: Mapping[str, Any]
) -> dict[str, Any]:
    fields = {**shared, **asset}
    bands, common = fields.get("eo:bands"), properties.get("eo:bands")
    if bands and common and all(type(band) is int for band in bands):
        # STAC before 0.9 lists the bands once for each Item, and their positions in it for each asset.
        fields["eo:bands"] = [common[band] for band in bands]
    return fields


def _has_pixels(asset: Mapping[str, Any]) -> bool:
    media_type = str(asset.get("type") or "").partition(";")[0].strip().lower()
    href = str(asset.get("href"))
    if is_zarr_href(href):
        return not media_type or media_type in ZARR_TYPES
    return media_type in MEDIA_TYPES if media_type else urlsplit(href).path.lower().endswith(ENDINGS)


def _is_data(asset: Mapping[str, Any]) -> bool:
    return not NOT_DATA & {str(role).lower() for role in asset.get("roles") or ()}


def _resolve_href(asset: Mapping[str, Any], item: Mapping[str, Any]) -> tuple[str, bool]:
    """The address of an asset, the first that can be read if it has several, and whether it can be."""
    base = item.get("base")
    if base is None:
        return str(asset["href"]), True
    alternates = [other.get("href", "") for other in (asset.get("alternate") or {}).values()]
    hrefs = [urljoin(base, href) for href in (asset["href"], *alternates)]
    readable = [href for href in hrefs if urlsplit(href).scheme in ("http", "https")]
    return (readable or hrefs)[0], bool(readable)
