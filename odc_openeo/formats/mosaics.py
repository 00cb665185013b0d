"""Virtual mosaics (GDAL VRT) of GeoTIFFs that are parts of one raster."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as Xml

import xarray as xr
from affine import Affine

from odc_openeo.formats.model import Asset
from odc_openeo.formats.raster import Raster, describe_placement

MEDIA_TYPE: Final = "application/xml"
GDAL_TYPES: Final = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "uint64": "UInt64",
    "int64": "Int64",
    "float32": "Float32",
    "float64": "Float64",
    "complex64": "CFloat32",
    "complex128": "CFloat64",
}
PART: Final = re.compile(r"_part-\d+")


def write_mosaics(
    skeleton: xr.DataArray, assets: Sequence[Mapping[str, Any]], folder: Path, stem: str
) -> list[Asset]:
    """Write a mosaic for each layer whose files are among the assets; sources are named relative to it.

    ``assets`` are described files, named ``<stem>_part-<number>_<layer>.tif``; ``skeleton`` is the whole.
    """
    raster = Raster.from_cube(skeleton)
    if raster.geobox is None or raster.geobox.crs is None:
        return []
    placement = describe_placement(raster.geobox)
    layers: dict[str, list[Mapping[str, Any]]] = {}
    for asset in assets:
        name = str(asset["name"])
        layer = stem + PART.sub("", name.removeprefix(stem), count=1)
        layers.setdefault(layer, []).append(asset)
    mosaics = []
    for name, files in layers.items():
        path = folder / f"{name.rpartition('.')[0]}.vrt"
        path.write_bytes(make_mosaic(raster, files))
        mosaics.append(_describe_mosaic(path, files[0], placement))
    return mosaics


def _describe_mosaic(path: Path, file: Mapping[str, Any], placement: Mapping[str, Any]) -> Asset:
    times: dict[str, Any] = {name: file.get(name) for name in ("datetime", "start_datetime", "end_datetime")}
    bands = [{k: v for k, v in band.items() if k != "statistics"} for band in file.get("bands", ())]
    return Asset(
        path, MEDIA_TYPE, "Virtual mosaic of all parts", ["data", "virtual"], bands, **times, **placement
    )


def make_mosaic(raster: Raster, files: Sequence[Mapping[str, Any]]) -> bytes:
    """Make the XML of the mosaic of some files on the grid of a raster."""
    geobox = raster.geobox
    assert geobox is not None
    height, width = geobox.shape
    root = Xml.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    Xml.SubElement(root, "SRS").text = geobox.crs.to_wkt()
    transform = Affine(*geobox.transform[:6])
    Xml.SubElement(root, "GeoTransform").text = ", ".join(repr(float(n)) for n in transform.to_gdal())
    for number, band in enumerate(files[0]["bands"], 1):
        _add_band(root, number, band, files, transform)
    return Xml.tostring(root, encoding="utf-8", xml_declaration=True)


def _add_band(
    root: Xml.Element,
    number: int,
    band: Mapping[str, Any],
    files: Sequence[Mapping[str, Any]],
    transform: Affine,
) -> None:
    data_type = GDAL_TYPES[band["data_type"]]
    element = Xml.SubElement(root, "VRTRasterBand", dataType=data_type, band=str(number))
    if band.get("name"):
        Xml.SubElement(element, "Description").text = str(band["name"])
    if band.get("nodata") is not None:
        Xml.SubElement(element, "NoDataValue").text = str(band["nodata"])
    for tag, name in (("UnitType", "unit"), ("Offset", "raster:offset"), ("Scale", "raster:scale")):
        if band.get(name) is not None:
            Xml.SubElement(element, tag).text = str(band[name])
    for file in files:
        _add_source(element, number, file, transform)


def _add_source(element: Xml.Element, number: int, file: Mapping[str, Any], transform: Affine) -> None:
    height, width = file["projection"]["proj:shape"]
    corner = Affine(*file["projection"]["proj:transform"][:6]) * (0, 0)
    column, row = (round(n) for n in ~transform * corner)
    source = Xml.SubElement(element, "SimpleSource")
    Xml.SubElement(source, "SourceFilename", relativeToVRT="1").text = str(file["name"])
    Xml.SubElement(source, "SourceBand").text = str(number)
    size = {"xSize": str(width), "ySize": str(height)}
    Xml.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
    Xml.SubElement(source, "DstRect", {"xOff": str(column), "yOff": str(row), **size})
