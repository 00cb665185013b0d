"""The table of output formats, and its description for ``GET /file_formats``."""

from __future__ import annotations

from typing import Any, Final

from odc_openeo.errors import FileTypeInvalid
from odc_openeo.formats.gtiff import GTIFF
from odc_openeo.formats.icechunk import ICECHUNK
from odc_openeo.formats.json import JSON
from odc_openeo.formats.model import Format
from odc_openeo.formats.netcdf import NETCDF
from odc_openeo.formats.pictures import JPEG, PNG
from odc_openeo.formats.read import INPUT_FORMATS
from odc_openeo.formats.repositories import has_icechunk
from odc_openeo.formats.vector_tables import CSV, GEOJSON, PARQUET
from odc_openeo.formats.zarr import ZARR

FORMATS: Final[dict[str, Format]] = {
    f.name: f
    for f in (
        *(GTIFF, NETCDF, ZARR),
        *([ICECHUNK] if has_icechunk() else []),
        *(PNG, JPEG, JSON, CSV, GEOJSON, PARQUET),
    )
}
_BY_LOWER_CASE: Final = {name.lower(): f for name, f in FORMATS.items()}


def get_format(name: str) -> Format:
    """Look up a format by its name in any casing (the API forbids aliases), or raise `FileTypeInvalid`."""
    format_ = _BY_LOWER_CASE.get(name.lower())
    if format_ is None:
        raise FileTypeInvalid(type=name, types=", ".join(FORMATS))
    return format_


def describe_formats() -> dict[str, Any]:
    """Make the body of ``GET /file_formats``."""
    inputs = {name: f.to_dict() for name, f in INPUT_FORMATS.items()}
    return {"input": inputs, "output": {name: f.to_dict() for name, f in FORMATS.items()}}
