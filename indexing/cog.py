"""Write an array as a Cloud Optimized GeoTIFF, the same bytes every time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.io import MemoryFile


def write_cog(
    path: Path, layer: NDArray[np.generic], geobox: GeoBox, nodata: float, *, averaged: bool, title: str
) -> None:
    """Write the two-dimensional `layer` on the grid `geobox` to `path` as COG with overviews.

    `averaged` builds overviews of means; otherwise, for classes and bits, of single pixels. DEFLATE, blocks
    of 512 (128 for small layers, which would be padded).
    """
    height, width = layer.shape
    if geobox.crs is None:
        raise ValueError(f"{path.name}: a COG needs a grid with a CRS")
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 1,
        "dtype": layer.dtype.name,
        "crs": geobox.crs.to_wkt(),
        "transform": geobox.affine,
        "nodata": nodata,
    }
    with MemoryFile() as memory:
        with memory.open(**profile) as raw:
            raw.write(layer, 1)
            raw.set_band_description(1, title)
        rasterio.shutil.copy(
            memory.name,
            path,
            driver="COG",
            compress="DEFLATE",
            level=3,
            predictor="YES",
            blocksize=512 if max(layer.shape) > 128 else 128,
            overview_count=max(1, math.ceil(math.log2(max(layer.shape) / 256))),
            overview_resampling="AVERAGE" if averaged else "NEAREST",
        )
