"""What runners do for services: outlines, tiles, legends; errors are values, as log entries go with them."""

from __future__ import annotations

import logging
import time as clock
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import dask
import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from odc_openeo import cluster, cube, db, load
from odc_openeo.config import Config
from odc_openeo.errors import (
    DataCubeEmpty,
    FormatUnsuitable,
    NoDataAvailable,
    OpenEOError,
    ProcessGraphComplexity,
)
from odc_openeo.evaluation.catalogs import shared_catalog
from odc_openeo.formats.raster import Raster
from odc_openeo.graph.estimate import needed_bytes
from odc_openeo.jobs import LEVELS, Entry
from odc_openeo.jobs.records import entry_of
from odc_openeo.rasterize import grid_of
from odc_openeo.services import store
from odc_openeo.services.colors import Style, nothing
from odc_openeo.services.evaluation import ServiceEvaluator, select, uses_extent
from odc_openeo.services.model import Ranges, Service
from odc_openeo.services.outline import Outline, outline, sketch_grid
from odc_openeo.warp import warp

PERCENTILES: Final = (2, 98)
MOST_ENTRIES: Final = 200
"""Log entries of one request."""

T = TypeVar("T")


@dataclass(frozen=True)
class Pixels:
    """What a tile shows: values (bands, y, x), where all bands have some (y, x), names of the bands."""

    values: np.ndarray
    shown: np.ndarray
    names: tuple[str, ...]
    options: Any


@dataclass(frozen=True)
class TileReply:
    """What a task for a service gave: a value or an error, log entries for its owner, seconds of CPU."""

    value: Any = None
    error: OpenEOError | None = None
    entries: list[Entry] = field(default_factory=list)
    cpu_s: float = 0.0


# --- Tasks ---------------------------------------------------------------------------------------


def make_outline(config: Config, service: Service) -> TileReply:
    """The outline of a service."""
    maker = TileMaker(config, service, Outline())
    return maker.reply(lambda: outline(maker.evaluator, service, maker.log))


def make_tile(config: Config, service: Service, known: Outline, grid: GeoBox, time: str | None) -> TileReply:
    """The picture of a grid, encoded."""
    maker = TileMaker(config, service, known)
    return maker.reply(lambda: maker.draw_tile(grid, time))


def make_style(config: Config, service: Service, known: Outline) -> TileReply:
    """How the values of a service become colours, and the names of its bands.

    NoDataAvailable if there are no data to tell it from.
    """
    maker = TileMaker(config, service, known)
    return maker.reply(maker.measure_style)


