"""Runs the process of a service for a part of the Earth; nothing is read yet."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import xarray as xr
from odc.geo.geobox import GeoBox

from odc_openeo import own_collections
from odc_openeo.catalog import Catalog
from odc_openeo.config import Config
from odc_openeo.cube import dimensions_of_type, has_raster_dimensions, labels
from odc_openeo.demand import Box, Demand
from odc_openeo.errors import FormatUnsuitable, LabelNotAvailable, ProcessParameterInvalid
from odc_openeo.graph import Limits, evaluate
from odc_openeo.process import PROCESSES, Environment
from odc_openeo.processes.filters import filter_bands
from odc_openeo.processes.instants import parse_instant
from odc_openeo.services.configuration import EXTENT
from odc_openeo.services.model import Service
from odc_openeo.stored import Library

MARGIN: Final = 2
"""Pixels of a tile around it, for cubes whose pixels do not meet its own."""

COARSEST_M: Final = 5_000.0
"""Size of pixels of data that the catalogue does not know."""

MOST_CHUNKS: Final = 20_000
DEGREE_M: Final = 111_320.0
WORLD_M: Final = 20_037_508.342789244
PICTURES: Final = {"PNG", "JPEG"}


@dataclass(frozen=True)
class Result:
    """What a process gives: a raster cube, and the options of the picture format it was saved in, if any."""

    data: xr.DataArray
    options: Mapping[str, Any] | None

    @property
    def times(self) -> list[str]:
        """The labels of the temporal dimension as texts; empty if there is none."""
        found = dimensions_of_type(self.data, "temporal")
        return [str(label) for label in labels(self.data, found[0])] if found else []


def nodes(process: Any) -> Iterator[Mapping[str, Any]]:
    """The nodes of a process graph and of all graphs in it."""
    if isinstance(process, Mapping):
        if isinstance(process.get("process_id"), str) and isinstance(process.get("arguments"), Mapping):
            yield process
        for value in process.values():
            yield from nodes(value)
    elif isinstance(process, list):
        for value in process:
            yield from nodes(value)


def uses_extent(process: Any) -> bool:
    """Whether a process is run for the extent of each tile."""
    if isinstance(process, Mapping):
        return process.get("from_parameter") == EXTENT or any(map(uses_extent, process.values()))
    return isinstance(process, list) and any(map(uses_extent, process))


def definitions(config: Config, service: Service) -> str | None:
    """All that the tiles depend on beside the process, the configuration and the index, as a text.

    None if there is something that can change without a sign: data at addresses, files of users, processes
    of others.
    """
    library = Library(config, service.user)
    exported = own_collections.ids(config, service.user)
    found: dict[str, Any] = {}
    waiting = [service.draft.process]
    while waiting:
        for node in nodes(waiting.pop()):
            id_, namespace = node["process_id"], node.get("namespace")
            own = library(id_, namespace) if namespace in (None, "user") else None
            if own is None and (namespace not in (None, "backend") or not _repeatable(node, exported)):
                return None
            if own is not None and id_ not in found:
                found[id_] = own
                waiting.append(own)
    return repr(sorted(found.items())) if found else ""


def _repeatable(node: Mapping[str, Any], exported: frozenset[str]) -> bool:
    """Whether a predefined process gives the same as long as the index is the same."""
    id_ = node["process_id"]
    if id_ == "load_collection":
        name = node["arguments"].get("id")
        return isinstance(name, str) and name not in exported
    # `inspect` only tells.
    return id_ == "inspect" or (id_ in PROCESSES and PROCESSES[id_].pure)


@dataclass(frozen=True)
class ServiceEvaluator:
    """Evaluates processes of services."""

    config: Config
    catalog: Catalog

    def evaluate_service(
        self,
        service: Service,
        log: logging.Logger,
        grid: GeoBox | None,
        time: str | None = None,
        coarsest_m: float = COARSEST_M,
    ) -> Result:
        """The result of a service's process where a grid is, lazily, on that grid or another.

        Raises:
            OpenEOError: what evaluating raises, and FormatUnsuitable if the result can't be shown.
        """
        config, draft = self.config, service.draft
        env = Environment(
            catalog=self.catalog,
            user=str(service.user),
            log=log,
            settings={"load_max_bytes": 2**40, "load_max_chunks": MOST_CHUNKS},
            lookup=Library(config, service.user),
        )
        parameters = {EXTENT: None if grid is None else _extent(grid, coarsest_m)}
        limits = Limits.from_config(config)
        bands = service.setting("bands")
        demand = Demand(interval=_interval(time), bands=None if bands is None else tuple(bands))
        if grid is not None:
            demand = replace(demand, boxes=(_box(grid),), margin=MARGIN, view=grid)
        value = evaluate(draft.process, env, parameters, limits, demand=demand)
        return _result(value, env)


def _box(grid: GeoBox) -> Box:
    west, south, east, north = grid.boundingbox.bbox
    return Box(west, south, east, north, grid.crs.epsg)


def _extent(grid: GeoBox, coarsest_m: float) -> dict[str, Any]:
    """The extent of a tile as an argument: with so much around it that no pixel of the data is cut off."""
    around = 4 * coarsest_m / (DEGREE_M if grid.crs.geographic else 1)
    west, south, east, north = grid.boundingbox.buffered(around).bbox
    if grid.crs.epsg == 3857:
        west, south = max(west, -WORLD_M), max(south, -WORLD_M)
        east, north = min(east, WORLD_M), min(north, WORLD_M)
    return {"west": west, "south": south, "east": east, "north": north, "crs": grid.crs.epsg}


def _interval(time: str | None) -> tuple[str, str] | None:
    """The times that a label named by the user can have."""
    instant = parse_instant(time) if time else None
    if instant is None or time is None:
        return None
    start = datetime.fromisoformat(str(instant.astype("datetime64[s]")))
    try:
        end = start + (timedelta(days=1) if len(time) == len("2022-06-01") else timedelta(seconds=1))
    except OverflowError:
        return None
    return f"{start.isoformat()}Z", f"{end.isoformat()}Z"


def _result(value: Any, env: Environment) -> Result:
    saved = None if isinstance(value, xr.DataArray) or not env.outputs else env.outputs[0]
    data = saved.data if saved else value
    if not isinstance(data, xr.DataArray) or not has_raster_dimensions(data):
        reason = "the process gives no raster cube. Let it end with one that has the dimensions x and y."
        raise FormatUnsuitable(format="map tiles", reason=reason)
    picture = saved is not None and saved.format.name in PICTURES
    return Result(data, saved.options if saved and picture else None)


# --- Selection -----------------------------------------------------------------------------------


def select(result: Result, service: Service, time: str | None) -> xr.DataArray:
    """The part of a result that a tile shows: one time, the bands of the configuration.

    Raises:
        LabelNotAvailable: the result does not have that time.
        FormatUnsuitable: it has other dimensions, or a number of bands that has no colours.
    """
    data = _at_time(result, time)
    bands = service.setting("bands")
    if bands is not None:
        data = _with_bands(data, bands)
    return data


def _at_time(result: Result, time: str | None) -> xr.DataArray:
    data, found = result.data, result.times
    if not found:
        return data
    dimension = dimensions_of_type(data, "temporal")[0]
    if time is None:
        return data.isel({dimension: [len(found) - 1]})
    wanted = time.removesuffix("Z").removesuffix(".000")
    matching = [i for i, label in enumerate(found) if label.startswith(wanted)]
    if not matching:
        raise LabelNotAvailable(label=repr(time), available=f"{found[0]} to {found[-1]}, {len(found)} dates")
    return data.isel({dimension: [matching[-1]]})


def _with_bands(data: xr.DataArray, bands: list[str]) -> xr.DataArray:
    selected = filter_bands(data=data, bands=bands)
    dimension = dimensions_of_type(selected, "bands")[0]
    if selected.sizes[dimension] != len(bands):
        have = ", ".join(map(str, labels(data, dimension)))
        reason = f"the result lacks some of the bands {', '.join(bands)}. It has: {have}."
        raise ProcessParameterInvalid(process="filter_bands", parameter="bands", reason=reason)
    return selected
