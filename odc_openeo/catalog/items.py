"""Datasets as STAC 1.1 Items with the extensions ``projection``, ``eo`` and ``raster``, straight from their
documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import quote, urlsplit

import shapely
from datacube.utils.uris import uri_resolve
from odc.geo import CRS

from odc_openeo.catalog.bands import Band, eo_band, stac_band
from odc_openeo.catalog.item_search import SearchHit
from odc_openeo.catalog.scenes import DEFAULT_GRID, parse_utc
from odc_openeo.catalog.stac_documents import STAC_NAMES, STAC_VERSION
from odc_openeo.spatial.globe import compute_bbox
from odc_openeo.timestamps import format_rfc3339_exact

# `eo` is the version before STAC 1.1: odc-stac reads common names only from its `eo:bands`.
ITEM_EXTENSIONS: Final = (
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
)
ALTERNATE: Final = "https://stac-extensions.github.io/alternate-assets/v1.2.0/schema.json"
GEOJSON: Final = "application/geo+json"
COG: Final = "image/tiff; application=geotiff"

# Properties shown under their STAC names, or by other members of the Item.
NOT_SHOWN: Final = frozenset(
    {*STAC_NAMES, "eo:instrument", "dtr:start_datetime", "dtr:end_datetime", "datetime"}
)

TYPES: Final = {
    ".tif": COG,
    ".tiff": COG,
    ".jp2": "image/jp2",
    ".nc": "application/netcdf",
    ".zarr": "application/vnd.zarr",
    ".h5": "application/x-hdf5",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".json": "application/json",
    ".geojson": GEOJSON,
    ".yaml": "text/yaml",
    ".yml": "text/yaml",
    ".xml": "application/xml",
    ".txt": "text/plain",
}


@dataclass(frozen=True)
class Place:
    """Where clients read a file: a URL, alternative URLs by a short name, and what they need to read it."""

    href: str
    alternate: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None


Places = Callable[[str, str, str, str], Place | None]
"""(URL in the index, collection, item, asset) → where clients read the file; None if they cannot."""


def make_item(hit: SearchHit, base_url: str, places: Places) -> dict[str, Any]:
    """Make the STAC Item of a dataset; links start with ``base_url``."""
    id_, product = str(hit.row.id), hit.source.product
    assets = _make_assets(hit, places)
    extensions = list(ITEM_EXTENSIONS)
    if any("alternate" in asset for asset in assets.values()):
        extensions.append(ALTERNATE)
    document: dict[str, Any] = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": extensions,
        "id": id_,
        "collection": product.name,
        "geometry": None if hit.outline is None else shapely.geometry.mapping(hit.outline),
        "bbox": None if hit.outline is None else compute_bbox(hit.outline),
        "properties": _make_properties(hit),
        "assets": assets,
        "links": _make_links(product.name, id_, base_url),
    }
    return {k: v for k, v in document.items() if v is not None or k == "geometry"}


def _make_links(collection: str, id_: str, base_url: str) -> list[dict[str, Any]]:
    url = f"{base_url}/collections/{quote(collection)}"
    return [
        {"rel": "self", "href": f"{url}/items/{id_}", "type": GEOJSON},
        {"rel": "collection", "href": url, "type": "application/json"},
        {"rel": "parent", "href": url, "type": "application/json"},
        {"rel": "root", "href": f"{base_url}/", "type": "application/json"},
    ]


# --- Properties ----------------------------------------------------------------------------------


def _make_properties(hit: SearchHit) -> dict[str, Any]:
    document = hit.document
    declared = document.get("properties") or {}
    grid = (document.get("grids") or {}).get(DEFAULT_GRID)
    instrument = declared.get("eo:instrument")
    properties = {
        **_make_times(hit, declared),
        **({"title": document["label"]} if document.get("label") else {}),
        **{STAC_NAMES[name]: declared[name] for name in STAC_NAMES if name in declared},
        **({"instruments": [instrument]} if isinstance(instrument, str) else {}),
        **({name: value for name, value in declared.items() if name not in NOT_SHOWN}),
        **_describe_crs(document.get("crs")),
        **(_describe_grid(grid) if grid else {}),
    }
    if "created" in properties:
        properties["created"] = _format_time(properties["created"], str(hit.row.id))
    return {name: value for name, value in properties.items() if value is not None or name == "datetime"}


def _make_times(hit: SearchHit, declared: Mapping[str, Any]) -> dict[str, Any]:
    at, id_ = declared.get("datetime"), str(hit.row.id)
    times: dict[str, Any] = {"datetime": _format_time(at, id_) if at is not None else None}
    start, end = declared.get("dtr:start_datetime"), declared.get("dtr:end_datetime")
    if start is not None and end is not None:
        return {**times, "start_datetime": _format_time(start, id_), "end_datetime": _format_time(end, id_)}
    if at is None:
        return {
            **times,
            "start_datetime": format_rfc3339_exact(hit.row.start),
            "end_datetime": format_rfc3339_exact(hit.row.end),
        }
    return times


def _format_time(value: Any, id_: str) -> str:
    return format_rfc3339_exact(parse_utc(value, id_))


def _describe_crs(code: str | None) -> dict[str, Any]:
    if code is None:
        return {}
    try:
        crs = CRS(code)
    except Exception:  # odc-geo and pyproj raise several kinds of errors for what they do not understand
        return {}
    if crs.epsg is not None:
        return {"proj:code": f"EPSG:{crs.epsg}"}
    return {"proj:code": None, "proj:wkt2": crs.to_wkt()}


def _describe_grid(grid: Mapping[str, Any]) -> dict[str, Any]:
    return {"proj:shape": list(grid["shape"]), "proj:transform": list(grid["transform"])}


# --- Assets --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AssetFile:
    """A file of a dataset: its absolute URL in the index, and its measurements by band number."""

    uri: str
    measurements: Mapping[int, str] = field(default_factory=dict)


def get_asset_files(hit: SearchHit) -> dict[str, AssetFile]:
    """Return the files of a dataset by the key of their asset.

    The asset of a single-band file is named after its measurement, that of a multi-band file after the file.
    """
    document = hit.document
    location = hit.row.location or document.get("location")
    measurements = document.get("measurements") or {}
    where = {name: _resolve_uri(location, m) for name, m in measurements.items() if m.get("path")}
    files_by_key: dict[str, AssetFile] = {}
    for name, uri in where.items():
        alone = {int(measurements[name].get("band") or 1): name}
        names = [n for n, u in where.items() if u == uri and not measurements[n].get("layer")]
        if measurements[name].get("layer") or (names == [name] and 1 in alone):
            files_by_key[name] = AssetFile(uri, alone)
        else:
            numbered = {int(measurements[n].get("band") or 1): n for n in names}
            files_by_key[PurePosixPath(urlsplit(uri).path).stem] = AssetFile(uri, numbered)
    for name, accessory in (document.get("accessories") or {}).items():
        if accessory.get("path"):
            files_by_key.setdefault(name, AssetFile(_resolve_uri(location, accessory)))
    return files_by_key


def _resolve_uri(location: str | None, entry: Mapping[str, Any]) -> str:
    return uri_resolve(location, entry["path"]) if location else str(entry["path"])


def _make_assets(hit: SearchHit, places: Places) -> dict[str, Any]:
    bands = {band.name: band for band in hit.source.product.bands}
    assets = {}
    for key, file in sorted(
        get_asset_files(hit).items(), key=lambda pair: _band_position(pair[1], list(bands))
    ):
        place = places(file.uri, hit.source.product.name, str(hit.row.id), key)
        if place is None:
            continue
        about = _describe_data(hit, key, file, bands) if file.measurements else {"roles": [_get_role(key)]}
        note = {} if place.note is None else {"description": place.note}
        alternates = _describe_alternates(place)
        assets[key] = {"href": place.href, **_describe_type(file.uri), **note, **about, **alternates}
    return assets


def _band_position(file: AssetFile, bands: Sequence[str]) -> int:
    """Return the position of a file's first band in the product; other files come last."""
    return min((bands.index(n) for n in file.measurements.values() if n in bands), default=len(bands))


