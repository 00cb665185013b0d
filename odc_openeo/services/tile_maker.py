"""Tasks of runners for services: footprints, tiles, styles. Errors are returned together with log entries."""

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

from odc_openeo import cube, db
from odc_openeo.catalog.shared_catalog import shared_catalog
from odc_openeo.compute import cluster
from odc_openeo.config import Config
from odc_openeo.errors import (
    DataCubeEmpty,
    FormatUnsuitable,
    NoDataAvailable,
    OpenEOError,
    ProcessGraphComplexity,
)
from odc_openeo.formats.raster import Raster
from odc_openeo.graph.estimate import count_needed_bytes
from odc_openeo.jobs import LEVELS, Entry
from odc_openeo.jobs.records import make_entry
from odc_openeo.load.read_errors import explain_read_failure
from odc_openeo.services import store
from odc_openeo.services.colors import Style, draw_empty_tile
from odc_openeo.services.evaluation import ServiceEvaluator, select_slice, uses_extent
from odc_openeo.services.footprint import Footprint, compute_footprint, find_sketch_grid
from odc_openeo.services.model import Ranges, Service
from odc_openeo.spatial.rasterize import get_grid
from odc_openeo.spatial.warp import warp

PERCENTILES: Final = (2, 98)
MOST_ENTRIES: Final = 200
"""Log entries kept per request."""

T = TypeVar("T")


@dataclass(frozen=True)
class Pixels:
    """The content of a tile: values (bands, y, x), where all bands are valid (y, x), names of the bands."""

    values: np.ndarray
    valid: np.ndarray
    band_names: tuple[str, ...]
    options: Any


@dataclass(frozen=True)
class TileReply:
    """The outcome of a task: a value or an error, log entries for the owner of the service, CPU seconds."""

    value: Any = None
    error: OpenEOError | None = None
    entries: list[Entry] = field(default_factory=list)
    cpu_s: float = 0.0


# --- Tasks ---------------------------------------------------------------------------------------


def make_footprint(config: Config, service: Service) -> TileReply:
    """Compute the footprint of a service."""
    maker = TileMaker(config, service, Footprint())
    return maker.make_reply(lambda: compute_footprint(maker.evaluator, service, maker.log))


def make_tile(
    config: Config, service: Service, footprint: Footprint, grid: GeoBox, time: str | None
) -> TileReply:
    """Render the picture of a grid, encoded."""
    maker = TileMaker(config, service, footprint)
    return maker.make_reply(lambda: maker.draw_tile(grid, time))


def make_style(config: Config, service: Service, footprint: Footprint) -> TileReply:
    """Return how the values of a service become colours, and the names of its bands.

    NoDataAvailable if there are no data to derive it from.
    """
    maker = TileMaker(config, service, footprint)
    return maker.make_reply(maker.measure_style)


