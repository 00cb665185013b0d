"""Raster cubes as files see them: north up, one grid, a band axis, and the remaining labels as file names."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Final

import numpy as np
import odc.geo.xr  # noqa: F401  (registers the .odc accessor)
import xarray as xr
from odc.geo.geobox import GeoBox

from odc_openeo.cube import (
    BANDS,
    GEOMETRY,
    X,
    Y,
    dimension_type,
    dimensions_of_type,
    has_raster_dimensions,
    labels,
    nodata,
    rfc3339,
    valid,
    with_nodata,
)
from odc_openeo.errors import FormatUnsuitable

WIDER: Final = {
    "int8": "int16",
    "uint8": "int16",
    "int16": "int32",
    "uint16": "int32",
    "int32": "int64",
    "uint32": "int64",
}
"""Integers that hold all values of another type and still have room for a no-data value."""


MOST_FILES: Final = 5_000
"""Files of one result."""


def check_raster(data: Any, format_: str) -> None:
    """Raise `FormatUnsuitable` unless the data is a raster cube of numbers on an even grid."""
    if not isinstance(data, xr.DataArray) or GEOMETRY in data.dims:
        raise FormatUnsuitable(
            format=format_, reason="it is no raster cube. Use JSON, or CSV or GeoJSON for vector cubes."
        )
    if not has_raster_dimensions(data):
        raise FormatUnsuitable(
            format=format_,
            reason=f"it has dimensions {list(data.dims)}, but x and y are needed. Use netCDF, JSON or CSV.",
        )
    if data.dtype.kind not in "biufc":
        raise FormatUnsuitable(format=format_, reason=f"its values are not numbers but {data.dtype}.")
    for dimension in (X, Y):
        if not _is_even(data, dimension):
            raise FormatUnsuitable(
                format=format_, reason=f"labels of dimension {dimension} are not evenly spaced. Use netCDF."
            )


def check_files(data: xr.DataArray, format_: str) -> None:
    """Raise `FormatUnsuitable` for a cube that would become more files than anybody can use."""
    count = math.prod(n for name, n in data.sizes.items() if name not in (band_dimension(data), X, Y))
    if count > MOST_FILES:
        reason = f"it would be {count} files, one for each date. Use netCDF or Zarr, or fewer dates."
        raise FormatUnsuitable(format=format_, reason=reason)


def _is_even(data: xr.DataArray, dimension: str) -> bool:
    if dimension not in data.coords or data.sizes[dimension] < 3:
        return True
    steps = np.diff(data.coords[dimension].values.astype(float))
    return bool(np.abs(steps - steps.mean()).max() <= 1e-3 * abs(steps.mean()))


def north_up(data: xr.DataArray) -> xr.DataArray:
    """The cube with y descending and x ascending."""
    for dimension, sign in ((Y, -1), (X, 1)):
        at = data.coords[dimension].values if dimension in data.coords else np.empty(0)
        if at.size > 1 and (at[-1] - at[0]) * sign < 0:
            data = data.isel({dimension: slice(None, None, -1)})
    return data


def band_dimension(data: xr.DataArray) -> str | None:
    """The dimension that becomes bands of a file: ``bands``, else the last one of that type."""
    found = dimensions_of_type(data, "bands")
    return BANDS if BANDS in found else (found[-1] if found else None)


@dataclass(frozen=True)
class Raster:
    """A raster cube in file order: dimensions ``others``, then ``band``, y, x; north up.

    ``names`` are the names of the bands, empty texts if the cube has none.
    """

    data: xr.DataArray
    others: tuple[str, ...]
    band: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, data: xr.DataArray) -> Raster:
        """Bring a cube into file order (lazy); it must have passed `check_raster`."""
        band = band_dimension(data)
        names = tuple(map(str, labels(data, band))) if band else (str(data.name or ""),)
        if band is None:
            band = BANDS if BANDS not in data.dims else "__bands__"
            data = data.expand_dims(band)
        others = tuple(str(d) for d in data.dims if d not in (band, Y, X))
        return cls(north_up(data.transpose(*others, band, Y, X)), others, band, names)

    @cached_property
    def geobox(self) -> GeoBox | None:
        """The grid of the pixels; None if the cube doesn't say where it is."""
        return self.data.odc.geobox

    def layers(self) -> Iterator[tuple[tuple[int, ...], dict[str, Any], str]]:
        """For each combination of labels of ``others``: indices, labels, text for a file name."""
        slugs = [_slugs(self.data, d) for d in self.others]
        values = [labels(self.data, d) for d in self.others]
        for index in itertools.product(*(range(self.data.sizes[d]) for d in self.others)):
            found = {d: v[i] for d, v, i in zip(self.others, values, index, strict=True)}
            yield index, found, "_".join(s[i] for s, i in zip(slugs, index, strict=True))

    def with_one_nodata(self, format_: str) -> tuple[Raster, Any]:
        """The raster with one no-data value for all bands, and that value (None if there is none).

        Bands that differ get the smallest value of the next wider integer type, which no pixel can have.
        """
        missing = nodata(self.data)
        if not isinstance(missing, xr.DataArray):
            return self, missing
        found = [None if v is None or np.isnan(v) else int(v) for v in np.atleast_1d(missing.values).tolist()]
        if len(set(found)) == 1:
            return replace(self, data=with_nodata(self.data, found[0])), found[0]
        wider = WIDER.get(str(self.data.dtype))
        if wider is None:
            raise FormatUnsuitable(
                format=format_,
                reason=f"bands of type {self.data.dtype} have different no-data values. Use netCDF.",
            )
        fill = int(np.iinfo(wider).min)
        data = with_nodata(self.data, None).astype(wider).where(valid(self.data), fill)
        return replace(self, data=with_nodata(data, fill)), fill


