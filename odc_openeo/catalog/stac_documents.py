"""An ODC product as a STAC 1.1 Collection, with the extensions ``datacube``, ``eo``, ``raster`` and
``projection``.

What a product does not define is left out, never made up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from odc.geo import CRS

from odc_openeo.catalog.bands import Band, ExtraDimension, eo_band, stac_band
from odc_openeo.catalog.load_hints import LoadHint
from odc_openeo.catalog.overrides import Override
from odc_openeo.catalog.product_summary import Summary
from odc_openeo.cube import BANDS, T, X, Y
from odc_openeo.timestamps import format_rfc3339_ms

STAC_VERSION = "1.1.0"
EXTENSIONS = [
    "https://stac-extensions.github.io/datacube/v2.2.0/schema.json",
    "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
]
WORLD = (-180.0, -90.0, 180.0, 90.0)
"""West, south, east, north in degrees: the extent where none is known."""
LONGEST_ABBREVIATION = 3
LONGEST_TITLE = 80
"""Characters of a description that serves as a title, too."""
LICENCE_UNKNOWN = "other"
"""STAC's value for a licence that is not in the SPDX list, or unknown."""


@dataclass(frozen=True)
class Product:
    """A product: its definition, its bands and the operator's overrides."""

    name: str
    definition: Mapping[str, Any]
    bands: tuple[Band, ...]
    operator: Override
    search_fields: Mapping[str, Any]
    load_hint: LoadHint | None = None

    @property
    def title(self) -> str:
        """The operator's title, else the description if it is short, else the name in words."""
        described = _shorten_to_title(self.get_field("description"))
        return self.operator.title or described or name_in_words(self.name)

    @property
    def groupby(self) -> str:
        """How scenes are grouped into time steps: by ``time`` or by ``solar_day``."""
        return self.operator.groupby or "time"

    def get_field(self, name: str) -> Any:
        """Return a field from the operator's overrides, else from the definition."""
        return getattr(self.operator, name) or self.definition.get(name)


def _shorten_to_title(description: Any) -> str | None:
    """The first sentence of a description if it is short enough for a title."""
    text = description.strip() if isinstance(description, str) else ""
    first = re.split(r"\n|\.\s", text, maxsplit=1)[0].strip().rstrip(".")
    return first if 0 < len(first) <= LONGEST_TITLE else None


def name_in_words(name: str) -> str:
    """Write an identifier in words: ``s2_l2a_sample`` as ``S2 L2A sample``.

    Words of up to three letters are mostly abbreviations.
    """
    words = [word for word in re.split(r"[_\-.~/\s]+", name) if word]
    shown = [
        word.upper() if len(word) <= LONGEST_ABBREVIATION or re.search(r"\d", word) else word
        for word in words
    ]
    text = " ".join(shown)
    return f"{text[:1].upper()}{text[1:]}" or name


def make_collection(
    product: Product, summary: Summary, base_url: str, *, has_items: bool = False
) -> dict[str, Any]:
    """Make the STAC Collection; links start with ``base_url`` (the root of the API version, without a
    trailing slash). ``has_items`` says whether its items can be searched."""
    thumbnail = product.operator.thumbnail_asset
    described: dict[str, Any] = {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": EXTENSIONS,
        "id": product.name,
        "title": product.title,
        "description": _describe(product, summary),
        "keywords": product.get_field("keywords"),
        "license": product.get_field("license") or LICENCE_UNKNOWN,
        "providers": product.get_field("providers"),
        "extent": _make_extent(summary),
        "cube:dimensions": _make_dimensions(product, summary),
        "summaries": _make_summaries(product, summary),
        "item_assets": _make_item_assets(product, summary),
        "assets": {"thumbnail": thumbnail} if thumbnail else None,
        "links": _make_links(product, base_url, has_items),
    }
    return {key: value for key, value in described.items() if value not in (None, {})}


PARQUET: Final = "application/vnd.apache.parquet"

NOT_LOADABLE: Final = (
    "The datasets of this collection have no EO3 metadata with a pixel grid: they can be searched, but not "
    "loaded."
)


def _describe(product: Product, summary: Summary) -> str:
    description = product.get_field("description") or product.title
    return f"{description}\n\n{NOT_LOADABLE}" if summary.count and not summary.grids else str(description)


