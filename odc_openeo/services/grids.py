"""The grids of tiles: Web Mercator, and the pixel grid of a collection by powers of two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import morecantile
import pyproj
from affine import Affine
from morecantile.models import TileMatrix, TileMatrixSet
from odc.geo.geobox import GeoBox

from odc_openeo.errors import TileOutOfRange

WEB_MERCATOR: Final = "EPSG:3857"
LEVEL_COUNT: Final = 25
PIXEL_M: Final = 0.00028
"""The pixel size that scale denominators of OGC standards assume."""


@dataclass(frozen=True)
class CollectionGrid:
    """The pixels of a collection: EPSG code, extent in its units, size of the smallest pixels."""

    epsg: int
    x: tuple[float, float]
    y: tuple[float, float]
    step: float


@lru_cache(maxsize=16)
def make_web_mercator_set(tile_size: int) -> TileMatrixSet:
    """Return the levels of Web Mercator, from one tile of the whole world on, with tiles of this size."""
    quad = morecantile.tms.get("WebMercatorQuad")
    factor = tile_size / 256
    matrices = [
        m.model_copy(
            update={
                "cellSize": m.cellSize / factor,
                "scaleDenominator": m.scaleDenominator / factor,
                "tileWidth": tile_size,
                "tileHeight": tile_size,
            }
        )
        for m in quad.tileMatrices[:LEVEL_COUNT]
    ]
    return quad.model_copy(update={"id": WEB_MERCATOR, "tileMatrices": matrices})


@lru_cache(maxsize=64)
def make_native_set(grid: CollectionGrid, tile_size: int) -> TileMatrixSet:
    """Return the levels of a collection's grid: the highest has its own pixels, the lowest a single tile."""
    width, height = grid.x[1] - grid.x[0], grid.y[1] - grid.y[0]
    pixels = max(width, height) / grid.step
    levels = max(0, math.ceil(math.log2(pixels / tile_size) - 1e-9)) if pixels > tile_size else 0
    crs = pyproj.CRS.from_epsg(grid.epsg)
    unit = 111_319.49079327358 if crs.is_geographic else float(crs.axis_info[0].unit_conversion_factor)
    matrices = []
    for level in range(levels + 1):
        size = grid.step * 2 ** (levels - level)
        matrices.append(
            TileMatrix(
                id=str(level),
                scaleDenominator=size * unit / PIXEL_M,
                cellSize=size,
                pointOfOrigin=(grid.x[0], grid.y[1]),
                tileWidth=tile_size,
                tileHeight=tile_size,
                matrixWidth=max(1, math.ceil(width / (size * tile_size) - 1e-9)),
                matrixHeight=max(1, math.ceil(height / (size * tile_size) - 1e-9)),
            )
        )
    matrix_set = TileMatrixSet(
        id=f"EPSG_{grid.epsg}",
        title="The pixels of the collection",
        crs=f"http://www.opengis.net/def/crs/EPSG/0/{grid.epsg}",
        tileMatrices=matrices,
    )
    # Map clients expect the EPSG code as id, which morecantile rejects.
    return matrix_set.model_copy(update={"id": f"EPSG:{grid.epsg}"})


def get_set_id(matrix_set: TileMatrixSet) -> str:
    """Return the id of a set."""
    return str(matrix_set.id)


def get_epsg_code(matrix_set: TileMatrixSet) -> int:
    """Return the EPSG code of a set, which is part of its id."""
    return int(get_set_id(matrix_set).partition(":")[2])


def get_tile_grid(matrix_set: TileMatrixSet, level: str, column: int, row: int) -> GeoBox:
    """Return the pixel grid of a tile.

    Raises:
        TileOutOfRange: the level, column or row does not exist.
    """
    matrix = next((m for m in matrix_set.tileMatrices if m.id == level), None)
    if matrix is None:
        raise TileOutOfRange(reason=f"levels go from 0 to {len(matrix_set.tileMatrices) - 1}.")
    if not (0 <= column < matrix.matrixWidth and 0 <= row < matrix.matrixHeight):
        size = f"{matrix.matrixWidth} columns and {matrix.matrixHeight} rows"
        raise TileOutOfRange(reason=f"level {level} has {size}, counted from 0.")
    x, y = matrix.pointOfOrigin
    origin = Affine.translation(x, y) @ Affine.scale(matrix.cellSize, -matrix.cellSize)
    transform = origin @ Affine.translation(column * matrix.tileWidth, row * matrix.tileHeight)
    return GeoBox((matrix.tileHeight, matrix.tileWidth), transform, f"EPSG:{get_epsg_code(matrix_set)}")


def find_native_grid(dimensions: dict[str, Any]) -> CollectionGrid | None:
    """Return the pixel grid in the ``cube:dimensions`` of a collection, None if it has several or none."""
    x, y = dimensions.get("x") or {}, dimensions.get("y") or {}
    epsg, steps = x.get("reference_system"), [abs(d["step"]) for d in (x, y) if d.get("step")]
    if not isinstance(epsg, int) or len(steps) < 2 or None in (*x["extent"], *y["extent"]):
        return None
    return CollectionGrid(epsg, tuple(x["extent"]), tuple(y["extent"]), min(steps))
