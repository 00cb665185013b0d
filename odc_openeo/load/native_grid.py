"""The pixel grid of a cube: the one the files have, so that no pixel is moved without being asked."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry, bbox_union
from shapely.geometry.base import BaseGeometry

from odc_openeo.catalog import LoadHint, Scene
from odc_openeo.errors import FeatureUnsupported, NoDataAvailable, ProcessParameterInvalid
from odc_openeo.spatial.boxes import has_degrees
from odc_openeo.spatial.globe import CIRCLE, cut_at_antimeridian, locate, locate_shape
from odc_openeo.spatial.reference_system_names import name_crs
from odc_openeo.spatial.reproject import project_sides
from odc_openeo.spatial.warp import get_transformer

SLACK = 1e-6
"""Pixels: centres on the very edge of a box are in it, whatever the last bit of the edge is."""

_GDAL = 1e-10


@dataclass(frozen=True)
class NativeGrid:
    """A grid of the data, and what of the data is on other grids and has to be resampled to it.

    ``warped`` names the other reference systems, ``resampled`` the pixel size of the bands that have
    another one than the grid.
    """

    geobox: GeoBox
    warped: tuple[str, ...]
    resampled: dict[str, float]

    def describe(self) -> str:
        """The grid in words, for logs and for the metadata of the cube."""
        crs, size = self.geobox.crs, abs(self.geobox.resolution.x)
        parts = [f"{name_crs(crs)} at {size:g}"]
        if self.warped:
            parts.append(f"scenes in {', '.join(self.warped)} warped to it (nearest)")
        if self.resampled:
            bands = ", ".join(f"{band} from {size:g}" for band, size in self.resampled.items())
            parts.append(f"resampled (nearest): {bands}")
        return "; ".join(parts)


def choose_native_grid(
    scenes: Sequence[Scene],
    bands: Sequence[str],
    area: Geometry | None,
    *,
    centres: bool = True,
    process_id: str = "load_collection",
    hint: LoadHint | None = None,
) -> NativeGrid:
    """The grid of the scenes' files in the reference system that most of the area has, cut to ``area``.

    Scenes in several reference systems are put on the grid of the ``hint``, if there is one.

    With ``centres`` a pixel belongs to the area if its centre lies in the area's bounding box in that
    reference system; otherwise all pixels do that touch that box. Of bands with different pixel sizes the
    finest counts.

    Raises:
        NoDataAvailable: no pixel is in the area.
        ProcessParameterInvalid: the pixels of the area are at both ends of a map.
        FeatureUnsupported: the grid is rotated.
    """
    reference = _choose_reference(scenes, bands, area, hint)
    crs = reference.crs
    resolution, transform = reference.resolution, reference.transform
    if transform.b or transform.d:
        raise FeatureUnsupported(feature="rotated pixel grids")
    around = bbox_union(_bound_scenes(scenes, reference))
    data = _find_pixels(around, reference, _round_to_touched)
    pixels = data if area is None else _pixels_of_area(area, reference, data, centres, process_id)
    left, right, top, bottom = pixels
    if any(scene.turn for scene in scenes):
        # Columns beyond a circle are those at its beginning.
        right = min(right, left + round(CIRCLE / abs(resolution.x)))
    if left >= right or top >= bottom:
        raise NoDataAvailable(
            reason=f"no pixel has its centre in the spatial extent; pixels are {abs(resolution.x):g} wide in "
            f"units of {name_crs(crs)}. Choose a larger spatial_extent."
        )
    geobox = _cut_grid(reference, (left, right, top, bottom))
    other_systems = tuple(sorted({name_crs(s.crs) for s in scenes} - {name_crs(crs)}))
    return NativeGrid(geobox, other_systems, _other_sizes(scenes, bands, reference))


def _choose_reference(
    scenes: Sequence[Scene], bands: Sequence[str], area: Geometry | None, hint: LoadHint | None
) -> GeoBox:
    """A part of the grid: a file of the scenes, or a pixel of the hint."""
    # Scenes whose longitudes are counted from elsewhere need a grid in degrees.
    if hint is not None and len({s.crs for s in scenes}) > 1 and not any(s.turn for s in scenes):
        return _make_hinted_grid(hint, scenes)
    crs = _choose_crs(scenes, area)
    return _choose_finest(_list_grids([s for s in scenes if s.crs == crs], bands))


def _make_hinted_grid(hint: LoadHint, scenes: Sequence[Scene]) -> GeoBox:
    """A pixel of the grid, near the scenes."""
    near = scenes[0].outline.to_crs(hint.crs).centroid.coords[0]
    (width, height), (x, y) = hint.resolution, hint.align
    left = x + math.floor((near[0] - x) / width) * width
    top = y + math.ceil((near[1] - y) / height) * height
    return GeoBox((1, 1), Affine(width, 0, left, 0, -height, top), hint.crs)


def _cut_grid(reference: GeoBox, pixels: Pixels) -> GeoBox:
    left, right, top, bottom = pixels
    transform = reference.transform @ Affine.translation(left, top)
    return GeoBox((bottom - top, right - left), transform, reference.crs)


def find_covered_pixels(grid: GeoBox, other: GeoBox) -> np.ndarray | None:
    """Where the centres of a grid's pixels lie in another grid (rows, columns); None if all of them do."""
    columns, rows = _sample_border(grid)
    if _in_box(*_project_pixels(grid, other, columns, rows), other).all():
        return None
    columns, rows = np.meshgrid(np.arange(grid.shape.x) + 0.5, np.arange(grid.shape.y) + 0.5)
    return _in_box(*_project_pixels(grid, other, columns, rows), other)