def _make_links(product: Product, base_url: str, has_items: bool) -> list[dict[str, Any]]:
    url = f"{base_url}/collections/{quote(product.name)}"
    items = {"rel": "items", "href": f"{url}/items", "type": "application/geo+json", "title": "Items"}
    table = {**items, "href": f"{url}/items.parquet", "type": PARQUET, "title": "Items as stac-geoparquet"}
    return [
        {"rel": "self", "href": url, "type": "application/json"},
        {"rel": "root", "href": f"{base_url}/", "type": "application/json"},
        {"rel": "parent", "href": f"{base_url}/", "type": "application/json"},
        *([items, table] if has_items else []),
        {
            "rel": "http://www.opengis.net/def/rel/ogc/1.0/queryables",
            "href": f"{url}/queryables",
            "type": "application/schema+json",
            "title": "Metadata properties that can be filtered by",
        },
        *product.operator.links,
    ]


def _make_extent(summary: Summary) -> dict[str, Any]:
    return {
        "spatial": {"bbox": [list(summary.bbox or WORLD)]},
        "temporal": {"interval": [_format_times(summary)]},
    }


def _format_times(summary: Summary) -> list[str | None]:
    return [format_rfc3339_ms(time) if time is not None else None for time in summary.time]


# --- Dimensions ----------------------------------------------------------------------------------


def _make_dimensions(product: Product, summary: Summary) -> dict[str, Any]:
    return {
        **_make_horizontal_axes(product, summary),
        T: {"type": "temporal", "extent": _format_times(summary)},
        BANDS: {"type": "bands", "values": [band.name for band in product.bands]},
        **{d.name: {"type": "other", "values": list(d.values)} for d in _list_extra_dimensions(product)},
    }


def _list_extra_dimensions(product: Product) -> list[ExtraDimension]:
    return list(dict.fromkeys(b.extra_dimension for b in product.bands if b.extra_dimension is not None))


def _make_horizontal_axes(product: Product, summary: Summary) -> dict[str, Any]:
    """Make x and y in the reference system of the data, or in degrees if there are several systems or
    none."""
    west, south, east, north = summary.bbox or WORLD
    code = _find_crs_code(summary.crs[0]) if len(summary.crs) == 1 else None
    steps = get_pixel_sizes(product, summary)
    if code is None or summary.x[0] is None:
        return {
            X: _make_axis(X, (west, east), 4326, None),
            Y: _make_axis(Y, (south, north), 4326, None),
        }
    finest = min(steps.values(), default=None)
    return {
        X: _make_axis(X, summary.x, code, finest[0] if finest else None),
        Y: _make_axis(Y, summary.y, code, finest[1] if finest else None),
    }


def _make_axis(name: str, extent: Any, reference_system: int | str, step: float | None) -> dict[str, Any]:
    axis = {
        "type": "spatial",
        "axis": name,
        "extent": list(extent),
        "reference_system": reference_system,
    }
    return axis if step is None else {**axis, "step": step}


def _find_crs_code(crs: str) -> int | str | None:
    """Find the EPSG code of a reference system, else its WKT2; None if it cannot be parsed."""
    try:
        parsed = CRS(crs)
    except Exception:  # odc-geo and pyproj raise several kinds of errors for what they do not understand
        return None
    return parsed.epsg or parsed.to_wkt()


def get_pixel_sizes(product: Product, summary: Summary) -> dict[str, tuple[float, float]]:
    """Return the pixel size (x, y) by band, from a dataset, else from the ``load`` or ``storage`` section of
    the product."""
    if summary.grids:
        return dict(summary.grids)
    section = product.definition.get("load") or product.definition.get("storage") or {}
    sizes = {key: abs(value) for key, value in (section.get("resolution") or {}).items()}
    x, y = sizes.get("x", sizes.get("longitude")), sizes.get("y", sizes.get("latitude"))
    return {} if x is None or y is None else {band.name: (x, y) for band in product.bands}


# --- Summaries -----------------------------------------------------------------------------------