class _EntryHandler(logging.Handler):
    """Collects log records as entries for the log of the service."""

    def __init__(self, level: str, entries: list[Entry]) -> None:
        super().__init__(LEVELS[level])
        self._entries = entries

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, unless there are too many."""
        if len(self._entries) < MOST_ENTRIES:
            self._entries.append(make_entry(record))


class TileMaker:
    """Carries out one request to a service with a known ``footprint``."""

    def __init__(self, config: Config, service: Service, footprint: Footprint) -> None:
        self.config = config
        self.service = service
        self.footprint = footprint
        self.evaluator = ServiceEvaluator(config, shared_catalog(config))
        self.entries: list[Entry] = []
        self.log = logging.Logger("odc_openeo.run", LEVELS[service.draft.log_level])
        self.log.addHandler(_EntryHandler(service.draft.log_level, self.entries))

    def make_reply(self, make: Callable[[], Any]) -> TileReply:
        """Return the value of ``make`` or its error, which is also logged for the owner of the service."""
        start = clock.process_time()
        try:
            return TileReply(make(), None, self.entries, clock.process_time() - start)
        except OpenEOError as error:
            failure: OpenEOError = error
        except Exception as error:
            explained = explain_read_failure(error)
            if explained is None:
                raise
            failure = explained
        return TileReply(None, failure.detach(), [*self.entries, make_error_entry(failure)])

    def draw_tile(self, grid: GeoBox, time: str | None) -> bytes:
        """Render the picture of a grid."""
        pixels = self.read_pixels(grid, time)
        if pixels is None or not pixels.valid.any():
            return draw_empty_tile(grid.shape.y, self.service.get_setting("format", "PNG"))
        return self._make_style(pixels).draw_picture(pixels.values, pixels.valid)

    def read_pixels(self, grid: GeoBox, time: str | None = None) -> Pixels | None:
        """Read the values on a grid; None where the service has no data."""
        service = self.service
        if not self.footprint.touches(grid):
            return None
        date = time or service.get_setting("time") or _find_latest_date(service, self.footprint)
        try:
            result = self.evaluator.evaluate_service(service, self.log, grid, date, self.footprint.coarsest_m)
            return self._read_raster(select_slice(result, service, date), grid, result.options)
        except (NoDataAvailable, DataCubeEmpty):
            if not uses_extent(service.draft.process) and isinstance(self.footprint.reason, NoDataAvailable):
                raise
            return None

    def _read_raster(self, data: xr.DataArray, grid: GeoBox, options: Any) -> Pixels | None:
        if 0 in data.sizes.values():
            return None
        raster = Raster.from_cube(warp(data, get_grid(data, "save_result"), grid))
        _check_drawable(raster, (1, 3) if options is None else (1, 3, 4))
        plain = raster.data.isel(dict.fromkeys(raster.outer, 0))
        nbytes = count_needed_bytes(plain)
        if nbytes > self.config.tile_max_bytes:
            raise ProcessGraphComplexity(
                reason=f"this tile would read {nbytes / 2**20:,.0f} MiB; the limit is "
                f"{self.config.tile_max_bytes / 2**20:,.0f} MiB. Zoom in, or load less data in the process."
            )
        computed = self._compute_values(plain, nbytes)
        valid = np.asarray(cube.valid(computed).values.all(axis=0))
        return Pixels(computed.values, valid, raster.names, options)

    def _compute_values(self, plain: xr.DataArray, nbytes: int) -> xr.DataArray:
        if not cluster.runs_here(self.config, nbytes):
            return cluster.compute(self.config, plain, nbytes=nbytes)[0]
        # Map clients request several tiles at once, each of which has a runner of its own.
        return dask.compute(plain, scheduler="synchronous")[0]

    # --- Colours ---

    def measure_style(self) -> tuple[Style, tuple[str, ...]]:
        """Return how the values become colours, and the names of the bands."""
        pixels = self._read_sketch()
        return self._make_style(pixels), pixels.band_names

    def _make_style(self, pixels: Pixels) -> Style:
        colors = self.service.get_setting("colormap")
        if colors is None and pixels.options:
            colors = pixels.options.get("colormap")
        bands = len(pixels.values)
        if colors is not None and bands != 1:
            reason = f"a colormap applies to one band, but there are {bands}. Choose one with 'bands'."
            raise FormatUnsuitable(format="map tiles", reason=reason)
        return Style(self._get_ranges(pixels, bands), colors, self.service.get_setting("format", "PNG"))

    def _get_ranges(self, pixels: Pixels, bands: int) -> Ranges:
        setting = self.service.get_setting("range")
        if setting is not None:
            pairs = setting if isinstance(setting[0], list) else [setting] * bands
            if len(pairs) != bands:
                reason = f"the setting 'range' has {len(pairs)} pairs, but there are {bands} bands."
                raise FormatUnsuitable(format="map tiles", reason=reason)
            return [(low, high) for low, high in pairs]
        if pixels.options is not None:
            return [(0.0, 255.0)] * bands
        if isinstance(self.service.get_setting("colormap"), dict):
            return [(0.0, 1.0)] * bands
        ranges = self.service.ranges
        if ranges is None or len(ranges) != bands:
            return store.remember_ranges(self.config, self.service, _measure_ranges(self._read_sketch()))
        return ranges

    def _read_sketch(self) -> Pixels:
        """Read the whole extent in few pixels."""
        grid = find_sketch_grid(self.footprint)
        if grid is None:
            reason = "the extent of the data is not known in advance. Set 'range' in the configuration."
            raise FormatUnsuitable(format="map tiles", reason=reason)
        pixels = self.read_pixels(grid)
        if pixels is None or not pixels.valid.any():
            raise NoDataAvailable(reason="the service has no data anywhere. Check extents and filters.")
        return pixels


def make_error_entry(error: OpenEOError) -> Entry:
    """Return an error as an entry for the log of the service."""
    path = {"path": [{"node_id": error.node}]} if error.node else {}
    return Entry("error", error.to_dict()["message"], db.now(), {"code": error.code, **path})


def _find_latest_date(service: Service, footprint: Footprint) -> str | None:
    """Return the date to show by default: the latest of the result, so that no other date is loaded.

    None if each tile has its own dates.
    """
    return footprint.times[-1] if footprint.times and not uses_extent(service.draft.process) else None


def _check_drawable(raster: Raster, allowed_counts: tuple[int, ...]) -> None:
    """Raise FormatUnsuitable if a result cannot be drawn: wrong dimensions, bands or values."""
    for name in raster.outer:
        if raster.data.sizes[name] != 1:
            reason = f"the result has {raster.data.sizes[name]} labels along '{name}'. Use reduce_dimension."
            raise FormatUnsuitable(format="map tiles", reason=reason)
    bands = len(raster.names)
    if bands not in allowed_counts:
        band_names = ", ".join(name for name in raster.names if name)
        reason = (
            f"the result has {bands} bands ({band_names}). Choose one, or three for red, green and blue, "
            "with the setting 'bands' of the service or with filter_bands."
        )
        raise FormatUnsuitable(format="map tiles", reason=reason)
    if raster.data.dtype.kind not in "biuf":
        raise FormatUnsuitable(format="map tiles", reason="its values must be real numbers.")


def _measure_ranges(pixels: Pixels) -> Ranges:
    """Measure the range of most values of each band."""
    ranges: list[tuple[float, float]] = []
    for values in pixels.values:
        low, high = np.percentile(values[pixels.valid].astype(float), PERCENTILES)
        ranges.append((float(low), float(high)) if low < high else (float(low) - 0.5, float(low) + 0.5))
    return ranges
