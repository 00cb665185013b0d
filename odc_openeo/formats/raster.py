"""Raster cubes in the order of files: north up, one grid, a band axis, further labels as file names."""

from __future__ import annotations

import itertools
import math
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
    valid,
    with_nodata,
)
from odc_openeo.cube.instants import find_period_bounds
from odc_openeo.cube.packing import Packing, read_packings
from odc_openeo.errors import FormatUnsuitable
from odc_openeo.formats.file_names import make_safe_name
from odc_openeo.spatial.globe import compute_bbox, cut_at_antimeridian, locate_grid, outline_geojson
from odc_openeo.spatial.row_order import flip_north_up
from odc_openeo.timestamps import format_datetime64

WIDER: Final = {
    "int8": "int16",
    "uint8": "int16",
    "int16": "int32",
    "uint16": "int32",
    "int32": "int64",
    "uint32": "int64",
}
"""For each integer type a wider one that has room for a no-data value."""


MAX_FILES: Final = 5_000
"""Most files of one result."""


def check_raster(data: Any, format_: str) -> None:
    """Raise `FormatUnsuitable` unless the data is a raster cube of numbers on an even grid."""
    if not isinstance(data, xr.DataArray) or GEOMETRY in data.dims:
        raise FormatUnsuitable(
            format=format_, reason="it is not a raster cube. Use JSON, or CSV or GeoJSON for vector cubes."
        )
    if not has_raster_dimensions(data):
        raise FormatUnsuitable(
            format=format_,
            reason=f"it has dimensions {list(data.dims)}, but x and y are needed. Use netCDF, JSON or CSV.",
        )
    if data.dtype.kind not in "biufc":
        raise FormatUnsuitable(format=format_, reason=f"its values are not numbers but {data.dtype}.")
    for dimension in (X, Y):
        if not has_even_labels(data, dimension):
            raise FormatUnsuitable(
                format=format_, reason=f"labels of dimension {dimension} are not evenly spaced. Use netCDF."
            )


def count_layers(data: xr.DataArray) -> int:
    """Count the combinations of labels of dimensions other than bands, y and x."""
    return math.prod(n for name, n in data.sizes.items() if name not in (find_band_dimension(data), X, Y))


def check_files(data: xr.DataArray, format_: str) -> None:
    """Raise `FormatUnsuitable` for a cube that would become too many files."""
    count = count_layers(data)
    if count > MAX_FILES:
        reason = f"it would become {count} files, one per date. Use netCDF or Zarr, or fewer dates."
        raise FormatUnsuitable(format=format_, reason=reason)


def has_even_labels(data: xr.DataArray, dimension: str) -> bool:
    """Whether labels of a dimension are evenly spaced."""
    if dimension not in data.coords or data.sizes[dimension] < 3:
        return True
    steps = np.diff(data.coords[dimension].values.astype(float))
    return bool(np.abs(steps - steps.mean()).max() <= 1e-3 * abs(steps.mean()))


def find_band_dimension(data: xr.DataArray) -> str | None:
    """Find the dimension that becomes the bands of a file: ``bands``, else the last one of that type."""
    band_dimensions = dimensions_of_type(data, "bands")
    return BANDS if BANDS in band_dimensions else (band_dimensions[-1] if band_dimensions else None)


