"""File formats: their names and options, and how cubes and values become files.

`get_format` and `describe_formats` look up the table of formats, `write_outputs` writes the results of a
process graph, `pack_files` packs several files into one. A format is a module with a `Format` (see `model`);
the table is in `registry`.
"""

from odc_openeo.formats.model import Asset, Compute, Format, Target
from odc_openeo.formats.registry import FORMATS, describe_formats, get_format
from odc_openeo.formats.write import (
    ARCHIVE_TYPE,
    Output,
    choose_format,
    explain_archive,
    name_archive,
    name_outputs,
    pack_files,
    write_outputs,
)

__all__ = [
    "ARCHIVE_TYPE",
    "FORMATS",
    "Asset",
    "Compute",
    "Format",
    "Output",
    "Target",
    "choose_format",
    "describe_formats",
    "explain_archive",
    "get_format",
    "name_archive",
    "name_outputs",
    "pack_files",
    "write_outputs",
]
