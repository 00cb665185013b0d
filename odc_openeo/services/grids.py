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
LEVELS: Final = 25
PIXEL_M: Final = 0.00028
"""Size of a pixel that OGC's scale denominators assume."""


@dataclass(frozen=True)
class NativeGrid:
    """The pixels of a collection: EPSG code, extent in its units, size of the smallest pixels."""

    epsg: int
    x: tuple[float, float]
    y: tuple[float, float]
    step: float


@lru_cache(maxsize=16)
def web_mercator(tile_size: int) -> TileMatrixSet:
    """Web Mercator from one tile of the world downwards, with tiles of so many pixels."""
    known = morecantile.tms.get("WebMercatorQuad")
    times = tile_size / 256
    matrices = [
        m.model_copy(
            update={
                "cellSize": m.cellSize / times,
                "scaleDenominator": m.scaleDenominator / times,
                "tileWidth": tile_size,
                "tileHeight": tile_size,
            }
        )
        for m in known.tileMatrices[:LEVELS]
    ]
    return known.model_copy(update={"id": WEB_MERCATOR, "tileMatrices": matrices})


@lru_cache(maxsize=64)
def native(grid: NativeGrid, tile_size: int) -> TileMatrixSet:
    """The grid of a collection: at the highest level its own pixels, at the lowest one tile with all."""
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
    made = TileMatrixSet(
        id=f"EPSG_{grid.epsg}",
        title="The pixels of the collection",
        crs=f"http://www.opengis.net/def/crs/EPSG/0/{grid.epsg}",
        tileMatrices=matrices,
    )
    # Map clients know the sets by the codes of their reference systems, which morecantile does not take.
    return made.model_copy(update={"id": f"EPSG:{grid.epsg}"})


def name(matrix_set: TileMatrixSet) -> str:
    """The id of a set."""
    return str(matrix_set.id)


def epsg(matrix_set: TileMatrixSet) -> int:
    """The code of the reference system of a set: its id tells."""
    return int(name(matrix_set).partition(":")[2])


def tile(matrix_set: TileMatrixSet, level: str, column: int, row: int) -> GeoBox:
    """The pixels of a tile.

    Raises:
        TileOutOfRange: there is no such level, or not so many columns or rows.
    """
    found = next((m for m in matrix_set.tileMatrices if m.id == level), None)
    if found is None:
        raise TileOutOfRange(reason=f"levels go from 0 to {len(matrix_set.tileMatrices) - 1}.")
    if not (0 <= column < found.matrixWidth and 0 <= row < found.matrixHeight):
        size = f"{found.matrixWidth} columns and {found.matrixHeight} rows"
        raise TileOutOfRange(reason=f"level {level} has {size}, counted from 0.")
    x, y = found.pointOfOrigin
    origin = Affine.translation(x, y) * Affine.scale(found.cellSize, -found.cellSize)
    transform = origin * Affine.translation(column * found.tileWidth, row * found.tileHeight)
    return GeoBox((found.tileHeight, found.tileWidth), transform, f"EPSG:{epsg(matrix_set)}")


def native_of(dimensions: dict[str, Any]) -> NativeGrid | None:
    """The pixel grid that the ``cube:dimensions`` of a collection tell, None if it has several or none."""
    x, y = dimensions.get("x") or {}, dimensions.get("y") or {}
    code, steps = x.get("reference_system"), [abs(d["step"]) for d in (x, y) if d.get("step")]
    if not isinstance(code, int) or len(steps) < 2 or None in (*x["extent"], *y["extent"]):
        return None
    return NativeGrid(code, tuple(x["extent"]), tuple(y["extent"]), min(steps))
