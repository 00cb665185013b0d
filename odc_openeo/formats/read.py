"""Input formats: files of users as cubes, rasters lazily.

Files come from users, so only the reader of the named format opens them, and none follows references.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from odc_openeo.errors import FileContentInvalid, FileTypeInvalid, OpenEOError
from odc_openeo.formats.read_gtiff import read_gtiff
from odc_openeo.formats.read_netcdf import read_netcdf
from odc_openeo.formats.read_vector import read_csv, read_geojson, read_parquet
from odc_openeo.runners.memory_failures import is_memory_failure
from odc_openeo.runners.notices import opening_files

log = logging.getLogger(__name__)


SECONDS_TO_OPEN: Final = 10.0
"""Time limit for opening a file, of which only the header is read."""


@dataclass(frozen=True)
class InputFormat:
    """A format that can be read; ``reader`` makes one cube of several files, in their order."""

    name: str
    title: str
    description: str
    gis_data_types: Sequence[str]
    reader: Callable[[Sequence[Path]], Any]
    seconds_to_open: float | None = None

    def read(self, paths: Sequence[Path]) -> Any:
        """Read one cube from several files, in their order.

        Raises:
            FileContentInvalid: a file is not of this format. Damaged files make libraries raise all kinds of
                errors, so every one of them counts.
            IncompatibleDataCubes: the files do not make one cube.
        """
        try:
            with opening_files([path.name for path in paths], self.seconds_to_open):
                return self.reader(paths)
        except OpenEOError:
            raise
        except Exception as error:
            if is_memory_failure(error):
                raise MemoryError from None
            log.info("a user's file cannot be read", exc_info=True)
            names = ", ".join(path.name for path in paths)
            reason = f"it is not a valid {self.name} file, or a damaged one."
            raise FileContentInvalid(file=names, reason=reason) from error

    def to_dict(self) -> dict[str, Any]:
        """The format as an entry of ``GET /file_formats``."""
        entry = {"title": self.title, "description": self.description}
        return {**entry, "gis_data_types": list(self.gis_data_types), "parameters": {}}


INPUT_FORMATS: Final[dict[str, InputFormat]] = {
    f.name: f
    for f in (
        InputFormat(
            "GTiff",
            "GeoTIFF",
            "Rasters with a CRS and a grid along its axes. Descriptions name the bands, else band_1, "
            "band_2 and so on. Several files on one grid become one cube with the bands of all.",
            ["raster"],
            read_gtiff,
            SECONDS_TO_OPEN,
        ),
        InputFormat(
            "netCDF",
            "Network Common Data Form (CF)",
            "Rasters with a CRS (a CF grid mapping, or longitude and latitude) and even coordinates. "
            "Variables with a grid are the bands, or the labels of a dimension 'bands' are. Several files on "
            "one grid become one cube with the bands of all.",
            ["raster"],
            read_netcdf,
            SECONDS_TO_OPEN,
        ),
        InputFormat(
            "GeoJSON",
            "GeoJSON",
            "Features become a vector cube without values that keeps their properties. Several files are put "
            "one after the other.",
            ["vector"],
            read_geojson,
        ),
        InputFormat(
            "Parquet",
            "GeoParquet",
            "Geometries become a vector cube without values that keeps the other columns as properties. "
            "Several files are put one after the other.",
            ["vector"],
            read_parquet,
        ),
        InputFormat(
            "CSV",
            "Comma-separated values",
            "Rows become a vector cube without values: points by the columns lon and lat (degrees), or "
            "geometries by a column geometry (WKT); other columns are kept as properties. UTF-8, with a "
            "header and commas. Several files are put one after the other.",
            ["vector"],
            read_csv,
        ),
    )
}
_BY_LOWER_CASE: Final = {name.lower(): f for name, f in INPUT_FORMATS.items()}


def get_input_format(name: str) -> InputFormat:
    """Look up an input format by its name in any casing; `FileTypeInvalid` if there is none."""
    input_format = _BY_LOWER_CASE.get(name.lower())
    if input_format is None:
        raise FileTypeInvalid(type=name, types=", ".join(INPUT_FORMATS))
    return input_format