@dataclass(frozen=True)
class Raster:
    """A raster cube in file order: the ``outer`` dimensions, then ``band``, y, x; north up.

    ``names`` are the names of the bands, empty strings if the cube has none.
    """

    data: xr.DataArray
    outer: tuple[str, ...]
    band: str
    names: tuple[str, ...]

    @classmethod
    def from_cube(cls, data: xr.DataArray) -> Raster:
        """Bring a cube into file order (lazy); it must have passed `check_raster`."""
        band = find_band_dimension(data)
        names = tuple(map(str, labels(data, band))) if band else (str(data.name or ""),)
        if band is None:
            band = BANDS if BANDS not in data.dims else "__bands__"
            data = data.expand_dims(band)
        outer = tuple(str(d) for d in data.dims if d not in (band, Y, X))
        return cls(flip_north_up(data.transpose(*outer, band, Y, X)), outer, band, names)

    @cached_property
    def geobox(self) -> GeoBox | None:
        """The grid of the pixels; None if the cube doesn't say where it is."""
        return self.data.odc.geobox

    @property
    def packings(self) -> list[Packing]:
        """Unit, scale and offset of each band."""
        return read_packings(self.data, self.band)

    def layers(self) -> Iterator[tuple[tuple[int, ...], dict[str, Any], str]]:
        """Yield indices, labels and a slug for the file name of each combination of ``outer`` labels."""
        slugs = [_make_slugs(self.data, d) for d in self.outer]
        values = [labels(self.data, d) for d in self.outer]
        for index in itertools.product(*(range(self.data.sizes[d]) for d in self.outer)):
            layer_labels = {d: v[i] for d, v, i in zip(self.outer, values, index, strict=True)}
            yield index, layer_labels, "_".join(s[i] for s, i in zip(slugs, index, strict=True))

    def join_layers(self) -> Raster:
        """Make the layers bands of a single one: for each layer all its bands, e.g. ``B04 2022-06-01``.

        It must have one no-data value, see `with_one_nodata`.
        """
        if not self.outer:
            return self
        slugs = [slug for _, _, slug in self.layers()]
        names = tuple(f"{name} {slug}".strip() for slug in slugs for name in self.names)
        data = self.data
        values = data.data.reshape(-1, *data.shape[-2:])
        coords = {n: c for n, c in data.coords.items() if set(c.dims) <= {Y, X}}
        joined = xr.DataArray(values, dims=(self.band, Y, X), coords=coords, attrs=data.attrs)
        return Raster(joined, (), self.band, names)

    def with_one_nodata(self, format_: str) -> tuple[Raster, Any]:
        """Give all bands one no-data value; returns the raster and that value (None if there is none).

        Bands that differ get the smallest value of the next wider integer type, which no pixel can have.
        """
        missing = nodata(self.data)
        if not isinstance(missing, xr.DataArray):
            return self, missing
        fills = [None if v is None or np.isnan(v) else int(v) for v in np.atleast_1d(missing.values).tolist()]
        if len(set(fills)) == 1:
            return replace(self, data=with_nodata(self.data, fills[0])), fills[0]
        wider = WIDER.get(str(self.data.dtype))
        if wider is None:
            raise FormatUnsuitable(
                format=format_,
                reason=f"bands of type {self.data.dtype} have different no-data values. Use netCDF.",
            )
        fill = int(np.iinfo(wider).min)
        data = with_nodata(self.data, None).astype(wider).where(valid(self.data), fill)
        return replace(self, data=with_nodata(data, fill)), fill


def _make_slugs(data: xr.DataArray, dimension: str) -> list[str]:
    slugs = [make_safe_name(label) for label in labels(data, dimension)]
    coord = data.coords.get(dimension)
    if coord is not None and coord.dtype.kind == "M":
        times = coord.values
        days = np.datetime_as_string(times, unit="D").tolist()
        seconds = [t.replace(":", "") + "Z" for t in np.datetime_as_string(times, unit="s").tolist()]
        slugs = days if len(set(days)) == len(days) else seconds
    if dimension_type(data, dimension) == "other":
        slugs = [f"{make_safe_name(dimension)}-{slug}" for slug in slugs]
    if len({slug.casefold() for slug in slugs}) < len(slugs):
        slugs = [f"{slug}-{i}" for i, slug in enumerate(slugs)]
    return slugs


@lru_cache(maxsize=64)
def describe_placement(geobox: GeoBox | None) -> dict[str, Any]:
    """Make the fields of an `Asset` for a grid: ``bbox``, ``geometry`` and ``projection``."""
    if geobox is None:
        return {}
    box = geobox.extent.boundingbox
    projection: dict[str, Any] = {
        "proj:shape": list(geobox.shape),
        "proj:transform": list(geobox.transform)[:6],
        "proj:bbox": [box.left, box.bottom, box.right, box.top],
    }
    if geobox.crs is None:
        return {"projection": projection}
    epsg = geobox.crs.to_epsg()
    projection["proj:code"] = f"EPSG:{epsg}" if epsg else None
    if not epsg:
        projection["proj:wkt2"] = geobox.crs.to_wkt()
    outline = locate_grid(geobox)
    if outline.is_empty:
        return {"projection": projection}
    return {
        "projection": projection,
        "geometry": outline_geojson(outline),
        "bbox": compute_bbox(cut_at_antimeridian(outline)),
    }


def describe_times(data: xr.DataArray | xr.Dataset) -> dict[str, Any]:
    """Make the time fields of an `Asset`: ``datetime`` of a single date, else the first and last one."""
    for dimension in dimensions_of_type(data, "temporal"):
        coord = data.coords.get(dimension, xr.DataArray(np.empty(0)))
        bounds, values = find_period_bounds(coord), coord.values
        if bounds is not None:
            start, end = format_datetime64(bounds[0].min()), format_datetime64(bounds[1].max())
            return {"start_datetime": start, "end_datetime": end}
        if values.size and values.dtype.kind == "M" and not np.isnat(values).any():
            first, last = format_datetime64(values.min()), format_datetime64(values.max())
            return {"datetime": first} if first == last else {"start_datetime": first, "end_datetime": last}
    return {}


def find_layer_time(data: xr.DataArray, layer_labels: Mapping[str, Any]) -> str | None:
    """Find the date of a layer among its labels (of a period its start); None if they are not times."""
    for dimension, label in layer_labels.items():
        coord = data.coords.get(dimension)
        if coord is not None and coord.dtype.kind == "M":
            return str(label)
        bounds = None if coord is None else find_period_bounds(coord)
        if bounds is not None and coord is not None:
            return format_datetime64(bounds[0][coord.values.tolist().index(label)])
    return None
