"""Tiles of services: rendered by runners and cached as long as nothing they depend on has changed."""

from __future__ import annotations

import hashlib
import math
import threading
import time as clock
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final

from cachetools import LRUCache, TTLCache
from odc.geo.geobox import GeoBox

from odc_openeo import __version__
from odc_openeo.catalog import Catalog
from odc_openeo.config import Config
from odc_openeo.errors import OpenEOError
from odc_openeo.services.colors import MEDIA_TYPES, Style
from odc_openeo.services.evaluation import find_dependencies
from odc_openeo.services.footprint import Footprint
from odc_openeo.services.model import Service
from odc_openeo.services.tile_maker import TileReply, make_error_entry, make_footprint, make_style, make_tile
from odc_openeo.services.usage import UsageMeter
from odc_openeo.telemetry.counts import add_count, set_gauge

STATE_S: Final = 2.0
"""Seconds for which the state of the index and of user-defined processes is not looked up again."""

MOST_SERVICES: Final = 256


@dataclass(frozen=True)
class MapTile:
    """A picture with its media type; ``tag`` is equal for equal pictures, None if that cannot be known."""

    content: bytes
    media_type: str
    tag: str | None


class Tiles:
    """Provides the tiles for one process of the server; thread-safe.

    ``run`` carries out a task in a runner; it takes the task, its arguments, and the ``user`` it counts for.
    """

    def __init__(self, config: Config, catalog: Catalog, run: Callable[..., Any]) -> None:
        self.config = config
        self.meter = UsageMeter(config)
        self._run = run
        self._catalog = catalog
        self._lock = threading.Lock()
        self._cached_tiles: LRUCache[str, bytes] = LRUCache(max(config.tile_cache_bytes, 1), getsizeof=len)
        self._footprints: LRUCache[Hashable, Footprint] = LRUCache(MOST_SERVICES)
        self._dependencies: TTLCache[Hashable, str | None] = TTLCache(MOST_SERVICES, STATE_S, clock.monotonic)
        self._state: tuple[float, str] = (-math.inf, "")

    def forget_state(self) -> None:
        """Look up the index and user-defined processes again with the next tile."""
        with self._lock:
            self._dependencies.clear()
            self._state = (-math.inf, "")

    # --- Dependencies of tiles ---

    def compute_tag(self, service: Service, *parameters: Any) -> str | None:
        """Return a string that is equal only if service, dependencies, index and ``parameters`` are the same.

        None if the service has dependencies whose changes cannot be noticed.
        """
        dependencies = self._find_dependencies(service)
        if dependencies is None:
            return None
        key = (__version__, service.id, service.version, self._get_index_state(), dependencies, *parameters)
        return hashlib.sha256(repr(key).encode()).hexdigest()[:40]

    def _find_dependencies(self, service: Service) -> str | None:
        key = (service.id, service.version)
        with self._lock:
            if key in self._dependencies:
                return self._dependencies[key]
        dependencies = find_dependencies(self.config, service)
        with self._lock:
            self._dependencies[key] = dependencies
        return dependencies

    def _get_index_state(self) -> str:
        last_read, state = self._state
        if clock.monotonic() - last_read >= STATE_S:
            state = self._catalog.get_state()
            self._state = (clock.monotonic(), state)
        return state

    def get_footprint(self, service: Service) -> Footprint:
        """Return the footprint of a service."""
        key = self.compute_tag(service, "footprint")
        with self._lock:
            footprint = self._footprints.get(key)
        if key is None or footprint is None:
            footprint = self._run_task(service, make_footprint).value
            with self._lock:
                self._footprints[key] = footprint
        return footprint

    # --- Tiles ---

    def get_tile(self, service: Service, grid: GeoBox, time: str | None, tag: str | None) -> MapTile:
        """Return the picture of a grid; ``tag`` is from `compute_tag`.

        Raises:
            OpenEOError: it cannot be rendered; the error is also in the logs of the service.
        """
        media_type = MEDIA_TYPES[service.get_setting("format", "PNG")]
        with self._lock:
            content = None if tag is None else self._cached_tiles.get(tag)
        add_count("cache_requests", cache="tiles", outcome="miss" if content is None else "hit")
        cpu_s = 0.0
        if content is None:
            reply = self._run_task(service, make_tile, self.get_footprint(service), grid, time)
            content, cpu_s = reply.value, reply.cpu_s
            self._cache_tile(tag, content)
        self.meter.count_tile(service.id, len(content), cpu_s)
        return MapTile(content, media_type, tag)

    def _cache_tile(self, tag: str | None, content: bytes) -> None:
        if tag is not None and len(content) <= self.config.tile_cache_bytes:
            with self._lock:
                self._cached_tiles[tag] = content
                set_gauge("cache_bytes", self._cached_tiles.currsize, cache="tiles")

    def get_style(self, service: Service) -> tuple[Style, tuple[str, ...]]:
        """Return how the values of a service become colours, and the names of its bands.

        Raises:
            NoDataAvailable: there are no data to derive it from.
        """
        style: tuple[Style, tuple[str, ...]] = self._run_task(
            service, make_style, self.get_footprint(service)
        ).value
        return style

    def _run_task(self, service: Service, task: Callable[..., TileReply], *arguments: Any) -> TileReply:
        """Carry out a task for a service in a runner, and log its entries and errors for the owner."""
        try:
            reply: TileReply = self._run(task, service, *arguments, user=str(service.user))
        except OpenEOError as error:
            self.meter.log_entry(service.id, make_error_entry(error))
            raise
        for entry in reply.entries:
            self.meter.log_entry(service.id, entry)
        if reply.error is not None:
            raise reply.error
        return reply
