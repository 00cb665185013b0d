"""The data type and no-data value of a cube that is read from files of several types."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from odc_openeo import cube
from odc_openeo.catalog import Band, map_aliases
from odc_openeo.cube.packing import Packing, make_packing_coordinates


@dataclass(frozen=True)
class Layout:
    """How pixels are stored: the type to read each band with, and that of the cube.

    ``one_nodata`` says whether integers have one no-data value in all bands, the others whether any band has
    a common name or a wavelength. ``aliases`` are other names of the bands with the labels that they have;
    ``packing`` names what any band declares of unit, scale and offset.
    """

    types: Mapping[str, str]
    dtype: np.dtype[Any]
    one_nodata: bool
    common_names: bool
    wavelengths: bool
    aliases: Mapping[str, str]
    packing: frozenset[str]


def choose_layout(bands: Sequence[Band], covered: bool) -> Layout:
    """Choose types that hold the pixels of all bands; ``covered`` if each scene covers the whole grid."""
    types = {band.name: _choose_type(band, covered) for band in bands}
    common = np.result_type(*types.values())
    metadata = (
        any(b.common_name for b in bands),
        any(b.wavelength for b in bands),
        map_aliases(bands),
        frozenset(make_packing_coordinates([get_packing(b) for b in bands])),
    )
    if common.kind in "iu":
        one = len({find_integer_nodata(b) for b in bands}) == 1
        return Layout(dict.fromkeys(types, str(common)), common, one, *metadata)
    decoded = np.result_type(*[_decode_type(type_) for type_ in types.values()])
    return Layout(types, decoded, True, *metadata)


def get_packing(band: Band) -> Packing:
    """The unit, scale and offset that are declared for a band."""
    return Packing.parse(band.units, band.scale, band.offset)


def _decode_type(type_: str) -> np.dtype[Any]:
    return cube.decode(xr.DataArray(np.zeros((), type_), attrs={cube.NODATA: 0})).dtype


def _choose_type(band: Band, covered: bool) -> str:
    if band.is_float or _is_finite(band.nodata) or covered:
        return band.dtype
    # Where no scene is there would be nothing to write.
    return "float32" if np.dtype(band.dtype).itemsize <= 2 else "float64"


def _is_finite(nodata: float | None) -> bool:
    return nodata is not None and math.isfinite(nodata)


def find_integer_nodata(band: Band) -> float | None:
    """The no-data value of a band that integers can hold, None if it has none."""
    return band.nodata if _is_finite(band.nodata) else None
