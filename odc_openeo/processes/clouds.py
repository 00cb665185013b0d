"""Detect clouds in optical images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final

import dask.array as da
import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.errors import DimensionMissing, LabelNotAvailable, ProcessParameterInvalid
from odc_openeo.registry.demand import along_dimensions
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import BANDS, SPATIAL, datacube_schema

S2CLOUDLESS_BANDS: Final = {
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
"""The bands that s2cloudless uses, in its order, with their common names."""

LARGEST_REFLECTANCE: Final = 10.0
"""The reflectance of bright clouds may exceed 1, but is never as large as digital numbers."""

OpticalCube = Annotated[xr.DataArray, Schema(datacube_schema(SPATIAL, BANDS))]
Method = Annotated[
    str | None, Schema([{"type": "string", "enum": ["Fmask", "s2cloudless", "Sen2Cor"]}, {"type": "null"}])
]
Options = Annotated[Mapping[str, Any], Schema({"type": "object", "additionalProperties": False})]


@process(categories=["cubes", "optical"], experimental=True, needs=along_dimensions(cube.BANDS))
def cloud_detection(
    data: OpticalCube,
    method: Method,
    options: Options = {},  # noqa: B006 (the published default; never changed)
) -> OpticalCube:
    """Compute the probability of clouds in Sentinel-2 images.

    The only method is s2cloudless, a model that uses ten bands of each pixel. The cube must have the bands
    B01, B02, B04, B05, B08, B8A, B09, B10, B11 and B12 (with these names or their common names) as
    top-of-atmosphere reflectances between 0 and 1. Digital numbers are not converted: apply the scale and
    offset of the collection first, for example `x * 0.0001 - 0.1`.

    Args:
        data: A cube of Sentinel-2 L1C reflectances.
        method: `s2cloudless`; null also selects it.
        options: Must be empty; there are no options.

    Returns:
        A cube with the single band `cloud`: probabilities between 0 and 1, no-data where any band is no-data.

    Raises:
        DimensionMissing: The cube has no bands.
        LabelNotAvailable: A band is missing.
    """
    if method not in (None, "s2cloudless"):
        reason = f"{method} is not available. Use 's2cloudless' or null."
        raise ProcessParameterInvalid(process="cloud_detection", parameter="method", reason=reason)
    if not cube.has_raster_dimensions(data):
        raise DimensionMissing(type="spatial")
    if data.dtype.kind != "f":
        raise _not_reflectance_error("they are integers")
    bands = cube.get_bands_dimension(data)
    selected = data.isel({bands: find_cloud_bands(data, bands)}).transpose(..., bands)
    values = selected.data
    if isinstance(values, da.Array):
        rechunked = values.rechunk({values.ndim - 1: -1})
        chunks = (*rechunked.chunks[:-1], (1,))
        probabilities = rechunked.map_blocks(
            _cloud_probabilities, chunks=chunks, dtype=np.float32, meta=rechunked._meta.astype("f4")
        )
    else:
        probabilities = _cloud_probabilities(values)
    coords = {k: c.variable for k, c in selected.coords.items() if bands not in c.dims}
    result = xr.DataArray(
        probabilities, dims=selected.dims, coords={**coords, bands: ["cloud"]}, attrs=data.attrs
    )
    result.coords[bands].attrs.update(data.coords[bands].attrs)
    return result.transpose(*data.dims)


def find_cloud_bands(data: xr.DataArray, bands: str) -> list[int]:
    names = [_normalize_band_name(str(name)) for name in cube.labels(data, bands)]
    common = data.coords.get(cube.COMMON_NAME)
    common_names = [] if common is None or common.dims != (bands,) else common.values.tolist()
    positions = []
    for name, common_name in S2CLOUDLESS_BANDS.items():
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


def _normalize_band_name(name: str) -> str:
    """Return the name of a Sentinel-2 band with two digits."""
    match = re.fullmatch(r"[Bb](\d)([Aa]?)", name)
    return f"B{match[1]}A" if match and match[2] else f"B0{match[1]}" if match else name.upper()


@cache
def _load_model() -> Any:
    """Load the model of s2cloudless by its file: the package loads OpenCV, of which nothing is used."""
    from lightgbm import Booster

    package = find_spec("s2cloudless")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("s2cloudless is not installed", name="s2cloudless")
    (path,) = (Path(package.origin).parent / "models").glob("*lightGBM*.txt")
    return Booster(model_file=path)


def _cloud_probabilities(block: np.ndarray) -> np.ndarray:
    """Compute cloud probabilities ``(..., 1)`` from reflectances ``(..., 10)`` with the bands last."""
    pixels = block.reshape(-1, len(S2CLOUDLESS_BANDS))
    complete = np.isfinite(pixels).all(axis=1)
    if (pixels[complete] > LARGEST_REFLECTANCE).any():
        raise _not_reflectance_error(f"there are values up to {pixels[complete].max():g}")
    probabilities = np.full(len(pixels), np.nan, np.float32)
    if complete.any():
        probabilities[complete] = _load_model().predict(pixels[complete].astype(float))
    return probabilities.reshape(*block.shape[:-1], 1)


def _not_reflectance_error(problem: str) -> ProcessParameterInvalid:
    reason = (
        f"the values must be reflectances between 0 and 1, but {problem}. Apply the scale and offset of the "
        "collection first, for example with 'linear_scale_range' or 'multiply'."
    )
    return ProcessParameterInvalid(process="cloud_detection", parameter="data", reason=reason)
