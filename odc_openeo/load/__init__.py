"""Load scenes as lazy raster cubes on the grid of their files.

The only package that reads pixels, with `odc.loader`, the engine of odc-stac.
"""

from __future__ import annotations

from odc_openeo.load.build import load
from odc_openeo.load.chunking import Volume
from odc_openeo.load.native_grid import NativeGrid, choose_native_grid
from odc_openeo.load.read_errors import explain_read_failure
from odc_openeo.load.request import LoadRequest, parse_request
from odc_openeo.load.subset import Subset

__all__ = [
    "LoadRequest",
    "NativeGrid",
    "Subset",
    "Volume",
    "choose_native_grid",
    "explain_read_failure",
    "load",
    "parse_request",
]
