"""Datasets as STAC 1.1 Items with the extensions ``projection``, ``eo`` and ``raster``, straight from their
documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import quote, urlsplit

import shapely
from datacube.utils.uris import uri_resolve
from odc.geo import CRS

from odc_openeo.catalog.bands import Band, eo_band, stac_band
from odc_openeo.catalog.item_search import Found
from odc_openeo.catalog.outlines import bounds
from odc_openeo.catalog.scenes import DEFAULT_GRID
from odc_openeo.catalog.stac import STAC_NAMES, STAC_VERSION
from odc_openeo.catalog.times import rfc3339

# Of `eo` the version before STAC 1.1: odc-stac finds common names in its `eo:bands` only.
ITEM_EXTENSIONS: Final = (
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
)
ALTERNATE: Final = "https://stac-extensions.github.io/alternate-assets/v1.2.0/schema.json"
GEOJSON: Final = "application/geo+json"
COG: Final = "image/tiff; application=geotiff"

# Ours in STAC's words, or told by other members.
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
    """Where clients read a file: an address, and other ones by a short name."""

    href: str
    alternate: Mapping[str, str] = field(default_factory=dict)


Places = Callable[[str, str, str, str], Place | None]
"""(address in the index, collection, item, asset) → where clients read it; None if they can't."""


def item(found: Found, base_url: str, places: Places) -> dict[str, Any]:
    """The STAC Item of a dataset; links start with ``base_url``."""
    id_, product = str(found.row.id), found.source.product
    assets = _assets(found, places)
    extensions = list(ITEM_EXTENSIONS)
    if any("alternate" in asset for asset in assets.values()):
        extensions.append(ALTERNATE)
    described: dict[str, Any] = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": extensions,
        "id": id_,
        "collection": product.name,
        "geometry": None if found.outline is None else shapely.geometry.mapping(found.outline),
        "bbox": None if found.outline is None else bounds(found.outline),
        "properties": _properties(found),
        "assets": assets,
        "links": _links(product.name, id_, base_url),
    }
    return {k: v for k, v in described.items() if v is not None or k == "geometry"}


def _links(collection: str, id_: str, base_url: str) -> list[dict[str, Any]]:
    own = f"{base_url}/collections/{quote(collection)}"
    return [
        {"rel": "self", "href": f"{own}/items/{id_}", "type": GEOJSON},
        {"rel": "collection", "href": own, "type": "application/json"},
        {"rel": "parent", "href": own, "type": "application/json"},
        {"rel": "root", "href": f"{base_url}/", "type": "application/json"},
    ]


# --- Properties ----------------------------------------------------------------------------------


def _properties(found: Found) -> dict[str, Any]:
    document = found.row.document
    told = document.get("properties") or {}
    grid = (document.get("grids") or {}).get(DEFAULT_GRID)
    instrument = told.get("eo:instrument")
    shown = {
        **_times(found, told),
        **({"title": document["label"]} if document.get("label") else {}),
        **{STAC_NAMES[name]: told[name] for name in STAC_NAMES if name in told},
        **({"instruments": [instrument]} if isinstance(instrument, str) else {}),
        **({name: value for name, value in told.items() if name not in NOT_SHOWN}),
        **_system(document.get("crs")),
        **(_grid(grid) if grid else {}),
    }
    if "created" in shown:
        shown["created"] = _time(shown["created"])
    return {name: value for name, value in shown.items() if value is not None or name == "datetime"}


def _times(found: Found, told: Mapping[str, Any]) -> dict[str, Any]:
    at = told.get("datetime")
    times: dict[str, Any] = {"datetime": _time(at) if at is not None else None}
    start, end = told.get("dtr:start_datetime"), told.get("dtr:end_datetime")
    if start is not None and end is not None:
        return {**times, "start_datetime": _time(start), "end_datetime": _time(end)}
    if at is None:
        return {**times, "start_datetime": rfc3339(found.row.start), "end_datetime": rfc3339(found.row.end)}
    return times


def _time(value: Any) -> str:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return rfc3339(moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment)


