"""Cubes from STAC Items that are at hand: of the web, of results, of collections of users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from odc_openeo import load
from odc_openeo.catalog import Query, matching, resolve
from odc_openeo.errors import NoDataAvailable
from odc_openeo.foreign_rasters import RasterPlace
from odc_openeo.load.items import read_items
from odc_openeo.process import Environment
from odc_openeo.processes import extents
from odc_openeo.processes.geometry_filters import filter_spatial

Found = tuple[Sequence[Mapping[str, Any]], RasterPlace]
"""STAC Items, and where their files may be."""


def load_items(
    found: Found,
    query: Query,
    spatial_extent: Any,
    names: Sequence[str] | None,
    process_id: str,
    env: Environment,
) -> xr.DataArray:
    """The cube of the Items that match, on the grid of their files; lazy.

    Raises:
        NoDataAvailable: there is none.
    """
    items, place = found
    if not items:
        raise NoDataAvailable(
            reason="no STAC Item with a place was found at that address in the given extents."
        )
    bands, scenes = read_items(items, place)
    wanted = resolve(bands, names, process_id)
    scenes = matching(scenes, query)
    if not scenes:
        raise NoDataAvailable(
            reason=f"none of the {len(items)} STAC Items at that address is in the given extents and meets "
            "the conditions."
        )
    boxes = spatial_extent is None or extents.is_box(spatial_extent)
    loaded = load.load(
        scenes,
        wanted,
        query.area,
        centres=boxes,
        limits=extents.limits(env.settings),
        loaded=env.loads,
        only=extents.only(env.demand, boxes=boxes),
    )
    env.log.info("%s: %d STAC Items on %s", process_id, len(scenes), loaded.attrs["source"])
    return loaded if boxes else filter_spatial(data=loaded, geometries=spatial_extent)
