"""The grid that a product names for loads over several reference systems (``load`` in its definition)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from odc.geo import CRS

from odc_openeo.catalog.eo_documents import read_pair

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadHint:
    """A pixel grid without end: ``resolution`` (x, y) is positive, in units of ``crs``; edges of pixels are
    at ``align`` (x, y) and whole pixels from there."""

    crs: CRS
    resolution: tuple[float, float]
    align: tuple[float, float] = (0.0, 0.0)


def find_load_hint(definition: Mapping[str, Any]) -> LoadHint | None:
    """Find the grid in the definition of a product; None if there is none, or if it is not valid.

    As in Open Data Cube, ``storage`` counts too if it has no tiles.
    """
    load, storage = definition.get("load"), definition.get("storage") or {}
    if load is None and not storage.keys() & {"tile_size", "tile_shape"}:
        load = storage
    if not load or "crs" not in load or "resolution" not in load:
        return None
    try:
        return _read_hint(load)
    except Exception:  # odc-geo and pyproj raise several kinds of errors for what they do not understand
        _log.warning("the load hints of product %s are not valid", definition.get("name"), exc_info=True)
        return None


def _read_hint(load: Mapping[str, Any]) -> LoadHint:
    crs = CRS(load["crs"])
    resolution = read_pair(load["resolution"], crs)
    align = read_pair(load["align"], crs) if load.get("align") is not None else (0.0, 0.0)
    if resolution is None or align is None or not all(resolution):
        raise ValueError("resolution and align must be pairs of numbers")
    size = abs(resolution[0]), abs(resolution[1])
    return LoadHint(crs, size, (math.fmod(align[0], size[0]), math.fmod(align[1], size[1])))
