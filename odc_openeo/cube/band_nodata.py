"""The no-data values of bands that come from several cubes of integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from odc_openeo import cube
from odc_openeo.cube.coordinates import get_index


@dataclass(frozen=True)
class BandNodata:
    """One no-data value per label of a bands dimension, for integers of one dtype."""

    dimension: str
    values: pd.Series
    dtype: np.dtype

    @classmethod
    def from_cubes(cls, one: xr.DataArray, other: xr.DataArray) -> BandNodata | None:
        """The no-data values of all bands of two cubes; None unless each band has one, the same in both."""
        dtype = np.result_type(one.dtype, other.dtype)
        names = [str(d) for d in one.dims if d in other.dims and cube.dimension_type(one, d) == "bands"]
        if len(names) != 1 or any(d.kind not in "iu" for d in (one.dtype, other.dtype, dtype)):
            return None
        first, second = (_index_by_label(c, names[0]) for c in (one, other))
        if first is None or second is None:
            return None
        shared = first.index.intersection(second.index)
        if not first[shared].eq(second[shared]).all():
            return None
        return cls(names[0], pd.concat([first, second[~second.index.isin(shared)]]), dtype)

    def declare_nodata(self, data: xr.DataArray) -> xr.DataArray:
        """Declare the no-data values in a cube that has some of the bands."""
        return cube.with_nodata(data.astype(self.dtype, copy=False), self._get_values(data))

    def fill_missing(self, data: xr.DataArray, dimension: str, present: np.ndarray) -> xr.DataArray:
        """Write no-data, and declare it, where labels of a dimension are not ``present``."""
        values = self._get_values(data)
        there = xr.DataArray(present, dims=dimension)
        filled = data.where(there, values).astype(self.dtype, copy=False).transpose(*data.dims)
        return cube.with_nodata(filled.assign_attrs(data.attrs), values)

    def _get_values(self, data: xr.DataArray) -> int | xr.DataArray:
        """The values for the bands of a cube: a single one if all bands, also those it lacks, share it."""
        if self.values.nunique() == 1:
            return int(self.values.iloc[0])
        here = self.values[get_index(data, self.dimension)].to_numpy(self.dtype)
        return xr.DataArray(here, dims=self.dimension)


def _index_by_label(data: xr.DataArray, dimension: str) -> pd.Series | None:
    value, labels = cube.nodata(data), get_index(data, dimension)
    if (
        value is None
        or labels.has_duplicates
        or (isinstance(value, xr.DataArray) and value.dtype.kind == "f")
    ):
        return None
    return pd.Series(np.broadcast_to(np.asarray(value), len(labels)), labels)