class _EntryHandler(logging.Handler):
    """Collects log records as entries of the service's log."""

    def __init__(self, level: str, entries: list[Entry]) -> None:
        super().__init__(LEVELS[level])
        self._entries = entries

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one, unless there are too many."""
        if len(self._entries) < MOST_ENTRIES:
            self._entries.append(entry_of(record))


class TileMaker:
    """Makes what one request asks of a service, whose ``outline`` is known."""

    def __init__(self, config: Config, service: Service, known: Outline) -> None:
        self.config = config
        self.service = service
        self.outline = known
        self.evaluator = ServiceEvaluator(config, shared_catalog(config))
        self.entries: list[Entry] = []
        self.log = logging.Logger("odc_openeo.run", LEVELS[service.draft.log_level])
        self.log.addHandler(_EntryHandler(service.draft.log_level, self.entries))

    def reply(self, make: Callable[[], Any]) -> TileReply:
        """What ``make`` gives, or its error; an error is logged for the owner of the service."""
        start = clock.process_time()
        try:
            return TileReply(make(), None, self.entries, clock.process_time() - start)
        except OpenEOError as error:
            failure: OpenEOError = error
        except Exception as error:
            explained = load.explain(error)
            if explained is None:
                raise
            failure = explained
        return TileReply(None, failure.detach(), [*self.entries, error_entry(failure)])

    def draw_tile(self, grid: GeoBox, time: str | None) -> bytes:
        """The picture of a grid."""
        pixels = self.read_pixels(grid, time)
        if pixels is None or not pixels.shown.any():
            return nothing(grid.shape.y, self.service.setting("format", "PNG"))
        return self._style(pixels).picture(pixels.values, pixels.shown)

    def read_pixels(self, grid: GeoBox, time: str | None = None) -> Pixels | None:
        """The values on a grid; None where the service has no data."""
        service = self.service
        if not self.outline.touches(grid):
            return None
        date = time or service.setting("time") or _latest(service, self.outline)
        try:
            result = self.evaluator.evaluate_service(service, self.log, grid, date, self.outline.coarsest_m)
            return self._read(select(result, service, date), grid, result.options)
        except (NoDataAvailable, DataCubeEmpty):
            if not uses_extent(service.draft.process) and isinstance(self.outline.reason, NoDataAvailable):
                raise
            return None

    def _read(self, data: xr.DataArray, grid: GeoBox, options: Any) -> Pixels | None:
        if 0 in data.sizes.values():
            return None
        raster = Raster.of(warp(data, grid_of(data, "save_result"), grid))
        _check(raster, (1, 3) if options is None else (1, 3, 4))
        plain = raster.data.isel(dict.fromkeys(raster.others, 0))
        nbytes = needed_bytes(plain)
        if nbytes > self.config.tile_max_bytes:
            raise ProcessGraphComplexity(
                reason=f"this tile would read {nbytes / 2**20:,.0f} MiB, and "
                f"{self.config.tile_max_bytes / 2**20:,.0f} MiB are possible. Zoom in, or let the "
                "process load less."
            )
        computed = self._compute(plain, nbytes)
        shown = np.asarray(cube.valid(computed).values.all(axis=0))
        return Pixels(computed.values, shown, raster.names, options)

    def _compute(self, plain: xr.DataArray, nbytes: int) -> xr.DataArray:
        if not cluster.runs_here(self.config, nbytes):
            return cluster.compute(self.config, plain, nbytes=nbytes)[0]
        # Maps ask for several tiles at once, each in a runner of its own.
        return dask.compute(plain, scheduler="synchronous")[0]

    # --- Colours ---

    def measure_style(self) -> tuple[Style, tuple[str, ...]]:
        """How the values become colours, and the names of the bands."""
        pixels = self._sketch()
        return self._style(pixels), pixels.names

    def _style(self, pixels: Pixels) -> Style:
        colors = self.service.setting("colormap")
        if colors is None and pixels.options:
            colors = pixels.options.get("colormap")
        bands = len(pixels.values)
        if colors is not None and bands != 1:
            reason = f"a colormap is for one band, and there are {bands}. Choose one with 'bands'."
            raise FormatUnsuitable(format="map tiles", reason=reason)
        return Style(self._ranges(pixels, bands), colors, self.service.setting("format", "PNG"))

    def _ranges(self, pixels: Pixels, bands: int) -> Ranges:
        given = self.service.setting("range")
        if given is not None:
            pairs = given if isinstance(given[0], list) else [given] * bands
            if len(pairs) != bands:
                reason = f"the setting 'range' has {len(pairs)} pairs, and there are {bands} bands."
                raise FormatUnsuitable(format="map tiles", reason=reason)
            return [(low, high) for low, high in pairs]
        if pixels.options is not None:
            return [(0.0, 255.0)] * bands
        if isinstance(self.service.setting("colormap"), dict):
            return [(0.0, 1.0)] * bands
        ranges = self.service.ranges
        if ranges is None or len(ranges) != bands:
            return store.remember_ranges(self.config, self.service, _measured(self._sketch()))
        return ranges

    def _sketch(self) -> Pixels:
        """The whole extent in few pixels."""
        grid = sketch_grid(self.outline)
        if grid is None:
            reason = "where the data are is not known beforehand. Set 'range' in the configuration."
            raise FormatUnsuitable(format="map tiles", reason=reason)
        pixels = self.read_pixels(grid)
        if pixels is None or not pixels.shown.any():
            raise NoDataAvailable(reason="the service shows nothing anywhere. Check extents and filters.")
        return pixels


def error_entry(error: OpenEOError) -> Entry:
    """An error as an entry of a service's log."""
    path = {"path": [{"node_id": error.node}]} if error.node else {}
    return Entry("error", error.to_dict()["message"], db.now(), {"code": error.code, **path})


def _latest(service: Service, known: Outline) -> str | None:
    """The date to show if nobody names one: the latest of the result, so that no other need be loaded.

    None where each tile has dates of its own.
    """
    return known.times[-1] if known.times and not uses_extent(service.draft.process) else None


def _check(raster: Raster, possible: tuple[int, ...]) -> None:
    """Refuse what has no colours."""
    for name in raster.others:
        if raster.data.sizes[name] != 1:
            reason = f"the result has {raster.data.sizes[name]} labels along '{name}'. Use reduce_dimension."
            raise FormatUnsuitable(format="map tiles", reason=reason)
    bands = len(raster.names)
    if bands not in possible:
        have = ", ".join(name for name in raster.names if name)
        reason = (
            f"the result has {bands} bands ({have}). Choose one, or three for red, green and blue, with the "
            "setting 'bands' of the service or with filter_bands."
        )
        raise FormatUnsuitable(format="map tiles", reason=reason)
    if raster.data.dtype.kind not in "biuf":
        raise FormatUnsuitable(format="map tiles", reason="its values are no real numbers.")


def _measured(pixels: Pixels) -> Ranges:
    """The range of most values of each band."""
    found: list[tuple[float, float]] = []
    for values in pixels.values:
        low, high = np.percentile(values[pixels.shown].astype(float), PERCENTILES)
        found.append((float(low), float(high)) if low < high else (float(low) - 0.5, float(low) + 0.5))
    return found
