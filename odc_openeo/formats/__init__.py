"""File formats: their names and options, and how cubes and values become files.

`get_format` and `describe_formats` look up the table of formats, `write_outputs` writes the results of a
process graph, `make_download` makes one download of its files. A format is a module with a `Format` (see
`model`); the table is in `registry`.
"""

from odc_openeo.formats.downloads import Download, explain_archive, make_download
from odc_openeo.formats.model import Asset, Compute, Format, Target
from odc_openeo.formats.registry import FORMATS, describe_formats, get_format
from odc_openeo.formats.write import (
    Output,
    choose_format,
    name_outputs,
    write_outputs,
)

__all__ = [
    "FORMATS",
    "Asset",
    "Compute",
    "Download",
    "Format",
    "Output",
    "Target",
    "choose_format",
    "describe_formats",
    "explain_archive",
    "get_format",
    "make_download",
    "name_outputs",
    "write_outputs",
]
