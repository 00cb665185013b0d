"""Tiles of services: from the pixels of a grid to a picture, kept as long as nothing has changed."""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import time as clock
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import dask
import numpy as np
import xarray as xr
from cachetools import LRUCache, TTLCache
from odc.geo.geobox import GeoBox

from odc_openeo import __version__, cluster, cube, db, load
from odc_openeo.catalog import Catalog
from odc_openeo.config import Config
from odc_openeo.errors import (
    DataCubeEmpty,
    FormatUnsuitable,
    Internal,
    NoDataAvailable,
    OpenEOError,
    ProcessGraphComplexity,
)
from odc_openeo.formats.raster import Raster
from odc_openeo.graph.estimate import needed_bytes
from odc_openeo.jobs import LEVELS, Entry
from odc_openeo.rasterize import grid_of
from odc_openeo.services import store
from odc_openeo.services.colors import MEDIA_TYPES, Style, nothing
from odc_openeo.services.evaluation import Runner, definitions, select, uses_extent
from odc_openeo.services.meter import Handler, Meter
from odc_openeo.services.model import Ranges, Service
from odc_openeo.services.outline import Outline, outline, sketch_grid
from odc_openeo.warp import warp

STATE_S: Final = 2.0
"""How long the state of the index and stored processes are taken for what they were."""

MOST_SERVICES: Final = 256
PERCENTILES: Final = (2, 98)


@dataclass(frozen=True)
class Pixels:
    """What a tile shows: values (bands, y, x), where all bands have some (y, x), names of the bands."""

    values: np.ndarray
    shown: np.ndarray
    names: tuple[str, ...]
    options: Any


@dataclass(frozen=True)
class Tile:
    """A picture with its media type; ``tag`` is equal for equal pictures, None if that can't be known."""

    content: bytes
    media_type: str
    tag: str | None


