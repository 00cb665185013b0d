"""Unit, scale and offset of the bands of a cube: what its raw values mean.

They are coordinates along the bands, as `cube.COMMON_NAME` is, and absent if no band has them. The physical
value is ``raw * scale + offset``. They hold as long as the values are those of the files, or lie between
them; what computes other values loses them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import numpy as np
import xarray as xr

from odc_openeo.cube import (
    BANDS,
    OFFSET,
    PACKING,
    SCALE,
    UNIT,
    Cube,
    dimensions_of_type,
    list_packing_coordinates,
)

C = TypeVar("C")
NO_UNITS: Final = ("", "1")
"""Units that say nothing."""


@dataclass(frozen=True)
class Packing:
    """How the raw values of a band become physical ones; None where nothing is declared."""

    unit: str | None = None
    scale: float | None = None
    offset: float | None = None

    @classmethod
    def parse(cls, unit: Any, scale: Any, offset: Any) -> Packing:
        """Read the declarations of a file; what says nothing, or is not valid, is None."""
        text = None if unit is None else str(unit).strip()
        factor, summand = _parse_number(scale), _parse_number(offset)
        return cls(
            text if text not in NO_UNITS else None,
            factor if factor not in (None, 0, 1) else None,
            summand if summand not in (None, 0) else None,
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing is declared."""
        return self == Packing()

    def to_fields(self, unit: str, scale: str, offset: str) -> dict[str, Any]:
        """Return what is declared, under these names."""
        fields = {unit: self.unit, scale: self.scale, offset: self.offset}
        return {name: value for name, value in fields.items() if value is not None}


def _parse_number(value: Any) -> float | None:
    try:
        number = float(np.asarray(value, dtype=float).reshape(-1)[0])
    except (TypeError, ValueError, IndexError):
        return None
    return number if math.isfinite(number) else None


def make_packing_coordinates(
    packings: Sequence[Packing], dimension: str = BANDS, names: Set[str] = frozenset()
) -> dict[str, Any]:
    """Make the coordinates of bands; without those that no band has, unless ``names`` lists them."""
    columns: dict[str, list[Any]] = {
        UNIT: [p.unit for p in packings],
        SCALE: [p.scale for p in packings],
        OFFSET: [p.offset for p in packings],
    }
    return {
        name: (dimension, _fill_unknown(name, column))
        for name, column in columns.items()
        if name in names or any(value is not None for value in column)
    }


def _fill_unknown(name: str, column: Sequence[Any]) -> np.ndarray:
    if name == UNIT:
        return np.array([value or "" for value in column], dtype=str)
    return np.array([np.nan if value is None else value for value in column], dtype=float)


def read_packings(data: Cube, dimension: str | None) -> list[Packing]:
    """Read unit, scale and offset of each label of a bands dimension, none without a dimension."""
    if dimension is None:
        return [Packing()]
    count = data.sizes[dimension]
    columns = [
        data.coords[name].values.tolist()
        if name in data.coords and data.coords[name].dims == (dimension,)
        else [None] * count
        for name in PACKING
    ]
    return [Packing.parse(*fields) for fields in zip(*columns, strict=True)]


def drop_packing(data: C) -> C:
    """Remove unit, scale and offset of the bands from a cube; other values are returned unchanged."""
    if not isinstance(data, xr.DataArray | xr.Dataset):
        return data
    names = list_packing_coordinates(data)
    return cast(C, data.drop_vars(names)) if names else data


def carry_packing(result: Any, sources: Sequence[Any]) -> Any:
    """Give a cube the unit, scale and offset of those whose raw values it holds.

    They must be the same in all of them, band by band; otherwise the result has none.
    """
    if not isinstance(result, xr.DataArray):
        return result
    dimension = next(iter(dimensions_of_type(result, "bands")), None)
    bare = drop_packing(result)
    declared = [list_packings(source) for source in sources if isinstance(source, xr.DataArray)]
    if dimension is None or dimension not in result.coords or not declared:
        return bare
    labels = result.coords[dimension].values.tolist()
    common = [agree_on_packing([d.get(label, Packing()) for d in declared]) for label in labels]
    return bare.assign_coords(make_packing_coordinates(common, dimension))


def carry_all_packings(result: xr.DataArray, sources: Sequence[xr.DataArray]) -> xr.DataArray:
    """Give each band of a cube the unit, scale and offset that all sources with that band agree on."""
    dimension = next(iter(dimensions_of_type(result, "bands")), None)
    if dimension is None or dimension not in result.coords:
        return drop_packing(result)
    labels = result.coords[dimension].values.tolist()
    declared = [list_packings(source) for source in sources]
    common = [agree_on_packing([d[label] for d in declared if label in d]) for label in labels]
    return drop_packing(result).assign_coords(make_packing_coordinates(common, dimension))


def list_packings(data: xr.DataArray) -> dict[Any, Packing]:
    """List unit, scale and offset by the labels of the bands."""
    dimension = next(iter(dimensions_of_type(data, "bands")), None)
    if dimension is None or dimension not in data.coords:
        return {}
    labels = data.coords[dimension].values.tolist()
    return dict(zip(labels, read_packings(data, dimension), strict=True))


def agree_on_packing(packings: Sequence[Packing]) -> Packing:
    """The packing that all declare; none if they differ, as values are packed in one way only."""
    return packings[0] if packings and all(p == packings[0] for p in packings) else Packing()
