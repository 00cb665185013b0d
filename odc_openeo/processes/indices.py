"""Spectral indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import xarray as xr

from odc_openeo import cube
from odc_openeo.cube.concat import concat
from odc_openeo.cube.coordinates import make_coordinate
from odc_openeo.cube.packing import carry_all_packings
from odc_openeo.errors import (
    BandExists,
    DimensionAmbiguous,
    DimensionMissing,
    NirBandAmbiguous,
    OpenEOError,
    RedBandAmbiguous,
)
from odc_openeo.processes.filters import find_band_positions
from odc_openeo.registry.child_results import restore_coordinates
from odc_openeo.registry.demand import Demand
from odc_openeo.registry.process import Schema, process
from odc_openeo.registry.schemas import BANDS, SPATIAL, SpatialCube, datacube_schema

SpatialBandsCube = Annotated[xr.DataArray, Schema(datacube_schema(SPATIAL, BANDS))]
BandName = Annotated[str, Schema({"type": "string", "subtype": "band-name"})]
NewBand = Annotated[str | None, Schema([{"type": "string", "pattern": "^\\w+$"}, {"type": "null"}])]


def _ndvi_needs(demand: Demand, arguments: Mapping[str, Any]) -> Mapping[str, Demand]:
    pair = arguments.get("nir", "nir"), arguments.get("red", "red")
    target = arguments.get("target_band")
    if not all(isinstance(name, str) for name in pair):
        return {"data": demand.of_all_bands()}
    if target is None:
        return {"data": replace(demand, bands=pair)}
    if demand.bands is None or not isinstance(target, str):
        return {"data": demand.of_all_bands()}
    return {"data": replace(demand, bands=tuple(b for b in (*demand.bands, *pair) if b != target))}


@process(
    categories=["cubes", "math > indices", "vegetation indices"],
    needs=_ndvi_needs,
    pointwise=True,
    raw_values_of=None,
)
def ndvi(
    data: SpatialBandsCube, nir: BandName = "nir", red: BandName = "red", target_band: NewBand = None
) -> SpatialCube:
    """Compute the Normalized Difference Vegetation Index.

    The index is *(nir - red) / (nir + red)*, computed from the values as they are. This is correct for
    reflectances scaled by a factor, but not for reflectances with an offset.

    Args:
        data: A raster data cube with bands.
        nir: The name or common name of the near-infrared band.
        red: The name or common name of the red band.
        target_band: The name of a new band for the index. By default the bands are dropped.

    Returns:
        A cube with the index and without bands, or the given cube with an additional band.

    Raises:
        NirBandAmbiguous: There is no near-infrared band with that name, or there are several.
        RedBandAmbiguous: There is no red band with that name, or there are several.
        DimensionAmbiguous: The cube has no dimension of bands, or several.
        BandExists: The cube already has a band with the name of the new one.
    """
    try:
        dimension = cube.get_bands_dimension(data)
    except DimensionMissing as error:
        raise DimensionAmbiguous() from error
    if target_band is not None and target_band in cube.labels(data, dimension):
        raise BandExists(band=target_band)
    infrared = _select_band(data, dimension, nir, NirBandAmbiguous)
    visible = _select_band(data, dimension, red, RedBandAmbiguous)
    index = (infrared - visible) / (infrared + visible)
    if target_band is None:
        return index
    label = make_coordinate(dimension, [target_band], "bands")
    index_band = index.expand_dims({dimension: 1}).assign_coords({dimension: label})
    bands = concat([cube.decode(data), index_band.transpose(*data.dims)], dimension)
    return carry_all_packings(restore_coordinates(bands, data), [data])


def _select_band(data: xr.DataArray, dimension: str, name: str, ambiguous: type[OpenEOError]) -> xr.DataArray:
    positions = find_band_positions(data, dimension, name)
    if len(positions) != 1:
        raise ambiguous(bands=", ".join(map(str, cube.labels(data, dimension))))
    return cube.decode(data.isel({dimension: positions})).isel({dimension: 0}, drop=True)
