"""Spectral indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import xarray as xr

from odc_openeo import cube
from odc_openeo.demand import Demand
from odc_openeo.errors import (
    BandExists,
    DimensionAmbiguous,
    DimensionMissing,
    NirBandAmbiguous,
    OpenEOError,
    RedBandAmbiguous,
)
from odc_openeo.process import Schema, process
from odc_openeo.processes.children import restored
from odc_openeo.processes.concatenation import concat
from odc_openeo.processes.filters import band_positions
from odc_openeo.processes.labels import coordinate
from odc_openeo.processes.schemas import BANDS, SPATIAL, SpatialCube, datacube_schema

SpatialBandsCube = Annotated[xr.DataArray, Schema(datacube_schema(SPATIAL, BANDS))]
BandName = Annotated[str, Schema({"type": "string", "subtype": "band-name"})]
NewBand = Annotated[str | None, Schema([{"type": "string", "pattern": "^\\w+$"}, {"type": "null"}])]


def _needs(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    pair = arguments.get("nir", "nir"), arguments.get("red", "red")
    target = arguments.get("target_band")
    if not all(isinstance(name, str) for name in pair):
        return {"data": demand.of_all_bands()}
    if target is None:
        return {"data": replace(demand, bands=pair)}
    if demand.bands is None or not isinstance(target, str):
        return {"data": demand.of_all_bands()}
    return {"data": replace(demand, bands=tuple(b for b in (*demand.bands, *pair) if b != target))}


@process(categories=["cubes", "math > indices", "vegetation indices"], needs=_needs, pointwise=True)
def ndvi(
    data: SpatialBandsCube, nir: BandName = "nir", red: BandName = "red", target_band: NewBand = None
) -> SpatialCube:
    """Compute the Normalized Difference Vegetation Index.

    It is *(nir - red) / (nir + red)* of the values as they are, which is right for reflectances scaled by a
    factor, but not for such with an offset.

    Args:
        data: A raster data cube with bands.
        nir: The name or common name of the near infrared band.
        red: The name or common name of the red band.
        target_band: The name of a new band for the index. Without it the bands are dropped.

    Returns:
        The index in a cube without bands, or the given cube with one band more.

    Raises:
        NirBandAmbiguous: There is no near infrared band of that name, or there are several.
        RedBandAmbiguous: There is no red band of that name, or there are several.
        DimensionAmbiguous: The cube has no bands, or several dimensions of bands.
        BandExists: The cube already has a band with the name of the new one.
    """
    try:
        dimension = cube.bands_dimension(data)
    except DimensionMissing as error:
        raise DimensionAmbiguous() from error
    if target_band is not None and target_band in cube.labels(data, dimension):
        raise BandExists(band=target_band)
    infrared = _band(data, dimension, nir, NirBandAmbiguous)
    visible = _band(data, dimension, red, RedBandAmbiguous)
    index = (infrared - visible) / (infrared + visible)
    if target_band is None:
        return index
    label = coordinate(dimension, [target_band], "bands")
    added = index.expand_dims({dimension: 1}).assign_coords({dimension: label})
    return restored(concat([cube.decode(data), added.transpose(*data.dims)], dimension), data)


def _band(data: xr.DataArray, dimension: str, name: str, ambiguous: type[OpenEOError]) -> xr.DataArray:
    found = band_positions(data, dimension, name)
    if len(found) != 1:
        raise ambiguous(bands=", ".join(map(str, cube.labels(data, dimension))))
    return cube.decode(data.isel({dimension: found})).isel({dimension: 0}, drop=True)