class Tiles:
    """Makes tiles for one process of the server; safe for threads."""

    def __init__(self, config: Config, catalog: Catalog) -> None:
        self.config = config
        self.meter = Meter(config)
        self._runner = Runner(config, catalog)
        self._catalog = catalog
        self._lock = threading.Lock()
        self._made: LRUCache[str, bytes] = LRUCache(max(config.tile_cache_bytes, 1), getsizeof=len)
        self._outlines: LRUCache[Hashable, Outline] = LRUCache(MOST_SERVICES)
        self._used: TTLCache[Hashable, str | None] = TTLCache(MOST_SERVICES, STATE_S, clock.monotonic)
        self._state: tuple[float, str] = (-math.inf, "")

    def forget(self) -> None:
        """Look anew at the index and at stored processes with the next tile."""
        with self._lock:
            self._used.clear()
            self._state = (-math.inf, "")

    # --- What tiles depend on ---

    def tag(self, service: Service, *what: Any) -> str | None:
        """A text that is equal only if the service, all it uses, the index and ``what`` are the same."""
        used = self._definitions(service)
        if used is None:
            return None
        parts = (__version__, service.id, service.version, self._index_state(), used, *what)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:40]

    def _definitions(self, service: Service) -> str | None:
        key = (service.id, service.version)
        with self._lock:
            if key in self._used:
                return self._used[key]
        found = definitions(self.config, service)
        with self._lock:
            self._used[key] = found
        return found

    def _index_state(self) -> str:
        seen, state = self._state
        if clock.monotonic() - seen >= STATE_S:
            state = self._catalog.state()
            self._state = (clock.monotonic(), state)
        return state

    def outline(self, service: Service) -> Outline:
        """What is known of a service before any tile is made."""
        key = self.tag(service, "outline")
        with self._lock:
            found = self._outlines.get(key)
        if key is None or found is None:
            found = outline(self._runner, service, self._logger(service))
            with self._lock:
                self._outlines[key] = found
        return found

    # --- Tiles ---

    def tile(self, service: Service, grid: GeoBox, time: str | None, tag: str | None) -> Tile:
        """The picture of a grid; ``tag`` is its `tag`.

        Raises:
            OpenEOError: why there is no picture; the owner finds it in the logs of the service.
        """
        media_type = MEDIA_TYPES[service.setting("format", "PNG")]
        with self._lock:
            content = None if tag is None else self._made.get(tag)
        cpu = clock.thread_time()
        if content is None:
            content = self._told(service, partial(self._make, service, grid, time))
            self._keep(tag, content)
        self.meter.served(service.id, len(content), clock.thread_time() - cpu)
        return Tile(content, media_type, tag)

    def _keep(self, tag: str | None, content: bytes) -> None:
        if tag is not None and len(content) <= self.config.tile_cache_bytes:
            with self._lock:
                self._made[tag] = content

    def _told(self, service: Service, make: Any) -> Any:
        """What ``make`` gives; its errors are told to the owner, and others become `Internal`."""
        try:
            return make()
        except OpenEOError as error:
            self._tell(service, error)
            raise
        except Exception as error:
            explained = load.explain(error) or Internal()
            self._tell(service, explained)
            raise explained from error

    def _tell(self, service: Service, error: OpenEOError) -> None:
        path = {"path": [{"node_id": error.node}]} if error.node else {}
        message = error.to_dict()["message"]
        self.meter.said(service.id, Entry("error", message, db.now(), {"code": error.code, **path}))

    def _make(self, service: Service, grid: GeoBox, time: str | None) -> bytes:
        pixels = self.pixels(service, grid, time)
        if pixels is None or not pixels.shown.any():
            return nothing(grid.shape.y, service.setting("format", "PNG"))
        return self._style(service, pixels).picture(pixels.values, pixels.shown)

    def pixels(self, service: Service, grid: GeoBox, time: str | None = None) -> Pixels | None:
        """The values on a grid; None where the service has no data."""
        known = self.outline(service)
        if not known.touches(grid):
            return None
        wanted = time or service.setting("time") or _latest(service, known)
        try:
            result = self._runner.run(service, self._logger(service), grid, wanted, known.coarsest_m)
            return self._read(select(result, service, wanted), grid, result.options)
        except (NoDataAvailable, DataCubeEmpty):
            if not uses_extent(service.draft.process) and isinstance(known.reason, NoDataAvailable):
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
        computed = self._computed(plain, nbytes)
        shown = np.asarray(cube.valid(computed).values.all(axis=0))
        return Pixels(computed.values, shown, raster.names, options)

    def _computed(self, plain: xr.DataArray, nbytes: int) -> xr.DataArray:
        if not cluster.runs_here(self.config, nbytes):
            return cluster.compute(self.config, plain, nbytes=nbytes)[0]
        # Maps ask for several tiles at once, each on a thread of its own.
        return dask.compute(plain, scheduler="synchronous")[0]

    def _logger(self, service: Service) -> logging.Logger:
        own = logging.Logger("odc_openeo.run", LEVELS[service.draft.log_level])
        own.addHandler(Handler(self.meter, service.id, service.draft.log_level))
        return own

    # --- Colours ---

    def style(self, service: Service) -> tuple[Style, tuple[str, ...]]:
        """How the values of a service become colours, and the names of its bands.

        Raises:
            NoDataAvailable: there are no data to tell it from.
        """
        pixels = self._told(service, partial(self._sketch, service))
        return self._style(service, pixels), pixels.names

    def _style(self, service: Service, pixels: Pixels) -> Style:
        colors = service.setting("colormap")
        if colors is None and pixels.options:
            colors = pixels.options.get("colormap")
        bands = len(pixels.values)
        if colors is not None and bands != 1:
            reason = f"a colormap is for one band, and there are {bands}. Choose one with 'bands'."
            raise FormatUnsuitable(format="map tiles", reason=reason)
        return Style(self._ranges(service, pixels, bands), colors, service.setting("format", "PNG"))

    def _ranges(self, service: Service, pixels: Pixels, bands: int) -> Ranges:
        given = service.setting("range")
        if given is not None:
            pairs = given if isinstance(given[0], list) else [given] * bands
            if len(pairs) != bands:
                reason = f"the setting 'range' has {len(pairs)} pairs, and there are {bands} bands."
                raise FormatUnsuitable(format="map tiles", reason=reason)
            return [(low, high) for low, high in pairs]
        if pixels.options is not None:
            return [(0.0, 255.0)] * bands
        if isinstance(service.setting("colormap"), dict):
            return [(0.0, 1.0)] * bands
        if service.ranges is None or len(service.ranges) != bands:
            found = _measured(self._sketch(service))
            return store.remember_ranges(self.config, service, found)
        return service.ranges

    def _sketch(self, service: Service) -> Pixels:
        """The whole extent in few pixels."""
        grid = sketch_grid(self.outline(service))
        if grid is None:
            reason = "where the data are is not known beforehand. Set 'range' in the configuration."
            raise FormatUnsuitable(format="map tiles", reason=reason)
        pixels = self.pixels(service, grid)
        if pixels is None or not pixels.shown.any():
            raise NoDataAvailable(reason="the service shows nothing anywhere. Check extents and filters.")
        return pixels


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
