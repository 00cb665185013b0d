"""Bands of a raster file: what its header says of them, and which of their pixels are valid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader


@dataclass(frozen=True)
class BandHeader:
    """A band of a file. ``nodata`` is None if there is none, or none that pixels of this type can have.

    ``mask`` says where the file marks its valid pixels if not by ``nodata``: ``"mask"``, ``"alpha"`` or
    nowhere (None).
    """

    description: str | None
    dtype: str
    nodata: float | None
    scale: float
    offset: float
    unit: str | None
    is_alpha: bool = False
    mask: str | None = None


def read_band_headers(file: DatasetReader) -> tuple[BandHeader, ...]:
    """The headers of all bands of a file."""
    return tuple(_read_band_header(file, i) for i in range(file.count))


def _read_band_header(file: DatasetReader, i: int) -> BandHeader:
    return BandHeader(
        file.descriptions[i] or None,
        file.dtypes[i],
        find_usable_nodata(file.nodatavals[i], file.dtypes[i]),
        file.scales[i],
        file.offsets[i],
        file.units[i] or None,
        file.colorinterp[i] is ColorInterp.alpha,
        _find_mask(file, i + 1),
    )


def _find_mask(file: DatasetReader, band: int) -> str | None:
    flags = file.mask_flag_enums[band - 1]
    if MaskFlags.alpha in flags:
        return "alpha"
    return "mask" if MaskFlags.per_dataset in flags else None


def list_data_bands(headers: Sequence[BandHeader], names: Sequence[Any] | None = None) -> list[int]:
    """The positions from 0 of all bands but an alpha band, by the names that metadata or the file give them.

    An alpha band with the name of something else is data: drivers mark any fourth band of bytes as alpha.
    """
    names = [None] * len(headers) if names is None else names
    positions = [
        i
        for i, (band, name) in enumerate(zip(headers, names, strict=True))
        if not band.is_alpha or not _is_alpha_name(name or band.description)
    ]
    return positions or list(range(len(headers)))


def _is_alpha_name(name: Any) -> bool:
    return name is None or "alpha" in str(name).lower()


def make_unique_names(names: Sequence[str]) -> Iterator[str]:
    """The names; those that occur again get a number: b, b_2, b_3."""
    used: set[str] = set()
    for name in names:
        candidates = (f"{name}_{i}" for i in range(2, 2 * len(names) + 2))
        free = name if name not in used else next(n for n in candidates if n not in used and n not in names)
        used.add(free)
        yield free


# --- Pixels --------------------------------------------------------------------------------------


def find_usable_nodata(nodata: Any, dtype: str) -> float | None:
    """The no-data value if pixels of the type can have it, else None."""
    if nodata is None or is_complex(dtype):
        return None
    type_ = np.dtype(dtype)
    if type_.kind not in "iu":
        return float(nodata)
    limits = np.iinfo(type_)
    is_usable = math.isfinite(nodata) and limits.min <= nodata <= limits.max and nodata == int(nodata)
    return int(nodata) if is_usable else None


def is_complex(dtype: str) -> bool:
    """Whether pixels are complex numbers, some of which numpy has no type for."""
    return dtype.startswith("complex")


def has_mask(raster: DatasetReader, band: int, uses_alpha: bool) -> bool:
    """Whether a mask of the file marks the valid pixels of a band; an alpha band only with ``uses_alpha``."""
    mask = _find_mask(raster, band)
    return mask == "mask" or (mask == "alpha" and uses_alpha)


def find_nodata(raster: DatasetReader, band: int, declared: float | None) -> float | None:
    """The no-data value of a band: that of the file, else the declared one, if its pixels can have it."""
    dtype = raster.dtypes[band - 1]
    nodata = find_usable_nodata(raster.nodatavals[band - 1], dtype)
    return find_usable_nodata(declared, dtype) if nodata is None else nodata


def read_window(
    raster: DatasetReader, band: int, window: Any, *, uses_alpha: bool, declared: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of a window (rows, columns) in the type of the file, and which of them are valid."""
    values = np.asarray(raster.read(band, window=window))
    if has_mask(raster, band, uses_alpha):
        valid = raster.read_masks(band, window=window) != 0
    else:
        nodata = find_nodata(raster, band, declared)
        valid = np.ones(values.shape, bool) if nodata is None else values != values.dtype.type(nodata)
    if values.dtype.kind == "f":
        valid &= ~np.isnan(values)
    return values, np.asarray(valid)
