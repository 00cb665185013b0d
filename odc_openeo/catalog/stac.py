"""An ODC product as a STAC 1.1 Collection, with the extensions ``datacube``, ``eo``, ``raster`` and
``projection``.

What a product does not tell is left out, never made up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from odc.geo import CRS

from odc_openeo.catalog.bands import Band, eo_band, stac_band
from odc_openeo.catalog.overrides import Override
from odc_openeo.catalog.summaries import Summary
from odc_openeo.cube import BANDS, T, X, Y

STAC_VERSION = "1.1.0"
EXTENSIONS = [
    "https://stac-extensions.github.io/datacube/v2.2.0/schema.json",
    "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
]
WORLD = (-180.0, -90.0, 180.0, 90.0)
LICENCE_UNKNOWN = "other"
"""STAC's word for a licence that is none of the SPDX list; it is also all that can be said if none is
given."""


@dataclass(frozen=True)
class Product:
    """A product as this service sees it: its definition, its bands, what the operator says about it."""

    name: str
    definition: Mapping[str, Any]
    bands: tuple[Band, ...]
    operator: Override
    search_fields: Mapping[str, Any]

    @property
    def title(self) -> str:
        """The title, else the name."""
        return self.operator.title or self.name

    @property
    def groupby(self) -> str:
        """Which scenes are one time step: those of the same ``time``, or of the same ``solar_day``."""
        return self.operator.groupby or "time"

    def say(self, name: str) -> Any:
        """What the operator says about ``name``, else the definition."""
        return getattr(self.operator, name) or self.definition.get(name)


def collection(
    product: Product, summary: Summary, base_url: str, *, has_items: bool = False
) -> dict[str, Any]:
    """The STAC Collection; links start with ``base_url`` (the root of the API version, without a slash at
    the end). ``has_items`` tells whether items can be searched there."""
    described: dict[str, Any] = {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": EXTENSIONS,
        "id": product.name,
        "title": product.title,
        "description": product.say("description") or product.title,
        "keywords": product.say("keywords"),
        "license": product.say("license") or LICENCE_UNKNOWN,
        "providers": product.say("providers"),
        "extent": _extent(summary),
        "cube:dimensions": _dimensions(product, summary),
        "summaries": _summaries(product, summary),
        "item_assets": _item_assets(product, summary),
        "links": _links(product, base_url, has_items),
    }
    return {key: value for key, value in described.items() if value not in (None, {})}


def _links(product: Product, base_url: str, has_items: bool) -> list[dict[str, Any]]:
    own = f"{base_url}/collections/{quote(product.name)}"
    items = {"rel": "items", "href": f"{own}/items", "type": "application/geo+json", "title": "Items"}
    return [
        {"rel": "self", "href": own, "type": "application/json"},
        {"rel": "root", "href": f"{base_url}/", "type": "application/json"},
        {"rel": "parent", "href": f"{base_url}/", "type": "application/json"},
        *([items] if has_items else []),
        {
            "rel": "http://www.opengis.net/def/rel/ogc/1.0/queryables",
            "href": f"{own}/queryables",
            "type": "application/schema+json",
            "title": "Metadata properties that can be filtered by",
        },
        *product.operator.links,
    ]


def _extent(summary: Summary) -> dict[str, Any]:
    return {
        "spatial": {"bbox": [list(summary.bbox or WORLD)]},
        "temporal": {"interval": [_times(summary)]},
    }


def _times(summary: Summary) -> list[str | None]:
    return [_rfc3339(time) if time is not None else None for time in summary.time]


def _rfc3339(time: datetime) -> str:
    precision = "milliseconds" if time.microsecond else "seconds"
    return time.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


# --- Dimensions ----------------------------------------------------------------------------------


def _dimensions(product: Product, summary: Summary) -> dict[str, Any]:
    return {
        **_horizontal(product, summary),
        T: {"type": "temporal", "extent": _times(summary)},
        BANDS: {"type": "bands", "values": [band.name for band in product.bands]},
    }


def _horizontal(product: Product, summary: Summary) -> dict[str, Any]:
    """x and y in the reference system of the data where there is one; degrees where there are several or
    none."""
    west, south, east, north = summary.bbox or WORLD
    code = _code(summary.crs[0]) if len(summary.crs) == 1 else None
    steps = step_sizes(product, summary)
    if code is None or summary.x[0] is None:
        return {
            X: _axis(X, (west, east), 4326, None),
            Y: _axis(Y, (south, north), 4326, None),
        }
    finest = min(steps.values(), default=None)
    return {
        X: _axis(X, summary.x, code, finest[0] if finest else None),
        Y: _axis(Y, summary.y, code, finest[1] if finest else None),
    }


def _axis(name: str, extent: Any, reference_system: int | str, step: float | None) -> dict[str, Any]:
    axis = {
        "type": "spatial",
        "axis": name,
        "extent": list(extent),
        "reference_system": reference_system,
    }
    return axis if step is None else {**axis, "step": step}


def _code(crs: str) -> int | str | None:
    """The EPSG code of a reference system, else its WKT2, else None if it is not understood."""
    try:
        known = CRS(crs)
    except Exception:  # odc-geo and pyproj raise several kinds of errors for what they do not understand
        return None
    return known.epsg or known.to_wkt()


def step_sizes(product: Product, summary: Summary) -> dict[str, tuple[float, float]]:
    """The pixel size (x, y) by band, from a dataset, else from the product's ``load`` or ``storage``
    section."""
    if summary.grids:
        return dict(summary.grids)
    section = product.definition.get("load") or product.definition.get("storage") or {}
    sizes = {key: abs(value) for key, value in (section.get("resolution") or {}).items()}
    x, y = sizes.get("x", sizes.get("longitude")), sizes.get("y", sizes.get("latitude"))
    return {} if x is None or y is None else {band.name: (x, y) for band in product.bands}


# --- Summaries -----------------------------------------------------------------------------------


def _summaries(product: Product, summary: Summary) -> dict[str, Any]:
    gsd = _ground_distances(product, summary)
    codes = [f"EPSG:{code}" for crs in summary.crs if isinstance(code := _code(crs), int)]
    found: dict[str, Any] = {
        "constellation": _values(product, "eo:constellation", "constellation"),
        "platform": list(summary.platforms) or _values(product, "eo:platform", "platform"),
        "instruments": list(summary.instruments) or _values(product, "eo:instrument", "instruments"),
        "gsd": sorted(set(gsd.values())) or _values(product, "eo:gsd", "gsd"),
        "proj:code": codes,
        "bands": [stac_band(band, gsd.get(band.name)) for band in product.bands],
        "eo:bands": [eo_band(band, gsd.get(band.name)) for band in product.bands],
    }
    return {key: value for key, value in found.items() if value}


def _item_assets(product: Product, summary: Summary) -> dict[str, Any]:
    """What the assets of items have in common. Where they lie and of what type they are, datasets tell."""
    gsd = _ground_distances(product, summary)
    return {b.name: {"roles": ["data"], "bands": [stac_band(b, gsd.get(b.name))]} for b in product.bands}


def _values(product: Product, *names: str) -> list[Any]:
    properties = product.definition.get("metadata", {}).get("properties", {})
    value = next((properties[name] for name in names if name in properties), None)
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _ground_distances(product: Product, summary: Summary) -> dict[str, float]:
    """Pixel sizes in metres by band; none for data in degrees."""
    if not summary.crs or any(not isinstance(_code(c), int) or CRS(c).geographic for c in summary.crs):
        return {}
    return {band: max(size) for band, size in step_sizes(product, summary).items()}


# --- Queryables ----------------------------------------------------------------------------------

NOT_PROPERTIES = frozenset({"time", "lon", "lat"})
TYPES = {
    "string": "string",
    "double": "number",
    "float": "number",
    "numeric": "number",
    "integer": "integer",
    "boolean": "boolean",
    "datetime": "string",
}


ALWAYS: Mapping[str, dict[str, Any]] = {
    "id": {"type": "string", "title": "Identifier of an item"},
    "collection": {"type": "string", "title": "Identifier of a collection"},
    "datetime": {"type": "string", "format": "date-time", "title": "Nominal time"},
    "geometry": {"$ref": "https://geojson.org/schema/Geometry.json", "title": "Outline"},
}
"""What all items have. Only searches for items can use it: `load_collection` has extents for the same."""


def queryables(
    product: Product, summary: Summary, base_url: str, *, has_items: bool = False
) -> dict[str, Any]:
    """The JSON Schema of the properties that items, and scenes in `load_collection`, can be filtered by."""
    return {
        **_schema(f"{base_url}/collections/{quote(product.name)}/queryables", product.title),
        "properties": {
            **(ALWAYS if has_items else {}),
            **dict(sorted(property_schemas(product, summary).items())),
        },
        "additionalProperties": False,
    }


def item_queryables(products: Iterable[tuple[Product, Summary]], base_url: str) -> dict[str, Any]:
    """The JSON Schema of the properties that items of any collection can be filtered by: all that one has."""
    found: dict[str, dict[str, Any]] = {}
    for product, summary in products:
        for name, schema in property_schemas(product, summary).items():
            # What a property can be differs from collection to collection.
            common = {"type": schema["type"]} if "type" in schema else {}
            found[name] = common if found.get(name, common) == common else {}
    return {
        **_schema(f"{base_url}/queryables", "Items of all collections"),
        "properties": {**ALWAYS, **dict(sorted(found.items()))},
        "additionalProperties": False,
    }


def _schema(id_: str, title: str) -> dict[str, Any]:
    schema = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": schema, "$id": id_, "type": "object", "title": title}


def property_schemas(product: Product, summary: Summary) -> dict[str, dict[str, Any]]:
    """The JSON Schema of each property: the search fields of the metadata type, and what the datasets
    have."""
    found: dict[str, dict[str, Any]] = {key: {"type": type_} for key, type_ in summary.properties.items()}
    for name, declared in product.search_fields.items():
        offset = declared.get("offset")
        if name in NOT_PROPERTIES or not offset or list(offset[:-1]) != ["properties"]:
            continue
        schema = {"type": TYPES.get(declared.get("type", "string"), "string")}
        if declared.get("description"):
            schema["description"] = " ".join(declared["description"].split())
        found[offset[-1]] = schema
    for name, values in (("eo:platform", summary.platforms), ("eo:instrument", summary.instruments)):
        if name in found and values:
            found[name] = {**found[name], "enum": list(values)}
    return found | {STAC_NAMES[name]: schema for name, schema in found.items() if name in STAC_NAMES}


STAC_NAMES = {
    "eo:platform": "platform",
    "eo:constellation": "constellation",
    "eo:gsd": "gsd",
    "odc:processing_datetime": "created",
}
"""Properties that EO3 and STAC name differently; both names can be asked for."""