def _sample_border(grid: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Points on and a little outside of the border of a grid, in pixels."""
    height, width = grid.shape.yx
    x, y = np.linspace(-1, width + 1, 33), np.linspace(-1, height + 1, 33)
    columns = np.concatenate([x, x, np.full(33, x[0]), np.full(33, x[-1])])
    rows = np.concatenate([np.full(33, y[0]), np.full(33, y[-1]), y, y])
    return columns, rows


def _project_pixels(
    grid: GeoBox, other: GeoBox, columns: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    x, y = grid.transform @ (columns, rows)
    return (x, y) if grid.crs == other.crs else get_transformer(grid.crs, other.crs).transform(x, y)


def _in_box(x: np.ndarray, y: np.ndarray, grid: GeoBox) -> np.ndarray:
    """Whether points are in the pixels of a grid; its first edges belong to it, its last ones do not."""
    columns, rows = ~grid.transform @ (x, y)
    height, width = grid.shape.yx
    # As GDAL has it when it looks for the nearest pixel.
    column, row = np.floor(columns + _GDAL), np.floor(rows + _GDAL)
    return np.asarray((column >= 0) & (column < width) & (row >= 0) & (row < height))


def _list_grids(scenes: Iterable[Scene], bands: Sequence[str]) -> list[GeoBox]:
    return [grid for s in scenes for band in bands if (grid := s.find_grid(band)) is not None]


def _pixel_size(grid: GeoBox) -> float:
    return float(max(abs(grid.resolution.x), abs(grid.resolution.y)))


def _choose_finest(grids: Sequence[GeoBox]) -> GeoBox:
    """One grid of the finest pixel size; where files disagree on the alignment, as most of them have it."""
    finest = min(_pixel_size(grid) for grid in grids)
    fine = [grid for grid in grids if _pixel_size(grid) <= finest * (1 + SLACK)]
    alignments = Counter(_pixel_alignment(grid) for grid in fine)
    most = max(alignments, key=lambda alignment: (alignments[alignment], alignment))
    return next(grid for grid in fine if _pixel_alignment(grid) == most)


def _pixel_alignment(grid: GeoBox) -> tuple[float, float]:
    """How far the pixel edges are from multiples of the pixel size, in pixels."""
    x, y = grid.transform.c / grid.resolution.x, grid.transform.f / grid.resolution.y
    return round(x % 1, 3) % 1, round(y % 1, 3) % 1


def _other_sizes(scenes: Sequence[Scene], bands: Sequence[str], reference: GeoBox) -> dict[str, float]:
    sizes = {
        band: _pixel_size(grid)
        for s in scenes
        if s.crs == reference.crs
        for band in bands
        if (grid := s.find_grid(band)) is not None
    }
    return {
        b: size for b, size in sizes.items() if not math.isclose(size, _pixel_size(reference), rel_tol=SLACK)
    }


# --- Reference system ----------------------------------------------------------------------------


def _choose_crs(scenes: Sequence[Scene], area: Geometry | None) -> CRS:
    """The one whose scenes cover most of the area; of equal ones the first by name."""
    outlines: dict[CRS, dict[GeoBox, BaseGeometry]] = defaultdict(dict)
    for s in scenes:
        outlines[s.crs].setdefault(s.grids["default"], s.outline.geom)
    if len(outlines) == 1:
        return next(iter(outlines))
    near = None if area is None else _flatten(locate(area))
    covered = {crs: _covered_area(crs, group.values(), near) for crs, group in outlines.items()}
    return min(covered, key=lambda crs: (-covered[crs], str(crs)))


def _covered_area(crs: CRS, outlines: Iterable[BaseGeometry], area: BaseGeometry | None) -> float:
    union = shapely.union_all([_flatten(locate_shape(outline, crs)) for outline in outlines])
    return float((union if area is None else union.intersection(area)).area)


def _flatten(shape: BaseGeometry) -> BaseGeometry:
    """A shape in degrees on a map on which areas are as on the Earth (EPSG:6933, scaled)."""
    cut = cut_at_antimeridian(shape)
    return shapely.transform(cut, lambda xy: np.column_stack([xy[:, 0], np.sin(np.radians(xy[:, 1])) * 90]))


# --- Extent --------------------------------------------------------------------------------------


def _bound_scenes(scenes: Sequence[Scene], reference: GeoBox) -> list[BoundingBox]:
    """The boxes around the images of scenes in the reference system of a grid."""
    crs, boxes = reference.crs, []
    for (outline_crs, _), outline in {(s.crs, s.grids["default"]): s.outline for s in scenes}.items():
        if outline_crs == crs:
            boxes.append(outline.boundingbox)
        else:
            boxes += [BoundingBox(*sides, crs) for sides in project_sides(outline, reference)]
    return boxes


Pixels = tuple[int, int, int, int]
"""First and last + 1 of the columns, first and last + 1 of the rows, of a grid without end."""


def _pixels_of_area(
    area: Geometry, reference: GeoBox, data: Pixels, centres: bool, process_id: str
) -> Pixels:
    """The pixels of an area that are in the data, as those of the data are counted.

    Raises:
        ProcessParameterInvalid: they are at both ends of a map, so that they are not one grid.
    """
    rounding = _round_to_centres if centres else _round_to_touched
    if has_degrees(str(reference.crs)):
        # Scenes have the longitudes of the area.
        sides = [locate(area).bounds]
    else:
        sides = project_sides(area, _cut_grid(reference, data))
    boxes = [BoundingBox(*side, reference.crs) for side in sides if np.isfinite(side).all()]
    pixels = [_intersect(_find_pixels(box, reference, rounding), data) for box in boxes]
    present = [p for p in pixels if p[0] < p[1] and p[2] < p[3]]
    if len(present) > 1:
        reason = (
            f"the box crosses the meridian at which the map of the data ({reference.crs}) is cut, so that "
            "its pixels are at both ends of the map and not one regular grid. Load the parts on each side "
            "one by one."
        )
        raise ProcessParameterInvalid(process=process_id, parameter="spatial_extent", reason=reason)
    if not present:
        return 0, 0, 0, 0
    return present[0]


def _intersect(pixels: Pixels, data: Pixels) -> Pixels:
    return (
        max(data[0], pixels[0]),
        min(data[1], pixels[1]),
        max(data[2], pixels[2]),
        min(data[3], pixels[3]),
    )


Rounding = Callable[[float, float], tuple[int, int]]
"""From the edges of an extent on one axis, in pixels, to the first and last + 1 of the pixels in it."""


def _round_to_touched(low: float, high: float) -> tuple[int, int]:
    return math.floor(low + SLACK), math.ceil(high - SLACK)


def _round_to_centres(low: float, high: float) -> tuple[int, int]:
    return math.ceil(low - SLACK - 0.5), math.floor(high + SLACK - 0.5) + 1


def _find_pixels(extent: BoundingBox, reference: GeoBox, rounding: Rounding) -> Pixels:
    inverse = ~reference.transform
    corners = [inverse @ (extent.left, extent.top), inverse @ (extent.right, extent.bottom)]
    (x0, x1), (y0, y1) = (sorted(axis) for axis in zip(*corners, strict=True))
    return (*rounding(x0, x1), *rounding(y0, y1))
