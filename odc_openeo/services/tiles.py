"""Tiles of services: made by runners, kept as long as nothing has changed."""

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
from odc_openeo.services.evaluation import definitions
from odc_openeo.services.meter import Meter
from odc_openeo.services.model import Service
from odc_openeo.services.outline import Outline
from odc_openeo.services.tile_maker import TileReply, error_entry, make_outline, make_style, make_tile

STATE_S: Final = 2.0
"""How long the state of the index and stored processes are taken for what they were."""

MOST_SERVICES: Final = 256


@dataclass(frozen=True)
class Tile:
    """A picture with its media type; ``tag`` is equal for equal pictures, None if that can't be known."""

    content: bytes
    media_type: str
    tag: str | None


class Tiles:
    """Gives out tiles in one process of the server; safe for threads.

    ``run`` lets a runner do a task: called with the task, its arguments, and whom it counts for as ``user``.
    """

    def __init__(self, config: Config, catalog: Catalog, run: Callable[..., Any]) -> None:
        self.config = config
        self.meter = Meter(config)
        self._run = run
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
            known = self._outlines.get(key)
        if key is None or known is None:
            known = self._ask(service, make_outline).value
            with self._lock:
                self._outlines[key] = known
        return known

    # --- Tiles ---

    def tile(self, service: Service, grid: GeoBox, time: str | None, tag: str | None) -> Tile:
        """The picture of a grid; ``tag`` is its `tag`.

        Raises:
            OpenEOError: why there is no picture; the owner finds it in the logs of the service.
        """
        media_type = MEDIA_TYPES[service.setting("format", "PNG")]
        with self._lock:
            content = None if tag is None else self._made.get(tag)
        cpu_s = 0.0
        if content is None:
            reply = self._ask(service, make_tile, self.outline(service), grid, time)
            content, cpu_s = reply.value, reply.cpu_s
            self._keep(tag, content)
        self.meter.served(service.id, len(content), cpu_s)
        return Tile(content, media_type, tag)

    def _keep(self, tag: str | None, content: bytes) -> None:
        if tag is not None and len(content) <= self.config.tile_cache_bytes:
            with self._lock:
                self._made[tag] = content

    def style(self, service: Service) -> tuple[Style, tuple[str, ...]]:
        """How the values of a service become colours, and the names of its bands.

        Raises:
            NoDataAvailable: there are no data to tell it from.
        """
        style: tuple[Style, tuple[str, ...]] = self._ask(service, make_style, self.outline(service)).value
        return style

    def _ask(self, service: Service, task: Callable[..., TileReply], *arguments: Any) -> TileReply:
        """Let a runner do a task for a service; its log entries and errors are for the owner, too."""
        try:
            reply: TileReply = self._run(task, service, *arguments, user=str(service.user))
        except OpenEOError as error:
            self.meter.said(service.id, error_entry(error))
            raise
        for entry in reply.entries:
            self.meter.said(service.id, entry)
        if reply.error is not None:
            raise reply.error
        return reply
