"""Evaluate the process of a service for a part of the Earth, lazily: no pixel is read yet."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import xarray as xr
from odc.geo.geobox import GeoBox

from odc_openeo.catalog import Catalog
from odc_openeo.config import Config
from odc_openeo.cube import dimensions_of_type, has_raster_dimensions, labels
from odc_openeo.cube.instants import parse_instant
from odc_openeo.errors import FormatUnsuitable, LabelNotAvailable, ProcessParameterInvalid
from odc_openeo.graph import GraphLimits, evaluate
from odc_openeo.jobs.options import parse_archives
from odc_openeo.processes.filters import filter_bands
from odc_openeo.registry.demand import Demand
from odc_openeo.registry.environment import Environment, RunLimits
from odc_openeo.registry.process import PROCESSES
from odc_openeo.services.configuration import EXTENT
from odc_openeo.services.model import Service
from odc_openeo.spatial.boxes import Box
from odc_openeo.user_data import collections
from odc_openeo.user_data.run_environment import find_reader, make_environment
from odc_openeo.user_data.user_defined_processes import Library

MARGIN: Final = 2
"""Pixels added around a tile, for cubes whose pixels are not aligned with those of the tile."""

COARSEST_M: Final = 5_000.0
"""The pixel size assumed of data that are not in the catalogue."""

MOST_CHUNKS: Final = 20_000
DEGREE_M: Final = 111_320.0
WORLD_M: Final = 20_037_508.342789244
PICTURES: Final = {"PNG", "JPEG"}


@dataclass(frozen=True)
class ServiceResult:
    """The raster cube a process returns, and the options of the picture format it was saved in, if any."""

    data: xr.DataArray
    options: Mapping[str, Any] | None

    @property
    def times(self) -> list[str]:
        """The labels of the temporal dimension as strings; empty if there is no such dimension."""
        dimensions = dimensions_of_type(self.data, "temporal")
        return [str(label) for label in labels(self.data, dimensions[0])] if dimensions else []


def walk_nodes(process: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the nodes of a process graph and of all process graphs nested in it."""
    if isinstance(process, Mapping):
        if isinstance(process.get("process_id"), str) and isinstance(process.get("arguments"), Mapping):
            yield process
        for value in process.values():
            yield from walk_nodes(value)
    elif isinstance(process, list):
        for value in process:
            yield from walk_nodes(value)


def uses_extent(process: Any) -> bool:
    """Whether a process uses the extent of the tile, so that it must be run for each tile."""
    if isinstance(process, Mapping):
        return process.get("from_parameter") == EXTENT or any(map(uses_extent, process.values()))
    return isinstance(process, list) and any(map(uses_extent, process))


def find_dependencies(config: Config, service: Service) -> str | None:
    """Return a string of what the tiles depend on: user-defined processes, and what the owner may read.

    None if the process depends on something that can change unnoticed: data at URLs, files of users, or
    processes of other users.
    """
    library = Library(config, service.user)
    exported_collections = collections.list_ids(config, service.user)
    definitions: dict[str, Any] = {}
    waiting = [service.draft.process]
    while waiting:
        for node in walk_nodes(waiting.pop()):
            id_, namespace = node["process_id"], node.get("namespace")
            definition = library(id_, namespace) if namespace in (None, "user") else None
            if definition is None and (
                namespace not in (None, "backend") or not _is_repeatable(node, exported_collections)
            ):
                return None
            if definition is not None and id_ not in definitions:
                definitions[id_] = definition
                waiting.append(definition)
    return repr((sorted(definitions.items()), find_reader(config, service.user).describe()))


def _is_repeatable(node: Mapping[str, Any], exported: frozenset[str]) -> bool:
    """Whether a predefined process returns the same result as long as the index does not change."""
    id_ = node["process_id"]
    if id_ == "load_collection":
        name = node["arguments"].get("id")
        return isinstance(name, str) and name not in exported
    # `inspect` only logs.
    return id_ == "inspect" or (id_ in PROCESSES and PROCESSES[id_].pure)


