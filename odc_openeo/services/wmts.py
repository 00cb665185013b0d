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
from odc_openeo.services.footprint import MERCATOR_LATITUDE, Footprint
from odc_openeo.services.grids import get_epsg_code
from odc_openeo.services.model import Service

LAYER: Final = "result"
STYLE: Final = "default"
VERSION: Final = "1.0.0"
MEDIA_TYPE: Final = "application/xml"
WMTS: Final = "http://www.opengis.net/wmts/1.0"
OWS: Final = "http://www.opengis.net/ows/1.1"
XLINK: Final = "http://www.w3.org/1999/xlink"
MOST_TIMES: Final = 1000
"""Dates listed one by one; if there are more, only the first and the last are listed."""

for _prefix, _uri in (("", WMTS), ("ows", OWS), ("xlink", XLINK)):
    ET.register_namespace(_prefix, _uri)


@dataclass(frozen=True)
class TileRequest:
    """The tile that a client requests."""

    matrix_set: str
    level: str
    column: int
    row: int
    time: str | None


def parse_tile_request(parameters: Mapping[str, str]) -> TileRequest:
    """Parse key-value pairs, whose names may be in any case.

    Raises:
        RequestInvalid: a parameter is missing or has an unsupported value.
    """
    values = {name.upper(): value for name, value in parameters.items()}
    missing = [n for n in ("TILEMATRIXSET", "TILEMATRIX", "TILECOL", "TILEROW") if not values.get(n)]
    if missing:
        raise RequestInvalid(reason=f"the parameters {', '.join(missing)} are missing.")
    if values.get("LAYER", LAYER) != LAYER:
        raise RequestInvalid(reason=f"there is no layer '{values['LAYER']}', only '{LAYER}'.")
    column, row = (_parse_whole_number(values[n], n) for n in ("TILECOL", "TILEROW"))
    return TileRequest(values["TILEMATRIXSET"], values["TILEMATRIX"], column, row, values.get("TIME"))


def _parse_whole_number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise RequestInvalid(reason=f"{name} must be a whole number, 0 or more.")
    return int(text)


def strip_set_id(matrix_set: TileMatrixSet, level: str) -> str:
    """Return the id of a level; some clients prefix it with the id of the set."""
    return level.removeprefix(f"{matrix_set.id}:")


# --- Capabilities --------------------------------------------------------------------------------


def make_capabilities(
    service: Service, footprint: Footprint, sets: Sequence[TileMatrixSet], address: str
) -> bytes:
    """Return the capabilities document of a service at an address."""
    root = ET.Element(_wmts("Capabilities"), {"version": VERSION})
    identification = _add_element(root, _ows("ServiceIdentification"))
    _add_element(identification, _ows("Title"), service.draft.title or str(service.id))
    _add_element(identification, _ows("Abstract"), service.draft.description or "")
    _add_element(identification, _ows("ServiceType"), "OGC WMTS")
    _add_element(identification, _ows("ServiceTypeVersion"), VERSION)
    operations = _add_element(root, _ows("OperationsMetadata"))
    for name in ("GetCapabilities", "GetTile"):
        _add_operation(operations, name, address)
    contents = _add_element(root, _wmts("Contents"))
    _add_layer(contents, service, footprint, sets, address)
    for matrix_set in sets:
        _add_matrix_set(contents, matrix_set)
    link = _add_element(root, _wmts("ServiceMetadataURL"))
    link.set(f"{{{XLINK}}}href", f"{address}/WMTSCapabilities.xml")
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="UTF-8", xml_declaration=True))


def _wmts(name: str) -> str:
    return f"{{{WMTS}}}{name}"


def _ows(name: str) -> str:
    return f"{{{OWS}}}{name}"


def _add_element(parent: ET.Element, name: str, text: str | None = None) -> ET.Element:
    element = ET.SubElement(parent, name)
    element.text = None if text is None else _drop_unprintable(text)
    return element


