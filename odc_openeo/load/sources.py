"""Which files make up a lazy cube: the scenes of each time step, those of each chunk, their bands as sources.

What odc-stac works out from STAC Items is known here from the index: nothing is parsed again, and where
scenes and cube share a reference system no outlines are compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import groupby as consecutive
from itertools import product
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox, GeoboxTiles
from odc.geo.geom import BoundingBox, Geometry
from odc.loader import RasterBandMetadata, RasterSource

from odc_openeo.catalog import Band, Scene
from odc_openeo.spatial.globe import get_projection, locate_grid
from odc_openeo.spatial.reproject import project_sides

Step = list[Scene]
"""The scenes of a time step, the first one in front where they overlap."""


def group_time_steps(scenes: Sequence[Scene], groupby: str, grid: GeoBox) -> list[Step]:
    """Scenes of the same time, or of the same solar day in the middle of the grid; ordered by time and id."""
    ordered = sorted(scenes, key=lambda s: (s.time, s.id))
    if groupby == "time":
        return [list(step) for _, step in consecutive(ordered, key=lambda s: s.time)]
    longitude = _find_longitude(grid)
    return [list(step) for _, step in consecutive(ordered, key=lambda s: _solar_day(s.time, longitude))]


def _find_longitude(grid: GeoBox) -> float:
    """The longitude of the middle of a grid, from -180 to 180; 0 if the middle is not on Earth."""
    x, y = grid.extent.centroid.points[0]
    longitude = get_projection(grid.crs).unproject(np.array([(x, y)]))[0, 0]
    return (float(longitude) + 180) % 360 - 180 if np.isfinite(longitude) else 0.0


def _solar_day(time: datetime, longitude: float) -> date:
    # Whole hours, as odc-stac has it.
    return (time.astimezone(UTC) + timedelta(hours=int(longitude / 15))).date()


def label_step(step: Step) -> datetime:
    """The time of a step: that of its first scene, in UTC without a time zone."""
    return step[0].time.astimezone(UTC).replace(tzinfo=None)


def make_source(scene: Scene, band: Band, dtype: str) -> RasterSource | None:
    """A band of a scene as odc-loader reads it, in pixels of type ``dtype``; None if the scene lacks it."""
    if scene.find_grid(band.name) is None:
        return None
    file = scene.files[band.name]
    is_foreign = file.place is not None
    place: dict[str, Any] = {
        "dataset": scene.id,
        "name": band.name,
        "band": file.band,
        "layer": file.layer,
        "nodata": file.nodata if is_foreign else band.nodata,
    }
    if scene.turn:
        place["turn"] = scene.turn
    if file.access is not None:
        place["access"] = file.access
    if is_foreign:
        place |= {"place": file.place, "uses_alpha": file.uses_alpha}
    return RasterSource(file.href, 1, meta=describe_band(band, dtype), driver_data=place)


def describe_band(band: Band, dtype: str) -> RasterBandMetadata:
    """The metadata of a band that odc-loader needs."""
    # Float cubes mark no-data with NaN, whatever the files have.
    return RasterBandMetadata(dtype, np.nan if band.is_float else band.nodata, band.units or "1")


def assign_scenes_to_chunks(
    steps: Sequence[Step], tiles: GeoboxTiles
) -> dict[tuple[int, int, int], list[int]]:
    """For each chunk (time step, row, column) the scenes that may have pixels in it.

    Scenes are counted through all steps; chunks that none reaches are not in it.
    """
    scenes: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    chunks_by_grids: dict[frozenset[GeoBox], list[tuple[int, int]]] = {}
    number = 0
    for index, step in enumerate(steps):
        for scene in step:
            grids = frozenset(scene.grids.values())
            if grids not in chunks_by_grids:
                chunks_by_grids[grids] = sorted(
                    {chunk for grid in grids for chunk in _touched_chunks(grid, tiles)}
                )
            for row, column in chunks_by_grids[grids]:
                scenes[index, row, column].append(number)
            number += 1
    return dict(scenes)


def _touched_chunks(grid: GeoBox, tiles: GeoboxTiles) -> Iterator[tuple[int, int]]:
    """Rows and columns of the chunks that an image touches."""
    base = tiles.base
    if grid.crs != base.crs:
        yield from _list_touched_tiles(grid, tiles)
    elif _do_overlap(grid.boundingbox, base.boundingbox):
        box = grid.boundingbox
        corners = [~base.transform @ (box.left, box.top), ~base.transform @ (box.right, box.bottom)]
        (left, right), (top, bottom) = (sorted(ends) for ends in zip(*corners, strict=True))
        # In pixels: with a reference system, odc-geo would project a polygon.
        yield from product(*tiles.range_from_bbox(BoundingBox(left, top, right, bottom, None)))


def _list_touched_tiles(grid: GeoBox, tiles: GeoboxTiles) -> Iterator[tuple[int, int]]:
    """The chunks in another reference system that the box around an image touches."""
    outline = Geometry(locate_grid(grid), "EPSG:4326")
    touched = set()
    for left, bottom, right, top in [] if outline.is_empty else project_sides(outline, tiles.base):
        box = BoundingBox(left, bottom, right, top, tiles.base.crs)
        if _do_overlap(box, tiles.base.boundingbox):
            touched |= set(product(*tiles.range_from_bbox(box)))
    yield from sorted(touched)


def _do_overlap(one: BoundingBox, other: BoundingBox) -> bool:
    return bool(
        one.left < other.right
        and other.left < one.right
        and one.bottom < other.top
        and other.bottom < one.top
    )