def _describe_data(hit: SearchHit, key: str, file: AssetFile, bands: Mapping[str, Band]) -> dict[str, Any]:
    document = hit.document
    first = document["measurements"][next(iter(file.measurements.values()))]
    name = first.get("grid", DEFAULT_GRID)
    grid = (document.get("grids") or {}).get(name)
    size = max(abs(grid["transform"][0]), abs(grid["transform"][4])) if grid else None
    metres = size if document.get("crs") and not CRS(document["crs"]).geographic else None
    names = [file.measurements.get(i, f"{key}_{i}") for i in range(1, max(file.measurements) + 1)]
    described = [stac_band(bands[n], metres) if n in bands else {"name": n} for n in names]
    older = [eo_band(bands[n], metres) if n in bands else {"name": n} for n in names]
    return {
        "roles": ["data"],
        **(_describe_grid(grid) if grid and name != DEFAULT_GRID else {}),
        "bands": described,
        "eo:bands": older,
    }


def _get_role(key: str) -> str:
    kinds = ("thumbnail", "overview")
    return next((kind for kind in kinds if key.startswith(kind)), "metadata")


def _describe_type(uri: str) -> dict[str, str]:
    type_ = find_media_type(uri)
    return {} if type_ is None else {"type": type_}


def find_media_type(uri: str) -> str | None:
    """Find the media type of a file by its extension; None if it is unknown."""
    return TYPES.get(PurePosixPath(urlsplit(uri).path).suffix.lower())


def _describe_alternates(place: Place) -> dict[str, Any]:
    alternates = {name: {"href": href, "alternate:name": name} for name, href in place.alternate.items()}
    return {"alternate": alternates} if alternates else {}