@dataclass(frozen=True)
class ServiceEvaluator:
    """Evaluates the processes of services."""

    config: Config
    catalog: Catalog

    def evaluate_service(
        self,
        service: Service,
        log: logging.Logger,
        grid: GeoBox | None,
        time: str | None = None,
        coarsest_m: float = COARSEST_M,
    ) -> ServiceResult:
        """Evaluate the process of a service for the area of a grid; the result may be on another grid.

        Raises:
            FormatUnsuitable: the result cannot be shown as map tiles.
            OpenEOError: the evaluation failed.
        """
        config, draft = self.config, service.draft
        run_limits = RunLimits(load_chunks=MOST_CHUNKS)
        archives = parse_archives(draft.extras)
        env = make_environment(
            config, service.user, run_limits, catalog=self.catalog, log=log, archives=archives
        )
        parameters = {EXTENT: None if grid is None else _make_extent_argument(grid, coarsest_m)}
        limits = GraphLimits.from_config(config)
        bands = service.get_setting("bands")
        demand = Demand(interval=_parse_interval(time), bands=None if bands is None else tuple(bands))
        if grid is not None:
            demand = replace(demand, boxes=(_make_box(grid),), margin=MARGIN, view=grid)
        value = evaluate(draft.process, env, parameters, limits, demand=demand)
        return _make_result(value, env)


def _make_box(grid: GeoBox) -> Box:
    west, south, east, north = grid.boundingbox.bbox
    return Box(west, south, east, north, grid.crs.epsg)


def _make_extent_argument(grid: GeoBox, coarsest_m: float) -> dict[str, Any]:
    """Return the extent of a tile as an argument, with a margin so that no pixel of the data is cut off."""
    around = 4 * coarsest_m / (DEGREE_M if grid.crs.geographic else 1)
    west, south, east, north = grid.boundingbox.buffered(around).bbox
    if grid.crs.epsg == 3857:
        west, south = max(west, -WORLD_M), max(south, -WORLD_M)
        east, north = min(east, WORLD_M), min(north, WORLD_M)
    return {"west": west, "south": south, "east": east, "north": north, "crs": grid.crs.epsg}


def _parse_interval(time: str | None) -> tuple[str, str] | None:
    """Return the interval of the times that match a label from the user, None if it is not a time."""
    instant = parse_instant(time) if time else None
    if instant is None or time is None:
        return None
    start = datetime.fromisoformat(str(instant.astype("datetime64[s]")))
    try:
        end = start + (timedelta(days=1) if len(time) == len("2022-06-01") else timedelta(seconds=1))
    except OverflowError:
        return None
    return f"{start.isoformat()}Z", f"{end.isoformat()}Z"


def _make_result(value: Any, env: Environment) -> ServiceResult:
    saved = None if isinstance(value, xr.DataArray) or not env.outputs else env.outputs[0]
    data = saved.data if saved else value
    if not isinstance(data, xr.DataArray) or not has_raster_dimensions(data):
        reason = "the process returns no raster cube. Its result needs the dimensions x and y."
        raise FormatUnsuitable(format="map tiles", reason=reason)
    picture = saved is not None and saved.format.name in PICTURES
    return ServiceResult(data, saved.options if saved and picture else None)


# --- Selection -----------------------------------------------------------------------------------


def select_slice(result: ServiceResult, service: Service, time: str | None) -> xr.DataArray:
    """Select what a tile shows of a result: one time, and the bands of the configuration.

    Raises:
        LabelNotAvailable: the result does not have that time.
        ProcessParameterInvalid: the result lacks some of the bands.
    """
    data = _select_time(result, time)
    bands = service.get_setting("bands")
    if bands is not None:
        data = _select_bands(data, bands)
    return data


def _select_time(result: ServiceResult, time: str | None) -> xr.DataArray:
    data, times = result.data, result.times
    if not times:
        return data
    dimension = dimensions_of_type(data, "temporal")[0]
    if time is None:
        return data.isel({dimension: [len(times) - 1]})
    prefix = time.removesuffix("Z").removesuffix(".000")
    matching = [i for i, label in enumerate(times) if label.startswith(prefix)]
    if not matching:
        raise LabelNotAvailable(label=repr(time), available=f"{times[0]} to {times[-1]}, {len(times)} dates")
    return data.isel({dimension: [matching[-1]]})


def _select_bands(data: xr.DataArray, bands: list[str]) -> xr.DataArray:
    selected = filter_bands(data=data, bands=bands)
    dimension = dimensions_of_type(selected, "bands")[0]
    if selected.sizes[dimension] != len(bands):
        available = ", ".join(map(str, labels(data, dimension)))
        reason = f"the result lacks some of the bands {', '.join(bands)}. It has: {available}."
        raise ProcessParameterInvalid(process="filter_bands", parameter="bands", reason=reason)
    return selected
