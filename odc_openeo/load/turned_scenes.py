"""Scenes in degrees, with longitudes counted as those of the area to load."""

from __future__ import annotations

from collections.abc import Sequence

from odc.geo.geom import Geometry

from odc_openeo.catalog import Scene
from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.spatial.boxes import has_degrees
from odc_openeo.spatial.globe import CIRCLE, REGULAR, list_turns, locate


def turn_scenes(scenes: Sequence[Scene], area: Geometry | None, process_id: str) -> list[Scene]:
    """Turn scenes in degrees to the longitudes of an area; those that it meets on both sides become two.

    Raises:
        ProcessParameterInvalid: the pixels of both sides are not on one grid.
    """
    in_degrees = [scene for scene in scenes if has_degrees(str(scene.crs))]
    if area is None or not in_degrees:
        return list(scenes)
    located = locate(area)
    if located.is_empty:
        return list(scenes)
    west, _, east, _ = located.bounds
    extents = {id(scene): _find_longitudes(scene) for scene in in_degrees}
    if east - west >= CIRCLE:
        if all(west - 1e-6 <= low and high <= east + 1e-6 for low, high in extents.values()):
            return list(scenes)
        east = west + CIRCLE
    turned: list[Scene] = []
    for scene in scenes:
        low, high = extents.get(id(scene), (0.0, 0.0))
        turns = list_turns(low, high, west, east) if id(scene) in extents else []
        turned += [scene.turn_by(turn) for turn in turns or [0.0]]
        if len(turns) > 1:
            _check_is_regular(scene, west, east, process_id)
    return turned


def _find_longitudes(scene: Scene) -> tuple[float, float]:
    boxes = [grid.boundingbox for grid in scene.grids.values()]
    return min(box.left for box in boxes), max(box.right for box in boxes)


def _check_is_regular(scene: Scene, west: float, east: float, process_id: str) -> None:
    for grid in scene.grids.values():
        columns = CIRCLE / abs(grid.resolution.x)
        if abs(columns - round(columns)) > REGULAR:
            reason = (
                f"the pixels of dataset {scene.id} between longitude {west:g} and {east:g} are at both "
                f"ends of its grid; together they are not one regular grid, as {columns:g} of its pixels go "
                "around the Earth. Load the parts on each side one by one."
            )
            raise ProcessParameterInvalid(process=process_id, parameter="spatial_extent", reason=reason)
