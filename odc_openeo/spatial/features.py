"""The geometries that a raster cube was limited to, kept with its reference system until it is saved.

Results may be split into one file per geometry, and nearly every process keeps the coordinate that holds the
reference system, but not the attributes of the cube.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final, Self

import geopandas as gpd
import xarray as xr

from odc_openeo.cube import SPATIAL_REF

_ATTRIBUTE: Final = "features"


@dataclass(frozen=True)
class Features:
    """Geometries with their properties in the columns of a frame; equal if their content is."""

    digest: str
    frame: gpd.GeoDataFrame = field(compare=False, repr=False)

    @classmethod
    def from_frame(cls, frame: gpd.GeoDataFrame) -> Self:
        """Keep the geometries and properties of a frame."""
        content = [frame.geometry.to_wkb().tolist(), frame.drop(columns=frame.geometry.name).to_dict("list")]
        return cls(hashlib.sha256(repr((str(frame.crs), content)).encode()).hexdigest(), frame)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: it never changes, and every copy of a cube would copy the geometries."""
        return self


def with_features(data: xr.DataArray, frame: gpd.GeoDataFrame) -> xr.DataArray:
    """Return the cube with the geometries that it is limited to; a cube without CRS as it is."""
    return _with_attribute(data, Features.from_frame(frame))


def find_features(data: xr.DataArray) -> gpd.GeoDataFrame | None:
    """Find the geometries that a cube was limited to last; None if there are none."""
    features = _get_attribute(data)
    return None if features is None else features.frame


def copy_features(source: xr.DataArray, target: xr.DataArray) -> xr.DataArray:
    """Return ``target``, which has another grid, with the geometries of ``source``."""
    features = _get_attribute(source)
    return target if features is None else _with_attribute(target, features)


def _get_attribute(data: xr.DataArray) -> Features | None:
    reference: Any = data.coords.get(SPATIAL_REF)
    return None if reference is None else reference.attrs.get(_ATTRIBUTE)


def _with_attribute(data: xr.DataArray, features: Features) -> xr.DataArray:
    if SPATIAL_REF not in data.coords:
        return data
    reference = data.coords[SPATIAL_REF].copy()
    reference.attrs = {**reference.attrs, _ATTRIBUTE: features}
    return data.assign_coords({SPATIAL_REF: reference})
