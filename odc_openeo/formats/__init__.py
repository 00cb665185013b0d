"""File formats: what they are called, which options they take, how cubes and values become files.

`find_format` and `file_formats` know the table, `write_outputs` writes what a process graph gave,
`single_file`
packs several files into one. A format is a module with a `Format` (see `model`); the table is in `registry`.
"""

from odc_openeo.formats.model import Asset, Compute, Format, Target
from odc_openeo.formats.registry import FORMATS, file_formats, find_format
from odc_openeo.formats.write import Output, default_format, single_file, write_outputs

__all__ = [
    "FORMATS",
    "Asset",
    "Compute",
    "Format",
    "Output",
    "Target",
    "default_format",
    "file_formats",
    "find_format",
    "single_file",
    "write_outputs",
]
