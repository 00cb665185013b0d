"""WMTS 1.0.0: the capabilities document, requests by key-value pairs, exceptions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET

import pyproj
from morecantile.models import TileMatrixSet

from odc_openeo.errors import OpenEOError, RequestInvalid
from odc_openeo.services.colors import EXTENSIONS, MEDIA_TYPES
from odc_openeo.services.grids import epsg
from odc_openeo.services.model import Service
from odc_openeo.services.outline import MERCATOR_LATITUDE, Outline

LAYER: Final = "result"
STYLE: Final = "default"
VERSION: Final = "1.0.0"
MEDIA_TYPE: Final = "application/xml"
WMTS: Final = "http://www.opengis.net/wmts/1.0"
OWS: Final = "http://www.opengis.net/ows/1.1"
XLINK: Final = "http://www.w3.org/1999/xlink"
MOST_TIMES: Final = 1000
"""Dates listed one by one; of more only the first and the last are told."""

for _prefix, _uri in (("", WMTS), ("ows", OWS), ("xlink", XLINK)):
    ET.register_namespace(_prefix, _uri)


@dataclass(frozen=True)
class TileRequest:
    """Which tile is wanted."""

    matrix_set: str
    level: str
    column: int
    row: int
    time: str | None


def tile_request(parameters: Mapping[str, str]) -> TileRequest:
    """The tile that key-value pairs (names in any casing) ask for.

    Raises:
        RequestInvalid: a parameter is missing or has a value that is not offered.
    """
    known = {name.upper(): value for name, value in parameters.items()}
    missing = [n for n in ("TILEMATRIXSET", "TILEMATRIX", "TILECOL", "TILEROW") if not known.get(n)]
    if missing:
        raise RequestInvalid(reason=f"the parameters {', '.join(missing)} are missing.")
    if known.get("LAYER", LAYER) != LAYER:
        raise RequestInvalid(reason=f"there is no layer '{known['LAYER']}', only '{LAYER}'.")
    column, row = (_whole(known[n], n) for n in ("TILECOL", "TILEROW"))
    return TileRequest(known["TILEMATRIXSET"], known["TILEMATRIX"], column, row, known.get("TIME"))


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise RequestInvalid(reason=f"{name} must be a whole number, 0 or more.")
    return int(text)


def level_of(matrix_set: TileMatrixSet, given: str) -> str:
    """The id of a level; some clients put the name of the set before it."""
    return given.removeprefix(f"{matrix_set.id}:")


# --- Capabilities --------------------------------------------------------------------------------


def capabilities(service: Service, known: Outline, sets: Sequence[TileMatrixSet], address: str) -> bytes:
    """The capabilities document of a service at an address."""
    root = ET.Element(_wmts("Capabilities"), {"version": VERSION})
    identification = _add(root, _ows("ServiceIdentification"))
    _add(identification, _ows("Title"), service.draft.title or str(service.id))
    _add(identification, _ows("Abstract"), service.draft.description or "")
    _add(identification, _ows("ServiceType"), "OGC WMTS")
    _add(identification, _ows("ServiceTypeVersion"), VERSION)
    operations = _add(root, _ows("OperationsMetadata"))
    for name in ("GetCapabilities", "GetTile"):
        _operation(operations, name, address)
    contents = _add(root, _wmts("Contents"))
    _layer(contents, service, known, sets, address)
    for matrix_set in sets:
        _matrix_set(contents, matrix_set)
    link = _add(root, _wmts("ServiceMetadataURL"))
    link.set(f"{{{XLINK}}}href", f"{address}/WMTSCapabilities.xml")
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="UTF-8", xml_declaration=True))


def _wmts(name: str) -> str:
    return f"{{{WMTS}}}{name}"


def _ows(name: str) -> str:
    return f"{{{OWS}}}{name}"


def _add(parent: ET.Element, name: str, text: str | None = None) -> ET.Element:
    element = ET.SubElement(parent, name)
    element.text = None if text is None else _printable(text)
    return element


def _printable(text: str) -> str:
    """Without characters that XML can't hold."""
    return "".join(c for c in text if c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff"))


def _operation(parent: ET.Element, name: str, address: str) -> None:
    operation = _add(parent, _ows("Operation"))
    operation.set("name", name)
    get = _add(_add(_add(operation, _ows("DCP")), _ows("HTTP")), _ows("Get"))
    get.set(f"{{{XLINK}}}href", f"{address}?")
    constraint = _add(get, _ows("Constraint"))
    constraint.set("name", "GetEncoding")
    _add(_add(constraint, _ows("AllowedValues")), _ows("Value"), "KVP")


def _layer(
    parent: ET.Element, service: Service, known: Outline, sets: Sequence[TileMatrixSet], address: str
) -> None:
    layer = _add(parent, _wmts("Layer"))
    _add(layer, _ows("Title"), service.draft.title or str(service.id))
    _add(layer, _ows("Abstract"), service.draft.description or "")
    west, south, east, north = known.bounds or (-180.0, -MERCATOR_LATITUDE, 180.0, MERCATOR_LATITUDE)
    box = _add(layer, _ows("WGS84BoundingBox"))
    _add(box, _ows("LowerCorner"), f"{west!r} {south!r}")
    _add(box, _ows("UpperCorner"), f"{east!r} {north!r}")
    _add(layer, _ows("Identifier"), LAYER)
    style = _add(layer, _wmts("Style"))
    style.set("isDefault", "true")
    _add(style, _ows("Identifier"), STYLE)
    legend = _add(style, _wmts("LegendURL"))
    legend.set("format", "image/png")
    legend.set(f"{{{XLINK}}}href", f"{address}/legend.png")
    format_ = service.setting("format", "PNG")
    _add(layer, _wmts("Format"), MEDIA_TYPES[format_])
    if known.times:
        _times(layer, service, known.times)
    for matrix_set in sets:
        _add(_add(layer, _wmts("TileMatrixSetLink")), _wmts("TileMatrixSet"), matrix_set.id)
    resource = _add(layer, _wmts("ResourceURL"))
    resource.set("format", MEDIA_TYPES[format_])
    resource.set("resourceType", "tile")
    time = "{Time}/" if known.times else ""
    path = f"wmts/{time}{{TileMatrixSet}}/{{TileMatrix}}/{{TileCol}}/{{TileRow}}.{EXTENSIONS[format_]}"
    resource.set("template", f"{address}/{path}")


def _times(layer: ET.Element, service: Service, times: Sequence[str]) -> None:
    dimension = _add(layer, _wmts("Dimension"))
    _add(dimension, _ows("Identifier"), "Time")
    _add(dimension, _wmts("Default"), service.setting("time") or times[-1])
    for time in times if len(times) <= MOST_TIMES else (times[0], times[-1]):
        _add(dimension, _wmts("Value"), time)


def _matrix_set(parent: ET.Element, matrix_set: TileMatrixSet) -> None:
    found = _add(parent, _wmts("TileMatrixSet"))
    _add(found, _ows("Identifier"), matrix_set.id)
    code = epsg(matrix_set)
    _add(found, _ows("SupportedCRS"), f"urn:ogc:def:crs:EPSG::{code}")
    north_first = pyproj.CRS.from_epsg(code).axis_info[0].direction == "north"
    for matrix in matrix_set.tileMatrices:
        element = _add(found, _wmts("TileMatrix"))
        _add(element, _ows("Identifier"), matrix.id)
        _add(element, _wmts("ScaleDenominator"), repr(matrix.scaleDenominator))
        corner = reversed(matrix.pointOfOrigin) if north_first else iter(matrix.pointOfOrigin)
        _add(element, _wmts("TopLeftCorner"), " ".join(_numbers(corner)))
        _add(element, _wmts("TileWidth"), str(matrix.tileWidth))
        _add(element, _wmts("TileHeight"), str(matrix.tileHeight))
        _add(element, _wmts("MatrixWidth"), str(matrix.matrixWidth))
        _add(element, _wmts("MatrixHeight"), str(matrix.matrixHeight))


def _numbers(values: Iterator[float]) -> Iterator[str]:
    return (repr(float(value)) for value in values)


def exception(error: OpenEOError) -> bytes:
    """An error as OGC clients read it."""
    root = ET.Element(_ows("ExceptionReport"), {"version": "1.1.0"})
    found = _add(root, _ows("Exception"))
    codes = {"TileOutOfRange": "TileOutOfRange", "RequestInvalid": "InvalidParameterValue"}
    found.set("exceptionCode", codes.get(error.code, "NoApplicableCode"))
    found.set("locator", error.code)
    _add(found, _ows("ExceptionText"), error.to_dict()["message"])
    return bytes(ET.tostring(root, encoding="UTF-8", xml_declaration=True))
