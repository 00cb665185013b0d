"""The pixel type and no-data value that hold the pixels of several files without changing any."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PixelKind:
    """The pixel type of a file, its no-data value (None without one), and whether a mask marks no-data."""

    dtype: str
    nodata: float | None
    is_masked: bool = False

    def may_contain(self, value: float) -> bool:
        """Whether a valid pixel may have this value."""
        type_ = np.dtype(self.dtype)
        if type_.kind not in "iu":
            return True
        limits = np.iinfo(type_)
        return bool(limits.min <= value <= limits.max) and (self.is_masked or self.nodata != value)


def choose_common_type(kinds: Iterable[PixelKind]) -> tuple[str, float | None]:
    """Choose the type and no-data value of a band with pixels of these kinds.

    Integers stay integers if one of their no-data values means no valid pixel in any other file, or if none
    has no-data; otherwise they become floats, in which NaN is no-data. ``nodata`` of floats is what the first
    file has, for information.
    """
    kinds = list(dict.fromkeys(kinds))
    common = np.result_type(*(kind.dtype for kind in kinds))
    values = list(dict.fromkeys(kind.nodata for kind in kinds if kind.nodata is not None))
    if common.kind not in "iu":
        return str(common), values[0] if values else None
    marked = [value for value in values if _is_held(value, common)]
    free = [value for value in marked if not any(kind.may_contain(value) for kind in kinds)]
    if free:
        return str(common), free[0]
    if not values and not any(kind.is_masked for kind in kinds):
        return str(common), None
    return str(choose_float(common)), math.nan


def choose_float(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The float type in which integers of a type are exact, up to 53 bits."""
    return np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)


def _is_held(value: float, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= value <= limits.max)