def _drop_unprintable(text: str) -> str:
    """Return text without the characters that XML does not allow."""
    return "".join(c for c in text if c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff"))


def _add_operation(parent: ET.Element, name: str, address: str) -> None:
    operation = _add_element(parent, _ows("Operation"))
    operation.set("name", name)
    get = _add_element(_add_element(_add_element(operation, _ows("DCP")), _ows("HTTP")), _ows("Get"))
    get.set(f"{{{XLINK}}}href", f"{address}?")
    constraint = _add_element(get, _ows("Constraint"))
    constraint.set("name", "GetEncoding")
    _add_element(_add_element(constraint, _ows("AllowedValues")), _ows("Value"), "KVP")


def _add_layer(
    parent: ET.Element, service: Service, footprint: Footprint, sets: Sequence[TileMatrixSet], address: str
) -> None:
    layer = _add_element(parent, _wmts("Layer"))
    _add_element(layer, _ows("Title"), service.draft.title or str(service.id))
    _add_element(layer, _ows("Abstract"), service.draft.description or "")
    west, south, east, north = footprint.bounds or (-180.0, -MERCATOR_LATITUDE, 180.0, MERCATOR_LATITUDE)
    box = _add_element(layer, _ows("WGS84BoundingBox"))
    _add_element(box, _ows("LowerCorner"), f"{west!r} {south!r}")
    _add_element(box, _ows("UpperCorner"), f"{east!r} {north!r}")
    _add_element(layer, _ows("Identifier"), LAYER)
    style = _add_element(layer, _wmts("Style"))
    style.set("isDefault", "true")
    _add_element(style, _ows("Identifier"), STYLE)
    legend = _add_element(style, _wmts("LegendURL"))
    legend.set("format", "image/png")
    legend.set(f"{{{XLINK}}}href", f"{address}/legend.png")
    format_ = service.get_setting("format", "PNG")
    _add_element(layer, _wmts("Format"), MEDIA_TYPES[format_])
    if footprint.times:
        _add_times(layer, service, footprint.times)
    for matrix_set in sets:
        _add_element(_add_element(layer, _wmts("TileMatrixSetLink")), _wmts("TileMatrixSet"), matrix_set.id)
    resource = _add_element(layer, _wmts("ResourceURL"))
    resource.set("format", MEDIA_TYPES[format_])
    resource.set("resourceType", "tile")
    time = "{Time}/" if footprint.times else ""
    path = f"wmts/{time}{{TileMatrixSet}}/{{TileMatrix}}/{{TileCol}}/{{TileRow}}.{EXTENSIONS[format_]}"
    resource.set("template", f"{address}/{path}")


def _add_times(layer: ET.Element, service: Service, times: Sequence[str]) -> None:
    dimension = _add_element(layer, _wmts("Dimension"))
    _add_element(dimension, _ows("Identifier"), "Time")
    _add_element(dimension, _wmts("Default"), service.get_setting("time") or times[-1])
    for time in times if len(times) <= MOST_TIMES else (times[0], times[-1]):
        _add_element(dimension, _wmts("Value"), time)


def _add_matrix_set(parent: ET.Element, matrix_set: TileMatrixSet) -> None:
    set_element = _add_element(parent, _wmts("TileMatrixSet"))
    _add_element(set_element, _ows("Identifier"), matrix_set.id)
    code = get_epsg_code(matrix_set)
    _add_element(set_element, _ows("SupportedCRS"), f"urn:ogc:def:crs:EPSG::{code}")
    north_first = pyproj.CRS.from_epsg(code).axis_info[0].direction == "north"
    for matrix in matrix_set.tileMatrices:
        element = _add_element(set_element, _wmts("TileMatrix"))
        _add_element(element, _ows("Identifier"), matrix.id)
        _add_element(element, _wmts("ScaleDenominator"), repr(matrix.scaleDenominator))
        corner = reversed(matrix.pointOfOrigin) if north_first else iter(matrix.pointOfOrigin)
        _add_element(element, _wmts("TopLeftCorner"), " ".join(_format_numbers(corner)))
        _add_element(element, _wmts("TileWidth"), str(matrix.tileWidth))
        _add_element(element, _wmts("TileHeight"), str(matrix.tileHeight))
        _add_element(element, _wmts("MatrixWidth"), str(matrix.matrixWidth))
        _add_element(element, _wmts("MatrixHeight"), str(matrix.matrixHeight))


def _format_numbers(values: Iterator[float]) -> Iterator[str]:
    return (repr(float(value)) for value in values)


def make_exception_report(error: OpenEOError) -> bytes:
    """Return an error as an OGC exception report."""
    root = ET.Element(_ows("ExceptionReport"), {"version": "1.1.0"})
    element = _add_element(root, _ows("Exception"))
    codes = {"TileOutOfRange": "TileOutOfRange", "RequestInvalid": "InvalidParameterValue"}
    element.set("exceptionCode", codes.get(error.code, "NoApplicableCode"))
    element.set("locator", error.code)
    _add_element(element, _ows("ExceptionText"), error.to_dict()["message"])
    return bytes(ET.tostring(root, encoding="UTF-8", xml_declaration=True))
