"""The types of services, their settings, and the parameters of their process graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from odc_openeo.errors import ServiceConfigInvalid, ServiceConfigUnsupported, ServiceUnsupported
from odc_openeo.services.colors import check_colormap
from odc_openeo.untrusted.json_schemas import make_validator
from odc_openeo.untrusted.schema_messages import describe_schema_error

EXTENT: Final = "spatial_extent"
"""The process graph parameter that holds the extent of the tile."""

_PAIR: Final = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_COLOR: Final = {"type": "string"}

SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "public": {
        "type": "boolean",
        "description": "Whether everybody may see the tiles, at a permanent address. Otherwise the address "
        "in `url` is signed and expires; the metadata of the service then contains a new one.",
        "default": False,
    },
    "bands": {
        "type": ["array", "null"],
        "items": {"type": "string"},
        "minItems": 1,
        "maxItems": 3,
        "description": "The bands to show: one (grey or with a colour map), or three (red, green, blue). "
        "By default all bands of the result.",
        "default": None,
    },
    "range": {
        "anyOf": [_PAIR, {"type": "array", "items": _PAIR, "minItems": 1, "maxItems": 4}, {"type": "null"}],
        "description": "The values shown darkest and brightest: `[minimum, maximum]` for all bands, or one "
        "such pair per band. By default 0 and 255 if the process saves as PNG or JPEG; otherwise the 2nd and "
        "98th percentiles over the whole extent, which are measured once.",
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
        "`cmocean:deep` …; append `_r` to reverse it), colours evenly spaced over the range, or an object "
        'that maps values to colours (`{"4": "green"}`) and leaves all other values transparent.',
        "default": None,
    },
    "format": {
        "type": "string",
        "enum": ["PNG", "JPEG", "WebP"],
        "description": "The format of the pictures. Pixels without data are white in JPEG, else transparent.",
        "default": "PNG",
    },
    "tile_size": {
        "type": "integer",
        "enum": [256, 512],
        "description": "Width and height of a tile in pixels; 512 is for high-resolution displays.",
        "default": 256,
    },
    "time": {
        "type": ["string", "null"],
        "description": "The date or date-time to show if the result has several and the map client does not "
        "request one. By default the latest.",
        "default": None,
    },
    "max_age": {
        "type": "integer",
        "minimum": 0,
        "maximum": 31_536_000,
        "description": "Seconds for which map clients may reuse a tile without checking for changes.",
        "default": 0,
    },
}

PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": EXTENT,
        "description": "The extent of the tile, and some pixels around it. A process graph that uses it is "
        "run for each tile, with the data there. If it is not used, the tiles are windows into the result of "
        "the whole process graph.",
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
class ServiceType:
    """A type of secondary web services."""

    name: str
    title: str
    description: str
    about: str

    def to_dict(self) -> dict[str, Any]:
        """Return the type as an entry of ``GET /service_types``."""
        return {
            "title": self.title,
            "description": self.description,
            "configuration": {name: dict(schema) for name, schema in SETTINGS.items()},
            "process_parameters": PARAMETERS,
            "links": [{"rel": "about", "href": self.about, "title": self.title, "type": "text/html"}],
        }


SERVICE_TYPES: Final = {
    kind.name.lower(): kind
    for kind in (
        ServiceType(
            "XYZ",
            "XYZ tiles",
            "Tiles of the world in Web Mercator (EPSG:3857) by zoom level, column and row, for OpenLayers, "
            "Leaflet, QGIS and others. Without column and row the address returns TileJSON.",
            "https://github.com/mapbox/tilejson-spec",
        ),
        ServiceType(
            "WMTS",
            "OGC Web Map Tile Service",
            "WMTS 1.0.0 by key-value pairs and by paths (REST), in Web Mercator (EPSG:3857) and on the grid "
            "of the collection, where pixels are not resampled.",
            "https://www.ogc.org/standards/wmts/",
        ),
    )
}


def get_service_type(name: str) -> ServiceType:
    """Return the service type with a name in any case; ServiceUnsupported if there is none."""
    service_type = SERVICE_TYPES.get(name.lower())
    if service_type is None:
        raise ServiceUnsupported(type=name, types=", ".join(k.name for k in SERVICE_TYPES.values()))
    return service_type


def parse_configuration(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Check the settings of a user and return them, with strings of enumerations in the published case.

    Raises:
        ServiceConfigUnsupported: there is no such setting.
        ServiceConfigInvalid: a value is not allowed.
    """
    return {name: _parse_setting(name, value) for name, value in settings.items()}


def _parse_setting(name: str, value: Any) -> Any:
    if name not in SETTINGS:
        raise ServiceConfigUnsupported(parameter=name, available=", ".join(SETTINGS))
    schema = SETTINGS[name]
    if value is None:
        return None
    if isinstance(value, str) and "enum" in schema:
        value = {str(e).lower(): e for e in schema["enum"]}.get(value.lower(), value)
    for error in make_validator(schema).iter_errors(value):
        mismatch = f"{str(value)[:60]} is not a valid value. {schema['description']}"
        reason = mismatch if error.validator == "anyOf" else f"{describe_schema_error(error)}."
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
