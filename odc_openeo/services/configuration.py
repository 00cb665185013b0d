"""The types of services, their settings, and what process graphs of services may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from jsonschema import Draft7Validator

from odc_openeo.errors import ServiceConfigInvalid, ServiceConfigUnsupported, ServiceUnsupported
from odc_openeo.services.colors import check_colormap

EXTENT: Final = "spatial_extent"
"""The parameter of process graphs that holds the extent of the tile."""

_PAIR: Final = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_COLOR: Final = {"type": "string"}

SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "public": {
        "type": "boolean",
        "description": "Whether everybody may see the tiles, at an address that lasts. Otherwise the address "
        "in `url` is signed and good for a limited time; the service then gives another one.",
        "default": False,
    },
    "bands": {
        "type": ["array", "null"],
        "items": {"type": "string"},
        "minItems": 1,
        "maxItems": 3,
        "description": "The bands to show: one (grey or with a colour map), or three (red, green, blue). "
        "By default all that the result has.",
        "default": None,
    },
    "range": {
        "anyOf": [_PAIR, {"type": "array", "items": _PAIR, "minItems": 1, "maxItems": 4}, {"type": "null"}],
        "description": "The values shown darkest and brightest, `[minimum, maximum]` for all bands or one "
        "such pair for each. By default 0 and 255 if the process saves as PNG or JPEG; otherwise they are "
        "measured once: the 2nd and the 98th percentile over the whole extent.",
        "default": None,
    },
    "colormap": {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "items": _COLOR, "minItems": 2, "maxItems": 256},
            {"type": "object", "additionalProperties": _COLOR},
            {"type": "null"},
        ],
        "description": "Colours of a single band: the name of a colour map (`viridis`, `RdYlGn`, "
        "`cmocean:deep` …, with `_r` reversed), colours evenly spaced over the range, or an object that "
        'gives values their colours (`{"4": "green"}`) and leaves all others transparent.',
        "default": None,
    },
    "format": {
        "type": "string",
        "enum": ["PNG", "JPEG", "WebP"],
        "description": "The format of the pictures. In JPEG pixels without data are white, else transparent.",
        "default": "PNG",
    },
    "tile_size": {
        "type": "integer",
        "enum": [256, 512],
        "description": "Pixels along the side of a tile; 512 is for displays with small pixels.",
        "default": 256,
    },
    "time": {
        "type": ["string", "null"],
        "description": "Which date to show if the result has several and the map client does not name one: "
        "a date or date-time. By default the latest.",
        "default": None,
    },
    "max_age": {
        "type": "integer",
        "minimum": 0,
        "maximum": 31_536_000,
        "description": "Seconds for which map clients may show a tile again without asking whether it has "
        "changed.",
        "default": 0,
    },
}

PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": EXTENT,
        "description": "The extent of the tile, and some pixels around. A graph that uses it is run for each "
        "tile with the data there; a graph that does not is run as it is, and tiles are windows into its "
        "result.",
        "schema": {
            "type": "object",
            "subtype": "bounding-box",
            "required": ["west", "south", "east", "north", "crs"],
            "properties": {
                **{edge: {"type": "number"} for edge in ("west", "south", "east", "north")},
                "crs": {"type": "integer", "subtype": "epsg-code"},
            },
        },
        "optional": True,
        "default": None,
    }
]


@dataclass(frozen=True)
class Kind:
    """A type of services."""

    name: str
    title: str
    description: str
    about: str

    def to_dict(self) -> dict[str, Any]:
        """The type as an entry of ``GET /service_types``."""
        return {
            "title": self.title,
            "description": self.description,
            "configuration": {name: dict(schema) for name, schema in SETTINGS.items()},
            "process_parameters": PARAMETERS,
            "links": [{"rel": "about", "href": self.about, "title": self.title, "type": "text/html"}],
        }


KINDS: Final = {
    kind.name.lower(): kind
    for kind in (
        Kind(
            "XYZ",
            "XYZ tiles",
            "Tiles of the world in Web Mercator (EPSG:3857) by zoom level, column and row, for OpenLayers, "
            "Leaflet, QGIS and others. Without column and row the address gives TileJSON.",
            "https://github.com/mapbox/tilejson-spec",
        ),
        Kind(
            "WMTS",
            "OGC Web Map Tile Service",
            "WMTS 1.0.0 by key-value pairs and by paths (REST), in Web Mercator (EPSG:3857) and on the grid "
            "of the collection, where pixels are shown as they are.",
            "https://www.ogc.org/standards/wmts/",
        ),
    )
}


def kind(name: str) -> Kind:
    """The type of a name in any casing; ServiceUnsupported if there is none."""
    found = KINDS.get(name.lower())
    if found is None:
        raise ServiceUnsupported(type=name, types=", ".join(k.name for k in KINDS.values()))
    return found


def check_configuration(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a user gives, with texts of enumerations in the published casing.

    Raises:
        ServiceConfigUnsupported: there is no such setting.
        ServiceConfigInvalid: a value is not allowed.
    """
    return {name: _setting(name, value) for name, value in given.items()}


def _setting(name: str, value: Any) -> Any:
    if name not in SETTINGS:
        raise ServiceConfigUnsupported(parameter=name, available=", ".join(SETTINGS))
    schema = SETTINGS[name]
    if value is None:
        return None
    if isinstance(value, str) and "enum" in schema:
        value = {str(e).lower(): e for e in schema["enum"]}.get(value.lower(), value)
    for error in Draft7Validator(schema).iter_errors(value):
        several = f"{str(value)[:60]} is none of what is possible. {schema['description']}"
        reason = several if error.validator == "anyOf" else f"{error.message}."
        raise ServiceConfigInvalid(parameter=name, reason=reason)
    if name == "range":
        _check_range(value)
    if name == "colormap":
        check_colormap(value)
    return value


def _check_range(value: Any) -> None:
    for low, high in value if isinstance(value[0], list) else [value]:
        if not low < high:
            raise ServiceConfigInvalid(parameter="range", reason=f"{low:g} must be less than {high:g}.")
