"""Where on a grid the pixels of a part of a job are."""

from __future__ import annotations

from odc.geo.geobox import GeoBox

from odc_openeo.load.request import select_part
from odc_openeo.registry.environment import Environment
from odc_openeo.spatial.warp import Window


def find_part_window(env: Environment | None, grid: GeoBox) -> Window | None:
    """Find the rows and columns of a grid that will be computed of a process's result; None for all."""
    part = None if env is None else env.part
    return None if part is None else select_part(part).find_hull(grid)
