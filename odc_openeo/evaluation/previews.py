"""Draw a small picture of what a process graph loads, as a user would: scale, save as PNG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.catalog import OPERATOR
from odc_openeo.compute import cluster
from odc_openeo.config import Config
from odc_openeo.formats import Output, write_outputs
from odc_openeo.graph import evaluate
from odc_openeo.graph.estimate import count_read_bytes
from odc_openeo.registry.environment import RunLimits
from odc_openeo.storage.scratch_folders import make_scratch_folder
from odc_openeo.user_data.run_environment import make_environment

MOST_BYTES: Final = 128 * 2**20
SECONDS: Final = 30
COLOURS: Final = ["#0b2433", "#14586a", "#4f9a86", "#b9cf8b", "#f2e7b9", "#fffdf2"]
CUT_PERCENT: Final = (2, 98)


def draw_preview(config: Config, process: Mapping[str, Any]) -> bytes:
    """Return a PNG of a process that gives a cube with the dimensions bands, y, x.

    Raises:
        OpenEOError: what evaluating and computing raise.
        ValueError: no pixel is valid.
    """
    limits = RunLimits(load_bytes=MOST_BYTES, load_chunks=1000)
    lazy = evaluate(process, make_environment(config, None, limits, reader=OPERATOR))
    (computed,) = cluster.compute(config, lazy, nbytes=count_read_bytes([lazy]), timeout=SECONDS)
    return _encode_png(config, computed)


def _encode_png(config: Config, values: xr.DataArray) -> bytes:
    numbers = cube.decode(values)
    low, high = _find_range(numbers.values[np.isfinite(numbers.values)])
    scaled = (numbers - low) * (255 / (high - low))
    options = {"colormap": COLOURS} if scaled.sizes[cube.BANDS] == 1 else {}
    with make_scratch_folder(config) as folder:
        (asset,) = write_outputs(None, [Output.from_data(scaled, "PNG", options)], folder)
        return asset.path.read_bytes()


def _find_range(values: np.ndarray) -> tuple[float, float]:
    """The values that become the darkest and the brightest shade."""
    if not values.size:
        raise ValueError("the scene has no valid pixel in its middle")
    low, high = (float(v) for v in np.nanpercentile(values, CUT_PERCENT))
    return (low, high) if high > low else (low - 0.5, low + 0.5)