def _slugs(data: xr.DataArray, dimension: str) -> list[str]:
    texts = [re.sub(r"[^\w.+-]+", "-", str(label)).strip("-") for label in labels(data, dimension)]
    coord = data.coords.get(dimension)
    if coord is not None and coord.dtype.kind == "M":
        times = coord.values
        days = np.datetime_as_string(times, unit="D").tolist()
        seconds = [t.replace(":", "") + "Z" for t in np.datetime_as_string(times, unit="s").tolist()]
        texts = days if len(set(days)) == len(days) else seconds
    if dimension_type(data, dimension) == "other":
        texts = [f"{dimension}-{text}" for text in texts]
    if len(set(texts)) < len(texts):
        texts = [f"{text}-{i}" for i, text in enumerate(texts)]
    return texts


@lru_cache(maxsize=64)
def placement(geobox: GeoBox | None) -> dict[str, Any]:
    """What an `Asset` says of a grid: ``bbox``, ``geometry`` and ``projection``."""
    if geobox is None:
        return {}
    box = geobox.extent.boundingbox
    facts: dict[str, Any] = {
        "proj:shape": list(geobox.shape),
        "proj:transform": list(geobox.transform)[:6],
        "proj:bbox": [box.left, box.bottom, box.right, box.top],
    }
    if geobox.crs is None:
        return {"projection": facts}
    epsg = geobox.crs.to_epsg()
    facts |= {"proj:code": f"EPSG:{epsg}"} if epsg else {"proj:code": None, "proj:wkt2": geobox.crs.to_wkt()}
    outline = geobox.extent.to_crs(4326, resolution=max(box.span_x, box.span_y) / 4)
    around = outline.boundingbox
    return {
        "projection": facts,
        "geometry": outline.json,
        "bbox": [around.left, around.bottom, around.right, around.top],
    }


def times(data: xr.DataArray | xr.Dataset) -> dict[str, Any]:
    """What an `Asset` says of time: ``datetime`` of a single date, else the first and last one."""
    for dimension in dimensions_of_type(data, "temporal"):
        values = data.coords[dimension].values if dimension in data.coords else np.empty(0)
        if values.size and values.dtype.kind == "M" and not np.isnat(values).any():
            first, last = rfc3339(values.min()), rfc3339(values.max())
            return {"datetime": first} if first == last else {"start_datetime": first, "end_datetime": last}
    return {}


def layer_time(data: xr.DataArray, found: Mapping[str, Any]) -> str | None:
    """The date of a layer out of its labels, if they are times."""
    for dimension, label in found.items():
        coord = data.coords.get(dimension)
        if coord is not None and coord.dtype.kind == "M":
            return str(label)
    return None