def _make_summaries(product: Product, summary: Summary) -> dict[str, Any]:
    gsd = _compute_ground_distances(product, summary)
    codes = [f"EPSG:{code}" for crs in summary.crs if isinstance(code := _find_crs_code(crs), int)]
    summaries: dict[str, Any] = {
        "constellation": _list_values(product, "eo:constellation", "constellation"),
        "platform": list(summary.platforms) or _list_values(product, "eo:platform", "platform"),
        "instruments": list(summary.instruments) or _list_values(product, "eo:instrument", "instruments"),
        "gsd": sorted(set(gsd.values())) or _list_values(product, "eo:gsd", "gsd"),
        "proj:code": codes,
        "bands": [stac_band(band, gsd.get(band.name)) for band in product.bands],
        "eo:bands": [eo_band(band, gsd.get(band.name)) for band in product.bands],
    }
    return {key: value for key, value in summaries.items() if value}


def _make_item_assets(product: Product, summary: Summary) -> dict[str, Any]:
    """Make the common fields of the items' assets; links and types differ between datasets."""
    gsd = _compute_ground_distances(product, summary)
    return {b.name: {"roles": ["data"], "bands": [stac_band(b, gsd.get(b.name))]} for b in product.bands}


def _list_values(product: Product, *names: str) -> list[Any]:
    properties = product.definition.get("metadata", {}).get("properties", {})
    value = next((properties[name] for name in names if name in properties), None)
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _compute_ground_distances(product: Product, summary: Summary) -> dict[str, float]:
    """Compute pixel sizes in metres by band; none for data in degrees."""
    if not summary.crs or any(
        not isinstance(_find_crs_code(c), int) or CRS(c).geographic for c in summary.crs
    ):
        return {}
    return {band: max(size) for band, size in get_pixel_sizes(product, summary).items()}


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
"""Queryables of all items, for item searches only: `load_collection` has extents instead."""


def make_queryables(
    product: Product, summary: Summary, base_url: str, *, has_items: bool = False
) -> dict[str, Any]:
    """Make the JSON Schema of the properties that filters of items and of `load_collection` can use."""
    return {
        **_make_schema(f"{base_url}/collections/{quote(product.name)}/queryables", product.title),
        "properties": {
            **(ALWAYS if has_items else {}),
            **dict(sorted(make_property_schemas(product, summary).items())),
        },
        "additionalProperties": False,
    }


def make_item_queryables(products: Iterable[tuple[Product, Summary]], base_url: str) -> dict[str, Any]:
    """Make the JSON Schema of the properties of items of any collection: the union of all."""
    schemas: dict[str, dict[str, Any]] = {}
    for product, summary in products:
        for name, schema in make_property_schemas(product, summary).items():
            # The values of a property differ between collections.
            common = {"type": schema["type"]} if "type" in schema else {}
            schemas[name] = common if schemas.get(name, common) == common else {}
    return {
        **_make_schema(f"{base_url}/queryables", "Items of all collections"),
        "properties": {**ALWAYS, **dict(sorted(schemas.items()))},
        "additionalProperties": False,
    }


def _make_schema(id_: str, title: str) -> dict[str, Any]:
    schema = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": schema, "$id": id_, "type": "object", "title": title}


def make_property_schemas(product: Product, summary: Summary) -> dict[str, dict[str, Any]]:
    """Make the JSON Schema of each property: the search fields of the metadata type and the properties of
    the datasets."""
    schemas: dict[str, dict[str, Any]] = {key: {"type": type_} for key, type_ in summary.properties.items()}
    for name, declared in product.search_fields.items():
        offset = declared.get("offset")
        if name in NOT_PROPERTIES or not offset or list(offset[:-1]) != ["properties"]:
            continue
        schema = {"type": TYPES.get(declared.get("type", "string"), "string")}
        if declared.get("description"):
            schema["description"] = " ".join(declared["description"].split())
        schemas[offset[-1]] = schema
    for name, values in (("eo:platform", summary.platforms), ("eo:instrument", summary.instruments)):
        if name in schemas and values:
            schemas[name] = {**schemas[name], "enum": list(values)}
    return schemas | {STAC_NAMES[name]: schema for name, schema in schemas.items() if name in STAC_NAMES}


STAC_NAMES = {
    "eo:platform": "platform",
    "eo:constellation": "constellation",
    "eo:gsd": "gsd",
    "odc:processing_datetime": "created",
}
"""EO3 names of properties to their STAC names, where these differ; queries may use either."""
EO3_NAMES = {stac: eo3 for eo3, stac in STAC_NAMES.items()}
