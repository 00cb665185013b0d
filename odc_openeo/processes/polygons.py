"""Turn rasters into polygons."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, Final

import geopandas as gpd
import numpy as np
import rasterio.features
import shapely.geometry
import xarray as xr
from odc.geo.geobox import GeoBox

from odc_openeo import cube
from odc_openeo.errors import NoDataAvailable, ProcessGraphComplexity
from odc_openeo.processes.vector import PROPERTIES
from odc_openeo.registry.geometry_schemas import PolygonCube
from odc_openeo.registry.process import process
from odc_openeo.registry.schemas import SpatialCube
from odc_openeo.spatial import rasterize, vector_cubes

VALUE: Final = "value"
MOST_PIXELS: Final = 10**8
MOST_POLYGONS: Final = 10**6


@process(
    categories=["cubes", "vector"],
    experimental=True,
    whole_because="its polygons would be cut at the borders of parts",
)
def raster_to_vector(data: SpatialCube) -> PolygonCube:
    """Outline the areas of equal values as polygons.

    Pixels that share an edge and a value form one polygon; pixels without data form none. The size of the
    result depends on the number of polygons, so the cube is read while the process graph is evaluated.

    Args:
        data: A raster cube with few different values, for example of classes.

    Returns:
        A vector cube with the dimensions `geometry` and `properties`: the value of each polygon. The labels
        of all other dimensions of the raster cube are kept with each geometry.

    Raises:
        NoDataAvailable: The cube has no data at all.
        ProcessGraphComplexity: The cube is too large, or has too many areas.
    """
    grid = rasterize.get_grid(data, "raster_to_vector")
    if data.size > MOST_PIXELS:
        reason = (
            f"raster_to_vector can outline at most {MOST_PIXELS} pixels, not {data.size}. Filter the cube."
        )
        raise ProcessGraphComplexity(reason=reason)
    source = cube.decode(data.transpose(..., cube.Y, cube.X)).compute()
    rows = list(_outline_areas(source, grid))
    if not rows:
        raise NoDataAvailable("The cube has no pixel with data to outline.")
    other_dimensions = [str(d) for d in source.dims[:-2]]
    columns = {name: [row[2][i] for row in rows] for i, name in enumerate(other_dimensions)}
    frame = gpd.GeoDataFrame(columns, geometry=[row[0] for row in rows], crs=grid.crs.to_wkt())
    coords = vector_cubes.make_geometry_coordinates(frame, [PROPERTIES])
    values = np.array([[row[1]] for row in rows])
    vectors = xr.DataArray(
        values,
        dims=(cube.GEOMETRY, PROPERTIES),
        coords={**coords, PROPERTIES: [VALUE]},
    )
    return vector_cubes.index_geometries(vectors, frame.crs)


def _outline_areas(source: xr.DataArray, grid: GeoBox) -> Iterator[tuple[Any, float, tuple[Any, ...]]]:
    """Outline each area: its polygon, its value and the labels of the other dimensions."""
    other_dimensions = [str(d) for d in source.dims[:-2]]
    axes = [cube.labels(source, d) for d in other_dimensions]
    count = 0
    for index in product(*(range(len(axis)) for axis in axes)):
        names = tuple(axis[i] for axis, i in zip(axes, index, strict=True))
        values = source.values[index]
        numbers, codes = np.unique(values, return_inverse=True)
        image = codes.reshape(values.shape).astype(np.int32)
        has_data = np.isfinite(values)
        for outline, code in rasterio.features.shapes(
            image, has_data, connectivity=4, transform=grid.transform
        ):
            count += 1
            if count > MOST_POLYGONS:
                reason = (
                    f"raster_to_vector found more than {MOST_POLYGONS} areas. Reduce the number of values."
                )
                raise ProcessGraphComplexity(reason=reason)
            yield shapely.geometry.shape(outline), float(numbers[int(code)]), names
