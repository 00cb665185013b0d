"""Clouds found in optical images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Final

import dask.array as da
import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.errors import DimensionMissing, LabelNotAvailable, ProcessParameterInvalid
from odc_openeo.process import Schema, process
from odc_openeo.processes.schemas import BANDS, SPATIAL, datacube_schema

WANTED: Final = {
    "B01": "coastal",
    "B02": "blue",
    "B04": "red",
    "B05": "rededge071",
    "B08": "nir",
    "B8A": "nir08",
    "B09": "nir09",
    "B10": "cirrus",
    "B11": "swir16",
    "B12": "swir22",
}
"""The bands that s2cloudless looks at, in its order, with their common names."""

LARGEST_REFLECTANCE: Final = 10.0
"""Over bright clouds reflectance may be above 1, but never as large as digital numbers are."""

OpticalCube = Annotated[xr.DataArray, Schema(datacube_schema(SPATIAL, BANDS))]
Method = Annotated[
    str | None, Schema([{"type": "string", "enum": ["Fmask", "s2cloudless", "Sen2Cor"]}, {"type": "null"}])
]
Options = Annotated[Mapping[str, Any], Schema({"type": "object", "additionalProperties": False})]


@process(categories=["cubes", "optical"], experimental=True)
def cloud_detection(
    data: OpticalCube,
    method: Method,
    options: Options = {},  # noqa: B006 (the published default; never changed)
) -> OpticalCube:
    """Find the probability of clouds in Sentinel-2 images.

    The only method is s2cloudless: a model that looks at ten bands of a pixel. The cube must have the bands
    B01, B02, B04, B05, B08, B8A, B09, B10, B11 and B12 (by these names or by their common names) as
    reflectances at the top of the atmosphere between 0 and 1. Digital numbers are not scaled: apply scale and
    offset of the collection first, for example `x * 0.0001 - 0.1`.

    Args:
        data: A cube of Sentinel-2 L1C reflectances.
        method: `s2cloudless`, or null for the same.
        options: There are none.

    Returns:
        A cube that has the single band `cloud`: probabilities between 0 and 1, no-data where any band has it.

    Raises:
        DimensionMissing: The cube has no bands.
        LabelNotAvailable: A band is missing.
    """
    if method not in (None, "s2cloudless"):
        reason = f"{method} is not available here. Use 's2cloudless', or null."
        raise ProcessParameterInvalid(process="cloud_detection", parameter="method", reason=reason)
    if not cube.has_raster_dimensions(data):
        raise DimensionMissing(type="spatial")
    if data.dtype.kind != "f":
        raise _not_reflectance("they are integers")
    bands = cube.bands_dimension(data)
    chosen = data.isel({bands: _positions(data, bands)}).transpose(..., bands)
    values = chosen.data
    if isinstance(values, da.Array):
        whole = values.rechunk({values.ndim - 1: -1})
        chunks = (*whole.chunks[:-1], (1,))
        found = whole.map_blocks(_probability, chunks=chunks, dtype=np.float32, meta=whole._meta.astype("f4"))
    else:
        found = _probability(values)
    coords = {k: c.variable for k, c in chosen.coords.items() if bands not in c.dims}
    result = xr.DataArray(found, dims=chosen.dims, coords={**coords, bands: ["cloud"]}, attrs=data.attrs)
    result.coords[bands].attrs.update(data.coords[bands].attrs)
    return result.transpose(*data.dims)


def _positions(data: xr.DataArray, bands: str) -> list[int]:
    names = [_plain(str(name)) for name in cube.labels(data, bands)]
    common = data.coords.get(cube.COMMON_NAME)
    common_names = [] if common is None or common.dims != (bands,) else common.values.tolist()
    positions = []
    for name, common_name in WANTED.items():
        if name in names:
            positions.append(names.index(name))
        elif common_names.count(common_name) == 1:
            positions.append(common_names.index(common_name))
        else:
            raise LabelNotAvailable(
                f"s2cloudless needs the band {name} ({common_name}), which is not among the bands "
                f"{', '.join(map(str, cube.labels(data, bands)))}."
            )
    return positions


def _plain(name: str) -> str:
    """The name of a Sentinel-2 band with two digits."""
    short = re.fullmatch(r"[Bb](\d)([Aa]?)", name)
    return f"B{short[1]}A" if short and short[2] else f"B0{short[1]}" if short else name.upper()


@cache
def _detector() -> Any:
    from s2cloudless import S2PixelCloudDetector

    return S2PixelCloudDetector(average_over=None, dilation_size=None)


def _probability(block: np.ndarray) -> np.ndarray:
    """Probabilities ``(..., 1)`` of clouds for reflectances ``(..., 10)`` with the wanted bands last."""
    pixels = block.reshape(-1, len(WANTED))
    known = np.isfinite(pixels).all(axis=1)
    if (pixels[known] > LARGEST_REFLECTANCE).any():
        raise _not_reflectance(f"there are values up to {pixels[known].max():g}")
    found = np.full(len(pixels), np.nan, np.float32)
    if known.any():
        image = pixels[known].astype(float)[None, None]
        found[known] = _detector().get_cloud_probability_maps(image)[0, 0]
    return found.reshape(*block.shape[:-1], 1)


def _not_reflectance(what: str) -> ProcessParameterInvalid:
    reason = (
        f"the values must be reflectances between 0 and 1, but {what}. Apply the scale and offset of the "
        "collection first, for example with 'linear_scale_range' or 'multiply'."
    )
    return ProcessParameterInvalid(process="cloud_detection", parameter="data", reason=reason)