def _system(code: str | None) -> dict[str, Any]:
    if code is None:
        return {}
    crs = CRS(code)
    if crs.epsg is not None:
        return {"proj:code": f"EPSG:{crs.epsg}"}
    return {"proj:code": None, "proj:wkt2": crs.to_wkt()}


def _grid(grid: Mapping[str, Any]) -> dict[str, Any]:
    return {"proj:shape": list(grid["shape"]), "proj:transform": list(grid["transform"])}


# --- Assets --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AssetFile:
    """A file of a dataset: its absolute address in the index, and its measurements by their numbers in it."""

    uri: str
    measurements: Mapping[int, str] = field(default_factory=dict)


def files(found: Found) -> dict[str, AssetFile]:
    """The files of a dataset by the key of their asset.

    A measurement that has a file of its own names its asset; a file of several bands is named as it is.
    """
    document = found.row.document
    location = found.row.location or document.get("location")
    measurements = document.get("measurements") or {}
    where = {name: _resolved(location, m) for name, m in measurements.items() if m.get("path")}
    made: dict[str, AssetFile] = {}
    for name, uri in where.items():
        alone = {int(measurements[name].get("band") or 1): name}
        others = [n for n, u in where.items() if u == uri and not measurements[n].get("layer")]
        if measurements[name].get("layer") or (others == [name] and 1 in alone):
            made[name] = AssetFile(uri, alone)
        else:
            numbered = {int(measurements[n].get("band") or 1): n for n in others}
            made[PurePosixPath(urlsplit(uri).path).stem] = AssetFile(uri, numbered)
    for name, accessory in (document.get("accessories") or {}).items():
        if accessory.get("path"):
            made.setdefault(name, AssetFile(_resolved(location, accessory)))
    return made


def _resolved(location: str | None, entry: Mapping[str, Any]) -> str:
    return uri_resolve(location, entry["path"]) if location else str(entry["path"])


def _assets(found: Found, places: Places) -> dict[str, Any]:
    bands = {band.name: band for band in found.source.product.bands}
    assets = {}
    for key, file in sorted(files(found).items(), key=lambda pair: _order(pair[1], list(bands))):
        place = places(file.uri, found.source.product.name, str(found.row.id), key)
        if place is None:
            continue
        about = _data(found, key, file, bands) if file.measurements else {"roles": [_role(key)]}
        assets[key] = {"href": place.href, **_type(file.uri), **about, **_alternate(place)}
    return assets


def _order(file: AssetFile, bands: Sequence[str]) -> int:
    """The place of a file's first band in the product; other files come last."""
    return min((bands.index(n) for n in file.measurements.values() if n in bands), default=len(bands))


def _data(found: Found, key: str, file: AssetFile, bands: Mapping[str, Band]) -> dict[str, Any]:
    document = found.row.document
    first = document["measurements"][next(iter(file.measurements.values()))]
    name = first.get("grid", DEFAULT_GRID)
    grid = (document.get("grids") or {}).get(name)
    size = max(abs(grid["transform"][0]), abs(grid["transform"][4])) if grid else None
    metres = size if document.get("crs") and not CRS(document["crs"]).geographic else None
    names = [file.measurements.get(i, f"{key}_{i}") for i in range(1, max(file.measurements) + 1)]
    told = [stac_band(bands[n], metres) if n in bands else {"name": n} for n in names]
    older = [eo_band(bands[n], metres) if n in bands else {"name": n} for n in names]
    return {
        "roles": ["data"],
        **(_grid(grid) if grid and name != DEFAULT_GRID else {}),
        "bands": told,
        "eo:bands": older,
    }


def _role(key: str) -> str:
    kinds = ("thumbnail", "overview")
    return next((kind for kind in kinds if key.startswith(kind)), "metadata")


def _type(uri: str) -> dict[str, str]:
    type_ = media_type(uri)
    return {} if type_ is None else {"type": type_}


def media_type(uri: str) -> str | None:
    """The media type of a file by its ending, None if it is not known."""
    return TYPES.get(PurePosixPath(urlsplit(uri).path).suffix.lower())


def _alternate(place: Place) -> dict[str, Any]:
    others = {name: {"href": href, "alternate:name": name} for name, href in place.alternate.items()}
    return {"alternate": others} if others else {}
