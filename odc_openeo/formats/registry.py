"""The table of output formats, and what ``GET /file_formats`` says of it."""

from __future__ import annotations

from typing import Any, Final

from odc_openeo.errors import FileTypeInvalid
from odc_openeo.formats.gtiff import GTIFF
from odc_openeo.formats.json import JSON
from odc_openeo.formats.model import Format
from odc_openeo.formats.netcdf import NETCDF
from odc_openeo.formats.pictures import JPEG, PNG
from odc_openeo.formats.read import INPUT_FORMATS
from odc_openeo.formats.tables import CSV, GEOJSON, PARQUET
from odc_openeo.formats.zarr import ZARR

FORMATS: Final[dict[str, Format]] = {
    f.name: f for f in (GTIFF, NETCDF, ZARR, PNG, JPEG, JSON, CSV, GEOJSON, PARQUET)
}
_BY_LOWER_CASE: Final = {name.lower(): f for name, f in FORMATS.items()}


def find_format(name: str) -> Format:
    """The format of a name in any casing (the API forbids aliases); `FileTypeInvalid` if there is none."""
    found = _BY_LOWER_CASE.get(name.lower())
    if found is None:
        raise FileTypeInvalid(type=name, types=", ".join(FORMATS))
    return found


def file_formats() -> dict[str, Any]:
    """The body of ``GET /file_formats``."""
    inputs = {name: f.to_dict() for name, f in INPUT_FORMATS.items()}
    return {"input": inputs, "output": {name: f.to_dict() for name, f in FORMATS.items()}}
