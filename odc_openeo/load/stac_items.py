"""Cubes from STAC Items that are at hand: of the web, of results, of collections of users."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from odc_openeo.catalog import filter_scenes
from odc_openeo.errors import NoDataAvailable
from odc_openeo.load.build import load
from odc_openeo.load.request import LoadRequest
from odc_openeo.load.stac_scenes import read_items
from odc_openeo.untrusted.rasters import RasterPlace

LocatedItems = tuple[Sequence[Mapping[str, Any]], RasterPlace]
"""STAC Items, and where their files may be."""


def load_items(located: LocatedItems, request: LoadRequest, log: logging.Logger) -> xr.DataArray:
    """Build the lazy cube of the Items that match a request, on the grid of their files.

    Raises:
        NoDataAvailable: no Item matches.
    """
    items, place = located
    if not items:
        raise NoDataAvailable(
            reason="no STAC Item with a place was found at that address in the given extents."
        )
    bands, scenes = read_items(
        items,
        place,
        request.band_names,
        request.process_id,
        lambda candidates: filter_scenes(candidates, request.query),
        log,
    )
    if not scenes:
        raise NoDataAvailable(
            reason=f"none of the {len(items)} STAC Items at that address is in the given extents and meets "
            "the conditions."
        )
    data = load(scenes, bands, request)
    log.info("%s: %d STAC Items on %s", request.process_id, len(scenes), data.attrs["source"])
    return data
